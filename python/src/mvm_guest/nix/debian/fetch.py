"""Puts what the debian package set pins into the Nix store, downloaded by each registry's client.

The Nix side marks its fixed-output derivations (``mkguest/debian/fetch.nix``); here a dry run says
which of them a build still lacks, and only those are downloaded, checked by hash, and added.
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
from pathlib import Path

from mvm_guest import process, settings
from mvm_guest.nix import source
from mvm_guest.nix.command import nix, path_reference
from mvm_guest.nix.debian import bootstrap, wheels
from mvm_guest.nix.debian.apt import Apt
from mvm_guest.nix.debian.mirror import REFRESH, MissingFromMirror, PinnedFile, dropped, refusal

BATCH = 25

Report = Callable[[str], None]


def prefetch(arguments: Sequence[str], report: Report | None = None) -> None:
    """Download what ``nix build ARGUMENTS`` needs of the debian package set and the store lacks.

    Raises `MissingFromMirror`, which names all that cannot be had, before anything is downloaded.
    """
    report = report or _say
    missing = find_missing(arguments)
    if not missing:
        return
    by_client: dict[str, list[PinnedFile]] = {}
    for one in missing:
        by_client.setdefault(one.client, []).append(one)
    cache = settings.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="download-") as name:
        scratch = Path(name)
        apt = Apt(cache)
        if by_client.keys() & {"apt", "apt-source", "bootstrap"}:
            report("reading the package lists of Debian stable")
            if gone := dropped(missing, apt):
                raise refusal(gone)
        try:
            _bootstrap(by_client.pop("bootstrap", []), apt, scratch)
            _debs(by_client.pop("apt", []), apt, scratch, report)
            _sources(by_client.pop("apt-source", []), apt, scratch, report)
        except process.ProgramFailed:
            # The mirror may have moved on after its index was read.
            apt.update(force=True)
            if gone := dropped(missing, apt):
                raise refusal(gone) from None
            raise
        _wheels(by_client.pop("pip", []), scratch, report)
        _crates(by_client.pop("cargo", []), scratch, report)


def find_missing(arguments: Sequence[str]) -> list[PinnedFile]:
    """What a dry run of ``nix build ARGUMENTS`` would have to download."""
    plan = process.run(nix("build", "--dry-run", *arguments)).stderr
    derivations = re.findall(r"^\s+(/\S+\.drv)$", plan, re.MULTILINE)
    if not derivations:
        return []
    described = json.loads(process.run(nix("show-derivation", *derivations)).stdout)
    return [
        PinnedFile(
            store_name=env["name"],
            sha256=env["outputHash"],
            client=env["mvmClient"],
            what=env["mvmWhat"],
            lock=env.get("mvmLock", ""),
        )
        for env in (one["env"] for one in described.get("derivations", described).values())
        if "mvmClient" in env
    ]


def _bootstrap(missing: Iterable[PinnedFile], apt: Apt, scratch: Path) -> None:
    for one in missing:
        folder = scratch / "bootstrap"
        folder.mkdir()
        apt.download([one.what], folder)
        tree = bootstrap.unpack(next(folder.glob("*.deb")), folder)
        if bootstrap.nar_hash(tree) != one.sha256:
            raise _changed([one.what])
        _add(tree, "--recursive")


def _debs(missing: Sequence[PinnedFile], apt: Apt, scratch: Path, report: Report) -> None:
    for start in range(0, len(missing), BATCH):
        batch = missing[start : start + BATCH]
        report(f"downloading Debian packages ({start + len(batch)} of {len(missing)})")
        folder = scratch / f"debs-{start}"
        folder.mkdir()
        apt.download([one.what for one in batch], folder)
        _add_checked(batch, folder.iterdir())
        shutil.rmtree(folder)


def _sources(missing: Sequence[PinnedFile], apt: Apt, scratch: Path, report: Report) -> None:
    for what in sorted({one.what for one in missing}):
        report(f"downloading the source of {what}")
        folder = scratch / f"source-{what}"
        folder.mkdir()
        name, _, version = what.partition("=")
        apt.download_source(name, version, folder)
        _add_checked([one for one in missing if one.what == what], folder.iterdir())


def _wheels(missing: Sequence[PinnedFile], scratch: Path, report: Report) -> None:
    for one in missing:
        report(f"downloading {one.what}")
        folder = scratch / f"wheel-{one.what}"
        folder.mkdir()
        project, _, version = one.what.partition("==")
        _add_checked([one], [wheels.download(project, version, folder)])


def _crates(missing: Sequence[PinnedFile], scratch: Path, report: Report) -> None:
    """Let the set's own cargo download all crates of each lock that a build lacks crates of."""
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


def _manifest(lock: Path, wanted: Iterable[PinnedFile]) -> str:
    """A manifest that depends on exactly the crates of a Cargo.lock, and on `wanted`.

    They fit together, for one lock holds them; its own crate may be among `wanted`.
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


def _add_checked(wanted: Sequence[PinnedFile], files: Iterable[Path]) -> None:
    """Add each of `wanted` from the one of `files` that has its hash.

    Raises `MissingFromMirror` for the others.
    """
    by_hash = {}
    for file in files:
        if file.is_file():
            with file.open("rb") as content:
                by_hash[hashlib.file_digest(content, "sha256").hexdigest()] = file
    changed = [one.what for one in wanted if one.sha256 not in by_hash]
    for one in wanted:
        if found := by_hash.get(one.sha256):
            _add(found.rename(found.with_name(one.store_name)))
    if changed:
        raise _changed(changed)


def _changed(what: Sequence[str]) -> MissingFromMirror:
    return MissingFromMirror(
        f"what was downloaded for {', '.join(what)} is not what the lock pins: {REFRESH}"
    )


def _add(path: Path, *options: str) -> None:
    process.run(["nix-store", "--add-fixed", *options, "sha256", str(path)])


def _say(message: str) -> None:
    print(message, file=sys.stderr)
