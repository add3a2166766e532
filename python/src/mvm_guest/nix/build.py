"""Builds a guest with `nix build`: from a flake reference or from a specification.

Which package set a guest is built from is always said by the caller; for the debian set, every
nixpkgs in the flake's input tree is replaced by it, and what the build lacks is downloaded first.
"""

import contextlib
import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvm_guest import process, settings
from mvm_guest.errors import MvmError, UsageError
from mvm_guest.nix import source
from mvm_guest.nix.command import error_in, nix, path_reference
from mvm_guest.nix.log import BuildLog
from mvm_guest.nix.progress import display
from mvm_guest.nix.render import render
from mvm_guest.settings import PackageSet
from mvm_guest.spec import Document

LOCK_NAME = "debian.lock.json"
DEBIAN_PACKAGES = "debianPackages."

_SHOWN_LOG_LINES = 10
_BUILD_FAILED = re.compile(
    r"(?:builder for|build of|Cannot build) '(/nix/store/\S+\.drv)'", re.IGNORECASE
)
_MISSING = re.compile(r"attribute '\"?([^'\"]+)\"?' missing(.*)", re.DOTALL)
_ARGUMENT = re.compile(r"mkGuest: ([^\s:]+): (.*)", re.DOTALL)
_PATH_PART = re.compile(r'\[\d+\]|"[^"]*"|[^.\[\]"]+')


def build_flake(
    reference: str, *, packages: PackageSet, mvm: str | None = None, out_link: Path | None = None
) -> Path:
    """Build what a flake reference means and return its store path.

    `mvm` replaces the flake's input of that name; `out_link` is where a link to the result is put.
    Raises MvmError.
    """
    for given in (reference, mvm or ""):
        if given.startswith("-"):
            raise UsageError(f"{given!r} is no flake reference")
    overrides = _override("mvm", mvm) if mvm else []
    if packages == "debian":
        flake = reference.partition("#")[0] or "."
        debian = _debian(Path(flake.removeprefix("path:")))
        overrides += _replaced_nixpkgs(flake, overrides, debian)
        overrides.append("--no-write-lock-file")
    return _build([reference, *overrides], packages, out_link)


def build_spec(
    document: Document,
    *,
    packages: PackageSet,
    mvm: str | None = None,
    out_link: Path | None = None,
) -> Path:
    """Build a specification and return the bundle's store path.

    `mvm` is the flake that provides mkGuest, by default this project's own. Raises MvmError, with
    the specification's line where it is to blame.
    """
    if (mvm or "").startswith("-"):
        raise UsageError(f"{mvm!r} is no flake reference")
    overrides = _override("mvm", mvm or path_reference(source.project_source()))
    if packages == "debian":
        overrides += _override("mvm/nixpkgs", _debian(document.file.parent))
    reference = path_reference(_flake_of(render(document.spec)))
    try:
        return _build([reference, *overrides, "--no-write-lock-file"], packages, out_link)
    except MvmError as error:
        raise _at_its_line(error, document, packages) from None


def _build(arguments: list[str], packages: PackageSet, out_link: Path | None) -> Path:
    if packages == "debian":
        from mvm_guest.nix.debian.fetch import prefetch

        with _nix_errors():
            prefetch(arguments)
    link = ["--out-link", out_link] if out_link else ["--no-link"]
    command = nix("build", *arguments, *link, "--json", "--log-format", "internal-json")
    child = process.spawn(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, new_session=False
    )
    with child, display() as show:
        log = BuildLog(show)
        log.read(child.stderr or ())
        result = child.stdout.read() if child.stdout else b""
    if child.returncode != 0:
        raise _failure(log, child.returncode)
    outputs = json.loads(result)[0]["outputs"]
    if "out" not in outputs:
        raise MvmError(f"{arguments[0]} has no output named 'out', so it is no guest")
    return Path(outputs["out"])


