"""Where data lives and what is chosen by default: a flag beats a variable beats the file.

Variables are `MVM_<NAME>`; the file is `config.toml` in the data directory.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast

from mvm_guest.errors import UsageError

PackageSet = Literal["nixpkgs", "debian"]

_CHOICES = {"packages": ("nixpkgs", "debian")}
_DEFAULTS = {"packages": "nixpkgs"}


@dataclass(frozen=True)
class Settings:
    """What holds for one command."""

    data_dir: Path
    packages: PackageSet


def load(**flags: str | None) -> Settings:
    """Settle each setting from flag (None: not given), variable, file and default, in this order.

    Raises UsageError for a value that does not fit, with the place that it came from.
    """
    data_dir = _data_dir()
    file = data_dir / "config.toml"
    stored = _read(file)
    settled = {}
    for name, default in _DEFAULTS.items():
        variable = f"MVM_{name.upper()}"
        for place, value in (
            (f"--{name}", flags.get(name)),
            (variable, os.environ.get(variable) or None),
            (f"{file}: {name}", stored.get(name)),
        ):
            if value is not None:
                settled[name] = _checked(name, value, place)
                break
        else:
            settled[name] = default
    return Settings(data_dir=data_dir, packages=cast(PackageSet, settled["packages"]))


def cache_dir() -> Path:
    """The directory for what can be made again: `mvm-guest` in the user's cache directory."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG base directory specification: a relative path is to be ignored.
    base = Path(given) if given.startswith("/") else Path.home() / ".cache"
    return base / "mvm-guest"


def _data_dir() -> Path:
    given = os.environ.get("MVM_DATA_DIR")
    path = Path(given).expanduser() if given else Path.home() / ".mvm"
    return path.absolute()


def _read(file: Path) -> dict[str, object]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return {}
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text") from None
    import tomllib

    try:
        stored = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{file} is not TOML: {error}") from None
    for name in stored:
        if name not in _DEFAULTS:
            raise UsageError(f"{file}: {name!r} is no setting; known are {', '.join(_DEFAULTS)}")
    return stored


def _checked(name: str, value: object, place: str) -> str:
    if value not in _CHOICES[name]:
        raise UsageError(f"{place} is {value!r}; it can be {' or '.join(_CHOICES[name])}")
    return str(value)
