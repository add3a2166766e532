"""Guests that are built once, booted with drives of a test's own, and killed at its end."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from machine import Machine, booted, drives_in

from mvm_guest import bundle as bundles
from mvm_guest.nix import source
from mvm_guest.nix.build import build_flake
from mvm_guest.nix.command import path_reference

GUESTS = Path(__file__).with_name("guests")
ROOTFS = ("ext4", "squashfs")

Boot = Callable[..., contextlib.AbstractContextManager[Machine]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bundles.Bundle]:
    """Build one of the test flake's guests, or those of another flake, once for a session."""
    built: dict[tuple[Path, str], bundles.Bundle] = {}
    mvm = path_reference(source.project_source())
    links = tmp_path_factory.mktemp("results")

    def build(name: str, flake: Path = GUESTS) -> bundles.Bundle:
        if (flake, name) not in built:
            reference = f"{path_reference(flake)}#{name}"
            link = links / f"{len(built)}-{name}"
            build_flake(reference, packages="debian", mvm=mvm, out_link=link)
            built[flake, name] = bundles.read(link)
        return built[flake, name]

    return build


@pytest.fixture(params=ROOTFS)
def rootfs(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_drives(tmp_path: Path) -> Iterator[Callable[..., dict[str, Path]]]:
    """Make the drives of a guest; they are there for as long as the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *arguments, **options: stack.enter_context(
            drives_in(tmp_path / "drives", *arguments, **options)
        )


@pytest.fixture
def boot(
    tmp_path: Path, bundle_of: Callable[..., bundles.Bundle], make_drives: Callable[..., Any]
) -> Boot:
    """Boot a guest by its name, with drives of its own if it is given none."""

    @contextlib.contextmanager
    def start(
        name: str | bundles.Bundle, drives: dict[str, Path] | None = None, **options: Any
    ) -> Iterator[Machine]:
        bundle = bundle_of(name) if isinstance(name, str) else name
        directory = tmp_path / "machine"
        directory.mkdir(exist_ok=True)
        given = make_drives() if drives is None else drives
        with booted(directory, bundle, given, **options) as machine:
            yield machine

    return start


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `mvm-guest` as its users do, with a data directory of the test's own."""

    def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [Path(sys.executable).with_name("mvm-guest"), *map(str, arguments)],
            env={**os.environ, "MVM_DATA_DIR": str(tmp_path / "mvm"), "MVM_PACKAGES": "debian"},
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
