"""Remembers the hashes of files that were read before, so that a known bundle is not read again.

A file counts as unchanged while its device, inode, size and times are the same, as in git's index.
What is remembered can be lost at any time: then files are read again.
"""

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from mvm_guest.registry.files import write_json

_KEPT = 1000
# A file that changed this recently could change again without its times telling.
_SETTLED_NS = 1_000_000_000

Fingerprint = list[int]


class Fingerprints:
    """The remembered hashes below one data directory."""

    def __init__(self, data_dir: Path) -> None:
        self._file = data_dir / "fingerprints.json"
        try:
            stored = json.loads(self._file.read_bytes())
            self._known = {str(path): (list(mark), str(hash)) for path, (mark, hash) in stored}
        except (FileNotFoundError, ValueError, TypeError):
            self._known = {}

    def hashes(self, directory: Path, names: Iterable[str]) -> dict[str, str] | None:
        """Return the SHA-256 of each named file of a directory, or None if one is not known."""
        found = {}
        for name in names:
            mark, hash = self._known.get(str(directory / name), (None, ""))
            if mark != _fingerprint(directory / name):
                return None
            found[name] = hash
        return found

    def remember(self, directory: Path, hashes: Mapping[str, str], staging: Path) -> None:
        """Keep the SHA-256 of each named file of a directory that was just read."""
        for name, hash in hashes.items():
            path = directory / name
            mark = _fingerprint(path)
            self._known.pop(str(path), None)
            if time.time_ns() - max(mark[3:]) > _SETTLED_NS:
                self._known[str(path)] = (mark, hash)
        write_json(self._file, list(self._known.items())[-_KEPT:], staging)


def _fingerprint(path: Path) -> Fingerprint:
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
