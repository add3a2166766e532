"""Instances on the real QEMU, with a kernel of a few instructions in place of a guest."""

import json
import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mvm_guest import bundle as bundles
from mvm_guest.drives import secrets
from mvm_guest.drives.volume import Volume, Volumes
from mvm_guest.errors import MvmError, UsageError
from mvm_guest.process import ProgramMissing
from mvm_guest.registry import Revision, Source, Store
from mvm_guest.vm import configuration, instance, lifecycle, logs, qemu
from mvm_guest.vm.instance import Instance
from mvm_guest.vm.lifecycle import Options
from mvm_guest.vm.processes import Process, process

MakeBundle = Callable[..., Path]
Register = Callable[..., Revision]

HALT = b"\xf4\xeb\xfd"
# Counts for a while; then, with no interrupt table, a breakpoint resets the processor.
RESET = b"\xb9\0\0\0\x20\x49\x75\xfd" + b"\x0f\x01\x1d\0\0\x10\0\xcc"
SAYS = b"hello \x1b[2J\xff\r\n"


def kernel(end: bytes = HALT) -> bytes:
    """Make an x86-64 ELF with a PVH entry that writes SAYS to the serial port and then ends."""
    address, offset = 0x100000, 64 + 2 * 56
    entry = address + offset + 24
    code = b"".join(b"\x66\xba\xf8\x03\xb0%c\xee" % character for character in SAYS) + end
    note = struct.pack("<III4sQ", 4, 8, 18, b"Xen\0", entry)
    size = offset + len(note) + len(code)
    identity = b"\x7fELF\2\1\1" + bytes(9)
    header = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, entry, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 7, 0, address, address, size, size, 4096)
    start = address + offset
    notes = struct.pack("<IIQQQQQQ", 4, 4, offset, start, start, len(note), len(note), 4)
    return identity + header + load + notes + note + code


def vsock_program() -> str | None:
    return shutil.which(os.environ.get("MVM_VHOST_DEVICE_VSOCK", "vhost-device-vsock")) or (
        shutil.which("vhost-device-vsock", path=str(Path(sys.executable).parent))
    )


needs_vmm = pytest.mark.skipif(
    not (shutil.which("qemu-system-x86_64") and vsock_program()),
    reason="needs qemu-system-x86_64 and vhost-device-vsock",
)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


@pytest.fixture
def register(data_dir: Path, make_bundle: MakeBundle) -> Register:
    def make(name: str = "hello", content: bytes | None = None, **described: object) -> Revision:
        path = make_bundle(name, **described)
        (path / "vmlinux").write_bytes(kernel() if content is None else content)
        Store(data_dir).register(bundles.read(path), Source("path", str(path)))
        return Store(data_dir).resolve(name)

    return make


@pytest.fixture
def start(data_dir: Path, register: Register) -> Iterator[Callable[..., Instance]]:
    """Start instances of a revision, and end them after the test."""

    def run(
        name: str = "web", revision: Revision | None = None, volumes: Volumes | None = None
    ) -> Instance:
        options = Options(volumes=volumes or Volumes())
        return lifecycle.start(data_dir, name, revision or register(), options)

    yield run
    for left in instance.instances(data_dir):
        lifecycle.stop(left, timeout=1, kill=True)


def files(at: Path) -> dict[str, int]:
    """What a directory holds, by its path, with the permission bits of what is no link."""
    return {
        str(path.relative_to(at)): path.lstat().st_mode & 0o777
        for path in at.rglob("*")
        if not path.is_symlink() and not path.is_dir()
    }


def vmm(of: Instance) -> Process:
    record = of.record()
    assert record is not None
    assert record.vmm is not None
    return record.vmm


def failure(of: Instance) -> str | None:
    record = of.record()
    assert record is not None
    return record.failure


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_configuration_has_the_drives_in_their_order(register: Register) -> None:
    whole = configuration.full_configuration(register(), 2, 512, "/data")
    assert [
        (drive["drive_id"], drive["path_on_host"], drive["is_read_only"], drive["is_root_device"])
        for drive in whole["drives"]
    ] == [
        ("root", "rootfs.ext4", False, True),
        ("config", "volumes/config.ext4", True, False),
        ("secrets", "volumes/secrets.ext4", True, False),
        ("data", "volumes/data.ext4", False, False),
    ]
    assert whole["boot-source"] == {
        "kernel_image_path": "vmlinux",
        "boot_args": "root=/dev/vda init=/init mvm.data=/data",
    }
    assert whole["machine-config"] == {"vcpu_count": 2, "mem_size_mib": 512}
    assert whole["vsock"] == {"guest_cid": 3, "uds_path": "vsock.sock"}


