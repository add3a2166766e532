"""The project's own source as a flake input, and as the wheel carries it."""

import os
import time
from pathlib import Path

import pytest

from mvm_guest import project
from mvm_guest.nix import source


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
