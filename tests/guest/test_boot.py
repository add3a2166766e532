"""The example guest goes the whole way by the command line, in both kinds of root filesystem."""

import time

from e2fsprogs import state, tool

from mvm_guest.project import root


def marked_first_answer(command) -> bool:
    """Wait for the mark, which the guest makes a moment after the answer."""
    deadline = time.monotonic() + 10
    while "agent: first answer" not in command("logs", "hello").stdout:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.2)
    return True


def test_the_example_gets_healthy_with_its_four_drives_and_stops_cleanly(command, tmp_path, rootfs):
    preset = (root() / "templates/presets/python/guest.yaml").read_text()
    (tmp_path / "guest.yaml").write_text(preset.replace("rootfs: ext4", f"rootfs: {rootfs}"))
    command("build", tmp_path / "guest.yaml", "--out-link", tmp_path / "result")
    command("register", tmp_path / "result")
    for name in ("config", "secrets", "data"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.txt").write_text(name)
    try:
        command(
            *("run", "hello", "--config-dir", tmp_path / "config"),
            *("--secrets-dir", tmp_path / "secrets", "--volume", f"{tmp_path}/data:/data:64"),
        )
        report = command("health", "hello", "--wait", "--timeout", "120").stdout
        rows = [line.split() for line in report.splitlines()]
        drives = {row[1]: row for row in rows if row[0] == "drive"}
        assert drives["root"][3:6] == ["/dev/vda", "/", rootfs]
        assert drives["config"][3:6] == ["/dev/vdb", "/mnt/config", "ext4"]
        assert drives["secrets"][3:6] == ["/dev/vdc", "/mnt/secrets", "tmpfs"]
        assert drives["data"][3:6] == ["/dev/vdd", "/mnt/data", "ext4"]
        for drive, access in (("config", "ro"), ("secrets", "ro"), ("data", "rw")):
            assert {access, "nosuid", "nodev", "noexec"} <= set(drives[drive][6].split(","))
        assert ["check", "web", "ok"] in [row[:3] for row in rows]
        assert marked_first_answer(command)
        command("stop", "hello")
    finally:
        command("stop", "hello", "--kill", check=False)
    image = tmp_path / "mvm/vms/hello/volumes/data.ext4"
    assert state(image) == "clean"
    assert {"/data.txt/", "/starts/"} <= {
        f"/{line.split('/')[5]}/"
        for line in tool("debugfs", "-R", "ls -p /", image).split("\n")
        if line
    }
