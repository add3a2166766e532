"""An ext4 image: mke2fs makes it, debugfs fills it, e2fsck checks it and resize2fs grows it.

debugfs takes a file's content from a descriptor of this process (`/proc/<pid>/fd/<n>`): it goes
from where it lies straight into the image, whoever owns it and whatever its name is. Host name,
clock, user and the host's mke2fs.conf leave no trace in an image.
"""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from mvm_guest import process
from mvm_guest.drives.tree import Directory, File
from mvm_guest.errors import MvmError

MIB = 1024 * 1024

_BLOCK = 4096
_BLOCKS_PER_GROUP = 32768
_INODE = 256
_RESERVED_INODES = 11
_BYTES_PER_INODE = 16384
_LOST_AND_FOUND_BLOCKS = 4
# mke2fs leaves a last group away that has fewer blocks than this beside its own tables.
_SMALLEST_GROUP = 50

_PLAIN = "none,filetype,extent,sparse_super,large_file,extra_isize"
_JOURNALED = (
    f"{_PLAIN},has_journal,64bit,flex_bg,metadata_csum,huge_file,dir_nlink,resize_inode,"
    "dir_index,ext_attr"
)
_UUIDS = uuid.UUID("3f0b5f5e-6d0c-5d0a-9a43-6d766d2d6775")
# To e2fsprogs 1970 itself means "now". The first variable is read up to 1.47.0, the second later.
_FIXED_TIME = {"E2FSPROGS_FAKE_TIME": "1", "SOURCE_DATE_EPOCH": "1"}
_OPEN_AT_ONCE = 200


class ImageFull(MvmError):
    """What should go into an image does not fit."""


@dataclass(frozen=True)
class Attributes:
    """What an entry gets in an image: permission bits, group, time in seconds since 1970.

    The owner is root. Without a time it is the same fixed one everywhere.
    """

    mode: int
    gid: int = 0
    mtime: int | None = None


AttributesOf = Callable[[File | Directory], Attributes]