def test_a_guest_without_data_has_three_drives(register: Register) -> None:
    whole = configuration.full_configuration(register(), 1, 256, None)
    assert [drive["drive_id"] for drive in whole["drives"]] == ["root", "config", "secrets"]
    assert "mvm.data" not in whole["boot-source"]["boot_args"]


@needs_vmm
def test_qemu_gets_config_and_secrets_read_only(register: Register) -> None:
    whole = configuration.full_configuration(register(), 2, 512, "/data")
    argv = qemu.launch(whole, "x86_64-linux").vmm
    drives = [argv[at + 1].split(",") for at, word in enumerate(argv) if word == "-drive"]
    assert [(drive[1], drive[4]) for drive in drives] == [
        ("id=root", "readonly=off"),
        ("id=config", "readonly=on"),
        ("id=secrets", "readonly=on"),
        ("id=data", "readonly=off"),
    ]
    assert "cache=writeback" in drives[3]
    assert argv[argv.index("-append") + 1] == whole["boot-source"]["boot_args"]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        ("qemu-system-x86_64", "qemu-system-x86_64 is not on PATH; install QEMU"),
        ("vhost-device-vsock", "vhost-device-vsock is no program on PATH; install it with `cargo"),
    ],
)
def test_a_missing_program_is_named_with_what_to_install(
    tmp_path: Path,
    data_dir: Path,
    register: Register,
    monkeypatch: pytest.MonkeyPatch,
    missing: str,
    says: str,
) -> None:
    revision = register()
    for program in {"qemu-system-x86_64", "vhost-device-vsock"} - {missing}:
        (tmp_path / program).write_text("#!/bin/false\n")
        (tmp_path / program).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.delenv("MVM_VHOST_DEVICE_VSOCK", raising=False)
    with pytest.raises(ProgramMissing, match=says):
        lifecycle.start(data_dir, "web", revision, Options())
    assert list((data_dir / "vms").iterdir()) == []


