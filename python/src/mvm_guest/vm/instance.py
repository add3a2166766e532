"""The directory of an instance: its files' names, its record, its lock.

The names are those of the drive model, whatever the backend: `firecracker.pid`, `.socket` and
`.log` are the VMM's process, control socket and output. Paths in configurations are relative to
the directory, which is every VMM's working directory, so that no depth of the data directory
exceeds what a socket's address holds.
"""

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

from mvm_guest.drives import secrets
from mvm_guest.errors import MvmError
from mvm_guest.names import check_guest_name
from mvm_guest.vm.processes import Process

KERNEL = "vmlinux"
CONFIGURATION = "fc-base.json"
CONSOLE = "console.log"
PID = "firecracker.pid"
CONTROL = "firecracker.socket"
LOG = "firecracker.log"
VSOCK = "vsock.sock"
# The socket between QEMU and the program that is its vsock device.
VHOST = "vhost-vsock.sock"
CONFIG_DRIVE = "volumes/config.ext4"
SECRETS_DRIVE = "volumes/secrets.ext4"
DATA_DRIVE = "volumes/data.ext4"

_SCHEMA = 1
_RECORD = "instance.json"
_LOCK = "lock"
_REMOVED = ".removed-"
_LOCK_SECONDS = 5.0
_SETTLE_SECONDS = 10.0

State = Literal["running", "stopped", "crashed"]


@dataclass(frozen=True)
class Record:
    """What `instance.json` holds. `revision` is NAME@HASH, `started_at` an ISO 8601 time.

    `vmm` is None once its end was noticed; `failure` then says how it ended, if not well.
    """

    revision: str
    backend: str
    vcpus: int
    mem_mib: int
    volumes: tuple[tuple[str, int], ...]
    started_at: str
    vmm: Process | None = None
    supervisor: Process | None = None
    helper: Process | None = None
    failure: str | None = None

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        return cls(
            revision=value["revision"],
            backend=value["backend"],
            vcpus=value["resources"]["vcpus"],
            mem_mib=value["resources"]["memMib"],
            volumes=tuple((v["guestPath"], v["sizeMib"]) for v in value["volumes"]),
            started_at=value["startedAt"],
            vmm=_process(value),
            supervisor=_process(value["supervisor"]),
            helper=_process(value["helper"]),
            failure=value["failure"],
        )

    def json(self) -> dict[str, Any]:
        return {
            "schema": _SCHEMA,
            "revision": self.revision,
            "backend": self.backend,
            "resources": {"vcpus": self.vcpus, "memMib": self.mem_mib},
            "volumes": [{"guestPath": path, "sizeMib": size} for path, size in self.volumes],
            "startedAt": self.started_at,
            **_process_json(self.vmm),
            "supervisor": _process_json(self.supervisor),
            "helper": _process_json(self.helper),
            "failure": self.failure,
        }


