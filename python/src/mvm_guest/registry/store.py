"""The store of revisions below the data directory: `templates/<name>/revisions/<hash>/`.

A revision is there complete or not at all, and what it holds never changes; `current` is a
relative link to one of a name's revisions. How references are written is `reference.py`'s, how
files are made to survive a crash `files.py`'s.
"""

import contextlib
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from mvm_guest import __version__
from mvm_guest.bundle import KERNEL, ROOT_FILE_SYSTEMS, Bundle, Guest, read_guest
from mvm_guest.errors import MvmError
from mvm_guest.names import check_guest_name
from mvm_guest.registry import files
from mvm_guest.registry.fingerprints import Fingerprints
from mvm_guest.registry.firecracker import base_configuration
from mvm_guest.registry.reference import CURRENT, parse

SCHEMA = 1
SHORT = 12

_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Source:
    """Where registered content came from; what is not known is None.

    `kind` is `path` for a plain directory and `store` for a path in the Nix store.
    """

    kind: str
    ref: str
    storePath: str | None = None
    narHash: str | None = None
    effectiveLockHash: str | None = None


@dataclass(frozen=True)
class RegisterResult:
    """The revision that a bundle became; `created` is False if it was there already."""

    name: str
    hash: str
    path: Path
    created: bool


@dataclass(frozen=True)
class Revision:
    """One stored revision; `path` is its directory."""

    name: str
    hash: str
    path: Path
    guest: Guest


@dataclass(frozen=True)
class RevisionSummary:
    """What a list shows of a revision; `sizeBytes` is its kernel's and root file system's."""

    name: str
    hash: str
    rootfs: str
    sizeBytes: int
    current: bool
    registeredAt: datetime


