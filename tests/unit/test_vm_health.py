"""What is made of an agent's answers; the VMM is this process, with an agent on a real socket."""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvm_guest.agent import AgentUnreachable
from mvm_guest.errors import MvmError
from mvm_guest.vm import health
from mvm_guest.vm.instance import Instance, Record
from mvm_guest.vm.processes import process

NOW = "2026-01-01T00:00:00Z"
Serve = Callable[..., Instance]


def check(name: str = "web", healthy: bool | None = True, status: Any = "active") -> dict[str, Any]:
    ran = {"healthy": healthy, "detail": "", "checked_at": NOW}
    return {
        "name": name,
        "status": status,
        "last_checkpoint_at": None,
        "state_size_bytes": 0,
        "health": None if healthy is None else ran,
    }


def probe(name: str, output: Any = None, healthy: bool = True) -> dict[str, Any]:
    return {
        "name": name,
        "healthy": healthy,
        "detail": "",
        "output": output,
        "checked_at": NOW,
    }


def drive(name: str, state: str = "mounted", detail: str = "") -> dict[str, str]:
    return {
        "drive": name,
        "device": "/dev/vdx",
        "mountPoint": f"/mnt/{name}",
        "type": "ext4",
        "options": "ro",
        "state": state,
        "detail": detail,
    }


DRIVES = [drive("root"), drive("config"), drive("secrets"), drive("data")]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    listener = socket.socket(socket.AF_UNIX)

    def run(
        checks: list[Any],
        probes: list[Any],
        *,
        volumes: tuple[tuple[str, int], ...] = (("/data", 8),),
        late: int = 0,
    ) -> Instance:
        """Serve these answers, each only after as many connections as `late` were closed."""
        web = Instance(tmp_path / "data", "web")
        with web.locked(create=True):
            web.write_record(Record("web@0", "qemu", 1, 64, volumes, NOW, vmm=process(os.getpid())))
        listener.bind(str(web / "vsock.sock"))
        listener.listen()
        answers = {
            "IntegrationStatus": {"IntegrationStatusReport": {"integrations": checks}},
            "ProbeStatus": {"ProbeStatusReport": {"probes": probes}},
        }

        def loop() -> None:
            for number in range(1_000_000):
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    if number < late or not connection.recv(13, socket.MSG_WAITALL):
                        continue
                    connection.sendall(b"OK 1\n")
                    while length := connection.recv(4, socket.MSG_WAITALL):
                        request = connection.recv(int.from_bytes(length), socket.MSG_WAITALL)
                        body = json.dumps(answers[json.loads(request)]).encode()
                        connection.sendall(len(body).to_bytes(4) + body)

        threading.Thread(target=loop, daemon=True).start()
        return web

    yield run
    listener.close()


def states(report: health.Report) -> dict[str, bool]:
    return {f"{part.kind} {part.name}": part.healthy for part in report.parts}


def test_a_guest_is_well_when_all_its_parts_are(serve: Serve) -> None:
    web = serve([check()], [probe("disk"), probe("mvm-drives", DRIVES)])
    report = health.ask(web, ["disk"])
    assert report.healthy
    assert states(report) == {
        "check web": True,
        "probe disk": True,
        "drive root": True,
        "drive config": True,
        "drive secrets": True,
        "drive data": True,
    }


@pytest.mark.parametrize(
    ("checks", "probes", "unhealthy"),
    [
        ([check(healthy=False)], [], "check web"),
        ([check(healthy=None, status="pending")], [], "check web"),
        ([check(status={"error": "gone"})], [], "check web"),
        ([], [probe("disk", healthy=False)], "probe disk"),
    ],
)
def test_a_part_that_is_not_well_is_named(
    serve: Serve, checks: list[Any], probes: list[Any], unhealthy: str
) -> None:
    report = health.ask(serve(checks, [*probes, probe("mvm-drives", DRIVES)]), [])
    assert report.unhealthy == unhealthy


def test_a_probe_that_should_have_run_is_missed(serve: Serve) -> None:
    report = health.ask(serve([], [probe("mvm-drives", DRIVES)]), ["disk"])
    assert report.unhealthy == "probe disk"


@pytest.mark.parametrize(
    ("state", "volumes", "healthy"),
    [
        ("absent", (), True),
        ("absent", (("/data", 8),), False),
        ("failed", (), False),
        ("failed", (("/data", 8),), False),
        ("mounted", (("/data", 8),), True),
    ],
)
def test_a_data_drive_may_be_absent_only_where_none_was_given(
    serve: Serve, state: str, volumes: tuple[tuple[str, int], ...], healthy: bool
) -> None:
    drives = [*DRIVES[:3], drive("data", state, "reason")]
    report = health.ask(serve([], [probe("mvm-drives", drives)], volumes=volumes), [])
    assert states(report)["drive data"] == healthy
    assert report.parts[-1].detail == "reason"


@pytest.mark.parametrize(
    "probes",
    [
        [],
        [probe("mvm-drives")],
        [probe("mvm-drives", [])],
        [probe("mvm-drives", "all well")],
        [probe("mvm-drives", [{"drive": "root"}])],
        [probe("mvm-drives", [drive("root", "perhaps")])],
    ],
)
def test_drives_that_nobody_vouches_for_are_not_well(serve: Serve, probes: list[Any]) -> None:
    assert health.ask(serve([], probes), []).unhealthy == "probe mvm-drives"


def test_waiting_lasts_until_the_guest_answers(serve: Serve) -> None:
    web = serve([check()], [probe("mvm-drives", DRIVES)], late=4)
    assert health.wait(web, [], timeout=20).healthy


def test_waiting_ends_with_the_last_answer(serve: Serve) -> None:
    web = serve([check(healthy=False)], [probe("mvm-drives", DRIVES)])
    before = time.monotonic()
    assert health.wait(web, [], timeout=1).unhealthy == "check web"
    assert time.monotonic() - before < 5


def test_waiting_for_a_guest_that_never_answers_ends_in_time(serve: Serve) -> None:
    web = serve([], [], late=1_000_000)
    before = time.monotonic()
    with pytest.raises(AgentUnreachable, match="web: guest agent"):
        health.wait(web, [], timeout=1)
    assert time.monotonic() - before < 5


def test_what_does_not_run_has_no_health(tmp_path: Path) -> None:
    with pytest.raises(MvmError, match="web does not run"):
        health.wait(Instance(tmp_path, "web"), [], timeout=60)
