"""The examples that `init` writes: `templates/presets/<preset>/`."""

from pathlib import Path

from mvm_guest import project
from mvm_guest.errors import MvmError, UsageError

FILE = "guest.yaml"


def write_preset(preset: str, directory: Path) -> Path:
    """Write a preset's guest.yaml into `directory`, and return its path.

    Raises UsageError for an unknown preset, MvmError where there is a guest.yaml already.
    """
    presets = project.root() / "templates" / "presets"
    known = sorted(entry.name for entry in presets.iterdir())
    if preset not in known:
        raise UsageError(f"there is no preset {preset!r}; known are {', '.join(known)}")
    directory.mkdir(parents=True, exist_ok=True)
    target = directory / FILE
    try:
        with target.open("x", encoding="utf-8") as writer:
            writer.write((presets / preset / FILE).read_text(encoding="utf-8"))
    except FileExistsError:
        raise MvmError(f"{target} exists already; choose another directory") from None
    return target
