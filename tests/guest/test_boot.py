"""Boots the example guest for real, in both kinds of root filesystem, and looks at it from inside by its agent."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MVM = Path(sys.executable).with_name("mvm-guest")

pytestmark = [pytest.mark.timeout(3600), pytest.mark.slow]


def mvm(*arguments: object, data: Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    import os

    done = subprocess.run(
        [MVM, *map(str, arguments)],
        env={**os.environ, "MVM_DATA_DIR": str(data), "MVM_PACKAGES": "debian"},
        capture_output=True,
        text=True,
        check=False,
    )
    if check:
        assert done.returncode == 0, done.stderr
    return done


@pytest.fixture(scope="module", params=["ext4", "squashfs"])
def guest(request, tmp_path_factory):
    directory = tmp_path_factory.mktemp(request.param)
    text = (ROOT / "templates/presets/python/guest.yaml").read_text()
    (directory / "guest.yaml").write_text(text.replace("rootfs: ext4", f"rootfs: {request.param}"))
    data = directory / "mvm"
    mvm("build", directory / "guest.yaml", "--out-link", directory / "result", data=data)
    mvm("register", directory / "result", data=data)
    for name in ("config", "secrets", "data"):
        (directory / name).mkdir()
        (directory / name / f"{name}.txt").write_text(name)
    mvm(
        *("run", "hello", "--config-dir", directory / "config"),
        *("--secrets-dir", directory / "secrets", "--volume", f"{directory}/data:/data:64"),
        data=data,
    )
    yield request.param, data
    mvm("stop", "hello", "--kill", data=data, check=False)


def test_a_guest_gets_healthy_with_its_four_drives_and_stops_cleanly(guest):
    rootfs, data = guest
    report = mvm("health", "hello", "--wait", "--timeout", "180", data=data).stdout
    rows = [line.split() for line in report.splitlines()]
    drives = {row[1]: row for row in rows if row[0] == "drive"}
    assert drives["root"][3:6] == ["/dev/vda", "/", rootfs]
    assert drives["config"][3:6] == ["/dev/vdb", "/mnt/config", "ext4"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(drives["config"][6].split(","))
    assert drives["secrets"][3:6] == ["/dev/vdc", "/mnt/secrets", "tmpfs"]
    assert {"ro", "nosuid", "nodev", "noexec"} <= set(drives["secrets"][6].split(","))
    assert drives["data"][3:6] == ["/dev/vdd", "/mnt/data", "ext4"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= set(drives["data"][6].split(","))
    assert ["check", "web", "ok"] in [row[:3] for row in rows]

    console = mvm("logs", "hello", data=data).stdout
    assert "agent: first answer" in console

    mvm("stop", "hello", data=data)
    image = data / "vms/hello/volumes/data.ext4"
    header = subprocess.run(
        ["/usr/sbin/dumpe2fs", "-h", image], capture_output=True, text=True, check=True
    ).stdout
    assert "Filesystem state:         clean" in header
    listing = subprocess.run(
        ["/usr/sbin/debugfs", "-R", "ls -p /", image], capture_output=True, text=True, check=True
    ).stdout
    assert "/data.txt/" in listing
    assert "/starts/" in listing
