"""The project's own Nix source, as a directory that can be a flake input.

`path:` inputs are copied whole into the Nix store, so what Nix needs is staged in the user's cache
directory, named by its content; a checkout's `.venv`, `.git` and build results stay outside.
"""

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mvm_guest import project, settings

CARRIED = ("flake.nix", "flake.lock", "mkguest", "templates")

_DEBIAN = Path("mkguest", "debian")
_KEPT_SECONDS = 30 * 24 * 3600


def project_source() -> Path:
    """Return a clean copy of the project's source, made once for each content."""
    return _staged(_read(project.root()))


def debian_flake(lock: Path | None = None) -> Path:
    """Return the debian package set as a flake of its own, with `lock` in place of its own lock.

    Without `lock`, the file that the variable MVM_DEBIAN_LOCK names is used, if it is set.
    """
    if lock is None and (named := os.environ.get("MVM_DEBIAN_LOCK")):
        lock = Path(named)
    contents = {
        path.relative_to(_DEBIAN): content
        for path, content in _read(project.root()).items()
        if path.is_relative_to(_DEBIAN)
    }
    if lock:
        contents[Path("lock.json")] = (lock.read_bytes(), False)
    return _staged(contents)


def source_files(root: Path) -> Iterator[Path]:
    """Yield what Nix needs of the project's source, relative to `root`, without what is built."""
    for name in CARRIED:
        path = root / name
        if path.is_dir():
            yield from (found.relative_to(root) for found in _walk(path))
        elif path.exists():
            yield Path(name)


def _walk(directory: Path) -> Iterator[Path]:
    for entry in sorted(directory.iterdir()):
        if entry.name.startswith((".", "result")) or entry.name in ("target", "__pycache__"):
            continue
        if entry.is_dir():
            yield from _walk(entry)
        else:
            yield entry


Contents = dict[Path, tuple[bytes, bool]]


def _read(root: Path) -> Contents:
    """Read the source: relative path to content and whether it is executable."""
    return {
        path: ((root / path).read_bytes(), os.access(root / path, os.X_OK))
        for path in source_files(root)
    }


def _staged(contents: Contents) -> Path:
    digest = hashlib.sha256()
    for path, (content, executable) in sorted(contents.items()):
        digest.update(f"{path}\0{len(content)}\0{executable:d}\0".encode() + content)
    parent = settings.cache_dir() / "source"
    target = parent / digest.hexdigest()[:32]
    if not target.exists():
        parent.mkdir(parents=True, exist_ok=True)
        _forget_unused(parent)
        _write(contents, target)
    os.utime(target)
    return target


def _write(contents: Contents, target: Path) -> None:
    beside = Path(tempfile.mkdtemp(dir=target.parent, prefix=".new-"))
    try:
        for path, (content, executable) in contents.items():
            file = beside / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
            file.chmod(0o755 if executable else 0o644)
        beside.chmod(0o755)
        try:
            beside.rename(target)
        except OSError:
            # Another process staged the same content first.
            if not target.exists():
                raise
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _forget_unused(parent: Path) -> None:
    for entry in parent.iterdir():
        if time.time() - entry.stat().st_mtime > _KEPT_SECONDS:
            shutil.rmtree(entry, ignore_errors=True)
