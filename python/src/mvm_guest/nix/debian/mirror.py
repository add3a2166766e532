"""What of the pinned files the mirror still has, told from its index alone.

A mirror drops old versions at every point release. What it has dropped and the Nix store does not
hold cannot be built from any more: `dropped` says so before anything is downloaded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from mvm_guest import process
from mvm_guest.errors import MvmError
from mvm_guest.nix.command import nix
from mvm_guest.nix.debian.apt import Apt

REFRESH = "`mvm-guest debian lock` makes a lock of what the mirror has now"


class MissingFromMirror(MvmError):
    """The lock pins what its registry no longer has, or has with another content."""


@dataclass(frozen=True)
class PinnedFile:
    """A file by its store name and its hash, and `what` it is to the `client` that downloads it.

    `lock` is the Cargo.lock that pins a crate.
    """

    store_name: str
    sha256: str
    client: str
    what: str
    lock: str = ""


def pinned_and_not_stored(flake: str) -> list[PinnedFile]:
    """Return what the lock of the debian package set `flake` pins and the Nix store lacks."""
    pinned = json.loads(process.run(nix("eval", "--json", f"{flake}#pinned")).stdout)
    paths = [one.pop("path") for one in pinned]
    invalid = process.run(["nix-store", "--check-validity", "--print-invalid", *paths]).stdout
    lacking = set(invalid.split())
    return [PinnedFile(**one) for one, path in zip(pinned, paths, strict=True) if path in lacking]


def dropped(files: Sequence[PinnedFile], apt: Apt) -> list[PinnedFile]:
    """Return those of `files` that the mirror's index does not have, not even a fresh one."""
    if not files:
        return []
    apt.update()
    gone = _not_offered(files, apt)
    if gone:
        apt.update(force=True)
        gone = _not_offered(gone, apt)
    return gone


def refusal(gone: Iterable[PinnedFile]) -> MissingFromMirror:
    """Say in one sentence what is gone, and what to run."""
    names = sorted({one.what.replace("=", " ", 1) for one in gone})
    return MissingFromMirror(
        f"the Debian mirror no longer has {', '.join(names)} as the lock pins it: {REFRESH}"
    )


def _not_offered(files: Iterable[PinnedFile], apt: Apt) -> list[PinnedFile]:
    by_client: dict[str, list[tuple[PinnedFile, str, str]]] = {}
    for file in files:
        name, _, version = file.what.partition("=")
        by_client.setdefault(file.client, []).append((file, name, version))
    gone = []
    if debs := by_client.get("apt", []) + by_client.get("bootstrap", []):
        offered = apt.offered({name for _, name, _ in debs})
        for file, name, version in debs:
            # The bootstrap's hash is that of what is taken out of its package.
            found = offered.get((name, version))
            if found is None or (file.client == "apt" and found != file.sha256):
                gone.append(file)
    for file, name, version in by_client.get("apt-source", []):
        source = apt.sources(name).get(version, {})
        if file.sha256 not in {sha256 for sha256, _ in source.values()}:
            gone.append(file)
    return gone
