"""Reads a bundle, the result of building a guest, and refuses what is none.

A bundle is a directory that holds `vmlinux`, one root file system and `guest.json` (schema 1),
all regular files. Storing and running it are left to others.
"""

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mvm_guest.errors import MvmError

SCHEMA = 1
KERNEL = "vmlinux"
DESCRIPTION = "guest.json"
ROOT_FILE_SYSTEMS = ("rootfs.ext4", "rootfs.squashfs")

_DESCRIPTION_LIMIT = 16 * 1024 * 1024
_ELF_MACHINE_X86_64 = 62


class _Model(BaseModel):
    # What a later minor version adds to schema 1 is carried along unread.
    model_config = ConfigDict(frozen=True, strict=True, extra="ignore")


class Verity(_Model):
    """Where the dm-verity hash tree starts in the root file system, and what it must hash to."""

    offset: int
    rootHash: str


class Rootfs(_Model):
    """The root file system; `sizeBytes` is the size of its file."""

    type: Literal["ext4", "squashfs"]
    file: str
    sizeBytes: int
    label: str | None = None
    verity: Verity | None = None


class Kernel(_Model):
    """The kernel's version and the arguments that it must be booted with."""

    version: str | None
    bootArgs: str


class Agent(_Model):
    """The guest agent's version and its vsock port."""

    version: str | None
    port: int


class Resources(_Model):
    """What the guest asks for where nobody says otherwise."""

    vcpus: int = Field(default=1, ge=1)
    memMib: int = Field(default=256, ge=1)
    dataMib: int = Field(default=0, ge=0)


class PackageSet(_Model):
    """The package set that the guest was built from."""

    name: str
    narHash: str | None = None


class Guest(_Model):
    """`guest.json`: what is inside a bundle, with the field names of the file."""

    schema_: Literal[1] = Field(alias="schema")
    name: str
    system: Literal["x86_64-linux", "aarch64-linux"]
    hostname: str
    serviceGroup: str
    variant: Literal["prod", "dev"]
    rootfs: Rootfs
    kernel: Kernel
    agent: Agent
    resources: Resources = Resources()
    mountPoints: list[str] = []
    services: list[str] = []
    healthChecks: list[str] = []
    probes: list[str] = []
    packageSet: PackageSet


@dataclass(frozen=True)
class Bundle:
    """A bundle that was found in order. `files` holds each file's size in bytes by its name."""

    path: Path
    guest: Guest
    files: dict[str, int]


def read(path: Path) -> Bundle:
    """Read and check the bundle at `path`, which may be a link to it such as `./result`.

    Raises MvmError for whatever is not a complete bundle.
    """
    try:
        root = path.resolve(strict=True)
        entries = sorted(os.scandir(root), key=lambda entry: entry.name)
    except FileNotFoundError:
        raise MvmError(f"there is no bundle at {path}; make one with `mvm-guest build`") from None
    except (NotADirectoryError, RuntimeError):
        raise _not_a_bundle(path, "it is no directory") from None
    files = {}
    for entry in entries:
        status = entry.stat(follow_symlinks=False)
        if not stat.S_ISREG(status.st_mode):
            raise _not_a_bundle(path, f"{entry.name} in it is no regular file")
        files[entry.name] = status.st_size
    if DESCRIPTION not in files:
        raise _not_a_bundle(path, f"it holds no {DESCRIPTION}")
    guest = read_guest(root)
    _check_rootfs(path, root, guest, files)
    _check_kernel(path, root, guest, files)
    return Bundle(root, guest, files)


def read_guest(directory: Path) -> Guest:
    """Read `guest.json` of a bundle or a revision. Raises MvmError."""
    file = directory / DESCRIPTION
    if file.stat().st_size > _DESCRIPTION_LIMIT:
        raise MvmError(f"{file} is larger than {_DESCRIPTION_LIMIT >> 20} MiB; build it again")
    content = file.read_bytes()
    try:
        return Guest.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        given = first.get("input")
        if place == "schema" and isinstance(given, int) and given > SCHEMA:
            raise MvmError(
                f"{file} has schema {given}, and this mvm-guest reads up to {SCHEMA}; "
                "use the mvm-guest that built it, or a newer one"
            ) from None
        at = f"{place}: " if place else ""
        raise MvmError(f"{file} does not describe a guest: {at}{first['msg'].lower()}") from None


def _check_rootfs(path: Path, root: Path, guest: Guest, files: dict[str, int]) -> None:
    found = [name for name in ROOT_FILE_SYSTEMS if name in files]
    if len(found) != 1:
        what = "no root file system" if not found else "two root file systems"
        raise _not_a_bundle(path, f"it holds {what} where one of {_either()} belongs")
    rootfs = guest.rootfs
    if rootfs.file != found[0] or rootfs.file != f"rootfs.{rootfs.type}":
        raise _not_a_bundle(
            path, f"{DESCRIPTION} speaks of {rootfs.type} in {rootfs.file}, but it holds {found[0]}"
        )
    if rootfs.sizeBytes != files[rootfs.file]:
        raise _not_a_bundle(
            path,
            f"{rootfs.file} has {files[rootfs.file]} bytes where {DESCRIPTION} says "
            f"{rootfs.sizeBytes}",
        )
    at, magic = {"ext4": (1080, b"\x53\xef"), "squashfs": (0, b"hsqs")}[rootfs.type]
    if _bytes_at(root / rootfs.file, at, len(magic)) != magic:
        raise _not_a_bundle(path, f"{rootfs.file} holds no {rootfs.type} file system")


def _check_kernel(path: Path, root: Path, guest: Guest, files: dict[str, int]) -> None:
    if KERNEL not in files:
        raise _not_a_bundle(path, f"it holds no kernel ({KERNEL})")
    head = _bytes_at(root / KERNEL, 0, 64)
    if guest.system == "x86_64-linux":
        machine = int.from_bytes(head[18:20], "little")
        fits = head[:4] == b"\x7fELF" and machine == _ELF_MACHINE_X86_64
        wanted = "an uncompressed x86-64 ELF kernel"
    else:
        fits = head[56:60] == b"ARM\x64"
        wanted = "an arm64 Image"
    if not fits:
        raise _not_a_bundle(path, f"{KERNEL} is not {wanted}, as {guest.system} needs")


def _bytes_at(file: Path, offset: int, count: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(offset)
        return stream.read(count)


def _either() -> str:
    return " or ".join(ROOT_FILE_SYSTEMS)


def _not_a_bundle(path: Path, reason: str) -> MvmError:
    return MvmError(f"{path} is not a bundle: {reason}")
