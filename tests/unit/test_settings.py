"""Where settings come from, and which one wins."""

from pathlib import Path

import pytest

from mvm_guest import settings
from mvm_guest.errors import UsageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data" / "config.toml"


def test_a_flag_beats_a_variable_beats_the_file_beats_the_default(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.load().packages == "nixpkgs"
    file.write_text('packages = "debian"\n')
    assert settings.load().packages == "debian"
    monkeypatch.setenv("MVM_PACKAGES", "nixpkgs")
    assert settings.load().packages == "nixpkgs"
    assert settings.load(packages="debian").packages == "debian"
    assert settings.load(packages=None).packages == "nixpkgs"


def test_data_lives_below_home_unless_a_variable_says_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.load().data_dir == tmp_path / "data"
    monkeypatch.delenv("MVM_DATA_DIR")
    assert settings.load().data_dir == tmp_path / "home" / ".mvm"


def test_the_cache_follows_the_base_directory_specification(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert settings.cache_dir() == tmp_path / "cache" / "mvm-guest"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert settings.cache_dir() == tmp_path / "home" / ".cache" / "mvm-guest"


def test_a_value_that_does_not_fit_is_refused_with_its_place(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="--packages is 'brew'; it can be nixpkgs or debian"):
        settings.load(packages="brew")
    monkeypatch.setenv("MVM_PACKAGES", "brew")
    with pytest.raises(UsageError, match="MVM_PACKAGES is 'brew'"):
        settings.load()
    monkeypatch.delenv("MVM_PACKAGES")
    file.write_text("packages = 3\n")
    with pytest.raises(UsageError, match=r"config\.toml: packages is 3"):
        settings.load()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"packages = ", r"config\.toml is not TOML"),
        (b"pakages = 'debian'\n", "'pakages' is no setting; known are packages"),
        (b"\xff", r"config\.toml is not UTF-8 text"),
    ],
)
def test_a_broken_file_is_refused(file: Path, content: bytes, says: str) -> None:
    file.write_bytes(content)
    with pytest.raises(UsageError, match=says):
        settings.load()
