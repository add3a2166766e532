"""Reads what Nix reports while it works: its `internal-json` log, one object a line after `@nix`.

The numbers are those of Nix's `logging.hh`; what becomes of it on a terminal is `progress.py`'s.
"""

import json
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

from mvm_guest.nix.command import suggestion

_ACTIVITY_BUILDS = 104
_ACTIVITY_BUILD = 105
_RESULT_LOG_LINE = 101
_RESULT_PHASE = 104
_RESULT_PROGRESS = 105
_LEVEL_ERROR = 0

_KEPT_LOG_LINES = 15
_COLOUR = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")

Change = Literal["started", "phase", "line", "ended", "notice"]


@dataclass
class Build:
    """One derivation that is built; `log` holds the end of what its builder wrote."""

    derivation: str
    started: float = field(default_factory=time.monotonic)
    phase: str = ""
    log: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LOG_LINES))

    @property
    def name(self) -> str:
        """The derivation's name, without its hash."""
        return self.derivation.rpartition("/")[2].removesuffix(".drv").partition("-")[2]


class BuildLog:
    """What a run of Nix has reported so far.

    `running` holds the builds at work, the latest last; `builds` all of them by derivation;
    `done` of `expected` derivations are built; `errors` are Nix's own, each with its suggestion.
    """

    def __init__(self, changed: Callable[["BuildLog", Change, str], None]) -> None:
        self.running: dict[int, Build] = {}
        self.builds: dict[str, Build] = {}
        self.done = 0
        self.expected = 0
        self.errors: list[str] = []
        self._changed = changed
        self._overall: int | None = None

    @property
    def latest(self) -> Build | None:
        """The build at work that started last."""
        return next(reversed(self.running.values()), None)

    def read(self, lines: Iterable[bytes]) -> None:
        """Read the log to its end, and tell of each change."""
        for line in lines:
            if line.startswith(b"@nix "):
                try:
                    self._event(json.loads(line[5:]))
                except (ValueError, KeyError, IndexError, TypeError):
                    # What a newer Nix words differently is not shown, but stops nothing.
                    continue

    def _event(self, event: dict[str, Any]) -> None:
        match event["action"]:
            case "start" if event["type"] == _ACTIVITY_BUILDS:
                self._overall = event["id"]
            case "start" if event["type"] == _ACTIVITY_BUILD:
                build = Build(event["fields"][0])
                self.running[event["id"]] = self.builds[build.derivation] = build
                self._changed(self, "started", build.name)
            case "stop" if event["id"] in self.running:
                build = self.running.pop(event["id"])
                self._changed(self, "ended", build.name)
            case "result" if event["id"] == self._overall and event["type"] == _RESULT_PROGRESS:
                self.done, self.expected = event["fields"][:2]
            case "result" if event["id"] in self.running:
                self._result(self.running[event["id"]], event["type"], event["fields"])
            case "msg" if event["level"] == _LEVEL_ERROR:
                self._message(event)

    def _result(self, build: Build, kind: int, fields: list[Any]) -> None:
        if kind == _RESULT_LOG_LINE:
            build.log.append(_plain(fields[0]))
            self._changed(self, "line", build.name)
        elif kind == _RESULT_PHASE:
            build.phase = _plain(fields[0])
            self._changed(self, "phase", build.name)

    def _message(self, event: dict[str, Any]) -> None:
        text = _plain(event["msg"])
        if "raw_msg" in event:
            self.errors.append(_plain(event["raw_msg"]).strip() + suggestion(text))
        elif text.startswith("error:"):
            self.errors.append(text.removeprefix("error:").strip())
        else:
            self._changed(self, "notice", text)


def _plain(text: str) -> str:
    return "".join(c for c in _COLOUR.sub("", text) if c.isprintable() or c in "\n\t")
