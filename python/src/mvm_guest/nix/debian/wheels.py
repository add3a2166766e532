"""Files of the debian package set that Debian lacks and PyPI has, locked and downloaded by pip."""

from __future__ import annotations

import hashlib
import sys
import tempfile
from pathlib import Path

from mvm_guest import process

PLATFORM = "manylinux_2_28_x86_64"
OLDER_PLATFORM = "manylinux2014_x86_64"
# Debian stable's, whatever this process is: only files are taken out of a wheel.
PYTHON = "3.13"


def resolve(project: str, version: str) -> dict[str, str | int]:
    """The wheel of `project` at `version`: its file name, SHA-256 and size in bytes."""
    with tempfile.TemporaryDirectory() as scratch:
        wheel = download(project, version, Path(scratch))
        content = wheel.read_bytes()
        return {
            "version": version,
            "file": wheel.name,
            "sha256": hashlib.sha256(content).hexdigest(),
            "size": len(content),
        }


def download(project: str, version: str, into: Path) -> Path:
    """Download the wheel into the folder `into`. Raises `ProgramFailed` where pip cannot."""
    argv = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    argv += ["--platform", PLATFORM, "--platform", OLDER_PLATFORM, "--python-version", PYTHON]
    process.run([*argv, "--dest", str(into), f"{project}=={version}"])
    return next(into.glob("*.whl"))
