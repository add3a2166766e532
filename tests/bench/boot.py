"""How long a guest takes until it answers and is healthy, and in how little memory it does."""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from machine import Machine, booted, drives_in

from mvm_guest.agent import Agent, AgentError
from mvm_guest.bundle import Bundle
from mvm_guest.vm import instance

INIT = "Run /init as init process"
_PATIENCE = 30.0


@contextlib.contextmanager
def drives() -> Iterator[dict[str, Path]]:
    """Config, secrets and data drives as an instance gets them."""
    with (
        tempfile.TemporaryDirectory(prefix="mvm-bench-") as place,
        drives_in(Path(place), data_mib=64, environment={"A": "b"}) as made,
    ):
        yield made


@contextlib.contextmanager
def _booted(bundle: Bundle, given: dict[str, Path], **options: Any) -> Iterator[Machine]:
    """Boot in a directory that vanishes, with all that the kernel says on the console."""
    with (
        tempfile.TemporaryDirectory(prefix="mvm-bench-") as place,
        booted(Path(place), bundle, given, arguments="loglevel=7", **options) as machine,
    ):
        yield machine


def _seen(machine: Machine, text: str) -> float:
    """Wait until the console shows a text, and return when it did, by the monotonic clock."""
    console = machine.directory / instance.CONSOLE
    deadline = time.monotonic() + _PATIENCE
    while not console.exists() or text not in machine.console():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the console never shows {text!r}")
        time.sleep(0.001)
    return time.monotonic()


def _healthy(machine: Machine) -> float:
    deadline = time.monotonic() + _PATIENCE
    with Agent(machine.directory / instance.VSOCK, vm="bench", timeout=0.5) as agent:
        while time.monotonic() < deadline:
            try:
                agent.ping()
                checks = agent.integration_status()
                if all(check.health and check.health.healthy for check in checks):
                    return time.monotonic()
            except AgentError:
                pass
            time.sleep(0.002)
    raise TimeoutError("the guest does not get healthy")


def seconds_to_healthy(bundle: Bundle, given: dict[str, Path]) -> float:
    """From the kernel's `Run /init` to an answer that says that the service is healthy."""
    with _booted(bundle, given) as machine:
        begun = _seen(machine, INIT)
        return _healthy(machine) - begun


def seconds_of_bare(bundle: Bundle, bare: Path, given: dict[str, Path]) -> float:
    """From the kernel's `Run /init` to the bare busybox' last mark."""
    with _booted(bundle, given, rootfs=bare) as machine:
        begun = _seen(machine, INIT)
        return _seen(machine, "bare: healthy") - begun


def smallest_memory(bundle: Bundle, given: dict[str, Path]) -> int:
    """The fewest MiB in which the guest gets healthy."""
    low, high = 16, 64
    while low < high:
        middle = (low + high) // 2
        try:
            with _booted(bundle, given, mem_mib=middle) as machine:
                _seen(machine, INIT)
                _healthy(machine)
            high = middle
        except TimeoutError:
            low = middle + 1
    return low
