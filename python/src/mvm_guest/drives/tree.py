"""What goes into a drive: a tree of directories and files, read safely from one of the host.

Links are followed as long as they stay within their directory, and stored as what they lead to.
Every path is opened beneath its directory by the kernel itself (openat2(2), RESOLVE_BENEATH), so
that nobody who swaps a link in meanwhile can make anything from outside come in.
"""

import ctypes
import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Self

from mvm_guest.errors import MvmError, UsageError

# The table of system calls is common to all architectures from number 424 on.
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
_TRIES = 16

_MAX_DEPTH = 200
_MAX_ENTRIES = 250_000

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class File:
    """A file of `size` bytes; `open` gives a new descriptor to read it from."""

    size: int
    open: Callable[[], int]
    executable: bool = False
    mtime: int = 0

    @classmethod
    def holding(cls, content: bytes) -> Self:
        """Make a file of what is in memory, which no disk gets to see."""
        return cls(len(content), partial(_in_memory, content))

    def read(self) -> bytes:
        """Return what the file holds."""
        with os.fdopen(self.open(), "rb") as stream:
            return stream.read()


@dataclass(frozen=True)
class Directory:
    """A directory; the entries' names are as os.fsdecode gives them."""

    entries: dict[str, "File | Directory"] = field(default_factory=dict)

    def walk(self) -> Iterator["tuple[str, File | Directory]"]:
        """Yield everything below, each with its path, a directory before what it holds."""
        for name, entry in self.entries.items():
            yield name, entry
            if isinstance(entry, Directory):
                for path, below in entry.walk():
                    yield f"{name}/{path}", below


@contextmanager
def host_directory(path: Path, what: str) -> Iterator[Directory]:
    """Read the tree at `path`; its files can be opened for as long as the context lasts.

    `what` is where the user named it, such as `--config-dir`. Raises UsageError for what cannot go
    into a drive: a link that leads out, nowhere or round in a circle, a device, a fifo, a socket,
    a name with a line break. Raises MvmError for what cannot be read.
    """
    try:
        root = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{what}: {path} is no directory to read: {error.strerror}") from None
    try:
        yield _Reader(root, Path(os.path.realpath(path)), what).directory()
    finally:
        os.close(root)


class _Reader:
    def __init__(self, root: int, path: Path, what: str) -> None:
        self._root = root
        self._path = path
        self._what = what
        self._left = _MAX_ENTRIES

    def directory(self) -> Directory:
        return self._directory(".", [])

    def _directory(self, path: str, above: list[tuple[int, int]]) -> Directory:
        descriptor = self._open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.fstat(descriptor)
            names = sorted(entry.name for entry in os.scandir(descriptor))
        finally:
            os.close(descriptor)
        inode = (status.st_dev, status.st_ino)
        if inode in above:
            raise self._refused(path, "leads back to a directory that it is in")
        if len(above) >= _MAX_DEPTH:
            raise self._refused(path, f"lies deeper than {_MAX_DEPTH} directories")
        self._left -= len(names)
        if self._left < 0:
            raise UsageError(
                f"{self._what}: {self._path} holds more than {_MAX_ENTRIES} files and directories"
            )
        return Directory({name: self._entry(f"{path}/{name}", [*above, inode]) for name in names})

    def _entry(self, path: str, above: list[tuple[int, int]]) -> File | Directory:
        if "\n" in path or "\r" in path:
            raise self._refused(path, "has a line break in its name")
        descriptor = self._open(path, os.O_PATH)
        try:
            status = os.fstat(descriptor)
        finally:
            os.close(descriptor)
        if stat.S_ISDIR(status.st_mode):
            return self._directory(path, above)
        self._check_regular(path, status.st_mode)
        return File(
            size=status.st_size,
            open=partial(self._open_file, path),
            executable=bool(status.st_mode & stat.S_IXUSR),
            mtime=max(0, int(status.st_mtime)),
        )

    def _open_file(self, path: str) -> int:
        # It may have become something else since it was looked at; a fifo must not make us wait.
        descriptor = self._open(path, os.O_RDONLY | os.O_NONBLOCK)
        try:
            self._check_regular(path, os.fstat(descriptor).st_mode)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _check_regular(self, path: str, mode: int) -> None:
        if not stat.S_ISREG(mode):
            raise self._refused(path, f"is {_kind(mode)}")

    def _open(self, path: str, flags: int) -> int:
        try:
            return _open_beneath(self._root, path, flags, _RESOLVE_NO_MAGICLINKS)
        except OSError as error:
            if error.errno == errno.EXDEV:
                return self._open_absolute(path, flags)
            raise self._unreadable(path, error) from None

    def _open_absolute(self, path: str, flags: int) -> int:
        """Open what a link leads to with an absolute path, if it is within the directory."""
        leads_to = os.path.realpath(self._path / path)
        if not Path(leads_to).is_relative_to(self._path):
            raise self._refused(path, f"is a link that leads out, to {leads_to!r}")
        within = os.path.relpath(leads_to, self._path)
        try:
            return _open_beneath(self._root, within, flags, _RESOLVE_NO_SYMLINKS)
        except OSError as error:
            raise self._unreadable(path, error) from None

    def _unreadable(self, path: str, error: OSError) -> MvmError:
        if error.errno == errno.ENOENT:
            return self._refused(path, "is a link that leads nowhere, or has just been removed")
        if error.errno == errno.ELOOP:
            return self._refused(path, "is a link that leads round in a circle")
        if error.errno == errno.ENOSYS:
            return MvmError(
                f"{self._what}: this kernel lacks openat2, without which directories are not "
                "read; it is in Linux 5.6 and later"
            )
        reason = os.strerror(error.errno or 0).lower()
        return MvmError(f"{self._what}: {self._shown(path)} cannot be read: {reason}")

    def _refused(self, path: str, why: str) -> UsageError:
        return UsageError(
            f"{self._what}: {self._shown(path)} {why}; only files, directories and links between "
            "them go into a drive, so remove it"
        )

    def _shown(self, path: str) -> str:
        return repr(os.path.normpath(self._path / path))


class _OpenHow(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def _open_beneath(directory: int, path: str, flags: int, resolve: int) -> int:
    """Open `path` beneath an open directory with openat2(2). Raises OSError, EXDEV if it is not."""
    how = _OpenHow(flags | os.O_CLOEXEC, 0, _RESOLVE_BENEATH | resolve)
    for _ in range(_TRIES):
        descriptor: int = _libc.syscall(
            ctypes.c_long(_SYS_OPENAT2),
            ctypes.c_int(directory),
            ctypes.c_char_p(os.fsencode(path)),
            ctypes.byref(how),
            ctypes.c_size_t(ctypes.sizeof(how)),
        )
        if descriptor >= 0:
            return descriptor
        number = ctypes.get_errno()
        # EAGAIN: something was renamed meanwhile, so that the kernel cannot vouch for the path.
        if number not in (errno.EAGAIN, errno.EINTR):
            break
    raise OSError(number, os.strerror(number), path)


def _in_memory(content: bytes) -> int:
    descriptor = os.memfd_create("mvm-guest", os.MFD_CLOEXEC)
    with os.fdopen(descriptor, "wb", closefd=False) as stream:
        stream.write(content)
        stream.seek(0)
    return descriptor


def _kind(mode: int) -> str:
    if stat.S_ISFIFO(mode):
        return "a fifo"
    if stat.S_ISSOCK(mode):
        return "a socket"
    return "a device"
