"""Unpacks the packages of a unit into $out and makes them run from there.

Debian's /usr becomes $out; programs stand in $out/bin. Programs and libraries get the interpreter
and the library directories of the unit and of those that it depends on, links and script
interpreters lead to where their targets are in the store, and Python modules are compiled. Runs in
a tree that holds dpkg, patchelf and python3.
"""
# ruff: noqa: S607, SIM112 - variables and programs are the derivation's

import compileall
import os
import py_compile
import re
import shutil
import stat
import struct
import subprocess
import tarfile
from pathlib import Path

OUT = Path(os.environ["out"])
DEPENDS = [Path(path) for path in os.environ["depends"].split()]
CLOSURE = [Path(path) for path in os.environ["closure"].split()]
LIBRARIES = ["lib/x86_64-linux-gnu", "lib"]
LOADER = "lib64/ld-linux-x86-64.so.2"
UNUSED = re.compile(
    r"share/(man|info|locale|lintian|bug|doc-base|bash-completion|zsh|fish|menu|gdb)(/|$)"
)
DOCUMENTATION = re.compile(r"share/doc/.+/(?!copyright$)[^/]+$")


def place(path: str) -> str:
    """Where a path of the package (`usr/sbin/nginx`, `etc/nginx`) stands below a unit."""
    path = re.sub(r"^(\./|/)+", "", os.path.normpath(path))
    path = re.sub(r"^usr(/|$)", "", path)
    return re.sub(r"^(sbin|games)(/|$)", r"bin\2", path)


def unpack(deb: str) -> None:
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as reader:
        with tarfile.open(fileobj=reader.stdout, mode="r|") as archive:
            for member in archive:
                extract(archive, member)
        if reader.wait() != 0:
            raise SystemExit(f"{deb} cannot be unpacked")


def extract(archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    relative = place(member.name)
    target = OUT / relative
    if UNUSED.match(relative) or (DOCUMENTATION.match(relative) and not member.isdir()):
        return
    if member.isdir():
        target.mkdir(parents=True, exist_ok=True)
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if member.issym():
        origin = Path("/", member.name).parent / member.linkname
        links[target] = (str(origin), member.linkname)
    elif member.islnk():
        shutil.copy2(OUT / place(member.linkname), target)
    elif member.isreg():
        with archive.extractfile(member) as content, target.open("wb") as file:
            shutil.copyfileobj(content, file)
        target.chmod(0o755 if member.mode & stat.S_IXUSR else 0o644)


def make_links() -> None:
    """Lead every link to its target's place in this unit, else in the nearest one that has it."""
    for link, (origin, text) in links.items():
        relative = place(origin)
        if os.path.lexists(link):
            continue
        holder = next((unit for unit in [OUT, *CLOSURE] if os.path.lexists(unit / relative)), None)
        if (OUT / relative) in links or holder == OUT:
            link.symlink_to(os.path.relpath(OUT / relative, link.parent))
        elif holder is not None:
            link.symlink_to(holder / relative)
        else:
            link.symlink_to(text)


def elf_segments(path: Path) -> set[int] | None:
    """The program header types of a 64-bit little-endian ELF program or library (elf(5)).

    None for other files.
    """
    with path.open("rb") as file:
        header = file.read(64)
        if header[:6] != b"\x7fELF\x02\x01" or len(header) < 64:
            return None
        kind = struct.unpack_from("<H", header, 16)[0]
        (offset,) = struct.unpack_from("<Q", header, 32)
        size, count = struct.unpack_from("<HH", header, 54)
        if kind not in (2, 3):
            return None
        file.seek(offset)
        table = file.read(size * count)
    return {struct.unpack_from("<I", table, size * index)[0] for index in range(count)}


def patchelf(*arguments: str) -> str:
    return subprocess.run(
        ["patchelf", *arguments], check=True, capture_output=True, text=True
    ).stdout


def library_path(path: Path) -> str:
    """Where the loader finds what `path` needs, and what it may open while it runs."""
    old = [
        place(entry) for entry in patchelf("--print-rpath", str(path)).strip().split(":") if entry
    ]
    found = [
        str(unit / entry) for entry in old for unit in [OUT, *CLOSURE] if (unit / entry).is_dir()
    ]
    needed = patchelf("--print-needed", str(path)).split()
    for unit in [OUT, *CLOSURE]:
        for folder in LIBRARIES:
            holds = any((unit / folder / name).exists() for name in needed)
            opened = unit in [OUT, *DEPENDS] and any((unit / folder).glob("*.so*"))
            if holds or opened:
                found.append(str(unit / folder))
    return ":".join(dict.fromkeys(found))


def make_runnable(path: Path, loader: Path) -> None:
    segments = elf_segments(path)
    if segments is None or 2 not in segments:
        return
    mode = path.stat().st_mode
    path.chmod(0o755)
    if 3 in segments:
        patchelf("--set-interpreter", str(loader), str(path))
    is_libc = path.name.startswith("libc.so") or ((OUT / LOADER).exists() and 3 not in segments)
    if not is_libc and (search := library_path(path)):
        patchelf("--force-rpath", "--set-rpath", search, str(path))
    path.chmod(mode)


def lead_to_interpreter(path: Path) -> None:
    with path.open("rb") as file:
        if file.read(2) != b"#!":
            return
        line = file.readline(256).decode(errors="replace").strip()
        rest = file.read()
    words = line.split(maxsplit=1)
    if words and words[0] == "/usr/bin/env" and len(words) == 2:
        words = words[1].split(maxsplit=1)
    if not words:
        return
    program = "bin/" + Path(words[0]).name
    holder = next((unit for unit in [OUT, *CLOSURE] if (unit / program).exists()), None)
    if holder is not None:
        arguments = f" {words[1]}" if len(words) > 1 else ""
        path.write_bytes(f"#!{holder / program}{arguments}\n".encode() + rest)


def compile_modules() -> None:
    """Compile as Debian's maintainer scripts would; by content, since all times are the same."""
    for folder in OUT.glob("lib/python3*"):
        compileall.compile_dir(
            folder,
            quiet=2,
            maxlevels=99,
            stripdir=str(OUT),
            invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
        )


links: dict[Path, tuple[str, str]] = {}
OUT.mkdir()
for deb in os.environ["debs"].split():
    unpack(deb)
make_links()
loader = next((unit / LOADER for unit in [OUT, *CLOSURE] if (unit / LOADER).exists()), OUT / LOADER)
for path in sorted(OUT.rglob("*")):
    if path.is_file() and not path.is_symlink():
        make_runnable(path, loader)
        lead_to_interpreter(path)
compile_modules()
support = OUT / "nix-support"
support.mkdir(exist_ok=True)
(support / "debian-packages").write_text("\n".join(os.environ["packages"].split()) + "\n")
(support / "debian-depends").write_text("".join(f"{path}\n" for path in DEPENDS))
if (OUT / "bin").is_dir() and not (OUT / "sbin").exists():
    (OUT / "sbin").symlink_to("bin")
