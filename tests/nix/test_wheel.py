"""What is installed from a wheel, outside any checkout, does what the checkout does."""

import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from mvm_guest.nix import source

PYTHON = Path(__file__).parents[2] / "python"

MvmGuest = Callable[..., str]


def python(*arguments: str | Path, program: Path = Path(sys.executable), cwd: Path) -> str:
    # The variable would lead whatever is started to this checkout's modules.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    ).stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel made of the source distribution, as a registry's users may get it."""
    place = tmp_path_factory.mktemp("wheel")
    python("-m", "hatchling", "build", "--target", "sdist", "--directory", place, cwd=PYTHON)
    (sdist,) = place.glob("*.tar.gz")
    offline = ["--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    python("-m", "pip", "wheel", *offline, "--wheel-dir", place, sdist, cwd=place)
    (wheel,) = place.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> MvmGuest:
    """Run the `mvm-guest` of a fresh environment, in an empty directory."""
    venv = tmp_path_factory.mktemp("venv")
    python("-m", "venv", venv, cwd=venv)
    # The dependencies are those that this test runs with; a .pth file in there has no effect.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    site = next((venv / "lib").glob("python3*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(paths))
    offline = ["--quiet", "--no-index", "--no-deps", "--ignore-installed"]
    python("-m", "pip", "install", *offline, wheel, program=venv / "bin/python", cwd=venv)
    where = "import mvm_guest; print(mvm_guest.__file__)"
    assert str(site) in python("-c", where, program=venv / "bin/python", cwd=venv)
    here = tmp_path_factory.mktemp("here")
    return lambda *arguments: python(*arguments, program=venv / "bin/mvm-guest", cwd=here)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> MvmGuest:
    """Run the checkout's `mvm-guest`, in another empty directory."""
    here = tmp_path_factory.mktemp("checkout")
    command = (
        "-c",
        f"import sys; sys.path.insert(0, {str(PYTHON / 'src')!r});"
        "from mvm_guest.cli import main; sys.exit(main())",
    )
    return lambda *arguments: python(*command, *arguments, cwd=here)


def test_a_wheel_carries_the_source_and_nothing_that_is_built(wheel: Path) -> None:
    carried = "mvm_guest/_source/"
    names = {
        name.removeprefix(carried)
        for name in zipfile.ZipFile(wheel).namelist()
        if name.startswith(carried)
    }
    root = source.project_source()
    assert names == {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}


def test_an_installed_tool_says_and_writes_what_the_checkout_does(
    installed: MvmGuest, checkout: MvmGuest
) -> None:
    assert installed("--version") == checkout("--version")
    assert installed("init", "hello") == checkout("init", "hello")
    assert installed("render", "hello/guest.yaml") == checkout("render", "hello/guest.yaml")


def test_an_installed_tool_builds_the_checkouts_bundle(
    installed: MvmGuest, checkout: MvmGuest
) -> None:
    for tool in (installed, checkout):
        tool("init", "guest")
    build = ("build", "guest/guest.yaml", "--packages", "debian")
    built = installed(*build)
    assert built.startswith("/nix/store/")
    assert built == checkout(*build)
