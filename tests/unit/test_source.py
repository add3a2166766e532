"""The project's own source as a flake input, and as the wheel carries it."""

import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from mvm_guest import project
from mvm_guest.nix import source

PYTHON = Path(__file__).parents[2] / "python"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "checkout"
    for name in (
        "flake.nix",
        "mkguest/default.nix",
        "mkguest/guest/init",
        "mkguest/debian/flake.nix",
        "mkguest/debian/lock.json",
        "mkguest/agent/target/debug/agent",
        "mkguest/debian/builders/__pycache__/unit.pyc",
        "mkguest/.hidden",
        "mkguest/result",
        "templates/flake.nix.j2",
        ".git/config",
        ".venv/bin/python",
        "README.md",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    (root / "mkguest/guest/init").chmod(0o755)
    monkeypatch.setattr(project, "root", lambda: root)
    return root


def files(directory: Path) -> set[str]:
    return {str(p.relative_to(directory)) for p in directory.rglob("*") if p.is_file()}


def test_only_what_nix_needs_is_staged(checkout: Path) -> None:
    staged = source.project_source()
    assert files(staged) == {
        "flake.nix",
        "mkguest/default.nix",
        "mkguest/guest/init",
        "mkguest/debian/flake.nix",
        "mkguest/debian/lock.json",
        "templates/flake.nix.j2",
    }
    assert os.access(staged / "mkguest/guest/init", os.X_OK)
    assert not os.access(staged / "mkguest/default.nix", os.X_OK)


def test_the_same_content_is_staged_once_and_a_change_anew(checkout: Path) -> None:
    first = source.project_source()
    assert source.project_source() == first
    (checkout / "README.md").write_text("changed")
    assert source.project_source() == first
    (checkout / "mkguest/default.nix").write_text("changed")
    second = source.project_source()
    assert second != first
    assert (second / "mkguest/default.nix").read_text() == "changed"
    (checkout / "mkguest/default.nix").chmod(0o755)
    assert source.project_source() not in (first, second)


def test_the_debian_set_is_staged_alone_and_with_another_lock(
    checkout: Path, tmp_path: Path
) -> None:
    own = source.debian_flake()
    assert files(own) == {"flake.nix", "lock.json"}
    (tmp_path / "debian.lock.json").write_text("other")
    other = source.debian_flake(tmp_path / "debian.lock.json")
    assert (other / "lock.json").read_text() == "other"
    assert (own / "lock.json").read_text() == "mkguest/debian/lock.json"


def test_what_was_not_used_for_long_is_forgotten(checkout: Path) -> None:
    old, kept = source.project_source(), source.debian_flake()
    long_ago = time.time() - 31 * 24 * 3600
    os.utime(old, (long_ago, long_ago))
    (checkout / "flake.nix").write_text("changed")
    source.project_source()
    assert not old.exists()
    assert kept.exists()


@pytest.mark.slow
def test_a_wheel_carries_the_source_and_works_outside_any_checkout(tmp_path: Path) -> None:
    subprocess.run(
        [
            *[sys.executable, "-m", "pip", "wheel", "--quiet", "--no-index", "--no-deps"],
            *["--no-build-isolation", "--wheel-dir", str(tmp_path), str(PYTHON)],
        ],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert "mvm_guest/_source/flake.nix" in names
    assert not [name for name in names if "/target/" in name or "__pycache__" in name]

    venv = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", venv], check=True)
    python = venv / "bin" / "python"
    # The dependencies are those that this test runs with.
    paths = [path for path in sys.path if path.endswith("site-packages")]
    site = next((venv / "lib").glob("python3*/site-packages"))
    (site / "dependencies.pth").write_text("\n".join(paths))
    subprocess.run(
        [
            *[str(python), "-m", "pip", "install", "--quiet", "--no-index", "--no-deps"],
            *["--ignore-installed", str(wheel)],
        ],
        check=True,
    )
    done = subprocess.run(
        [python, "-c", "from mvm_guest.nix import source; print(source.project_source())"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    # The name is the content's hash: the wheel's source is the checkout's, modes and all.
    assert Path(done.stdout.strip()) == source.project_source()
    assert (tmp_path / "venv" / "bin" / "mvm-guest").exists()
    where = subprocess.run(
        [python, "-c", "import mvm_guest; print(mvm_guest.__file__)"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert str(site) in where.stdout
