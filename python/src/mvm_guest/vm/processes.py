"""Processes that outlive who started them, known by their number and the time of their start.

The time is that of `/proc/<pid>/stat` (proc_pid_stat(5), field 22), in clock ticks since the host
booted: unlike a time of day it stays the same when somebody sets the clock.
"""

import contextlib
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Process:
    """One process, which no later one with the same number is taken for."""

    pid: int
    start_time: int

    def alive(self) -> bool:
        return _start_time(self.pid) == self.start_time

    def kill(self) -> None:
        """End the process at once; nothing happens if it has ended already."""
        with contextlib.suppress(ProcessLookupError):
            # The descriptor stays with the process that it was opened for, whoever has its number.
            descriptor = os.pidfd_open(self.pid)
            try:
                if self.alive():
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            finally:
                os.close(descriptor)

    def wait(self, seconds: float) -> bool:
        """Wait for the end of the process, and return whether it came in time."""
        deadline = time.monotonic() + seconds
        while self.alive():
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_SECONDS)
        return True


def process(pid: int) -> Process:
    """Return the process that has the number now; it is a dead one if none has."""
    return Process(pid, _start_time(pid) or 0)


def _start_time(pid: int) -> int | None:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The program's name in parentheses may hold anything.
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[19])