def test_a_helper_that_is_named_wrongly_is_not_replaced(
    data_dir: Path, register: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MVM_VHOST_DEVICE_VSOCK", "/nowhere/vsock")
    monkeypatch.setattr("mvm_guest.process.find", lambda *_: Path("/qemu"))
    with pytest.raises(ProgramMissing, match="/nowhere/vsock is no program"):
        lifecycle.start(data_dir, "web", register(), Options())


def test_a_guest_for_another_processor_is_refused(register: Register) -> None:
    whole = configuration.full_configuration(register(), 1, 256, None)
    with pytest.raises(MvmError, match="this one is for aarch64-linux"):
        qemu.launch(whole, "aarch64-linux")


@pytest.mark.parametrize("name", ["", "Web", "../web", "-web", "a" * 64, "a\n", "."])
def test_a_name_that_does_not_fit_is_refused(data_dir: Path, name: str) -> None:
    with pytest.raises(UsageError, match="cannot name this instance"):
        Instance(data_dir, name)


@needs_vmm
def test_an_instance_has_the_files_of_the_drive_model(
    start: Callable[..., Instance], data_dir: Path
) -> None:
    web = start(volumes=Volumes(Volume("/data", 8)))
    assert web.state() == "running"
    assert web.directory == data_dir / "vms" / "web"
    assert web.directory.stat().st_mode & 0o777 == 0o700
    assert (web / "volumes").stat().st_mode & 0o777 == 0o700
    held = files(web.directory)
    sockets = {name: held.pop(name) for name in ("firecracker.socket", "vsock.sock")}
    held.pop("vhost-vsock.sock", None)
    assert held == dict.fromkeys(
        [
            *("firecracker.pid", "firecracker.log", "console.log", "fc-base.json", "instance.json"),
            *("lock", "rootfs.ext4", "volumes/config.ext4", "volumes/data.ext4"),
        ],
        0o600,
    )
    assert not any(mode & 0o077 for mode in sockets.values())
    assert (web / "vmlinux").read_bytes() == kernel()
    image = (web / "volumes/secrets.ext4").readlink()
    assert image.parent.parent == Path("/dev/shm")
    assert image.is_file()
    record = json.loads((web / "instance.json").read_text())
    assert record["pid"] == int((web / "firecracker.pid").read_text())
    assert record["backend"] == "qemu"
    assert record["revision"].startswith("hello@")
    assert record["volumes"] == [{"guestPath": "/data", "sizeMib": 8}]
    whole = json.loads((web / "fc-base.json").read_text())
    assert all((web / drive["path_on_host"]).exists() for drive in whole["drives"])
    until(lambda: SAYS.rstrip() in (web / "console.log").read_bytes())


@needs_vmm
def test_a_squashfs_is_used_in_place(
    start: Callable[..., Instance], data_dir: Path, make_bundle: MakeBundle
) -> None:
    path = make_bundle(
        rootfs={
            "type": "squashfs",
            "file": "rootfs.squashfs",
            "sizeBytes": 4096,
            "label": None,
            "verity": None,
        }
    )
    (path / "vmlinux").write_bytes(kernel())
    (path / "rootfs.ext4").unlink()
    (path / "rootfs.squashfs").write_bytes(b"hsqs" + bytes(4092))
    Store(data_dir).register(bundles.read(path), Source("path", str(path)))
    revision = Store(data_dir).resolve("hello")
    web = start(revision=revision)
    assert (web / "rootfs.squashfs").samefile(revision.path / "rootfs.squashfs")
    root = json.loads((web / "fc-base.json").read_text())["drives"][0]
    assert root["is_read_only"]


@needs_vmm
def test_a_second_start_of_a_running_name_is_refused(start: Callable[..., Instance]) -> None:
    web = start()
    before, pid = files(web.directory), vmm(web)
    with pytest.raises(MvmError, match="web runs already; stop it with `mvm-guest stop web`"):
        start()
    assert (files(web.directory), vmm(web)) == (before, pid)
    assert pid.alive()


@needs_vmm
def test_a_guest_that_does_not_answer_is_killed_and_that_is_said(
    start: Callable[..., Instance],
) -> None:
    web = start()
    pid = vmm(web)
    assert lifecycle.stop(web, timeout=0.5) == "the guest did not answer"
    assert not pid.alive()
    assert lifecycle.stop(web, timeout=0.5) is None


@needs_vmm
def test_nothing_that_belongs_to_a_running_vmm_is_left_by_a_stop(
    start: Callable[..., Instance],
) -> None:
    web = start()
    record = web.record()
    image = (web / "volumes/secrets.ext4").readlink()
    lifecycle.stop(web, timeout=1, kill=True)
    assert record
    assert record.helper
    assert record.supervisor
    assert not record.helper.alive()
    assert not record.supervisor.alive()
    assert not image.parent.exists()
    assert set(files(web.directory)) == {
        *("firecracker.log", "console.log", "fc-base.json", "instance.json", "lock"),
        *("rootfs.ext4", "volumes/config.ext4"),
    }


@needs_vmm
def test_a_guest_that_goes_down_itself_is_stopped(
    start: Callable[..., Instance], register: Register
) -> None:
    web = start(revision=register(content=kernel(RESET)))
    image = (web / "volumes/secrets.ext4").readlink()
    until(lambda: web.state() == "stopped")
    until(lambda: not image.parent.exists())
    assert lifecycle.stop(web, timeout=1) is None


@needs_vmm
def test_a_vmm_that_is_killed_takes_its_secrets_with_it(start: Callable[..., Instance]) -> None:
    web = start()
    image = (web / "volumes/secrets.ext4").readlink()
    os.kill(vmm(web).pid, 9)
    until(lambda: not image.parent.exists())
    until(lambda: not (web / "vsock.sock").exists())
    until(lambda: failure(web) == "was ended by signal 9")
    assert web.state() == "crashed"


@needs_vmm
def test_what_a_killed_supervisor_left_is_cleared_by_the_next_command(
    start: Callable[..., Instance],
) -> None:
    web = start()
    record = web.record()
    assert record
    assert record.supervisor
    assert record.helper
    image = (web / "volumes/secrets.ext4").readlink()
    os.kill(record.supervisor.pid, 9)
    assert web.state() == "running"
    os.kill(vmm(web).pid, 9)
    until(lambda: web.state() == "crashed")
    start()
    assert web.state() == "running"
    assert not image.parent.exists()
    assert not record.helper.alive()


@needs_vmm
def test_the_next_command_removes_secrets_that_nobody_watched(
    start: Callable[..., Instance], data_dir: Path
) -> None:
    web = start()
    record = web.record()
    assert record
    assert record.supervisor
    image = (web / "volumes/secrets.ext4").readlink()
    os.kill(record.supervisor.pid, 9)
    instance.tidy(data_dir)
    assert image.exists()
    os.kill(vmm(web).pid, 9)
    until(lambda: web.state() == "crashed")
    instance.tidy(data_dir)
    assert not image.parent.exists()


def test_secrets_of_a_start_that_was_killed_are_removed(data_dir: Path) -> None:
    web = Instance(data_dir, "web")
    with web.locked(create=True):
        (web / "volumes").mkdir()
        secrets.make(web / "volumes/secrets.ext4", None)
        image = (web / "volumes/secrets.ext4").readlink()
        instance.tidy(data_dir)
        assert image.exists()
    instance.tidy(data_dir)
    assert not image.parent.exists()


@needs_vmm
def test_a_damaged_record_does_not_let_a_running_instance_be_removed(
    start: Callable[..., Instance],
) -> None:
    web = start(volumes=Volumes(Volume("/data", 8)))
    record = (web / "instance.json").read_bytes()
    (web / "instance.json").write_text("{")
    with pytest.raises(MvmError, match="web runs; stop it first"):
        lifecycle.remove(web)
    assert (web / "volumes/data.ext4").exists()
    (web / "instance.json").write_bytes(record)


@needs_vmm
def test_the_supervisor_is_not_impressed_by_a_hangup(start: Callable[..., Instance]) -> None:
    web = start()
    record = web.record()
    assert record
    assert record.supervisor
    for number in (1, 2, 15):
        os.kill(record.supervisor.pid, number)
    time.sleep(0.2)
    assert record.supervisor.alive()
    assert web.state() == "running"


@needs_vmm
def test_a_kernel_that_is_none_leaves_nothing(
    start: Callable[..., Instance], register: Register, data_dir: Path
) -> None:
    broken = register(content=b"\x7fELF" + bytes(14) + b"\x3e" + bytes(45))
    with pytest.raises(MvmError, match=r"web could not be started: QEMU ended at its start: .+"):
        start(revision=broken)
    assert list((data_dir / "vms").iterdir()) == []
    assert not [path for path in Path("/dev/shm").glob("mvm-secrets-*") if _mine(path)]


@needs_vmm
def test_a_start_that_fails_keeps_data_and_record(
    start: Callable[..., Instance], register: Register, tmp_path: Path
) -> None:
    web = start(volumes=Volumes(Volume("/data", 8)))
    lifecycle.stop(web, timeout=1, kill=True)
    before, data = web.record(), (web / "volumes/data.ext4").read_bytes()
    broken = register("broken", content=b"\x7fELF" + bytes(14) + b"\x3e" + bytes(45))
    with pytest.raises(MvmError, match="could not be started"):
        start(revision=broken)
    with pytest.raises(UsageError, match="--config-dir"):
        start(volumes=Volumes(config_dir=tmp_path / "missing"))
    with pytest.raises(UsageError, match="the guest cannot mount data at '/etc'"):
        start(volumes=Volumes(Volume("/etc", 8)))
    assert web.record() == before
    assert (web / "volumes/data.ext4").read_bytes() == data


@needs_vmm
def test_data_is_there_again_after_a_stop(start: Callable[..., Instance], tmp_path: Path) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "host" / "file").write_text("kept")
    web = start(volumes=Volumes(Volume("/srv", 8, tmp_path / "host")))
    lifecycle.stop(web, timeout=1, kill=True)
    shutil.rmtree(tmp_path / "host")
    start()
    record = web.record()
    assert record
    assert record.volumes == (("/srv", 8),)
    whole = json.loads((web / "fc-base.json").read_text())
    assert whole["boot-source"]["boot_args"].endswith(" mvm.data=/srv")
    assert len(whole["drives"]) == 4