def make_read_only(path: Path, label: str, tree: Directory, attributes: AttributesOf) -> None:
    """Make an image without a journal that is as large as `tree` needs.

    Raises MvmError; then `path` is as it was.
    """
    entries = [entry for _, entry in tree.walk()]
    inodes = _round_up(_RESERVED_INODES + 1 + len(entries), _BLOCK // _INODE)
    blocks = _LOST_AND_FOUND_BLOCKS + sum(map(_blocks, [tree, *entries]))
    size = _with_tables(blocks, inodes) * _BLOCK
    _make(path, label, size, inodes, tree, attributes, lasting=False)


def make_writable(
    path: Path, label: str, size: int, tree: Directory, attributes: AttributesOf
) -> None:
    """Make an image of `size` bytes that has a journal and holds `tree`.

    Raises ImageFull and MvmError; then `path` is as it was.
    """
    entries = sum(1 for _ in tree.walk())
    inodes = max(size // _BYTES_PER_INODE, _RESERVED_INODES + 1 + entries)
    _make(path, label, size, inodes, tree, attributes, lasting=True)


def check(path: Path, *, whole: bool = False) -> None:
    """Replay the journal of an image, and repair what can be repaired without a doubt.

    One that was left in order is looked at no further, unless it is to be `whole`. Raises
    MvmError for an image that needs a person's decision.
    """
    options = ["-p", "-f"] if whole else ["-p"]
    try:
        _e2fsck(path, options)
    except process.ProgramFailed:
        # e2fsck reports a repair as a failure, too. A second check then finds nothing.
        try:
            _e2fsck(path, options)
        except process.ProgramFailed as error:
            raise MvmError(
                f"{path} is damaged; keep a copy and repair it with `e2fsck -f {path}`: "
                + " ".join(error.output.split())
            ) from None


def grow(path: Path, size: int) -> None:
    """Replace an image by a copy that has grown to `size` bytes. Raises MvmError."""
    grown = path.with_name(f"{path.name}.new")
    try:
        process.run(["cp", "--reflink=auto", "--sparse=always", "--", path, grown])
        check(grown, whole=True)
        os.truncate(grown, size)
        process.run([_program("resize2fs"), grown.name], cwd=grown.parent)
        _sync(grown)
        grown.replace(path)
    finally:
        grown.unlink(missing_ok=True)


def _make(
    path: Path,
    label: str,
    size: int,
    inodes: int,
    tree: Directory,
    attributes: AttributesOf,
    *,
    lasting: bool,
) -> None:
    new = path.with_name(f"{path.name}.new")
    new.unlink(missing_ok=True)
    id = uuid.uuid5(_UUIDS, label)
    features = _JOURNALED if lasting else _PLAIN
    # The file is new and holds nothing but zeros: neither tables nor journal need writing.
    extended = f"hash_seed={id},root_owner=0:0,lazy_itable_init=0,lazy_journal_init=1"
    try:
        os.close(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600))
        os.truncate(new, size)
        process.run(
            [
                *(_program("mke2fs"), "-q", "-F", "-b", str(_BLOCK), "-I", str(_INODE)),
                *("-N", str(inodes), "-m", "0", "-O", features, "-L", label, "-U", str(id)),
                *("-E", extended, new.name),
            ],
            cwd=new.parent,
            env={**os.environ, **_FIXED_TIME, "LC_ALL": "C", "MKE2FS_CONFIG": os.devnull},
        )
        commands = [*_set_attributes(b"/", tree, attributes)]
        if not lasting or "lost+found" in tree.entries:
            commands.append(b"rmdir lost+found")
        entries = tree.walk()
        while batch := list(islice(entries, _OPEN_AT_ONCE)):
            with ExitStack() as opened:
                commands += _put_entries(batch, attributes, opened)
                _debugfs(new, commands)
            commands = []
        if lasting:
            _sync(new)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _put_entries(
    batch: list[tuple[str, File | Directory]], attributes: AttributesOf, opened: ExitStack
) -> Iterator[bytes]:
    at = None
    for path, entry in batch:
        directory, _, name = path.rpartition("/")
        if directory != at:
            yield b"cd /"
            if directory:
                yield from (b"cd " + _relative(part) for part in directory.split("/"))
            at = directory
        if isinstance(entry, File):
            source = entry.open()
            opened.callback(os.close, source)
            yield b"write /proc/%d/fd/%d %b" % (os.getpid(), source, _quoted(name))
        else:
            yield b"mkdir " + _relative(name)
        yield from _set_attributes(_relative(name), entry, attributes)


def _set_attributes(
    name: bytes, entry: File | Directory, attributes: AttributesOf
) -> Iterator[bytes]:
    chosen = attributes(entry)
    kind = 0o100000 if isinstance(entry, File) else 0o040000
    yield b"sif %b mode 0%o" % (name, kind | chosen.mode)
    if chosen.gid:
        yield b"sif %b gid %d" % (name, chosen.gid)
    if chosen.mtime is not None:
        yield b"sif %b mtime @%d" % (name, chosen.mtime)


def _relative(name: str) -> bytes:
    # Without the dot debugfs would take a name such as <12> for the number of an inode.
    return _quoted(f"./{name}")


def _quoted(name: str) -> bytes:
    """Quote for debugfs, whose commands end at a line break, which no name here has."""
    return b'"' + os.fsencode(name).replace(b'"', b'""') + b'"'


def _debugfs(image: Path, commands: list[bytes]) -> None:
    # debugfs ends well whatever became of its commands: what it says on standard error tells.
    done = process.run(
        [_program("debugfs"), "-w", "-f", "-", image.name],
        cwd=image.parent,
        env={**os.environ, **_FIXED_TIME, "LC_ALL": "C"},
        input=b"".join(command + b"\n" for command in commands),
    )
    said = [line for line in done.stderr.splitlines() if line and not line.startswith("debugfs ")]
    if any("Could not allocate" in line or "No free space" in line for line in said):
        raise ImageFull(f"{image.name}: what should go into it does not fit")
    if said:
        raise MvmError(f"{image}: debugfs could not fill it: {said[0]}")


def _e2fsck(image: Path, options: list[str]) -> None:
    process.run(
        [_program("e2fsck"), *options, image.name],
        cwd=image.parent,
        env={**os.environ, "LC_ALL": "C"},
    )


def _program(name: str) -> str:
    # The directories of administrators' programs are not on every user's PATH.
    path = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin")
    if path is None:
        raise process.ProgramMissing(f"{name} is not on PATH; install e2fsprogs")
    return path


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _blocks(entry: File | Directory) -> int:
    if isinstance(entry, File):
        blocks = -(-entry.size // _BLOCK)
        # Extents that do not fit into the inode, at the worst one for each block.
        return blocks + blocks // 300 + (blocks > 4)
    longest = 8 + 256
    needed = sum(8 + _round_up(len(os.fsencode(name)), 4) for name in ("..", "...", *entry.entries))
    return -(-needed // (_BLOCK - longest))


def _with_tables(blocks: int, inodes: int) -> int:
    """Return how many blocks a file system has in all that has `blocks` free for content."""
    total = blocks
    while True:
        groups = -(-total // _BLOCKS_PER_GROUP)
        tables = -(-inodes // groups) * _INODE // _BLOCK + 2
        descriptors = 1 + -(-groups * 32 // _BLOCK)
        needed = blocks + groups * (2 + tables + descriptors)
        last = needed % _BLOCKS_PER_GROUP
        smallest = 2 + tables + descriptors + _SMALLEST_GROUP
        if last < smallest:
            needed += smallest - last
        if needed <= total:
            return total
        total = needed


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
