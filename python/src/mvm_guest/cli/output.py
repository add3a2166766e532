"""How commands print: results to standard output, everything else to standard error."""

import contextlib
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any


def say(message: str) -> None:
    """Print one message for people to standard error, without what could steer a terminal."""
    with contextlib.suppress(BrokenPipeError):
        print(f"mvm-guest: {printable(message)}", file=sys.stderr, flush=True)


def printable(text: str) -> str:
    """Replace the characters of a text that could steer a terminal; lines and tabs stay."""
    return "".join(
        c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text
    )


def as_json(value: Any) -> None:
    """Print a result as JSON."""
    print(json.dumps(value, indent=2))


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in aligned columns; nothing but the header if there are none."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in (header, *rows):
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())


def size(count: int) -> str:
    """Say a size of `count` bytes in the unit that fits."""
    value = float(count)
    for unit in ("B", "KiB", "MiB"):
        if value < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def age(then: datetime) -> str:
    """Say how long ago a moment was, in the unit that fits."""
    seconds = max(0, int((datetime.now(UTC) - then).total_seconds()))
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds // length} {unit}"
    return f"{seconds} s"