class Instance:
    """The instance `name` below a data directory, which need not exist."""

    def __init__(self, data_dir: Path, name: str) -> None:
        """Raises UsageError for a name that does not fit."""
        self.name = check_guest_name(name, "instance")
        self.directory = data_dir / "vms" / name

    def __truediv__(self, file: str) -> Path:
        return self.directory / file

    def record(self) -> Record | None:
        """Return the record, None for an instance that was never started. Raises MvmError."""
        path = self / _RECORD
        try:
            value = json.loads(path.read_bytes())
            if value["schema"] > _SCHEMA:
                raise MvmError(f"{path} was written by a newer mvm-guest; use that one")
            return Record.from_json(value)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (ValueError, KeyError, TypeError):
            raise MvmError(
                f"{path} is damaged; keep {self / DATA_DRIVE}, and remove the instance with "
                f"`mvm-guest rm {self.name}`"
            ) from None

    def write_record(self, record: Record) -> None:
        """Replace the record by a new one, which survives a crash."""
        write_json(self / _RECORD, record.json())

    def forget(self) -> None:
        """Remove the record: the instance was never started."""
        (self / _RECORD).unlink(missing_ok=True)

    def state(self) -> State:
        """Say whether the VMM runs, was shut down or ended otherwise. Raises MvmError."""
        record = self.record()
        if record is None:
            return "stopped"
        if record.vmm is not None:
            return "running" if record.vmm.alive() else "crashed"
        return "crashed" if record.failure else "stopped"

    def occupied(self) -> bool:
        """Say without the record whether a VMM works in the directory."""
        try:
            pid = int((self / PID).read_text())
            return Path(f"/proc/{pid}/cwd").samefile(self.directory)
        except (OSError, ValueError):
            return False

    @contextlib.contextmanager
    def locked(self, *, create: bool = False, seconds: float = _LOCK_SECONDS) -> Iterator[None]:
        """Keep other commands from changing the instance.

        With `create`, the directory is made if it is missing. Raises MvmError if there is no such
        instance, or if another command holds it for longer than `seconds`.
        """
        descriptor = self._lock(create=create, seconds=seconds)
        try:
            yield
        finally:
            os.close(descriptor)

    def settle(self) -> None:
        """Clear away what a VMM that has ended left behind; call it with the instance locked.

        It is the supervisor's to do, so that it gets the time to. Secrets go first.
        """
        record = self.record()
        if record is not None and record.supervisor and not record.supervisor.wait(_SETTLE_SECONDS):
            record.supervisor.kill()
            record.supervisor.wait(_SETTLE_SECONDS)
        self.clear()
        record = self.record()
        if record is not None and record.vmm is not None:
            self.write_record(ended(record, "ended while nobody was watching"))

    def clear(self) -> None:
        """Remove what exists only while a VMM runs."""
        secrets.discard(self / SECRETS_DRIVE)
        record = self.record()
        if record is not None and record.helper:
            record.helper.kill()
        for name in (PID, CONTROL, VSOCK, VHOST):
            (self / name).unlink(missing_ok=True)

    def remove(self, *, keep_data: bool = False) -> None:
        """Remove the directory, but for the data drive if that is to stay; call it locked."""
        vms = self.directory.parent
        for left in vms.glob(f"{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)
        removed = Path(tempfile.mkdtemp(prefix=_REMOVED, dir=vms))
        self.directory.rename(removed)
        if keep_data and (removed / DATA_DRIVE).exists():
            (self / DATA_DRIVE).parent.mkdir(mode=0o700, parents=True)
            self.directory.chmod(0o700)
            (removed / DATA_DRIVE).rename(self / DATA_DRIVE)
        shutil.rmtree(removed)

    def _lock(self, *, create: bool, seconds: float) -> int:
        deadline = time.monotonic() + seconds
        while True:
            if create:
                self.directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self.directory.mkdir(mode=0o700, exist_ok=True)
            try:
                descriptor = os.open(self / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except (FileNotFoundError, NotADirectoryError):
                if create:
                    continue
                raise MvmError(
                    f"there is no instance {self.name}; `mvm-guest ps --all` lists those there are"
                ) from None
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Whoever held it may have removed the instance meanwhile.
                if os.path.samestat(os.fstat(descriptor), (self / _LOCK).stat()):
                    return descriptor
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    os.close(descriptor)
                    raise MvmError(
                        f"another command is at work on {self.name}; try again when it has ended"
                    ) from None
                time.sleep(0.05)
            except FileNotFoundError:
                pass
            os.close(descriptor)


def instances(data_dir: Path) -> list[Instance]:
    """Return the instances that were started at some time, by name."""
    return [
        Instance(data_dir, path.parent.name)
        for path in sorted((data_dir / "vms").glob(f"[!.]*/{_RECORD}"))
    ]


def tidy(data_dir: Path) -> None:
    """Clear away what remains of VMMs, and of starts, that ended with nobody watching.

    An instance that another command is at work on is that command's.
    """
    for directory in (data_dir / "vms").glob("[!.]*"):
        with contextlib.suppress(MvmError):
            left = Instance(data_dir, directory.name)
            if (left / SECRETS_DRIVE).is_symlink() and left.state() != "running":
                with left.locked(seconds=0):
                    if left.state() != "running":
                        left.settle()


def ended(record: Record, failure: str | None) -> Record:
    """Return the record of the same instance after its VMM's end."""
    return replace(record, vmm=None, supervisor=None, helper=None, failure=failure)


def write_json(path: Path, value: Any) -> None:
    """Replace a file by a new one with mode 0600, which survives a crash."""
    beside = path.with_name(f"{path.name}.new")
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
        json.dump(value, stream, indent=2, sort_keys=True)
        stream.write("\n")
        stream.flush()
        os.fsync(stream.fileno())
    beside.replace(path)


def _process(value: dict[str, Any] | None) -> Process | None:
    if value is None or value["pid"] is None:
        return None
    return Process(value["pid"], value["startTime"])


def _process_json(process: Process | None) -> dict[str, Any]:
    return {
        "pid": process.pid if process else None,
        "startTime": process.start_time if process else None,
    }
