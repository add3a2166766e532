"""Writes that survive a crash: a file, link or directory has its old content or its new one.

Everything is made in a staging directory of the same file system, synced, and then renamed.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from mvm_guest.errors import MvmError

_BLOCK = 256 * 1024
_ZEROS = bytes(_BLOCK)


def copy_hashed(source: Path, target: Path) -> str:
    """Copy a file to one that is read-only and synced, and return its SHA-256 in hex.

    The content is read once; blocks of zeros become holes. Raises MvmError if the source changes
    meanwhile.
    """
    digest = hashlib.sha256()
    buffer = bytearray(_BLOCK)
    block = memoryview(buffer)
    with source.open("rb", buffering=0) as reader, target.open("xb", buffering=0) as writer:
        before = os.fstat(reader.fileno())
        os.posix_fadvise(reader.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        while count := reader.readinto(block):
            digest.update(block[:count])
            if count == _BLOCK and buffer == _ZEROS:
                writer.seek(count, os.SEEK_CUR)
            else:
                _write_all(writer.fileno(), block[:count])
        writer.truncate()
        after = os.fstat(reader.fileno())
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns) or (
            writer.tell() != after.st_size
        ):
            raise MvmError(f"{source} changed while it was read; try again when it is complete")
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    return digest.hexdigest()


def write_json(target: Path, value: Any, staging: Path) -> None:
    """Put `value` in `target` as JSON, read-only, in place of whatever is there."""
    beside = staging / target.name
    with beside.open("x", encoding="utf-8") as writer:
        json.dump(value, writer, indent=2, sort_keys=True, ensure_ascii=False)
        writer.write("\n")
        writer.flush()
        os.fchmod(writer.fileno(), 0o444)
        os.fsync(writer.fileno())
    beside.replace(target)
    sync_directory(target.parent)


def write_link(target: Path, leads_to: str, staging: Path) -> None:
    """Make `target` a symbolic link, in place of whatever link is there."""
    beside = staging / target.name
    beside.symlink_to(leads_to)
    beside.replace(target)
    sync_directory(target.parent)


def make_directories(path: Path) -> None:
    """Make a directory and what is missing above it, and sync what was made."""
    if not path.is_dir():
        make_directories(path.parent)
        path.mkdir(mode=0o755, exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make sure that the names in a directory survive a crash."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: memoryview) -> None:
    while data:
        data = data[os.write(descriptor, data) :]
