"""Starting, stopping and removing instances; each leaves the old state or the new one.

An instance's life is its VMM's. Whether a guest is well is `health.py`'s.
"""

import json
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from mvm_guest import process
from mvm_guest.agent import Agent, AgentError, AgentUnreachable, printable
from mvm_guest.bundle import ROOT_FILE_SYSTEMS
from mvm_guest.drives import config, data, secrets
from mvm_guest.drives.image import MIB
from mvm_guest.drives.volume import ALWAYS, SMALLEST_MIB, Volume, Volumes, check_guest_path
from mvm_guest.errors import MvmError
from mvm_guest.registry import Revision
from mvm_guest.vm import instance, qemu
from mvm_guest.vm.configuration import full_configuration
from mvm_guest.vm.instance import Instance, Record
from mvm_guest.vm.launch import Launch

BACKEND = "qemu"

_START_SECONDS = 30.0
_END_SECONDS = 10.0
_ASK_SECONDS = 5.0
_ASK_AGAIN_SECONDS = 0.2


@dataclass(frozen=True)
class Options:
    """How to run a revision; what is None is the guest's to say."""

    vcpus: int | None = None
    mem_mib: int | None = None
    role: str = "tenant"
    environment: Mapping[str, str] = field(default_factory=dict)
    volumes: Volumes = field(default_factory=Volumes)


def start(data_dir: Path, name: str, revision: Revision, options: Options) -> Instance:
    """Start an instance, new or stopped before, in the background.

    Data that it has is kept. Raises UsageError for options that do not fit, and MvmError if it
    runs already or cannot be started; then a new instance leaves nothing, and an older one has
    what it had.
    """
    started = Instance(data_dir.absolute(), name)
    instance.tidy(data_dir)
    existed = started.directory.exists()
    with started.locked(create=True):
        before = started.record()
        if started.state() == "running":
            raise MvmError(
                f"{name} runs already; stop it with `mvm-guest stop {name}`, or choose another "
                "--name"
            )
        started.settle()
        had_data = (started / instance.DATA_DRIVE).exists()
        try:
            launch = _prepare(started, before, revision, options)
            _supervise(started, launch)
        except BaseException:
            _end(started)
            if not existed:
                started.remove()
            else:
                _restore(started, before, had_data=had_data)
            raise
    return started


def stop(stopped: Instance, *, timeout: float, kill: bool = False) -> str | None:
    """Shut an instance down, and end its VMM if the guest does not within `timeout` seconds.

    Returns None if the guest shut itself down or did not run, else why the VMM was killed; with
    `kill` the guest is not asked. Raises MvmError if there is no such instance.
    """
    with stopped.locked():
        if stopped.state() == "running":
            why = "as asked" if kill else _shut_down(stopped, timeout)
        else:
            why = None
        _end(stopped)
        return why


def remove(removed: Instance, *, keep_data: bool = False) -> None:
    """Remove an instance that does not run, but for its data drive if that is to stay.

    Raises MvmError if it runs, or if there is no such instance.
    """
    with removed.locked():
        try:
            running = removed.state() == "running"
        except MvmError:
            # A damaged record is a reason to remove an instance.
            running = removed.occupied()
            if not running:
                removed.forget()
        if running:
            raise MvmError(
                f"{removed.name} runs; stop it first with `mvm-guest stop {removed.name}`"
            )
        removed.settle()
        removed.remove(keep_data=keep_data)


def _prepare(
    started: Instance, before: Record | None, revision: Revision, options: Options
) -> Launch:
    """Make everything that the VMM needs, cheapest checks first."""
    guest = revision.guest
    vcpus = options.vcpus or guest.resources.vcpus
    mem_mib = options.mem_mib or guest.resources.memMib
    volume = options.volumes.data or _usual_volume(started, before, guest.resources.dataMib)
    if volume:
        check_guest_path(volume.guest_path, guest.mountPoints)
    configuration = full_configuration(
        revision, vcpus, mem_mib, volume.guest_path if volume else None
    )
    launch = qemu.launch(configuration, guest.system)

    (started / instance.DATA_DRIVE).parent.mkdir(mode=0o700, exist_ok=True)
    instance.write_json(started / instance.CONFIGURATION, configuration)
    for log in (instance.CONSOLE, instance.LOG):
        _empty(started / log)
    size = data.ensure(started / instance.DATA_DRIVE, volume)
    volumes = {volume.guest_path: size} if volume else {}
    name = f"{revision.name}@{revision.hash}"
    config.make(
        started / instance.CONFIG_DRIVE,
        config.Description(started.name, options.role, name, vcpus, mem_mib, size, volumes),
        options.environment,
        options.volumes.config_dir,
    )
    secrets.make(started / instance.SECRETS_DRIVE, options.volumes.secrets_dir)
    _put_revision(started, revision)
    started.write_record(
        Record(
            revision=name,
            backend=BACKEND,
            vcpus=vcpus,
            mem_mib=mem_mib,
            volumes=tuple(volumes.items()),
            started_at=datetime.now(UTC).isoformat(timespec="seconds"),
        )
    )
    return launch


