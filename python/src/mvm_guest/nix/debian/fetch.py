"""Puts what the debian package set pins into the Nix store, each file downloaded by its own registry's client.

The Nix side marks its fixed-output derivations (``mkguest/debian/fetch.nix``); here a dry run says which of them a
build still lacks, and only those are downloaded, checked by hash, and added.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mvm_guest import process, settings
from mvm_guest.errors import MvmError
from mvm_guest.nix import source
from mvm_guest.nix.command import nix, path_reference
from mvm_guest.nix.debian import bootstrap, wheels
from mvm_guest.nix.debian.apt import Apt

BATCH = 25
REFRESH = "`mvm-guest debian lock` makes a lock of what the mirror has now"


class MissingFromMirror(MvmError):
    """The lock pins what its registry no longer has, or has with another content."""


@dataclass(frozen=True)
class Missing:
    """A file that a build needs and the store lacks: its store name, its hash, and whose client downloads it."""

    store_name: str
    sha256: str
    client: str
    what: str
    lock: str


Report = Callable[[str], None]


def prefetch(arguments: Sequence[str], report: Report | None = None) -> None:
    """Download what ``nix build ARGUMENTS`` needs of the debian package set and the store lacks.

    Raises `MissingFromMirror` naming each file that cannot be had, and leaves those that could in the store.
    """
    report = report or _say
    missing = find_missing(arguments)
    if not missing:
        return
    by_client: dict[str, list[Missing]] = {}
    for one in missing:
        by_client.setdefault(one.client, []).append(one)
    cache = settings.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as name:
        scratch = Path(name)
        apt = Apt(cache)
        if by_client.keys() & {"apt", "apt-source", "bootstrap"}:
            report("reading the package lists of Debian stable")
            apt.update()
        _bootstrap(by_client.pop("bootstrap", []), apt, scratch)
        _debs(by_client.pop("apt", []), apt, scratch, report)
        _sources(by_client.pop("apt-source", []), apt, scratch, report)
        _wheels(by_client.pop("pip", []), scratch, report)
        _crates(by_client.pop("cargo", []), scratch, report)


def find_missing(arguments: Sequence[str]) -> list[Missing]:
    """What a dry run of ``nix build ARGUMENTS`` would have to download."""
    plan = process.run(nix("build", "--dry-run", *arguments)).stderr
    derivations = re.findall(r"^\s+(/\S+\.drv)$", plan, re.MULTILINE)
    if not derivations:
        return []
    described = json.loads(process.run(nix("show-derivation", *derivations)).stdout)
    return [
        Missing(
            store_name=env["name"],
            sha256=env["outputHash"],
            client=env["mvmClient"],
            what=env["mvmWhat"],
            lock=env.get("mvmLock", ""),
        )
        for env in (one["env"] for one in described.get("derivations", described).values())
        if "mvmClient" in env
    ]


def _bootstrap(missing: Iterable[Missing], apt: Apt, scratch: Path) -> None:
    for one in missing:
        folder = scratch / "bootstrap"
        folder.mkdir()
        _apt_download(apt, [one.what], folder)
        tree = bootstrap.unpack(next(folder.glob("*.deb")), folder)
        _add(tree, "--recursive")


def _debs(missing: Sequence[Missing], apt: Apt, scratch: Path, report: Report) -> None:
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        report(f"downloading Debian packages ({start + len(batch)} of {len(missing)})")
        folder = scratch / f"debs-{start}"
        folder.mkdir()
        _apt_download(apt, [one.what for one in batch], folder)
        _add_checked(batch, folder.iterdir())
        shutil.rmtree(folder)


def _apt_download(apt: Apt, versions: list[str], folder: Path) -> None:
    """Download, and where versions are gone, look once more with fresh lists before naming them."""
    try:
        apt.download(versions, folder)
    except process.ProgramFailed:
        apt.update(force=True)
        try:
            apt.download(versions, folder)
        except process.ProgramFailed as error:
            gone = re.findall(r"Version '([^']+)' for '([^']+)' was not found", error.output)
            unknown = re.findall(r"Unable to locate package (\S+)", error.output)
            if not gone and not unknown:
                raise
            named = [f"{name} {version}" for version, name in gone] + unknown
            raise MissingFromMirror(
                f"the Debian mirror no longer has {', '.join(named)}, which the lock pins: {REFRESH}"
            ) from None


def _sources(missing: Sequence[Missing], apt: Apt, scratch: Path, report: Report) -> None:
    for what in sorted({one.what for one in missing}):
        report(f"downloading the source of {what}")
        folder = scratch / f"source-{what}"
        folder.mkdir()
        name, _, version = what.partition("=")
        try:
            apt.download_source(name, version, folder)
        except process.ProgramFailed as error:
            raise MissingFromMirror(
                f"the Debian mirror no longer has the source of {name} {version}, which the lock pins: {REFRESH}"
            ) from error
        _add_checked([one for one in missing if one.what == what], folder.iterdir())


def _wheels(missing: Sequence[Missing], scratch: Path, report: Report) -> None:
    for one in missing:
        report(f"downloading {one.what}")
        folder = scratch / f"wheel-{one.what}"
        folder.mkdir()
        project, _, version = one.what.partition("==")
        _add_checked([one], [wheels.download(project, version, folder)])


def _crates(missing: Sequence[Missing], scratch: Path, report: Report) -> None:
    """Let the set's own cargo download every crate of each lock file that a build lacks crates of."""
    if not missing:
        return
    cargo = _cargo()
    for number, lock in enumerate(sorted({one.lock for one in missing})):
        wanted = [one for one in missing if one.lock == lock]
        report(f"downloading {len(wanted)} Rust crates")
        project, home = scratch / f"crates-{number}", scratch / f"cargo-{number}"
        (project / "src").mkdir(parents=True)
        (project / "src" / "lib.rs").touch()
        (project / "Cargo.toml").write_text(_manifest(Path(lock), wanted))
        home.mkdir()
        own = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
        for name in ("config.toml", "credentials.toml"):
            if (own / name).exists():
                shutil.copy(own / name, home / name)
        process.run(
            [cargo, "fetch", "--manifest-path", project / "Cargo.toml"],
            env={**os.environ, "CARGO_HOME": str(home)},
        )
        _add_checked(wanted, home.glob("registry/cache/*/*.crate"))


