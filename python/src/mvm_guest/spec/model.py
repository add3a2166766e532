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


def _no_fixed_user(name: str) -> str:
    if name in ("root", "mvm-agent"):
        raise ValueError(f"the user {name} is mkGuest's own; choose another")
    return name


def _absolute(path: str) -> str:
    parts = path.split("/")
    if parts[0] or not path.isprintable() or {"", ".", ".."} & set(parts[1:]):
        raise ValueError("must be an absolute path without '.', '..', '//' and control characters")
    return path


Text = Annotated[str, AfterValidator(_writable_in_nix)]
GuestName = Annotated[str, StringConstraints(pattern=GUEST_PATTERN)]
PartName = Annotated[str, StringConstraints(pattern=PART_PATTERN)]
VariableName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
PackagePath = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_+-]*(\.[A-Za-z0-9_][A-Za-z0-9_+-]*)*$")
]
UserName = Annotated[str, StringConstraints(pattern=PART_PATTERN), AfterValidator(_no_fixed_user)]
GuestPath = Annotated[Text, AfterValidator(_absolute)]
FileMode = Annotated[str, StringConstraints(pattern=r"^0?[0-7]{3}$")]
Seccomp = Literal["essential", "minimal", "standard", "network", "unrestricted"]
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
    preStart: Text | None = None
    """Shell fragment, run as root before each start; what it exports reaches the command."""
    env: dict[VariableName, Text] = {}
    """Environment; a value on the config drive wins."""
    user: UserName | None = None
    """Who it runs as, never root; a user of its own by default."""
    seccomp: Seccomp = "standard"
    """Which system calls it may make."""
    logFile: GuestPath | None = None
    """Where what it prints is appended, rotated by size; the console by default."""


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


class Probe(_Model):
    """A command that looks at something without changing it."""

    cmd: Text
    """Command line, run by /bin/sh -c as the user of the service of the same name."""
    description: Text = ""
    """What it looks at."""
    intervalSecs: Positive = 30
    """Seconds from one run to the next."""
    timeoutSecs: Positive = 10
    """Seconds after which a run has failed."""
    outputFormat: Literal["exit_code", "json"] = "exit_code"
    """Whether its exit status alone says how it is, or what it prints, too."""


class User(_Model):
    """A user of the guest, a member of the service group."""

    uid: Annotated[int, Field(ge=1, le=65533)] | None = None
    """Number; by default one that depends on the name alone."""
    group: UserName | None = None
    """Primary group; one of the same name by default."""
    home: GuestPath | None = None
    """Home directory, /home/<name> by default."""


class ExtraFile(_Model):
    """A file that the guest's root file system holds besides."""

    content: Text
    """What it holds."""
    mode: FileMode = "0644"
    """Permissions, in octal digits."""


class Resources(_Model):
    """What the guest gets where nobody who runs it says otherwise."""

    vcpus: Positive = 1
    """Processors."""
    memMib: Positive = 256
    """Memory, in MiB."""
    dataMib: Natural = 0
    """Size of the data drive, in MiB; 0 for none."""


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
    probes: dict[PartName, Probe] = {}
    """What can be looked at from outside, by name."""
    users: dict[UserName, User] = {}
    """Users, by name; those of services need not stand here."""
    hostname: GuestName | None = None
    """The guest's name for itself; that of the guest by default."""
    serviceGroup: UserName = "mvm"
    """The group that may read the secrets."""
    rootfs: Literal["ext4", "squashfs"] = "ext4"
    """Writable ext4, or small and read-only squashfs."""
    extraFiles: dict[GuestPath, ExtraFile] = {}
    """Further files, by their absolute path."""
    mountPoints: list[GuestPath] = []
    """Where the data drive may be mounted, beside /data, /srv and /work."""
    resources: Resources = Resources()
    """What the guest gets by default."""
    freeSpaceMiB: Natural = 64
    """Room left free in an ext4 root file system, in MiB."""
    variant: Literal["prod", "dev"] = "prod"
    """With dev, the guest's agent runs commands for its host."""
    system: Literal["x86_64-linux", "aarch64-linux"] | None = None
    """What the guest runs on; by default the machine that builds it."""
    packageSet: Literal["nixpkgs", "debian"] | None = None
    """Where packages come from, unless a flag says otherwise."""


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of a specification, as `templates/guest.schema.json`."""
    schema = GuestSpec.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
