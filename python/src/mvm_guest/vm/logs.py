"""What a guest or its VMM wrote, as lines that are harmless to a terminal."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from mvm_guest.agent import printable

_POLL_SECONDS = 0.2
_CHUNK = 64 * 1024
_LONGEST_LINE = 64 * 1024


def lines(path: Path, follow_while: Callable[[], bool] | None = None) -> Iterator[str]:
    """Yield the lines of a log, and with `follow_while` those that come as long as that holds.

    Bytes that are not UTF-8 and whatever could steer a terminal become visible escapes; an
    endless line is broken. Raises OSError.
    """
    rest = b""
    with path.open("rb") as stream:
        while True:
            # Asked before reading: what was written until the end is still read.
            more = follow_while is not None and follow_while()
            while chunk := stream.read(_CHUNK):
                *complete, rest = (rest + chunk).split(b"\n")
                yield from map(_line, complete)
                if len(rest) > _LONGEST_LINE:
                    yield _line(rest)
                    rest = b""
            if not more:
                break
            time.sleep(_POLL_SECONDS)
    if rest:
        yield _line(rest)


def _line(line: bytes) -> str:
    return printable(line.removesuffix(b"\r").decode(errors="backslashreplace"), keep="\t")
