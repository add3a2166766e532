"""The agent of one VM: its requests as typed calls, with time-outs and retries while it boots.

Strings in answers come from the guest: they are made printable here, so that no caller has to.
"""

import contextlib
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import BaseModel, ValidationError

from mvm_guest.agent import messages
from mvm_guest.agent.frames import Connection, Eof, Malformed
from mvm_guest.agent.text import printable_json
from mvm_guest.errors import MvmError

PORT = 5252
_RETRY_SECONDS = 0.1
_CONNECT_SECONDS = 2.0

# The name of a request, or with fields an object that has it as its only key.
Request = str | dict[str, dict[str, Any]]

_Answer = TypeVar("_Answer", bound=BaseModel)


class AgentError(MvmError):
    """The agent answered, but with an error or with something that it must not."""


class AgentUnreachable(AgentError):
    """No answer came: the guest is still booting, hangs, or is gone."""


class Agent:
    """A client of the agent behind one VMM's vsock socket, for use in a `with` block.

    `vm` names the VM in errors, `timeout` is how many seconds one call may take. With `patience`,
    a call made while the guest boots is tried again for that many seconds. Every call raises
    AgentUnreachable and AgentError; messages say which VM and which step failed.
    """

    def __init__(
        self, socket: Path, *, vm: str, timeout: float = 10.0, patience: float = 0.0
    ) -> None:
        self._path = socket
        self._vm = vm
        self._timeout = timeout
        self._patient_until = time.monotonic() + patience
        self._connection: Connection | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def ping(self) -> None:
        """Return when the agent has answered."""
        if self._call("Ping") != "Pong":
            raise self._error("Ping", "it did not answer with Pong")

    def worker_status(self) -> messages.WorkerStatus:
        """Say whether the guest has something to do."""
        return self._report("WorkerStatus", "WorkerStatus", messages.WorkerStatus)

    def integration_status(self) -> list[messages.Integration]:
        """Return all health checks, those that have not run yet included."""
        report = self._report(
            "IntegrationStatus", "IntegrationStatusReport", messages.IntegrationReport
        )
        return report.integrations

    def probe_status(self) -> list[messages.Probe]:
        """Return the probes that have run."""
        return self._report("ProbeStatus", "ProbeStatusReport", messages.ProbeReport).probes

    def execute(
        self, command: str, *, stdin: str | None = None, seconds: int | None = None
    ) -> messages.ExecResult:
        """Run a shell command as root, which only a guest of the variant `dev` does.

        The guest ends it after `seconds`, by default 60; the call's own time-out must be longer.
        What it prints keeps its lines and tabs. It is asked for once, whatever `patience` says.
        """
        self.close()
        request = {"Exec": {"command": command, "stdin": stdin, "timeout_secs": seconds}}
        answer = self._checked(request, printable_json(self._try(request), keep="\n\t"))
        return self._read(request, answer, "ExecResult", messages.ExecResult)

    def shutdown(self) -> None:
        """Ask the guest to go down, and return when it has promised to."""
        # Not on a connection that may have gone stale: a request whose answer got lost would be
        # sent again, to a guest that is going down already.
        self.close()
        ack = self._report("Shutdown", "ShutdownAck", messages.ShutdownAck)
        if not ack.success:
            raise self._error("Shutdown", "it refused")

    def _report(self, request: Request, kind: str, model: type[_Answer]) -> _Answer:
        return self._read(request, self._call(request), kind, model)

    def _read(self, request: Request, answer: Any, kind: str, model: type[_Answer]) -> _Answer:
        if not isinstance(answer, dict) or list(answer) != [kind]:
            raise self._error(request, f"it did not answer with {kind}")
        try:
            return model.model_validate(answer[kind])
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (kind, *first["loc"]))
            raise self._error(request, f"its answer is wrong at {where}: {first['msg']}") from None

    def _call(self, request: Request) -> Any:
        return self._checked(request, printable_json(self._exchange(request)))

    def _checked(self, request: Request, answer: Any) -> Any:
        if isinstance(answer, dict) and list(answer) == ["Error"]:
            with contextlib.suppress(ValidationError):
                failure = messages.Failure.model_validate(answer["Error"])
                raise self._error(request, f"it answered: {failure.message}")
        return answer

    def _exchange(self, request: Request) -> Any:
        while True:
            try:
                return self._try(request)
            except AgentUnreachable:
                self.close()
                if time.monotonic() + _RETRY_SECONDS >= self._patient_until:
                    raise
                time.sleep(_RETRY_SECONDS)
            except BaseException:
                self.close()
                raise

    def _try(self, request: Request) -> Any:
        deadline = time.monotonic() + self._timeout
        reused = self._connection is not None
        connection = self._connection or self._connect(deadline)
        self._connection = connection
        try:
            return connection.exchange(request, deadline)
        except Eof as eof:
            if reused and not eof.started:
                # The agent closed after its last answer, as it may.
                self.close()
                return self._try(request)
            raise self._unreachable(request, "it closed the connection") from None
        except TimeoutError:
            late = f"no answer within {self._timeout:g} s"
            raise self._unreachable(request, late) from None
        except OSError as error:
            raise self._unreachable(request, str(error.strerror).lower()) from None
        except Malformed as error:
            raise self._error(request, str(error)) from None

    def _connect(self, deadline: float) -> Connection:
        """Connect, anew for as long as the deadline allows if the VMM closes before its OK."""
        step = "connecting"
        while True:
            try:
                # A VMM may hold a connection that it got before the guest had a driver for ever.
                soon = time.monotonic() + _CONNECT_SECONDS
                return Connection(self._path, PORT, min(soon, deadline))
            except Eof:
                problem = "the VMM closed the connection: nobody listens in the guest yet"
            except TimeoutError:
                problem = "the VMM does not answer: the guest has not come up yet, or hangs"
            except Malformed as error:
                raise self._error(step, str(error)) from None
            except FileNotFoundError:
                raise self._unreachable(step, f"there is no socket {self._path}") from None
            except ConnectionRefusedError:
                raise self._unreachable(
                    step, f"nobody listens at {self._path}: the VMM has ended"
                ) from None
            except OSError as error:
                raise self._unreachable(step, f"{self._path}: {error.strerror}") from None
            if time.monotonic() + _RETRY_SECONDS >= deadline:
                raise self._unreachable(step, problem)
            time.sleep(_RETRY_SECONDS)

    def _error(self, step: Request, problem: str) -> AgentError:
        return AgentError(self._sentence(step, problem))

    def _unreachable(self, step: Request, problem: str) -> AgentUnreachable:
        return AgentUnreachable(self._sentence(step, problem))

    def _sentence(self, step: Request, problem: str) -> str:
        # A request's fields may be secret, and its name says enough.
        name = step if isinstance(step, str) else next(iter(step))
        return f"{self._vm}: guest agent, {name}: {problem}"
