"""Builds the flake in `derivations`, with the debian set in nixpkgs' place."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from mvm_guest.nix import source
from mvm_guest.nix.command import error_in, nix, path_reference
from mvm_guest.nix.debian.fetch import prefetch

DERIVATIONS = Path(__file__).with_name("derivations")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))


@dataclass(frozen=True)
class Flake:
    """A flake, what its inputs are replaced by, and the /bin/sh of its builds."""

    reference: str
    overrides: tuple[str, ...]
    shell: Path

    def nix(self, command: str, *attributes: str) -> subprocess.CompletedProcess[str]:
        """Run a command of Nix on attributes of the flake."""
        return subprocess.run(
            nix(
                *command.split(),
                *(f"{self.reference}#{attribute}" for attribute in attributes),
                *self.overrides,
                "--no-write-lock-file",
            ),
            capture_output=True,
            text=True,
            check=False,
        )

    def build(self, *attributes: str, rebuild: bool = False) -> list[Path]:
        """Build attributes and return their store paths; `rebuild` compares with what is there."""
        command = "build --rebuild" if rebuild else "build"
        command += f" --option extra-sandbox-paths /bin/sh={self.shell}"
        done = self.nix(f"{command} --no-link --json", *attributes)
        assert done.returncode == 0, done.stderr[-4000:]
        return [Path(one["outputs"]["out"]) for one in json.loads(done.stdout)]

    def error(self, attribute: str) -> str:
        """Return the one error that stops the evaluation of an attribute."""
        done = self.nix("eval", attribute)
        assert done.returncode != 0, done.stdout
        return error_in(done.stderr) or done.stderr


@pytest.fixture(scope="session")
def flake() -> Flake:
    """The flake of what the tests build, with all downloaded that it needs."""
    debian = path_reference(source.debian_flake())
    overrides = (
        *("--override-input", "mvm", path_reference(source.project_source())),
        *("--override-input", "mvm/nixpkgs", debian),
    )
    reference = path_reference(DERIVATIONS)
    prefetch([f"{reference}#all", *overrides, "--no-write-lock-file"])
    # libc's popen(3) starts it, so that guests have one; in Nix's sandbox it is a matter of taste.
    built = subprocess.run(
        nix("build", "--no-link", "--json", f"{debian}#pkgsStatic.busybox"),
        capture_output=True,
        check=True,
    )
    busybox = Path(json.loads(built.stdout)[0]["outputs"]["out"])
    return Flake(reference, overrides, busybox / "bin" / "busybox")


@pytest.fixture(scope="session")
def build(flake: Flake) -> Callable[[str], Path]:
    """Build one attribute and return its store path."""
    return lambda attribute: flake.build(attribute)[0]
