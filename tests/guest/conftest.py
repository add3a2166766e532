"""Boots guests for real, with whatever drives and devices a test wants to give them.

A `Machine` is a QEMU process as the runner starts it, without the runner's own care for what the
guest gets; tests of the runner itself go through the command line.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mvm_guest import bundle as bundles
from mvm_guest.agent import Agent, AgentError
from mvm_guest.drives import config, data, secrets
from mvm_guest.drives.volume import Volume
from mvm_guest.nix import source
from mvm_guest.nix.build import build_flake
from mvm_guest.nix.command import path_reference
from mvm_guest.registry.firecracker import base_configuration
from mvm_guest.vm import instance, qemu

GUESTS = Path(__file__).with_name("guests")
ROOTFS = ("ext4", "squashfs")
PATIENCE = 60.0

Boot = Callable[..., "contextlib.AbstractContextManager[Machine]"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)
            item.add_marker(pytest.mark.timeout(1800))


class Machine:
    """One boot of a bundle, in a directory of its own that outlives it."""

    def __init__(
        self,
        directory: Path,
        bundle: bundles.Bundle,
        drives: dict[str, Path],
        *,
        arguments: str = "",
        mem_mib: int = 256,
        devices: tuple[str, ...] = (),
        machine: str = "",
    ) -> None:
        self.directory = directory
        (directory / "volumes").mkdir(exist_ok=True)
        for name in (instance.KERNEL, bundle.guest.rootfs.file):
            (directory / name).unlink(missing_ok=True)
        (directory / instance.KERNEL).symlink_to(bundle.path / instance.KERNEL)
        root = directory / bundle.guest.rootfs.file
        if bundle.guest.rootfs.type == "ext4":
            shutil.copyfile(bundle.path / root.name, root)
            root.chmod(0o600)
        else:
            root.symlink_to(bundle.path / root.name)
        configuration = base_configuration(bundle.guest)
        configuration["boot-source"]["boot_args"] += f" {arguments}"
        configuration["machine-config"] |= {"vcpu_count": 1, "mem_size_mib": mem_mib}
        configuration["vsock"] = {"guest_cid": 3, "uds_path": instance.VSOCK}
        for name, path in drives.items():
            configuration["drives"].append(
                {
                    "drive_id": name,
                    "path_on_host": str(path),
                    "is_root_device": False,
                    "is_read_only": name in ("config", "secrets"),
                    "cache_type": "Writeback" if name == "data" else "Unsafe",
                }
            )
        launch = qemu.launch(configuration, bundle.guest.system)
        assert launch.helper
        vmm = [*launch.vmm, *devices]
        if machine:
            vmm[vmm.index("-M") + 1] += f",{machine}"
        for left in (instance.VSOCK, instance.VHOST, instance.CONTROL):
            (directory / left).unlink(missing_ok=True)
        self._helper = subprocess.Popen(launch.helper, cwd=directory, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not (directory / instance.VHOST).exists():
            assert time.monotonic() < deadline, "the vsock helper does not listen"
            time.sleep(0.01)
        self.vmm = subprocess.Popen(vmm, cwd=directory)

    def agent(self, timeout: float = 60) -> Agent:
        return Agent(self.directory / instance.VSOCK, vm="test", timeout=timeout, patience=PATIENCE)

    def up(self) -> "Machine":
        """Wait until the guest's agent answers."""
        try:
            with self.agent(10) as agent:
                agent.ping()
        except AgentError as error:
            pytest.fail(f"{error}\n{self.console()[-4000:]}")
        return self

    def run(self, command: str, stdin: str | None = None) -> str:
        """Run a command as root inside, and return what it printed; fail if it does."""
        code, output, errors = self.result(command, stdin)
        assert code == 0, f"{command}: exit {code}: {output}{errors}"
        return output

    def result(self, command: str, stdin: str | None = None) -> tuple[int, str, str]:
        with self.agent() as agent:
            done = agent.execute(command, stdin=stdin)
        return done.exit_code, done.stdout, done.stderr

    def eventually(self, command: str, seconds: float = 30) -> str:
        """Run a command inside again and again until it succeeds."""
        deadline = time.monotonic() + seconds
        while True:
            code, output, errors = self.result(command)
            if code == 0:
                return output
            assert time.monotonic() < deadline, f"{command}: {output}{errors}\n{self.console()}"
            time.sleep(0.2)

    def healthy(self, seconds: float = 30) -> "Machine":
        """Wait until every health check holds."""
        deadline = time.monotonic() + seconds
        while True:
            with self.agent() as agent:
                checks = agent.integration_status()
            if all(check.health and check.health.healthy for check in checks):
                return self
            assert time.monotonic() < deadline, (checks, self.console())
            time.sleep(0.5)

    def drives(self) -> dict[str, Any]:
        """What the guest reports of its drives, by name."""
        with self.agent() as agent:
            probes = {probe.name: probe for probe in agent.probe_status()}
        return {drive["drive"]: drive for drive in probes["mvm-drives"].output}

    def console(self) -> str:
        return (self.directory / instance.CONSOLE).read_text(errors="replace")

    def says(self, text: str, seconds: float = 30) -> None:
        """Wait until the console shows a text."""
        deadline = time.monotonic() + seconds
        while text not in self.console():
            assert time.monotonic() < deadline, f"{text!r} is not in {self.console()}"
            time.sleep(0.1)

    def qmp(self, *commands: dict[str, Any]) -> None:
        """Give QEMU commands on its control socket."""
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(self.directory / instance.CONTROL))
            with client.makefile("rw", encoding="utf-8") as stream:
                stream.readline()
                for command in ({"execute": "qmp_capabilities"}, *commands):
                    stream.write(json.dumps(command) + "\n")
                    stream.flush()
                    answer = json.loads(stream.readline())
                    while "event" in answer:
                        answer = json.loads(stream.readline())
                    assert "return" in answer, answer

    def shut_down(self) -> None:
        """Ask the agent for the guest's end, and wait for it."""
        with self.agent() as agent:
            agent.shutdown()
        self.wait()

    def wait(self, seconds: float = 40) -> None:
        """Wait for the VMM's own end."""
        try:
            assert self.vmm.wait(seconds) == 0
        except subprocess.TimeoutExpired:
            pytest.fail(f"the VMM goes on\n{self.console()[-3000:]}")

    def kill(self) -> None:
        """End the VMM at once, as a crash of the host would."""
        self.vmm.kill()
        self.vmm.wait()
        self._helper.kill()
        self._helper.wait()


