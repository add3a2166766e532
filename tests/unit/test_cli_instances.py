"""The commands on instances, as their users see them where no guest has to boot."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mvm_guest.vm.instance import Instance, Record
from mvm_guest.vm.processes import Process, process

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeBundle = Callable[..., Path]


@pytest.fixture
def make_instance(tmp_path: Path) -> Callable[..., Instance]:
    def make(name: str = "web", vmm: Process | None = None, data: bool = False) -> Instance:
        made = Instance(tmp_path / "data", name)
        with made.locked(create=True):
            record = Record(
                "hello@" + "a" * 64, "qemu", 1, 64, (), "2026-01-01T00:00:00+00:00", vmm=vmm
            )
            made.write_record(record)
        (made / "console.log").write_bytes(b"hello \x1b[2J\r\n")
        (made / "firecracker.log").write_text("vmm\n")
        if data:
            (made / "volumes").mkdir()
            (made / "volumes/data.ext4").write_text("precious")
        return made

    return make


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["run"], 2, "say which revision to run; `mvm-guest ls` lists them"),
        (["run", "--name", "web"], 2, "say which revision to run"),
        (["run", "hello"], 1, "no revision is named 'hello'"),
        (["run", "hello", "--vcpus", "0"], 2, "--vcpus"),
        (["run", "hello", "--mem", "1"], 2, "--mem"),
        (["run", "hello", "--env", "A"], 2, "--env: 'A' cannot be set"),
        (["run", "hello", "--volume", "x"], 2, "--volume 'x': write HOST:GUEST:MIB"),
        (["health", "web"], 1, "web does not run"),
        (["health", "Web"], 2, "'Web' cannot name this instance"),
        (["logs", "web"], 1, "there is no instance web; `mvm-guest ps --all` lists"),
        (["stop", "web"], 1, "there is no instance web"),
        (["rm", "web"], 1, "there is no instance web"),
        (["rm", "../x"], 2, "'../x' cannot name this instance"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    command: Command, arguments: list[str], code: int, says: str
) -> None:
    done = command(*arguments)
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.returncode == code
    assert done.stdout == ""


def test_a_name_that_does_not_fit_leaves_nothing(
    command: Command, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    assert command("register", str(make_bundle())).returncode == 0
    done = command("run", "hello", "--name", "No")
    assert done.returncode == 2
    assert "'No' cannot name this instance" in done.stderr
    assert not (tmp_path / "data" / "vms").exists()


def test_a_running_name_is_not_started_again(
    command: Command, make_bundle: MakeBundle, make_instance: Callable[..., Instance]
) -> None:
    make_instance(vmm=process(os.getpid()))
    command("register", str(make_bundle()))
    done = command("run", "hello", "--name", "web")
    assert done.returncode == 1
    assert "web runs already" in done.stderr


def test_instances_are_listed(command: Command, make_instance: Callable[..., Instance]) -> None:
    make_instance("one")
    make_instance("two", vmm=process(os.getpid()))
    lines = command("ps").stdout.splitlines()
    assert lines[0].split() == [*("NAME", "REVISION", "STATE", "PID", "VCPUS", "MEMORY", "STARTED")]
    assert [line.split()[:3] for line in lines[1:]] == [["two", "hello@aaaaaaaaaaaa", "running"]]
    assert len(command("ps", "--all").stdout.splitlines()) == 3
    listed = json.loads(command("ps", "--all", "--json").stdout)
    assert [(entry["name"], entry["state"]) for entry in listed] == [
        ("one", "stopped"),
        ("two", "running"),
    ]


def test_nothing_is_listed_before_the_first_start(command: Command, tmp_path: Path) -> None:
    assert json.loads(command("ps", "--json").stdout) == []
    assert not (tmp_path / "data").exists()


def test_a_list_clears_away_what_a_dead_vmm_left(
    command: Command, make_instance: Callable[..., Instance]
) -> None:
    web = make_instance(vmm=Process(os.getpid(), 1))
    (web / "vsock.sock").write_text("")
    (web / "volumes").mkdir()
    (web / "volumes/secrets.ext4").symlink_to("/dev/shm/mvm-secrets-gone/secrets.ext4")
    assert web.state() == "crashed"
    assert command("ps").stdout.count("\n") == 1
    assert not (web / "vsock.sock").exists()
    assert json.loads(command("ps", "-a", "--json").stdout)[0]["failure"]


def test_a_damaged_instance_does_not_hide_the_others(
    command: Command, make_instance: Callable[..., Instance]
) -> None:
    make_instance("one")
    (make_instance("two") / "instance.json").write_text("{")
    done = command("ps", "--all")
    assert done.returncode == 0
    assert "one" in done.stdout
    assert "two/instance.json is damaged" in done.stderr


def test_a_console_reaches_the_terminal_without_its_control_characters(
    command: Command, make_instance: Callable[..., Instance]
) -> None:
    make_instance()
    assert command("logs", "web").stdout == "hello \\x1b[2J\n"
    assert command("logs", "web", "-f").stdout == "hello \\x1b[2J\n"
    assert command("logs", "web", "--vmm").stdout == "vmm\n"


def test_stopping_goes_on_after_one_that_does_not_exist(
    command: Command, make_instance: Callable[..., Instance]
) -> None:
    make_instance()
    done = command("stop", "gone", "web")
    assert done.returncode == 1
    assert done.stdout == "web\n"
    assert "there is no instance gone" in done.stderr


def test_data_is_not_removed_where_nobody_can_be_asked(
    command: Command, make_instance: Callable[..., Instance]
) -> None:
    web = make_instance(data=True)
    done = command("rm", "web")
    assert done.returncode == 2
    assert "web has data" in done.stderr
    assert (web / "volumes/data.ext4").read_text() == "precious"
    assert command("rm", "web", "--keep-data").returncode == 0
    assert (web / "volumes/data.ext4").read_text() == "precious"
    assert command("rm", "web", "--force").stdout == "web\n"
    assert not web.directory.exists()


@pytest.mark.parametrize(("answer", "stays"), [("n", True), ("y", False)])
def test_data_is_removed_when_the_user_says_so(
    make_instance: Callable[..., Instance], answer: str, stays: bool
) -> None:
    web = make_instance(data=True)
    controller, terminal = pty.openpty()
    os.write(controller, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-m", "mvm_guest", "rm", "web"],
        stdin=terminal,
        capture_output=True,
        text=True,
        check=False,
    )
    os.close(terminal)
    os.close(controller)
    assert "Remove web with all its data?" in done.stderr
    assert done.returncode == (130 if stays else 0)
    assert web.directory.exists() == stays
