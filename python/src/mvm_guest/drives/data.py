"""The data drive: made and filled once, then the only truth; checked at each start, and grown."""

from pathlib import Path

from mvm_guest.drives import image
from mvm_guest.drives.tree import Directory, File, host_directory
from mvm_guest.drives.volume import Volume
from mvm_guest.errors import UsageError

LABEL = "mvm-data"
SERVICE_GROUP = 900


def ensure(path: Path, volume: Volume | None) -> int:
    """Make the data drive's image at `path`, or check the one that is there and grow it.

    Returns its size in MiB, 0 if there is none and none is asked for. Files from the host are
    root's and belong to the service group, which may write wherever their owner could. Raises
    UsageError for a size that is smaller than what is there and for content that does not fit,
    MvmError for an image that is damaged.
    """
    if path.exists():
        image.check(path)
        size = path.stat().st_size
        if volume is not None:
            wanted = volume.size_mib * image.MIB
            if wanted < size:
                raise UsageError(
                    f"--volume: the data drive has {size // image.MIB} MiB and cannot shrink to "
                    f"{volume.size_mib}; ask for {size // image.MIB} or more"
                )
            if wanted > size:
                image.grow(path, wanted)
        return path.stat().st_size // image.MIB
    if volume is None:
        return 0
    size = volume.size_mib * image.MIB
    if volume.host is None:
        image.make_writable(path, LABEL, size, Directory(), _attributes)
        return volume.size_mib
    with host_directory(volume.host, "--volume") as tree:
        try:
            image.make_writable(path, LABEL, size, tree, _attributes)
        except image.ImageFull:
            raise UsageError(
                f"--volume: what {volume.host} holds does not fit in {volume.size_mib} MiB; ask "
                "for more"
            ) from None
    return volume.size_mib


def _attributes(entry: File | Directory) -> image.Attributes:
    if isinstance(entry, Directory):
        return image.Attributes(0o2775, SERVICE_GROUP)
    return image.Attributes(0o775 if entry.executable else 0o664, SERVICE_GROUP, entry.mtime)
