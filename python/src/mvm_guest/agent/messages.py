"""What the agent's answers hold, checked before anyone uses it.

Shapes are those of the guest agent protocol. A field that an answer has beyond them is ignored, so
that a later agent can say more.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class WorkerStatus(_Message):
    """How loaded the guest is; `last_busy_at` is an ISO 8601 time."""

    status: Literal["idle", "busy"]
    last_busy_at: str | None


class CheckHealth(_Message):
    """The outcome of a health check's last run; `checked_at` is an ISO 8601 time."""

    healthy: bool
    detail: str
    checked_at: str


class IntegrationFailure(_Message):
    """The status of an integration that failed."""

    error: str


class Integration(_Message):
    """One health check; `health` is None until it has run."""

    name: str
    status: Literal["active", "paused", "pending", "starting"] | IntegrationFailure
    last_checkpoint_at: str | None
    state_size_bytes: Annotated[int, Field(ge=0)]
    health: CheckHealth | None


class IntegrationReport(_Message):
    integrations: list[Integration]


class Probe(_Message):
    """One probe that has run; `output` is what it printed as JSON, None if it prints none."""

    name: str
    healthy: bool
    detail: str
    output: Any = None
    checked_at: str


class ProbeReport(_Message):
    probes: list[Probe]


class ShutdownAck(_Message):
    success: bool


class ExecResult(_Message):
    """How a command ended that the guest ran for its host, and what it printed."""

    exit_code: int
    stdout: str
    stderr: str


class Failure(_Message):
    message: str
