"""What is said where something is wrong: one sentence that names it, and what to do."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mvm_guest.nix import source


def mvm_guest(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "mvm_guest", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(
    ("attribute", "nearest"),
    [("debian", "htop"), ("attribute", "python3"), ("module", "flask")],
)
def test_a_name_that_the_set_lacks_is_answered_with_the_nearest(
    flake: Any, attribute: str, nearest: str
) -> None:
    error = flake.error(f"missing.{attribute}")
    assert "missing" in error
    assert nearest in error.partition("did you mean")[2]


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ("unknown", "mkGuest: servces: unknown argument; did you mean `services`?"),
        ("name", "mkGuest: name: "),
        ("command", "mkGuest: services.web.command: is required"),
        ("inner", "mkGuest: services.web.usr: unknown argument; did you mean `user`?"),
        ("type", "mkGuest: services.web.command: expected "),
        ("root", "mkGuest: services.web.user: expected "),
        ("agent", 'mkGuest: users."mvm-agent": the name must be '),
        ("group", "mkGuest: users.mvm: the user mvm is the service group's"),
        ("uid", "mkGuest: users.a: a gets the uid 2000 of b; set users.a.uid to a free one"),
        ("fixed-uid", "mkGuest: users.a: a gets the uid 900 of mvm"),
        ("root-uid", "mkGuest: users.a.uid: expected a whole number from 1 to 65533"),
        ("relative", 'mkGuest: extraFiles."etc/x": the name must be an absolute path'),
        ("climbing", 'mkGuest: extraFiles."/etc/../x": the name must be an absolute path'),
        ("own", 'mkGuest: extraFiles."/etc/passwd": /etc/passwd is mkGuest\'s own; use `users`'),
        ("both", 'mkGuest: extraFiles."/etc/x": expected either `content` or `source`'),
        ("inside", 'mkGuest: extraFiles."/etc/a": is a file, and "/etc/a/b" would be in it'),
        ("directory", 'mkGuest: extraFiles."/var/lib": /var/lib is a directory in every guest'),
        ("mode", 'mkGuest: extraFiles."/etc/x".mode: expected three octal digits'),
        ("mount-point", 'mkGuest: mountPoints."/nix/x": /nix is mkGuest\'s own'),
        ("verified", 'mkGuest: verifiedBoot: expected `rootfs = "squashfs"`'),
        ("tier", 'mkGuest: services.web.seccomp: expected one of "essential", '),
    ],
)
def test_a_wrong_argument_is_one_line_that_names_its_path(
    flake: Any, wrong: str, said: str
) -> None:
    error = flake.error(f"wrong.{wrong}")
    assert error.startswith(said)
    assert "\n" not in error


def test_each_kernel_option_that_does_not_survive_is_named(build: Callable[[str], Path]) -> None:
    said = build("kernel-lost").read_text()
    _, _, lost = said.partition("the kernel configuration lost what it was asked for:\n")
    assert sorted(line.strip() for line in lost.splitlines()) == [
        "CONFIG_NO_SUCH_OPTION: asked for y, got n",
        "CONFIG_NR_CPUS: asked for 1000000, got 512",
    ]


@pytest.fixture
def moved_on(tmp_path: Path) -> Path:
    """A project whose lock pins an htop that no mirror has, and a jq of another content."""
    lock = json.loads((source.debian_flake() / "lock.json").read_text())
    lock["packages"]["htop"] |= {"version": "3.4.0-1", "sha256": "0" * 64}
    lock["packages"]["jq"]["sha256"] = "1" * 64
    (tmp_path / "debian.lock.json").write_text(json.dumps(lock))
    (tmp_path / "guest.yaml").write_text(
        "name: x\npackages: [debianPackages.htop]\nservices: {web: {command: htop}}\n"
    )
    return tmp_path


def test_a_package_that_the_mirror_dropped_or_changed_is_named_with_what_to_run(
    moved_on: Path,
) -> None:
    done = mvm_guest("debian", "check", "debian.lock.json", cwd=moved_on)
    assert done.returncode == 3
    assert "no longer has htop 3.4.0-1, jq 1." in done.stderr
    assert "`mvm-guest debian lock`" in done.stderr

    done = mvm_guest("build", "--packages", "debian", cwd=moved_on)
    assert done.returncode == 1
    assert "no longer has htop 3.4.0-1" in done.stderr.splitlines()[-1]
    assert "`mvm-guest debian lock`" in done.stderr
    assert not (moved_on / "result").exists()


def test_a_build_by_nix_alone_says_what_to_run_first(moved_on: Path) -> None:
    debian = source.debian_flake(moved_on / "debian.lock.json")
    done = subprocess.run(
        ["nix", "build", "--no-link", f"path:{debian}#debianPackages.htop"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert (
        "htop=3.4.0-1 is not in the store: run 'mvm-guest build --packages debian'" in done.stderr
    )


def test_the_lock_of_this_project_is_all_there(tmp_path: Path) -> None:
    (tmp_path / "lock.json").write_bytes((source.debian_flake() / "lock.json").read_bytes())
    assert mvm_guest("debian", "check", "lock.json", cwd=tmp_path).returncode == 0


def test_a_debian_package_that_is_not_locked_comes_with_the_command_that_locks_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "guest.yaml").write_text("name: x\npackages:\n  - debianPackages.tcpdump\n")
    done = mvm_guest("build", "--packages", "debian", cwd=tmp_path)
    assert done.returncode == 2
    assert "guest.yaml:3: packages[0]: the debian package set has no" in done.stderr
    assert "`mvm-guest debian lock tcpdump` adds it" in done.stderr
