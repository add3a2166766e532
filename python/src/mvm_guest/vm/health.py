"""How a guest's parts are: its health checks, its probes, its drives, as its agent reports them."""

import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from mvm_guest.agent import Agent, AgentUnreachable, Integration, Probe
from mvm_guest.errors import MvmError
from mvm_guest.vm import instance
from mvm_guest.vm.instance import Instance

DRIVES_PROBE = "mvm-drives"

_AGAIN_SECONDS = 0.5
_ANSWER_SECONDS = 5.0


class Drive(BaseModel):
    """One drive as it is inside the guest."""

    model_config = ConfigDict(strict=True, frozen=True)

    drive: str
    device: str
    mountPoint: str
    type: str
    options: str
    state: Literal["mounted", "absent", "failed"]
    detail: str


@dataclass(frozen=True)
class Part:
    """A check, a probe or a drive: whether it holds, and what there is to say about it."""

    kind: Literal["check", "probe", "drive"]
    name: str
    healthy: bool
    detail: str
    drive: Drive | None = None

    def json(self) -> dict[str, Any]:
        value = asdict(self) | {"drive": self.drive.model_dump() if self.drive else None}
        return {key: item for key, item in value.items() if item is not None}


@dataclass(frozen=True)
class Report:
    """All parts of one guest."""

    parts: list[Part]

    @property
    def healthy(self) -> bool:
        return all(part.healthy for part in self.parts)

    @property
    def unhealthy(self) -> str:
        """The parts that do not hold, for a sentence."""
        return ", ".join(f"{part.kind} {part.name}" for part in self.parts if not part.healthy)


def ask(asked: Instance, probes: Iterable[str], *, timeout: float = _ANSWER_SECONDS) -> Report:
    """Ask the guest's agent once. `probes` are those that must have run.

    Raises MvmError if the instance does not run, AgentUnreachable and AgentError.
    """
    record = asked.record()
    if record is None or asked.state() != "running":
        raise MvmError(f"{asked.name} does not run; start it with `mvm-guest run`")
    with Agent(asked / instance.VSOCK, vm=asked.name, timeout=timeout) as agent:
        checks = agent.integration_status()
        reported = agent.probe_status()
    return Report(
        [
            *(_check(check) for check in checks),
            *_probes(reported, probes),
            *_drives(reported, has_data=bool(record.volumes)),
        ]
    )


def wait(asked: Instance, probes: Iterable[str], *, timeout: float) -> Report:
    """Ask again until everything holds or `timeout` seconds are over, and return the last answer.

    Raises what `ask` does, AgentUnreachable only if there was no answer at all.
    """
    deadline = time.monotonic() + timeout
    expected = list(probes)
    report = None
    while True:
        left = deadline - time.monotonic()
        try:
            report = ask(asked, expected, timeout=max(0.1, min(left, _ANSWER_SECONDS)))
            if report.healthy:
                return report
        except AgentUnreachable:
            if report is None and time.monotonic() + _AGAIN_SECONDS >= deadline:
                raise
        if time.monotonic() + _AGAIN_SECONDS >= deadline and report is not None:
            return report
        time.sleep(_AGAIN_SECONDS)


def _check(check: Integration) -> Part:
    if not isinstance(check.status, str):
        return Part("check", check.name, False, check.status.error)
    if check.health is None:
        return Part("check", check.name, False, f"{check.status}, has not run yet")
    return Part("check", check.name, check.health.healthy, check.health.detail or check.status)


def _probes(reported: list[Probe], expected: Iterable[str]) -> list[Part]:
    known = {probe.name for probe in reported}
    return [
        *(
            Part("probe", probe.name, probe.healthy, probe.detail)
            for probe in reported
            if probe.name != DRIVES_PROBE
        ),
        *(
            Part("probe", name, False, "has not run yet")
            for name in expected
            if name not in known and name != DRIVES_PROBE
        ),
    ]


def _drives(reported: list[Probe], *, has_data: bool) -> list[Part]:
    """Return a part for each drive; one that is absent holds only if the host gave none."""
    probe = next((probe for probe in reported if probe.name == DRIVES_PROBE), None)
    if probe is None:
        return [Part("probe", DRIVES_PROBE, False, "has not run yet")]
    if not isinstance(probe.output, list) or not probe.output:
        return [Part("probe", DRIVES_PROBE, False, probe.detail or "reports no drives")]
    try:
        drives = [Drive.model_validate(entry) for entry in probe.output]
    except ValidationError:
        return [Part("probe", DRIVES_PROBE, False, "reports drives in another form")]
    return [
        Part(
            "drive",
            drive.drive,
            drive.state == "mounted"
            or (drive.state == "absent" and drive.drive == "data" and not has_data),
            drive.detail or drive.state,
            drive,
        )
        for drive in drives
    ]
