"""The config drive: `config.json`, which says what the instance is, and what its user adds."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mvm_guest.drives import image
from mvm_guest.drives.tree import Directory, File, host_directory
from mvm_guest.errors import UsageError

LABEL = "mvm-config"
DESCRIPTION = "config.json"
ENVIRONMENT = "mvm-env.env"

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Description:
    """What `config.json` tells the guest; `volumes` maps guest paths to sizes in MiB."""

    name: str
    role: str
    revision: str
    vcpus: int
    mem_mib: int
    data_mib: int
    volumes: Mapping[str, int]

    def json(self) -> bytes:
        value = {
            "schema": 1,
            "name": self.name,
            "role": self.role,
            "revision": self.revision,
            "resources": {
                "vcpus": self.vcpus,
                "memMib": self.mem_mib,
                "dataMib": self.data_mib,
            },
            "volumes": [
                {"guestPath": path, "sizeMib": size} for path, size in self.volumes.items()
            ],
        }
        return json.dumps(value, indent=2, sort_keys=True).encode() + b"\n"


def make(
    path: Path, description: Description, environment: Mapping[str, str], directory: Path | None
) -> None:
    """Make the image of the config drive at `path`, with what `directory` holds.

    Raises UsageError for what cannot go into it, MvmError for what fails.
    """
    own = {DESCRIPTION: File.holding(description.json())}
    if environment:
        lines = "".join(f"{name}={value}\n" for name, value in environment.items())
        own[ENVIRONMENT] = File.holding(lines.encode(errors="surrogateescape"))
    if directory is None:
        image.make_read_only(path, LABEL, Directory({**own}), _attributes)
        return
    with host_directory(directory, "--config-dir") as given:
        for name, instead in (
            (DESCRIPTION, "use another name"),
            (ENVIRONMENT, "give its lines with --env"),
        ):
            if name in given.entries:
                raise UsageError(
                    f"--config-dir: {directory} holds a {name}, but that one is made for each "
                    f"instance; {instead}"
                )
        image.make_read_only(path, LABEL, Directory({**given.entries, **own}), _attributes)


def parse_environment(assignments: list[str]) -> dict[str, str]:
    """Read `KEY=VALUE` texts. Raises UsageError."""
    environment = {}
    for assignment in assignments:
        name, equals, value = assignment.partition("=")
        # Only the name is shown: people put secrets even here.
        if not equals or not _VARIABLE.fullmatch(name):
            raise UsageError(
                f"--env: {name!r} cannot be set; write NAME=VALUE, NAME being of letters, digits "
                "and '_'"
            )
        if "\n" in value or "\r" in value or "\0" in value:
            raise UsageError(f"--env: the value of {name} has a line break, which cannot be passed")
        environment[name] = value
    return environment


def _attributes(entry: File | Directory) -> image.Attributes:
    return image.Attributes(0o444 if isinstance(entry, File) else 0o555)
