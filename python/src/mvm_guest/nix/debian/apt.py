"""A private apt for Debian stable beside the host's own, with its own lists and cache.

The mirror is the one that the machine's own apt configuration names, whatever release that is for.
See apt.conf(5) for the ``Dir`` options and apt-get(8) for ``indextargets``.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

from mvm_guest import process
from mvm_guest.errors import MvmError

RELEASE = "trixie"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
LISTS_FRESH_SECONDS = 3600


@dataclass(frozen=True)
class DebFile:
    """One version of a binary package as the mirror's index describes it."""

    name: str
    version: str
    path: str
    sha256: str
    size: int
    source: str
    depends: tuple[tuple[str, ...], ...]
    provides: tuple[str, ...]


class Apt:
    """apt-get and apt-cache on Debian stable for one architecture, as Debian names it (``amd64``).

    Raises `MvmError` where the machine names no Debian mirror, and `ProgramFailed` where apt fails.
    """

    def __init__(self, cache: Path, architecture: str = "amd64") -> None:
        self.root = cache / "apt" / f"{RELEASE}-{architecture}"
        self.architecture = architecture

    def update(self, *, force: bool = False) -> None:
        """Download the package lists, unless they are younger than an hour."""
        stamp = self.root / "updated"
        age = time.time() - stamp.stat().st_mtime if stamp.exists() else LISTS_FRESH_SECONDS
        if not force and age < LISTS_FRESH_SECONDS:
            return
        for folder in ("state/lists/partial", "cache/archives/partial"):
            (self.root / folder).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        suite = f"[signed-by={KEYRING}] {debian_mirror()} {RELEASE} main"
        (self.root / "sources.list").write_text(f"deb {suite}\ndeb-src {suite}\n")
        self._run("apt-get", "update", "--error-on=any")
        stamp.touch()

    def closure(self, name: str) -> list[str]:
        """What apt would install for `name` on an empty system, recommendations left out."""
        listing = self._run("apt-get", "install", "--simulate", name).stdout
        return re.findall(r"^Inst (\S+)", listing, re.MULTILINE)

    def show(self, names: Iterable[str]) -> dict[str, DebFile]:
        """What the index says of each of `names`."""
        listing = self._run("apt-cache", "show", "--no-all-versions", *names).stdout
        return {deb.name: deb for deb in map(_deb_file, _paragraphs(listing))}

    def offered(self, names: Iterable[str]) -> dict[tuple[str, str], str]:
        """The versions that the index has of `names`: (name, version) to SHA-256."""
        try:
            listing = self._run("apt-cache", "show", *names).stdout
        except process.ProgramFailed as error:
            if "No packages found" not in error.output:
                raise
            return {}
        debs = map(_deb_file, _paragraphs(listing))
        return {(deb.name, deb.version): deb.sha256 for deb in debs}

    def names(self) -> list[str]:
        """Every binary package of the release."""
        return self._run("apt-cache", "pkgnames").stdout.split()

    def sources(self, name: str) -> dict[str, dict[str, tuple[str, int]]]:
        """The source packages `name` in the index, the newest last.

        Version to the pool paths of its files, and these to (SHA-256, size in bytes).
        """
        listing = self._run("apt-cache", "showsrc", "--only-source", name).stdout
        return {
            source["Version"]: {
                f"{source['Directory']}/{file}": (sha256, int(size))
                for sha256, size, file in map(
                    str.split, source["Checksums-Sha256"].strip().splitlines()
                )
            }
            for source in _paragraphs(listing)
        }

    def download(self, versions: Iterable[str], into: Path) -> None:
        """Download binary packages, given as ``name=version``, as files into the folder `into`."""
        self._run("apt-get", "download", *versions, cwd=into)

    def download_source(self, name: str, version: str, into: Path) -> None:
        """Download, without unpacking, the files of a source package into the folder `into`."""
        self._run(
            "apt-get", "source", "--download-only", "--only-source", f"{name}={version}", cwd=into
        )

    def _run(self, program: str, *arguments: str, cwd: Path | None = None) -> CompletedProcess[str]:
        options = {
            "Dir::Etc::sourcelist": self.root / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Get::Install-Recommends": "false",
            "APT::Sandbox::User": "",
            "APT::Update::Post-Invoke-Success::": "",
            "Acquire::Languages": "none",
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
            "Acquire::Retries": "3",
        }
        argv = [program, "--quiet=2", "--yes"] if program == "apt-get" else [program]
        for key, value in options.items():
            argv += ["-o", f"{key}={value}"]
        return process.run([*argv, *arguments], cwd=cwd, env={**os.environ, "LC_ALL": "C.UTF-8"})


def debian_mirror() -> str:
    """The archive that the machine's own apt downloads Debian from, or ``MVM_DEBIAN_MIRROR``."""
    if mirror := os.environ.get("MVM_DEBIAN_MIRROR"):
        return mirror
    process.find(
        "apt-get",
        "the debian package set is downloaded by apt: install apt, or use --packages nixpkgs",
    )
    listing = process.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"]
    ).stdout
    for uri in listing.splitlines():
        if uri.rstrip("/").endswith("/debian"):
            return uri
    raise MvmError(
        "no Debian mirror is configured in this machine's apt: "
        "set MVM_DEBIAN_MIRROR to the address of one"
    )


def _paragraphs(listing: str) -> Iterator[dict[str, str]]:
    """Split deb822 text (deb-control(5)) into paragraphs; newlines join continuation lines."""
    for block in listing.split("\n\n"):
        fields: dict[str, str] = {}
        key = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                fields[key] += "\n" + line.strip()
            elif ":" in line:
                key, _, value = line.partition(":")
                fields[key] = value.strip()
        if fields:
            yield fields


def _deb_file(fields: dict[str, str]) -> DebFile:
    def alternatives(field: str) -> Iterator[tuple[str, ...]]:
        for group in fields.get(field, "").split(","):
            if group.strip():
                yield tuple(
                    re.split(r"[\s:(]", one.strip(), maxsplit=1)[0] for one in group.split("|")
                )

    return DebFile(
        name=fields["Package"],
        version=fields["Version"],
        path=fields["Filename"],
        sha256=fields["SHA256"],
        size=int(fields["Size"]),
        source=fields.get("Source", fields["Package"]).split()[0],
        depends=tuple(alternatives("Pre-Depends")) + tuple(alternatives("Depends")),
        provides=tuple(group[0] for group in alternatives("Provides")),
    )
