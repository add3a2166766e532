"""e2fsprogs, whose programs are not on every user's PATH."""

import os
import subprocess
from pathlib import Path

_ENVIRONMENT = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin", "LC_ALL": "C"}


def tool(*arguments: object) -> str:
    """Run a program to its end and return what it printed; it must not fail."""
    done = subprocess.run(
        [str(argument) for argument in arguments],
        env=_ENVIRONMENT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def state(image: Path) -> str:
    """Say how a filesystem was left: `clean`, `clean, journal not empty` or another state."""
    header = tool("dumpe2fs", "-h", image)
    fields = dict(line.split(":", 1) for line in header.splitlines() if ":" in line)
    recovery = "needs_recovery" in fields["Filesystem features"]
    return fields["Filesystem state"].strip() + (", journal not empty" if recovery else "")