@needs_vmm
def test_a_guest_gets_the_data_drive_that_it_asks_for(
    start: Callable[..., Instance], register: Register
) -> None:
    web = start(revision=register(resources={"vcpus": 2, "memMib": 64, "dataMib": 16}))
    record = web.record()
    assert record
    assert (record.vcpus, record.mem_mib, record.volumes) == (2, 64, (("/mnt/data", 16),))


@needs_vmm
def test_a_data_directory_deeper_than_a_sockets_address_works(
    tmp_path: Path, register: Register
) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    web = lifecycle.start(deep, "web", register(), Options())
    assert web.state() == "running"
    assert lifecycle.stop(web, timeout=0.3) == "the guest did not answer"
    assert not (web / "vsock.sock").exists()


@needs_vmm
def test_a_running_instance_is_not_removed(start: Callable[..., Instance]) -> None:
    web = start()
    with pytest.raises(MvmError, match="web runs; stop it first"):
        lifecycle.remove(web)
    assert web.state() == "running"


@needs_vmm
def test_a_removed_instance_leaves_its_data_if_asked(
    start: Callable[..., Instance], data_dir: Path
) -> None:
    web = start(volumes=Volumes(Volume("/data", 8)))
    lifecycle.stop(web, timeout=1, kill=True)
    lifecycle.remove(web, keep_data=True)
    assert list(files(web.directory)) == ["volumes/data.ext4"]
    assert instance.instances(data_dir) == []
    start()
    lifecycle.stop(web, timeout=1, kill=True)
    lifecycle.remove(web)
    assert list((data_dir / "vms").iterdir()) == []


