"""The commands on instances."""

import contextlib
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from mvm_guest import settings
from mvm_guest.cli.output import age, as_json, say, table

Name = Annotated[str, typer.Argument(metavar="NAME", help="The instance's name.")]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]

_WAIT_SECONDS = 120.0


def run(
    ref: Annotated[
        str | None,
        typer.Argument(
            metavar="[REF]",
            help="NAME, NAME@HASH or HASH of a revision; not needed for an instance that exists.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="Name of the instance; the revision's if not given.")
    ] = None,
    vcpus: Annotated[
        int | None, typer.Option(min=1, max=32, help="Processors; as the guest says if not given.")
    ] = None,
    mem: Annotated[
        int | None,
        typer.Option(
            min=16, max=1 << 20, metavar="MIB", help="Memory; as the guest says if not given."
        ),
    ] = None,
    config_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Files for the config drive, at /mnt/config."),
    ] = None,
    secrets_dir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Files for the secrets drive, at /mnt/secrets."),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:GUEST:MIB",
            help="A data drive of MIB mebibytes at GUEST, filled from the directory HOST when it "
            "is made.",
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="A variable for all services. Repeatable."),
    ] = None,
    role: Annotated[str, typer.Option(help="The role that config.json names.")] = "tenant",
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when all checks and drives hold.")
    ] = False,
    json: Json = False,
) -> None:
    """Start an instance of a revision.

    It runs in the background. Prints the instance's name. One that was stopped is started again
    with its data; everything else is made anew.

    \b
    Example:
      mvm-guest run hello --name web --volume ./data:/data:1024 --env LOG=debug --wait
    """
    from mvm_guest.drives.config import parse_environment
    from mvm_guest.drives.volume import parse
    from mvm_guest.errors import UsageError
    from mvm_guest.registry import Store
    from mvm_guest.vm.instance import Instance
    from mvm_guest.vm.lifecycle import Options, start

    data_dir = settings.load().data_dir
    options = Options(
        vcpus=vcpus,
        mem_mib=mem,
        role=role,
        environment=parse_environment(env or []),
        volumes=parse(volume or [], config_dir, secrets_dir),
    )
    if ref is None:
        known = Instance(data_dir, name).record() if name else None
        if known is None:
            raise UsageError("say which revision to run; `mvm-guest ls` lists them")
        ref = known.revision
    revision = Store(data_dir).resolve(ref)
    with _busy(f"Starting {name or revision.name}"):
        started = start(data_dir, name or revision.name, revision, options)
    if json:
        as_json(_described(started))
    else:
        print(started.name, flush=True)
    if wait:
        _check(started, _ask(started, _WAIT_SECONDS, wait=True))


def ps(
    all: Annotated[bool, typer.Option("--all", "-a", help="List stopped ones, too.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the instances.

    What a VMM left behind that ended with nobody watching is cleared away.

    \b
    Example:
      mvm-guest ps --all
    """
    from mvm_guest.errors import MvmError
    from mvm_guest.vm.instance import instances, tidy

    data_dir = settings.load().data_dir
    tidy(data_dir)
    found = []
    for instance in instances(data_dir):
        try:
            if all or instance.state() == "running":
                found.append(_described(instance))
        except MvmError as error:
            say(str(error))
    if json:
        as_json(found)
        return
    table(
        ["NAME", "REVISION", "STATE", "PID", "VCPUS", "MEMORY", "STARTED"],
        [
            [
                entry["name"],
                _short(entry["revision"]),
                entry["state"],
                str(entry["pid"] or ""),
                str(entry["vcpus"]),
                f"{entry['memMib']} MiB",
                f"{age(datetime.fromisoformat(entry['startedAt']))} ago",
            ]
            for entry in found
        ],
    )


def health(
    name: Name,
    wait: Annotated[
        bool, typer.Option("--wait", help="Ask until everything holds or the time is over.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            min=0.1, metavar="S", help="Seconds to wait: 10 for an answer, 120 with --wait."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Ask a guest how its parts are.

    Prints a line for each health check, probe and drive, and ends with 0 only if all of them hold,
    with 3 if one does not.

    \b
    Example:
      mvm-guest health web --wait --timeout 60
    """
    from mvm_guest.vm.instance import Instance

    instance = Instance(settings.load().data_dir, name)
    report = _ask(instance, timeout or (_WAIT_SECONDS if wait else 10.0), wait=wait)
    if json:
        as_json(
            {
                "name": name,
                "healthy": report.healthy,
                "parts": [part.json() for part in report.parts],
            }
        )
    else:
        rows = [
            [part.kind, part.name, "ok" if part.healthy else "FAILED", _told(part)]
            for part in report.parts
        ]
        if rows:
            table(rows[0], rows[1:])
    _check(instance, report)


def logs(
    name: Name,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on until the instance ends.")
    ] = False,
    vmm: Annotated[
        bool, typer.Option("--vmm", help="Print what the VMM wrote, not the guest.")
    ] = False,
) -> None:
    """Print an instance's console.

    What could steer a terminal is shown as an escape such as \\x1b.

    \b
    Example:
      mvm-guest logs web --follow
    """
    from mvm_guest.errors import MvmError
    from mvm_guest.vm.instance import CONSOLE, LOG, Instance
    from mvm_guest.vm.logs import lines

    instance = Instance(settings.load().data_dir, name)
    if instance.record() is None:
        raise MvmError(f"there is no instance {name}; `mvm-guest ps --all` lists those there are")
    running = (lambda: instance.state() == "running") if follow else None
    for line in lines(instance / (LOG if vmm else CONSOLE), running):
        print(line, flush=follow)


def stop(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="The instances' names.")],
    kill: Annotated[
        bool, typer.Option("--kill", help="End the VMM at once, without asking the guest.")
    ] = False,
    timeout: Annotated[
        float,
        typer.Option(min=0.1, metavar="S", help="Seconds that a guest gets before it is killed."),
    ] = 30.0,
) -> None:
    """Shut instances down.

    The guest is asked to, and is killed when it does not in time. Data stays.

    \b
    Example:
      mvm-guest stop web
    """
    from mvm_guest.errors import MvmError
    from mvm_guest.vm.instance import Instance
    from mvm_guest.vm.lifecycle import stop as stop_instance

    data_dir = settings.load().data_dir
    instances = [Instance(data_dir, name) for name in names]
    failed = False
    for instance in instances:
        try:
            with _busy(f"Stopping {instance.name}"):
                killed = stop_instance(instance, timeout=timeout, kill=kill)
        except MvmError as error:
            say(str(error))
            failed = True
            continue
        if killed and not kill:
            say(f"{instance.name} was killed: {killed}")
        print(instance.name, flush=True)
    if failed:
        raise typer.Exit(1)


