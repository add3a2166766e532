"""What a guest specification may say: the names are those of mkGuest's arguments.

What mkGuest itself checks better, such as two users with one uid, is left to it.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from mvm_guest.names import GUEST_PATTERN, PART_PATTERN


def _writable_in_nix(text: str) -> str:
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in text):
        raise ValueError("text cannot hold null characters or unpaired surrogates")
    return text


Text = Annotated[str, AfterValidator(_writable_in_nix)]
GuestName = Annotated[str, StringConstraints(pattern=GUEST_PATTERN)]
PartName = Annotated[str, StringConstraints(pattern=PART_PATTERN)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PackagePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_][A-Za-z0-9_+-]*)*$")
]
Positive = Annotated[int, Field(ge=1, le=2**31 - 1)]
Natural = Annotated[int, Field(ge=0, le=2**31 - 1)]


class _Model(BaseModel):
    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", use_attribute_docstrings=True
    )


class Service(_Model):
    """A long-running program, supervised and started again with back-off."""

    command: Text
    """Command line, run by /bin/sh -c."""
    env: dict[VariableName, Text] = {}
    """Environment; a value on the config drive wins."""
    user: PartName | None = None
    """Who it runs as, never root; a user of its own by default."""


class HealthCheck(_Model):
    """A command that tells by its exit status whether something is well."""

    healthCmd: Text
    """Command line, run by /bin/sh -c as the user of the service of the same name."""
    healthIntervalSecs: Positive = 30
    """Seconds from one run to the next."""
    healthTimeoutSecs: Positive = 10
    """Seconds after which a run has failed."""
    startupGraceSecs: Natural = 0
    """Seconds after the start in which a failure does not count."""
    checkpointCmd: Text | None = None
    """Run before the guest is put to sleep."""
    restoreCmd: Text | None = None
    """Run after the guest woke up."""
    critical: bool = False
    """Whether a failing checkpointCmd stops the guest from being put to sleep."""


class GuestSpec(_Model):
    """A guest for Firecracker microVMs."""

    name: GuestName
    """Name of the guest, and of its revisions."""
    packages: list[PackagePath] = []
    """Packages in the guest, as attribute paths in the package set, such as python3."""
    services: dict[PartName, Service] = {}
    """What runs in the guest, by name."""
    healthChecks: dict[PartName, HealthCheck] = {}
    """What tells whether the guest is well, by name."""
    rootfs: Literal["ext4", "squashfs"] = "ext4"
    """Writable ext4, or small and read-only squashfs."""
    system: Literal["x86_64-linux", "aarch64-linux"] | None = None
    """What the guest runs on; by default the machine that builds it."""
    packageSet: Literal["nixpkgs", "debian"] | None = None
    """Where packages come from, unless a flag says otherwise."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a specification, as `templates/guest.schema.json`."""
    schema = GuestSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