def _manifest(lock: Path, wanted: Iterable[Missing]) -> str:
    """A manifest that depends on exactly the crates of a Cargo.lock, and on `wanted`, which may be the lock's own crate.

    They fit together, for one lock holds them.
    """
    locked = tomllib.loads(lock.read_text())["package"]
    crates = {
        (package["name"], package["version"])
        for package in locked
        if package.get("source", "").startswith("registry+")
    }
    for one in wanted:
        name, _, version = one.what.partition("@")
        crates.add((name, version))
    lines = ['[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]']
    for number, (name, version) in enumerate(sorted(crates)):
        package = (
            f"package = {json.dumps(name)}, version = {json.dumps('=' + version.split('+')[0])}"
        )
        lines.append(f"c{number} = {{ {package}, default-features = false }}")
    return "\n".join(lines) + "\n"


def _cargo() -> Path:
    flake = f"{path_reference(source.debian_flake())}#cargo"
    prefetch([flake])
    built = json.loads(process.run(nix("build", "--no-link", "--json", flake)).stdout)
    return Path(built[0]["outputs"]["out"]) / "bin" / "cargo"


def _add_checked(wanted: Iterable[Missing], files: Iterable[Path]) -> None:
    """Add each of `wanted` from the one of `files` that has its hash. Raises `MissingFromMirror` for the others."""
    by_hash = {}
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                by_hash[hashlib.file_digest(content, "sha256").hexdigest()] = file
    changed = []
    for one in wanted:
        file = by_hash.get(one.sha256)
        if file is None:
            changed.append(one.what)
        else:
            _add(file.rename(file.with_name(one.store_name)))
    if changed:
        raise MissingFromMirror(
            f"what was downloaded for {', '.join(changed)} is not what the lock pins (its hash differs): {REFRESH}"
        )


def _add(path: Path, *options: str) -> None:
    process.run(["nix-store", "--add-fixed", *options, "sha256", str(path)])


def _say(message: str) -> None:
    print(message, file=sys.stderr)