def test_what_does_not_exist_is_neither_stopped_nor_removed(data_dir: Path) -> None:
    for act in (lambda web: lifecycle.stop(web, timeout=1), lifecycle.remove):
        with pytest.raises(MvmError, match="there is no instance web"):
            act(Instance(data_dir, "web"))
    assert not data_dir.exists()


def test_a_damaged_record_is_named_and_can_be_removed(data_dir: Path) -> None:
    web = Instance(data_dir, "web")
    for content in ("{", "[]", '{"schema": 1}', '{"schema": "x"}', '{"schema": 2}'):
        web.directory.mkdir(parents=True)
        (web / "instance.json").write_text(content)
        with pytest.raises(MvmError, match=r"instance\.json (is damaged|was written by a newer)"):
            web.record()
        lifecycle.remove(web)
        assert not web.directory.exists()


def _hold(web: Instance, held: threading.Event, done: threading.Event) -> None:
    with web.locked(create=True):
        held.set()
        done.wait(10)


def test_two_commands_do_not_change_an_instance_at_once(data_dir: Path) -> None:
    web = Instance(data_dir, "web")
    held, done = threading.Event(), threading.Event()
    thread = threading.Thread(target=_hold, args=(web, held, done))
    thread.start()
    held.wait(10)
    with (
        pytest.raises(MvmError, match="another command is at work on web"),
        web.locked(seconds=0.1),
    ):
        pass
    done.set()
    thread.join()
    with web.locked():
        pass


def test_a_lock_on_an_instance_that_is_removed_meanwhile_is_none(data_dir: Path) -> None:
    web = Instance(data_dir, "web")
    held, removed = threading.Event(), threading.Event()

    def remove() -> None:
        with web.locked(create=True):
            held.set()
            time.sleep(0.2)
            web.remove()
        removed.set()

    thread = threading.Thread(target=remove)
    thread.start()
    held.wait(10)
    with pytest.raises(MvmError, match="there is no instance web"), web.locked():
        pass
    thread.join()
    assert removed.is_set()


def test_a_process_is_not_taken_for_a_later_one_with_its_number() -> None:
    with subprocess.Popen(["sleep", "60"]) as child:
        now = process(child.pid)
        earlier = Process(child.pid, now.start_time - 1)
        assert now.alive()
        assert not earlier.alive()
        earlier.kill()
        assert not now.wait(0.1)
        now.kill()
        # It stays as a zombie until its parent looks.
        assert now.wait(10)
    assert not now.alive()
    now.kill()


def test_a_console_is_harmless_to_a_terminal(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(SAYS + b"tab\there\r\n\xc2\x9bfoo\n" + b"no end")
    assert list(logs.lines(log)) == [r"hello \x1b[2J\xff", "tab\there", r"\x9bfoo", "no end"]


def test_an_endless_line_is_broken(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_bytes(b"x" * 1_000_000)
    found = list(logs.lines(log))
    assert len(found) > 4
    assert "".join(found) == "x" * 1_000_000


def test_a_log_is_followed_to_the_end_of_the_vmm(tmp_path: Path) -> None:
    log = tmp_path / "console.log"
    log.write_text("one\ntw")
    asked = iter([True, True, False])

    def running() -> bool:
        more = next(asked)
        with log.open("a") as stream:
            stream.write("o\nthree\n" if not more else "")
        return more

    assert list(logs.lines(log, running)) == ["one", "two", "three"]


def _mine(path: Path) -> bool:
    return path.stat().st_uid == os.getuid() and time.time() - path.stat().st_mtime < 5
