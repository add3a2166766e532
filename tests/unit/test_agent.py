"""The agent's client against real Unix sockets, behind which agents behave or do not."""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvm_guest.agent import Agent, AgentError, AgentUnreachable, printable

Behaviour = Callable[[socket.socket], None]
HEALTH = {"healthy": True, "detail": "", "checked_at": "2026-01-01T00:00:00Z"}
INTEGRATION = {
    "name": "web",
    "status": "active",
    "last_checkpoint_at": None,
    "state_size_bytes": 0,
    "health": HEALTH,
}


class Vmm:
    """A listening socket; each connection is given to the next behaviour, the last one repeats."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.behaviours: list[Behaviour] = []
        self.connections = 0
        self.requests: list[Any] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            behaviour = self.behaviours[min(self.connections, len(self.behaviours) - 1)]
            self.connections += 1
            with connection, contextlib.suppress(ConnectionError):
                behaviour(connection)

    def greet(self, connection: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += connection.recv(1)
        assert line == b"CONNECT 5252\n"
        connection.sendall(b"OK 1073741824\n")

    def request(self, connection: socket.socket) -> Any:
        length = connection.recv(4, socket.MSG_WAITALL)
        if len(length) < 4:
            return None
        body = connection.recv(int.from_bytes(length), socket.MSG_WAITALL)
        self.requests.append(json.loads(body))
        return self.requests[-1]

    def answering(self, answers: dict[str, Any], *, once: bool = False) -> Behaviour:
        def behave(connection: socket.socket) -> None:
            self.greet(connection)
            while (request := self.request(connection)) is not None:
                connection.sendall(frame(answers[request]))
                if once:
                    return

        return behave

    def sending(self, raw: bytes, *, then: Behaviour | None = None) -> Behaviour:
        def behave(connection: socket.socket) -> None:
            self.greet(connection)
            self.request(connection)
            connection.sendall(raw)
            if then:
                then(connection)

        return behave


def frame(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return len(body).to_bytes(4) + body


def hang(connection: socket.socket) -> None:
    while connection.recv(4096):
        pass


def hang_up(connection: socket.socket) -> None:
    connection.recv(64)


@pytest.fixture
def vmm(tmp_path: Path) -> Iterator[Vmm]:
    server = Vmm(tmp_path / "vsock.sock")
    yield server
    server.close()


def client(vmm: Vmm, **options: float) -> Agent:
    return Agent(vmm.path, vm="web", **options)


def test_a_ping_is_answered(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.answering({"Ping": "Pong"})]
    with client(vmm) as agent:
        agent.ping()
        agent.ping()
    assert vmm.requests == ["Ping", "Ping"]
    assert vmm.connections == 1


def test_an_agent_that_closes_after_one_answer_is_connected_to_again(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.answering({"Ping": "Pong"}, once=True)]
    with client(vmm) as agent:
        for _ in range(5):
            agent.ping()
    assert vmm.connections == 5


def test_an_end_of_file_before_ok_means_try_again(vmm: Vmm) -> None:
    vmm.behaviours = [hang_up, hang_up, vmm.answering({"Ping": "Pong"})]
    with client(vmm) as agent:
        agent.ping()
    assert vmm.connections == 3


def test_a_guest_that_never_listens_is_reported_with_its_name_and_the_step(vmm: Vmm) -> None:
    vmm.behaviours = [hang_up]
    with (
        client(vmm, timeout=0.4) as agent,
        pytest.raises(AgentUnreachable, match="web: guest agent, connecting: the VMM closed"),
    ):
        agent.ping()


def test_a_vmm_that_never_says_ok_is_left_at_the_time_out(vmm: Vmm) -> None:
    vmm.behaviours = [hang]
    before = time.monotonic()
    with (
        client(vmm, timeout=0.3) as agent,
        pytest.raises(AgentUnreachable, match="connecting: the VMM does not answer"),
    ):
        agent.ping()
    assert time.monotonic() - before < 2


def test_an_agent_that_never_answers_is_left_at_the_time_out(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.sending(b"", then=hang)]
    with (
        client(vmm, timeout=0.3) as agent,
        pytest.raises(AgentUnreachable, match=r"web: guest agent, Ping: no answer within 0\.3 s"),
    ):
        agent.ping()


def test_an_answer_in_drips_does_not_outlast_the_time_out(vmm: Vmm) -> None:
    def drip(connection: socket.socket) -> None:
        for byte in frame("Pong" * 1000):
            connection.sendall(bytes([byte]))
            time.sleep(0.05)

    vmm.behaviours = [vmm.sending(b"", then=drip)]
    before = time.monotonic()
    with client(vmm, timeout=0.3) as agent, pytest.raises(AgentUnreachable):
        agent.ping()
    assert time.monotonic() - before < 2


def test_patience_outlasts_a_guest_that_boots(tmp_path: Path) -> None:
    path = tmp_path / "vsock.sock"
    servers: list[Vmm] = []

    def boot() -> None:
        time.sleep(0.3)
        vmm = Vmm(tmp_path / "elsewhere")
        vmm.behaviours = [hang_up, vmm.sending(b""), vmm.answering({"Ping": "Pong"})]
        vmm.path.rename(path)
        servers.append(vmm)

    thread = threading.Thread(target=boot)
    thread.start()
    with Agent(path, vm="web", patience=10) as agent:
        agent.ping()
    thread.join()
    servers[0].close()


def test_a_missing_socket_is_named(tmp_path: Path) -> None:
    with (
        Agent(tmp_path / "no.sock", vm="web") as agent,
        pytest.raises(AgentUnreachable, match=r"web: .*connecting: there is no socket .*no\.sock"),
    ):
        agent.ping()


def test_a_socket_that_a_dead_vmm_left_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vsock.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with (
        Agent(path, vm="web") as agent,
        pytest.raises(AgentUnreachable, match="the VMM has ended"),
    ):
        agent.ping()


def test_a_socket_deeper_than_an_address_holds_is_reached(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    short = Vmm(tmp_path / "s")
    short.path.rename(deep / "vsock.sock")
    short.behaviours = [short.answering({"Ping": "Pong"})]
    with Agent(deep / "vsock.sock", vm="web") as agent:
        agent.ping()
    short.close()


@pytest.mark.parametrize(
    ("raw", "problem"),
    [
        ((256 * 1024 + 1).to_bytes(4) + b"x", "a frame of 262145 bytes"),
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
        (b"\0\0\0\4nope", "not JSON"),
        (b"\0\0\0\2\xff\xfe", "not JSON"),
        (b"\0\0\0\0", "not JSON"),
        (len(b"[" * 200_000).to_bytes(4) + b"[" * 200_000, "not JSON"),
        (frame("Pang"), "did not answer with Pong"),
        (frame({"Error": {"message": "no such request"}}), "it answered: no such request"),
        (frame({"Error": {"message": 3}}), "did not answer with Pong"),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_an_error(vmm: Vmm, raw: bytes, problem: str) -> None:
    vmm.behaviours = [vmm.sending(raw, then=hang)]
    with client(vmm, timeout=5) as agent, pytest.raises(AgentError, match=problem) as caught:
        agent.ping()
    assert not isinstance(caught.value, AgentUnreachable)
    assert "web: guest agent, Ping" in str(caught.value)


def test_a_connection_closed_within_an_answer_is_an_error(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.sending(b"\0\0\0\x10abc")]
    with client(vmm) as agent, pytest.raises(AgentUnreachable, match="closed the connection"):
        agent.ping()
    assert vmm.requests == ["Ping"]


def test_after_an_error_the_next_call_has_a_connection_of_its_own(vmm: Vmm) -> None:
    vmm.behaviours = [
        vmm.sending(b"\0\0\0\4nope" + frame("stale"), then=hang),
        vmm.answering({"Ping": "Pong"}),
    ]
    with client(vmm) as agent:
        with pytest.raises(AgentError):
            agent.ping()
        agent.ping()


def test_a_vmm_that_answers_connect_with_something_else_is_an_error(vmm: Vmm) -> None:
    vmm.behaviours = [lambda connection: connection.sendall(b"HTTP/1.1 400 Bad\n")]
    with client(vmm) as agent, pytest.raises(AgentError, match="answered CONNECT with b'HTTP"):
        agent.ping()


def test_checks_come_with_their_health_or_without(vmm: Vmm) -> None:
    failed = INTEGRATION | {"name": "db", "status": {"error": "gone"}, "health": None}
    answer = {"IntegrationStatusReport": {"integrations": [INTEGRATION, failed]}}
    vmm.behaviours = [vmm.answering({"IntegrationStatus": answer})]
    with client(vmm) as agent:
        web, db = agent.integration_status()
    assert web.status == "active"
    assert web.health is not None
    assert web.health.healthy
    assert db.health is None
    assert not isinstance(db.status, str)
    assert db.status.error == "gone"


def test_probes_come_with_their_output_or_without(vmm: Vmm) -> None:
    drives = {"name": "mvm-drives", "output": [{"drive": "root"}], **HEALTH}
    plain = {"name": "disk", **HEALTH, "healthy": False}
    vmm.behaviours = [
        vmm.answering({"ProbeStatus": {"ProbeStatusReport": {"probes": [drives, plain]}}})
    ]
    with client(vmm) as agent:
        first, second = agent.probe_status()
    assert first.output == [{"drive": "root"}]
    assert second.output is None
    assert not second.healthy


def test_the_load_is_reported(vmm: Vmm) -> None:
    answer = {"WorkerStatus": {"status": "busy", "last_busy_at": "2026-01-01T00:00:00Z"}}
    vmm.behaviours = [vmm.answering({"WorkerStatus": answer})]
    with client(vmm) as agent:
        assert agent.worker_status().status == "busy"


@pytest.mark.parametrize(
    ("field", "value"),
    [("status", "dancing"), ("health", {"healthy": "yes"}), ("name", 7), ("state_size_bytes", -1)],
)
def test_a_field_that_is_wrong_is_named(vmm: Vmm, field: str, value: Any) -> None:
    answer = {"IntegrationStatusReport": {"integrations": [INTEGRATION | {field: value}]}}
    vmm.behaviours = [vmm.answering({"IntegrationStatus": answer})]
    with (
        client(vmm) as agent,
        pytest.raises(AgentError, match=rf"IntegrationStatusReport\.integrations\.0\.{field}"),
    ):
        agent.integration_status()


def test_what_steers_a_terminal_is_made_visible(vmm: Vmm) -> None:
    health = HEALTH | {"detail": "\x1b]0;owned\x07\x9b2J\r\nline\u202e"}
    answer = {"IntegrationStatusReport": {"integrations": [INTEGRATION | {"health": health}]}}
    error = {"Error": {"message": "\x1b[2J"}}
    vmm.behaviours = [vmm.answering({"IntegrationStatus": answer, "Ping": error})]
    with client(vmm) as agent:
        (web,) = agent.integration_status()
        with pytest.raises(AgentError, match=r"it answered: \\x1b\[2J$"):
            agent.ping()
    assert web.health is not None
    assert web.health.detail == r"\x1b]0;owned\x07\x9b2J\r\nline\u202e"


def test_printable_text_stays_as_it_is() -> None:
    assert printable("Grüße, 世界 ✓") == "Grüße, 世界 ✓"
    assert printable("a\tb\nc\x00", keep="\n\t") == "a\tb\nc\\x00"


def test_a_shutdown_is_sent_on_a_connection_of_its_own(vmm: Vmm) -> None:
    answers = {"Ping": "Pong", "Shutdown": {"ShutdownAck": {"success": True}}}
    vmm.behaviours = [vmm.answering(answers)]
    with client(vmm) as agent:
        agent.ping()
        agent.shutdown()
    assert vmm.connections == 2


def test_a_shutdown_whose_answer_is_lost_is_not_sent_again(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.sending(b"")]
    with client(vmm) as agent, pytest.raises(AgentUnreachable, match="Shutdown: it closed"):
        agent.shutdown()
    assert vmm.requests == ["Shutdown"]


def test_a_refused_shutdown_is_an_error(vmm: Vmm) -> None:
    vmm.behaviours = [vmm.answering({"Shutdown": {"ShutdownAck": {"success": False}}})]
    with client(vmm) as agent, pytest.raises(AgentError, match="Shutdown: it refused"):
        agent.shutdown()