class Store:
    """The revisions below one data directory, which is made when the first one is registered."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self._templates = data_dir / "templates"

    def register(
        self,
        bundle: Bundle,
        source: Source,
        *,
        name: str | None = None,
        move_current: bool = True,
    ) -> RegisterResult:
        """Store a bundle under its own name or `name`, and record where it came from.

        Content that is stored already gets only the further source record. `current` moves to it
        unless `move_current` is False. Raises UsageError for a name that does not fit and MvmError
        if the registry is of a newer schema.
        """
        name = check_guest_name(bundle.guest.name if name is None else name, "revision")
        template = self._templates / name
        record = asdict(source) | {
            "packageSet": bundle.guest.packageSet.model_dump(),
            "registeredAt": datetime.now(UTC).isoformat(timespec="seconds"),
            "toolVersion": __version__,
        }
        with self._locked() as staging:
            fingerprints = Fingerprints(self.data_dir)
            hashes = fingerprints.hashes(bundle.path, bundle.files)
            if hashes is None or not _revision(template, hashes).exists():
                copy = staging / "revision"
                copy.mkdir()
                hashes = {
                    file: files.copy_hashed(bundle.path / file, copy / file)
                    for file in sorted(bundle.files)
                }
                fingerprints.remember(bundle.path, hashes, staging)
            path = _revision(template, hashes)
            created = not path.exists()
            if created:
                manifest = {
                    "schema": SCHEMA,
                    "hash": path.name,
                    "files": {
                        file: {"sha256": hash, "sizeBytes": bundle.files[file]}
                        for file, hash in hashes.items()
                    },
                    "sources": [record],
                }
                files.write_json(copy / "revision.json", manifest, staging)
                files.write_json(copy / "fc-base.json", base_configuration(bundle.guest), staging)
                files.make_directories(path.parent)
                copy.rename(path)
                files.sync_directory(path.parent)
            else:
                manifest = json.loads((path / "revision.json").read_bytes())
                manifest["sources"].append(record)
                files.write_json(path / "revision.json", manifest, staging)
            if move_current:
                files.write_link(template / CURRENT, f"revisions/{path.name}", staging)
        return RegisterResult(name, path.name, path, created)

    def resolve(self, text: str) -> Revision:
        """Find the revision that a user's reference means.

        Raises UsageError for what is no reference, MvmError for one that fits no revision or
        several, naming the candidates.
        """
        self._check_schema()
        names = self._names()
        name, prefix = parse(text, names)
        if name is not None and name not in names:
            raise MvmError(f"no revision is named {name!r}; {_known(names)}")
        if name is not None and prefix is None:
            hash = self._current(name)
            if hash is None:
                raise MvmError(
                    f"{name} has no current revision; choose one of "
                    + _listed((name, hash) for hash in self._hashes(name))
                )
            return self._read(name, hash)
        candidates = [
            (candidate, hash)
            for candidate in ([name] if name else names)
            for hash in self._hashes(candidate)
            if hash.startswith(prefix or "")
        ]
        if not candidates:
            if name:
                stored = _listed((name, hash) for hash in self._hashes(name))
                raise MvmError(f"{name} has no revision {prefix}; it has {stored}")
            raise MvmError(
                f"no revision's name or hash is or starts with {prefix!r}; {_known(names)}"
            )
        if len(candidates) > 1:
            raise MvmError(f"{text!r} is ambiguous; it can mean {_listed(candidates)}")
        return self._read(*candidates[0])

    def summaries(self) -> list[RevisionSummary]:
        """Summarise all revisions, by name and then from the newest to the oldest.

        Only the directories are read, not what the revisions hold.
        """
        self._check_schema()
        summaries = []
        for name in self._names():
            current = self._current(name)
            found = [self._summary(name, hash, current) for hash in self._hashes(name)]
            summaries += sorted(found, key=lambda s: s.registeredAt, reverse=True)
        return summaries

    def _summary(self, name: str, hash: str, current: str | None) -> RevisionSummary:
        path = self._templates / name / "revisions" / hash
        for rootfs in ROOT_FILE_SYSTEMS:
            try:
                status = (path / rootfs).stat()
            except FileNotFoundError:
                continue
            return RevisionSummary(
                name=name,
                hash=hash,
                rootfs=rootfs.removeprefix("rootfs."),
                sizeBytes=status.st_size + (path / KERNEL).stat().st_size,
                current=hash == current,
                registeredAt=datetime.fromtimestamp(int(status.st_mtime), UTC),
            )
        raise MvmError(f"{path} holds no root file system; remove it and register it again")

    def _read(self, name: str, hash: str) -> Revision:
        path = self._templates / name / "revisions" / hash
        return Revision(name, hash, path, read_guest(path))

    def _names(self) -> list[str]:
        return _listing(self._templates)

    def _hashes(self, name: str) -> list[str]:
        return [
            entry
            for entry in _listing(self._templates / name / "revisions")
            if _HASH.fullmatch(entry)
        ]

    def _current(self, name: str) -> str | None:
        try:
            hash = (self._templates / name / CURRENT).readlink().name
        except FileNotFoundError:
            return None
        return hash if _HASH.fullmatch(hash) else None

    def _check_schema(self) -> None:
        file = self.data_dir / "registry.json"
        try:
            schema = json.loads(file.read_bytes())["schema"]
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError):
            raise MvmError(f'{file} is damaged; restore it as {{"schema": {SCHEMA}}}') from None
        if not isinstance(schema, int) or schema > SCHEMA:
            raise MvmError(
                f"{self.data_dir} needs an mvm-guest that reads registry schema {schema}, and "
                f"{__version__} reads up to {SCHEMA}; upgrade it"
            )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[Path]:
        """Hold the registry for writing, and give a directory that vanishes afterwards.

        What a killed process left there is removed first: nobody else can be using it.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        staging = self.data_dir / "staging"
        with FileLock(self.data_dir / "registry.lock"):
            self._check_schema()
            shutil.rmtree(staging, ignore_errors=True)
            staging.mkdir()
            try:
                if not (self.data_dir / "registry.json").exists():
                    files.write_json(self.data_dir / "registry.json", {"schema": SCHEMA}, staging)
                yield staging
            finally:
                shutil.rmtree(staging, ignore_errors=True)


def manifest_hash(hashes: Mapping[str, str]) -> str:
    """Return the hash of a revision whose bundle has these files, name to SHA-256 in hex."""
    manifest: dict[str, Any] = {"files": dict(hashes), "schema": SCHEMA}
    canonical = json.dumps(manifest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _revision(template: Path, hashes: Mapping[str, str]) -> Path:
    return template / "revisions" / manifest_hash(hashes)


def _listing(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _listed(candidates: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> str:
    shown = [f"{name}@{hash[:SHORT]}" for name, hash in candidates]
    rest = f" and {len(shown) - 10} more" if len(shown) > 10 else ""
    return ", ".join(shown[:10]) + rest


def _known(names: list[str]) -> str:
    if not names:
        return "none is stored yet, so `mvm-guest register` one"
    rest = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return f"there are {', '.join(names[:10])}{rest}"
