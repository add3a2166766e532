"""What `--volume` says: a data drive, or another way to name the config or secrets directory."""

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from mvm_guest.errors import UsageError

ALWAYS = ("/mnt/data", "/data", "/srv", "/work")

_CONFIG = "/mnt/config"
_SECRETS = "/mnt/secrets"
# An ext4 below this has no room for a journal; above it blocks would need more than 32 bits.
SMALLEST_MIB = 8
_MAX_MIB = 16 * 1024 * 1024
# It is passed on the kernel's command line, which has neither quotes nor room for more.
_GUEST_PATH = re.compile(r"(/[A-Za-z0-9._-]+)+")
_MAX_GUEST_PATH = 200


@dataclass(frozen=True)
class Volume:
    """A data drive of `size_mib` at `guest_path`, filled from `host` at its first start, if any."""

    guest_path: str
    size_mib: int
    host: Path | None = None


@dataclass(frozen=True)
class Volumes:
    """All that was asked for."""

    data: Volume | None = None
    config_dir: Path | None = None
    secrets_dir: Path | None = None


def parse(
    texts: Iterable[str], config_dir: Path | None = None, secrets_dir: Path | None = None
) -> Volumes:
    """Read `HOST:GUEST:MIB`, `DIR:/mnt/config` and `DIR:/mnt/secrets` texts.

    The directories are those that were named by options of their own. Raises UsageError.
    """
    data = None
    for text in texts:
        host, _, last = text.rpartition(":")
        if last in (_CONFIG, _SECRETS) and host:
            given = config_dir if last == _CONFIG else secrets_dir
            if given is not None:
                raise UsageError(f"--volume {text!r}: {last} is given twice, by {given} as well")
            if last == _CONFIG:
                config_dir = Path(host)
            else:
                secrets_dir = Path(host)
            continue
        if data is not None:
            raise UsageError(f"--volume {text!r}: an instance has one data drive, so give it once")
        data = _data(text)
    return Volumes(data, config_dir, secrets_dir)


def check_guest_path(path: str, mount_points: Iterable[str]) -> None:
    """Refuse with UsageError a path where the guest does not mount its data.

    `mount_points` are those that the image says it has.
    """
    allowed = dict.fromkeys((*ALWAYS, *mount_points))
    below = path.startswith(("/var/lib/", "/home/"))
    fits = _GUEST_PATH.fullmatch(path) and len(path) <= _MAX_GUEST_PATH
    if not fits or posixpath.normpath(path) != path or not (path in allowed or below):
        raise UsageError(
            f"--volume: the guest cannot mount data at {path!r}; it can at {', '.join(allowed)} "
            "and below /var/lib and /home"
        )


def _data(text: str) -> Volume:
    parts = text.rsplit(":", 2)
    if len(parts) != 3 or not all(parts) or not re.fullmatch(r"[0-9]{1,9}", parts[2]):
        raise UsageError(
            f"--volume {text!r}: write HOST:GUEST:MIB, such as ./data:/data:1024, or "
            f"DIR:{_CONFIG} or DIR:{_SECRETS}"
        )
    host, guest, size = parts[0], parts[1], int(parts[2])
    if not SMALLEST_MIB <= size <= _MAX_MIB:
        raise UsageError(
            f"--volume {text!r}: a data drive has between {SMALLEST_MIB} and {_MAX_MIB} MiB"
        )
    return Volume(guest, size, Path(host))