def _usual_volume(started: Instance, before: Record | None, data_mib: int) -> Volume | None:
    """Return the data drive that an instance has had, or else the one that its guest asks for."""
    drive = started / instance.DATA_DRIVE
    if drive.exists():
        path = before.volumes[0][0] if before and before.volumes else ALWAYS[0]
        return Volume(path, drive.stat().st_size // MIB)
    return Volume(ALWAYS[0], max(data_mib, SMALLEST_MIB)) if data_mib else None


def _put_revision(started: Instance, revision: Revision) -> None:
    """Link the kernel and a read-only root file system, or copy one that the guest writes to."""
    for name in (instance.KERNEL, *ROOT_FILE_SYSTEMS):
        (started / name).unlink(missing_ok=True)
    (started / instance.KERNEL).symlink_to(revision.path / instance.KERNEL)
    rootfs = started / revision.guest.rootfs.file
    source = revision.path / rootfs.name
    if revision.guest.rootfs.type == "squashfs":
        rootfs.symlink_to(source)
    else:
        process.run(["cp", "--reflink=auto", "--sparse=always", "--", source, rootfs])
        rootfs.chmod(0o600)


def _supervise(started: Instance, launch: Launch) -> None:
    """Start the supervisor, and return when the VMM runs. Raises MvmError with what it said."""
    data_dir = started.directory.parent.parent
    arguments = [str(data_dir), started.name, json.dumps(asdict(launch))]
    answers, answering = os.pipe()
    with os.fdopen(answers, "rb") as stream:
        try:
            with (started / instance.LOG).open("ab") as log:
                process.spawn(
                    [sys.executable, "-P", "-m", "mvm_guest.vm.supervisor", *arguments],
                    cwd=started.directory,
                    stdout=answering,
                    stderr=log,
                )
        finally:
            os.close(answering)
        try:
            answer = stream.read()
        except KeyboardInterrupt:
            # What it has started can be ended again only when it has noted it.
            stream.read()
            raise
    error = json.loads(answer)["error"] if answer else "its supervisor ended"
    record = started.record()
    try:
        if error or record is None or record.vmm is None:
            raise MvmError(error)
        qemu.wait_until_running(started.directory, record.vmm, _START_SECONDS)
    except MvmError as failure:
        said = printable(_last_line(started / instance.LOG))
        raise MvmError(
            f"{started.name} could not be started: {failure}" + (f": {said}" if said else "")
        ) from None


def _shut_down(stopped: Instance, timeout: float) -> str | None:
    """Ask the guest to go down until it does, else say why its VMM has to be killed."""
    record = stopped.record()
    vmm = record.vmm if record else None
    why = "the guest did not answer"
    deadline = time.monotonic() + timeout
    while vmm and vmm.alive() and time.monotonic() < deadline:
        left = deadline - time.monotonic()
        try:
            with Agent(
                stopped / instance.VSOCK, vm=stopped.name, timeout=min(left, _ASK_SECONDS)
            ) as agent:
                agent.shutdown()
            vmm.wait(deadline - time.monotonic())
            why = f"the guest did not go down within {timeout:g} s"
        except AgentUnreachable:
            time.sleep(_ASK_AGAIN_SECONDS)
        except AgentError as error:
            why = str(error)
            break
    return why if vmm and vmm.alive() else None


def _end(ended: Instance) -> None:
    """End the VMM if it runs, and clear away what it leaves behind."""
    record = ended.record()
    if record and record.vmm and record.vmm.alive():
        record.vmm.kill()
        record.vmm.wait(_END_SECONDS)
    ended.settle()


def _restore(started: Instance, before: Record | None, *, had_data: bool) -> None:
    if not had_data:
        (started / instance.DATA_DRIVE).unlink(missing_ok=True)
    if before is None:
        started.forget()
    else:
        started.write_record(before)


def _empty(path: Path) -> None:
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))


def _last_line(path: Path) -> str:
    lines = path.read_text(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")
