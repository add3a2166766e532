"""Shows on standard error what Nix builds: in place on a terminal, line by line elsewhere."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

from mvm_guest.nix.log import Build, BuildLog, Change

Display = Callable[[BuildLog, Change, str], None]


@contextlib.contextmanager
def display() -> Iterator[Display]:
    """Give what shows a build's changes, for as long as the build goes on."""
    if not sys.stderr.isatty():
        yield _write_lines
        return
    from rich.console import Console
    from rich.status import Status
    from rich.text import Text

    console = Console(stderr=True)
    with Status("evaluating", console=console) as status:

        def show(log: BuildLog, change: Change, name: str) -> None:
            if change == "notice":
                console.print(Text(name))
            elif build := log.latest:
                line = build.log[-1] if build.log else ""
                shown = Text(_headline(log, build), no_wrap=True, overflow="ellipsis")
                status.update(shown.append(f"  {line}", style="dim"))

        yield show


def _write_lines(log: BuildLog, change: Change, name: str) -> None:
    if change == "notice":
        text = name
    elif change == "ended":
        text = f"finished with {name}"
    elif change in ("started", "phase") and (build := log.latest):
        text = f"building {_headline(log, build)}"
    else:
        return
    print(text, file=sys.stderr, flush=True)


def _headline(log: BuildLog, build: Build) -> str:
    seconds = int(time.monotonic() - build.started)
    parts = [f"{build.name} ({log.done + 1}/{log.expected})" if log.expected else build.name]
    if build.phase:
        parts.append(build.phase)
    if seconds:
        parts.append(f"{seconds // 60}:{seconds % 60:02}")
    return " ".join(parts)
