"""Boots bundles for real, with whatever drives and devices somebody wants to give them.

A `Machine` is a QEMU process as the runner starts it, without the runner's own care for what the
guest gets.
"""

import contextlib
import json
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mvm_guest import bundle as bundles
from mvm_guest.agent import Agent, AgentError
from mvm_guest.drives import config, data, secrets
from mvm_guest.drives.volume import Volume
from mvm_guest.registry.firecracker import base_configuration
from mvm_guest.vm import instance, qemu

PATIENCE = 60.0

_SOCKETS = (instance.VSOCK, instance.VHOST, instance.CONTROL)


class Machine:
    """One boot of a bundle, in a directory of its own that outlives it.

    `rootfs` takes the place of the bundle's root file system, `arguments` are more for the kernel,
    `devices` and `machine` more for QEMU.
    """

    def __init__(
        self,
        directory: Path,
        bundle: bundles.Bundle,
        drives: dict[str, Path],
        *,
        rootfs: Path | None = None,
        arguments: str = "",
        mem_mib: int = 256,
        devices: tuple[str, ...] = (),
        machine: str = "",
    ) -> None:
        self.directory = directory
        kernel, root = directory / instance.KERNEL, directory / bundle.guest.rootfs.file
        for left in (kernel, root, *(directory / name for name in _SOCKETS)):
            left.unlink(missing_ok=True)
        kernel.symlink_to(bundle.path / instance.KERNEL)
        if bundle.guest.rootfs.type == "ext4":
            shutil.copyfile(rootfs or bundle.path / root.name, root)
            root.chmod(0o600)
        else:
            root.symlink_to(rootfs or bundle.path / root.name)
        configuration = base_configuration(bundle.guest)
        configuration["boot-source"]["boot_args"] += f" {arguments}"
        configuration["machine-config"] |= {"vcpu_count": 1, "mem_size_mib": mem_mib}
        configuration["vsock"] = {"guest_cid": 3, "uds_path": instance.VSOCK}
        configuration["entropy"] = {}
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
            raise AssertionError(f"{error}\n{self.console()[-4000:]}") from error
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
            raise AssertionError(f"the VMM goes on\n{self.console()[-3000:]}") from None

    def kill(self) -> None:
        """End the VMM at once, as a crash of the host would."""
        self.vmm.kill()
        self.vmm.wait()
        self._helper.kill()
        self._helper.wait()


@contextlib.contextmanager
def booted(*arguments: Any, **options: Any) -> Iterator[Machine]:
    """Boot as `Machine` does; it is killed at the end if it still runs."""
    machine = Machine(*arguments, **options)
    try:
        yield machine
    finally:
        machine.kill()


@contextlib.contextmanager
def drives_in(
    place: Path,
    config_dir: Path | None = None,
    secrets_dir: Path | None = None,
    data_mib: int = 32,
    environment: dict[str, str] | None = None,
) -> Iterator[dict[str, Path]]:
    """Make the config, secrets and data drives of an instance, from directories and a size."""
    place.mkdir(exist_ok=True)
    drives = {name: place / f"{name}.ext4" for name in ("config", "secrets", "data")}
    description = config.Description("test", "tenant", "test@0", 1, 256, data_mib, {})
    config.make(drives["config"], description, environment or {}, config_dir)
    try:
        secrets.make(drives["secrets"], secrets_dir)
        data.ensure(drives["data"], Volume("/data", data_mib))
        yield dict(drives)
    finally:
        secrets.discard(drives["secrets"])
