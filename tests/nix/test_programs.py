"""The programs of the debian set, each run by a build that sees nothing but its closure."""

from collections.abc import Callable
from pathlib import Path

import pytest

Build = Callable[[str], Path]


@pytest.mark.parametrize(
    "name",
    [
        *("bash", "bashInteractive", "busybox", "cacert", "coreutils", "curl", "debianPackage"),
        *("e2fsprogs", "git", "jq", "nginx", "nodejs", "nodejs_22", "postgresql", "python3"),
        *("redis", "ripgrep", "squashfsTools", "util-linux", "withPackages"),
    ],
)
def test_a_program_runs_where_nothing_is_but_its_closure(build: Build, name: str) -> None:
    assert build(f"runs-{name}").read_text()


def test_no_library_is_looked_for_outside_the_store(build: Build) -> None:
    assert int(build("runs-libraries").read_text()) > 300
