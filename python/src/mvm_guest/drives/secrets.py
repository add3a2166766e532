"""The secrets drive: made anew at every start in memory, gone when the VMM ends.

The image lies on a tmpfs, in a directory of its own that only its owner can enter; the instance
holds a link to it. The link is made first: from then on whoever clears the instance away finds
what there is to remove, even after a crash in between.
"""

import contextlib
import ctypes
import json
import os
import tempfile
from pathlib import Path

from mvm_guest.drives import image
from mvm_guest.drives.tree import Directory, File, host_directory
from mvm_guest.errors import MvmError, UsageError

LABEL = "mvm-secrets"
TENANT = "secrets.json"

_IMAGE = "secrets.ext4"
_PREFIX = "mvm-secrets-"
_LIMIT_MIB = 4
_PAGE = 4096
_TMPFS_MAGIC = 0x01021994

_libc = ctypes.CDLL(None, use_errno=True)


def make(link: Path, directory: Path | None) -> None:
    """Make the image from what `directory` holds, and `link` lead to it.

    Raises UsageError for what cannot go into it, and MvmError if the host offers no tmpfs. What is
    there afterwards is to be removed with `discard`, after an error as well.
    """
    own = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=_tmpfs()))
    try:
        link.symlink_to(own / _IMAGE)
    except BaseException:
        own.rmdir()
        raise
    default = {TENANT: File.holding(b"{}\n")}
    if directory is None:
        image.make_read_only(own / _IMAGE, LABEL, Directory({**default}), _attributes)
        return
    with host_directory(directory, "--secrets-dir") as given:
        tree = Directory({**default, **given.entries})
        _check_size(tree, directory)
        _check_tenant(tree.entries[TENANT], directory / TENANT)
        image.make_read_only(own / _IMAGE, LABEL, tree, _attributes)


def discard(link: Path) -> None:
    """Remove the link and all that it leads to, as far as it is there."""
    try:
        target = link.readlink()
    except FileNotFoundError:
        return
    own = target.parent
    if target.name == _IMAGE and own.name.startswith(_PREFIX):
        with contextlib.suppress(FileNotFoundError):
            for file in own.iterdir():
                file.unlink()
            own.rmdir()
    link.unlink(missing_ok=True)


def _tmpfs() -> Path:
    candidates = ["/dev/shm"]  # noqa: S108
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        candidates.append(runtime)
    for candidate in candidates:
        if _magic(candidate) == _TMPFS_MAGIC and os.access(candidate, os.W_OK | os.X_OK):
            return Path(candidate)
    raise MvmError(
        f"secrets stay in memory, but {' and '.join(candidates)} is no tmpfs to write to; mount a "
        "tmpfs at /dev/shm"
    )


def _magic(path: str) -> int:
    """Return the kind of file system that `path` is on, as statfs(2) says; 0 if it fails."""
    # f_type is the first field; the structure is smaller than this everywhere.
    buffer = (ctypes.c_long * 64)()
    if _libc.statfs(os.fsencode(path), ctypes.byref(buffer)) != 0:
        return 0
    return int(buffer[0])


def _check_size(tree: Directory, directory: Path) -> None:
    pages = sum(-(-e.size // _PAGE) for _, e in tree.walk() if isinstance(e, File))
    if pages * _PAGE > _LIMIT_MIB * image.MIB:
        raise UsageError(
            f"--secrets-dir: {directory} holds more than the {_LIMIT_MIB} MiB that a guest keeps "
            "secrets in; put what is not secret into --config-dir"
        )


def _check_tenant(entry: File | Directory, path: Path) -> None:
    # What a parser says quotes what it reads, so it is not repeated here.
    try:
        fits = isinstance(entry, File) and isinstance(json.loads(entry.read()), dict)
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise UsageError(f"--secrets-dir: {path} must be a file that holds one JSON object")


def _attributes(entry: File | Directory) -> image.Attributes:
    return image.Attributes(0o400 if isinstance(entry, File) else 0o500)