def _flake_of(text: str) -> Path:
    """Put a flake's text in a directory of its own below the cache, named by its content."""
    directory = settings.cache_dir() / "flakes" / hashlib.sha256(text.encode()).hexdigest()[:32]
    directory.mkdir(parents=True, exist_ok=True)
    beside = directory.with_name(f"{directory.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(directory / "flake.nix")
    return directory


def _debian(directory: Path) -> str:
    """Return the reference of the debian package set, as locked in `directory` if it is there."""
    lock = directory / LOCK_NAME
    return path_reference(source.debian_flake(lock if lock.is_file() else None))


def _override(input: str, reference: str) -> list[str]:
    return ["--override-input", input, reference]


def _replaced_nixpkgs(flake: str, overrides: list[str], debian: str) -> list[str]:
    """Return the overrides that put `debian` in place of each nixpkgs among a flake's inputs.

    The two usual ones are replaced before Nix is asked for the others, so that it fetches neither;
    for one that is not there it has but a warning.
    """
    usual = [*_override("mvm/nixpkgs", debian), *_override("nixpkgs", debian)]
    with _nix_errors():
        done = process.run(
            nix("flake", "metadata", flake, "--json", "--no-write-lock-file", *overrides, *usual)
        )
    nodes = json.loads(done.stdout)["locks"]["nodes"]
    return [
        argument
        for path in _nixpkgs_inputs(nodes, "root", ())
        for argument in _override("/".join(path), debian)
    ]


def _nixpkgs_inputs(
    nodes: dict[str, Any], node: str, path: tuple[str, ...]
) -> Iterator[tuple[str, ...]]:
    for name, target in nodes[node].get("inputs", {}).items():
        # A list is the path of another input that this one follows.
        if isinstance(target, str):
            original = nodes[target].get("original", {})
            if "nixpkgs" in (name, original.get("id"), original.get("repo")):
                yield (*path, name)
            else:
                yield from _nixpkgs_inputs(nodes, target, (*path, name))


@contextlib.contextmanager
def _nix_errors() -> Iterator[None]:
    """Reduce the failure of a program to the error that Nix reports in it, if it does."""
    try:
        yield
    except process.ProgramFailed as failed:
        error = error_in(failed.output)
        if error is None:
            raise
        raise MvmError(error) from failed


def _failure(log: BuildLog, returncode: int) -> MvmError:
    for error in log.errors:
        if found := _BUILD_FAILED.search(error):
            derivation = found[1]
            build = log.builds.get(derivation)
            lines = list(build.log)[-_SHOWN_LOG_LINES:] if build else []
            said = "".join(f"\n  {line}" for line in lines)
            return MvmError(
                f"building {build.name if build else derivation} failed; `nix log {derivation}` "
                f"shows all that it wrote" + (f", which ends:{said}" if said else "")
            )
    if log.errors:
        return MvmError(log.errors[0])
    return MvmError(f"nix build {process.how_it_ended(returncode)} and said nothing")


def _at_its_line(error: MvmError, document: Document, packages: PackageSet) -> MvmError:
    """Word an evaluation's error in terms of the specification that it comes from."""
    text = str(error)
    if found := _ARGUMENT.match(text):
        place = tuple(
            int(part[1:-1]) if part.startswith("[") else part.strip('"')
            for part in _PATH_PART.findall(found[1])
        )
        return UsageError(f"{document.where(place)}: {found[2]}")
    if found := _MISSING.search(text):
        for index, package in enumerate(document.spec.packages):
            if found[1] in package.split("."):
                where = document.where(("packages", index))
                problem = f"the {packages} package set has no {package}{found[2]}"
                if package.startswith(DEBIAN_PACKAGES):
                    name = package.removeprefix(DEBIAN_PACKAGES)
                    problem += f"; `mvm-guest debian lock {name}` adds it if Debian has it"
                return UsageError(f"{where}: {problem}")
    return error