@pytest.fixture(scope="session")
def bundle_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bundles.Bundle]:
    """Build one of the test flake's guests, or those of another flake, once for a session."""
    built: dict[tuple[Path, str], bundles.Bundle] = {}
    mvm = path_reference(source.project_source())
    links = tmp_path_factory.mktemp("results")

    def build(name: str, flake: Path = GUESTS) -> bundles.Bundle:
        if (flake, name) not in built:
            reference = f"{path_reference(flake)}#{name}"
            link = links / f"{len(built)}-{name}"
            build_flake(reference, packages="debian", mvm=mvm, out_link=link)
            built[flake, name] = bundles.read(link)
        return built[flake, name]

    return build


@pytest.fixture(params=ROOTFS)
def rootfs(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def make_drives(tmp_path: Path) -> Iterator[Callable[..., dict[str, Path]]]:
    """Make the config, secrets and data drives of a guest, from directories and a size."""
    links = []

    def make(
        config_dir: Path | None = None,
        secrets_dir: Path | None = None,
        data_mib: int = 32,
        environment: dict[str, str] | None = None,
    ) -> dict[str, Path]:
        place = tmp_path / "drives"
        place.mkdir(exist_ok=True)
        description = config.Description("test", "tenant", "test@0", 1, 256, data_mib, {})
        config.make(place / "config.ext4", description, environment or {}, config_dir)
        secrets.discard(place / "secrets.ext4")
        secrets.make(place / "secrets.ext4", secrets_dir)
        links.append(place / "secrets.ext4")
        data.ensure(place / "data.ext4", Volume("/data", data_mib))
        return {name: place / f"{name}.ext4" for name in ("config", "secrets", "data")}

    yield make
    for link in links:
        secrets.discard(link)


@pytest.fixture
def boot(
    tmp_path: Path, bundle_of: Callable[..., bundles.Bundle], make_drives: Callable[..., Any]
) -> Boot:
    """Boot a guest by its name; it is killed at the end if it still runs."""

    @contextlib.contextmanager
    def start(
        name: str | bundles.Bundle, drives: dict[str, Path] | None = None, **options: Any
    ) -> Iterator[Machine]:
        bundle = bundle_of(name) if isinstance(name, str) else name
        directory = tmp_path / "machine"
        directory.mkdir(exist_ok=True)
        machine = Machine(directory, bundle, make_drives() if drives is None else drives, **options)
        try:
            yield machine
        finally:
            machine.kill()

    return start


@pytest.fixture
def command(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `mvm-guest` as its users do, with a data directory of the test's own."""

    def run(*arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [Path(sys.executable).with_name("mvm-guest"), *map(str, arguments)],
            env={**os.environ, "MVM_DATA_DIR": str(tmp_path / "mvm"), "MVM_PACKAGES": "debian"},
            capture_output=True,
            text=True,
            check=False,
        )
        if check:
            assert done.returncode == 0, done.stderr
        return done

    return run