def rm(
    name: Name,
    keep_data: Annotated[
        bool, typer.Option("--keep-data", help="Keep the data drive for a later instance.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Remove data without asking.")] = False,
) -> None:
    """Remove an instance.

    It must not run. Before data is removed you are asked.

    \b
    Example:
      mvm-guest stop web && mvm-guest rm web
    """
    from mvm_guest.errors import UsageError
    from mvm_guest.vm.instance import DATA_DRIVE, Instance
    from mvm_guest.vm.lifecycle import remove

    instance = Instance(settings.load().data_dir, name)
    if (instance / DATA_DRIVE).exists() and not keep_data and not force:
        if not sys.stdin.isatty():
            raise UsageError(
                f"{name} has data, and nobody can be asked here; say --keep-data or --force"
            )
        typer.confirm(f"Remove {name} with all its data?", abort=True, err=True)
    remove(instance, keep_data=keep_data)
    print(name)


def _ask(instance: Any, timeout: float, *, wait: bool) -> Any:
    from mvm_guest.agent import AgentUnreachable
    from mvm_guest.errors import CheckFailed
    from mvm_guest.registry import Store
    from mvm_guest.vm import health

    record = instance.record()
    probes: list[str] = []
    if record is not None:
        probes = Store(settings.load().data_dir).resolve(record.revision).guest.probes
    try:
        with _busy(f"Waiting for {instance.name}" if wait else f"Asking {instance.name}"):
            return (health.wait if wait else health.ask)(instance, probes, timeout=timeout)
    except AgentUnreachable as error:
        raise CheckFailed(str(error)) from None


def _check(instance: Any, report: Any) -> None:
    from mvm_guest.errors import CheckFailed

    if not report.healthy:
        raise CheckFailed(
            f"{instance.name} is not well: {report.unhealthy}; "
            f"`mvm-guest logs {instance.name}` may tell more"
        )


def _described(instance: Any) -> dict[str, Any]:
    record = instance.record()
    return {
        "name": instance.name,
        "revision": record.revision,
        "backend": record.backend,
        "state": instance.state(),
        "failure": record.failure,
        "pid": record.vmm.pid if record.vmm else None,
        "vcpus": record.vcpus,
        "memMib": record.mem_mib,
        "volumes": [{"guestPath": path, "sizeMib": size} for path, size in record.volumes],
        "startedAt": record.started_at,
        "directory": str(instance.directory),
    }


def _told(part: Any) -> str:
    if part.drive is None:
        return str(part.detail)
    drive = part.drive
    columns = [drive.device, drive.mountPoint, drive.type, drive.options, drive.state, drive.detail]
    return " ".join(column for column in columns if column)


def _short(revision: str) -> str:
    name, _, hash = revision.partition("@")
    return f"{name}@{hash[:12]}"


@contextlib.contextmanager
def _busy(what: str) -> Iterator[None]:
    """Show on a terminal that something is going on."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield
