"""The one program that the debian package set starts from: a static busybox, unpacked by hand.

A derivation needs a builder before it can unpack anything, so this one store path is made outside
Nix and added by its hash, as a bootstrap tarball is in nixpkgs.
"""

from __future__ import annotations

import io
import lzma
import shutil
import tarfile
from pathlib import Path

from mvm_guest import process
from mvm_guest.errors import MvmError
from mvm_guest.nix.command import nix
from mvm_guest.nix.debian.apt import Apt, DebFile

STORE_NAME = "bootstrap-busybox"


def locked(apt: Apt, deb: DebFile, scratch: Path) -> str:
    """Make the tree in the folder `scratch` and return what a lock pins it by."""
    apt.download([f"{deb.name}={deb.version}"], scratch)
    return nar_hash(unpack(next(scratch.glob("busybox-static_*.deb")), scratch))


def nar_hash(tree: Path) -> str:
    """The SRI form of the hash that the store knows a tree by."""
    return process.run(nix("hash", "path", tree)).stdout.strip()


def unpack(deb: Path, into: Path) -> Path:
    """Write ``bin/busybox`` of the package `deb` below ``into/bootstrap-busybox``; return that."""
    tree = into / STORE_NAME
    shutil.rmtree(tree, ignore_errors=True)
    (tree / "bin").mkdir(parents=True)
    with tarfile.open(fileobj=io.BytesIO(lzma.decompress(_member(deb, "data.tar.xz")))) as data:
        program = data.extractfile("./usr/bin/busybox")
        if program is None:
            raise MvmError(f"{deb} holds no /usr/bin/busybox")
        (tree / "bin" / "busybox").write_bytes(program.read())
    (tree / "bin" / "busybox").chmod(0o555)
    return tree


def _member(deb: Path, name: str) -> bytes:
    """A member of an ar(5) archive, the format of a .deb (deb(5)).

    Headers have 60 bytes, and members are padded to even sizes.
    """
    archive = deb.read_bytes()
    position = 8
    while position + 60 <= len(archive):
        header = archive[position : position + 60]
        size = int(header[48:58])
        if header[:16].decode().strip().rstrip("/") == name:
            return archive[position + 60 : position + 60 + size]
        position += 60 + size + size % 2
    raise MvmError(f"{deb} holds no {name}: it is no package that this version can read")
