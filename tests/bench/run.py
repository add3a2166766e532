"""Measures the goals of performance, each against its baseline in the same run.

Usage: python tests/bench/run.py [--json FILE] [--runs N]. Ends with 1 if a goal is missed.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import boot

from mvm_guest import bundle as bundles
from mvm_guest.nix import source
from mvm_guest.nix.build import build_flake
from mvm_guest.nix.command import path_reference

GUESTS = Path(__file__).with_name("guests")


@dataclass(frozen=True)
class Row:
    """One goal: the median of what was measured over that of its baseline, or a figure alone."""

    what: str
    measured: str
    against: str
    figure: float
    goal: float

    @property
    def met(self) -> bool:
        return self.figure <= self.goal


def ratio(
    what: str,
    goal: float,
    measured: tuple[str, Callable[[], float]],
    baseline: tuple[str, Callable[[], float]],
    runs: int,
) -> Row:
    """Measure both in turns, so that a machine that slows down slows both."""
    times: list[tuple[float, float]] = []
    for number in range(runs):
        times.append((measured[1](), baseline[1]()))
        print(f"{what}: run {number + 1} of {runs}", file=sys.stderr)
    ours, theirs = (statistics.median(column) for column in zip(*times, strict=True))
    return Row(
        what,
        f"{measured[0]}: {ours * 1000:.0f} ms",
        f"{baseline[0]}: {theirs * 1000:.0f} ms",
        ours / theirs,
        goal,
    )


def rows(runs: int) -> list[Row]:
    mvm = path_reference(source.project_source())
    flake = path_reference(GUESTS)
    guest, bare = (
        build_flake(f"{flake}#{name}", packages="debian", mvm=mvm) for name in ("guest", "bare")
    )
    bundle = bundles.read(guest)
    with boot.drives() as drives:
        return [
            ratio(
                "guest user space",
                1.5,
                (
                    "Run /init to healthy, base squashfs guest in QEMU",
                    lambda: boot.seconds_to_healthy(bundle, drives),
                ),
                (
                    "tests/bench/guests/bare-init on the same kernel",
                    lambda: boot.seconds_of_bare(bundle, bare, drives),
                ),
                runs,
            ),
            Row(
                "memory",
                "smallest -m in which the base squashfs guest gets healthy, MiB",
                "",
                boot.smallest_memory(bundle, drives),
                40,
            ),
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path, help="write the rows to this file, too")
    parser.add_argument("--runs", type=int, default=5, help="how often each time is taken")
    arguments = parser.parse_args()
    measured = rows(arguments.runs)
    print(f"{'what':18} {'figure':>7} {'goal':>6}  measured / against")
    for row in measured:
        mark = "" if row.met else "  MISSED"
        print(f"{row.what:18} {row.figure:7.2f} {row.goal:6.2f}  {row.measured}{mark}")
        if row.against:
            print(f"{'':34} {row.against}")
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(row) for row in measured], indent=2) + "\n")
    return 0 if all(row.met for row in measured) else 1


if __name__ == "__main__":
    sys.exit(main())
