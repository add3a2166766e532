"""How long a guest takes until it answers and is healthy, and in how little memory it does."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mvm_guest.agent import Agent, AgentError
from mvm_guest.bundle import Bundle
from mvm_guest.drives import config, data, secrets
from mvm_guest.drives.volume import Volume
from mvm_guest.registry.firecracker import base_configuration
from mvm_guest.vm import instance, qemu

INIT = b"Run /init as init process"
_PATIENCE = 30.0


@contextlib.contextmanager
def drives() -> Iterator[dict[str, Path]]:
    """Config, secrets and data drives as an instance gets them."""
    with tempfile.TemporaryDirectory(prefix="mvm-bench-") as name:
        place = Path(name)
        description = config.Description("bench", "tenant", "bench@0", 1, 256, 64, {})
        config.make(place / "config.ext4", description, {"A": "b"}, None)
        secrets.make(place / "secrets.ext4", None)
        data.ensure(place / "data.ext4", Volume("/data", 64))
        try:
            yield {kind: place / f"{kind}.ext4" for kind in ("config", "secrets", "data")}
        finally:
            secrets.discard(place / "secrets.ext4")


@contextlib.contextmanager
def running(
    bundle: Bundle, rootfs: Path, given: dict[str, Path], mem_mib: int = 256
) -> Iterator[Path]:
    """Boot the bundle's kernel with a squashfs root, and give the directory of the machine."""
    with tempfile.TemporaryDirectory(prefix="mvm-bench-") as name:
        directory = Path(name)
        (directory / "volumes").mkdir()
        (directory / instance.KERNEL).symlink_to(bundle.path / instance.KERNEL)
        (directory / "rootfs.squashfs").symlink_to(rootfs)
        configuration = base_configuration(bundle.guest)
        configuration["boot-source"]["boot_args"] += " loglevel=7"
        configuration["machine-config"] |= {"vcpu_count": 1, "mem_size_mib": mem_mib}
        configuration["vsock"] = {"guest_cid": 3, "uds_path": instance.VSOCK}
        configuration["entropy"] = {}
        for kind, path in given.items():
            configuration["drives"].append(
                {
                    "drive_id": kind,
                    "path_on_host": str(path),
                    "is_root_device": False,
                    "is_read_only": kind != "data",
                }
            )
        launch = qemu.launch(configuration, bundle.guest.system)
        assert launch.helper
        processes = [subprocess.Popen(launch.helper, cwd=directory, stderr=subprocess.DEVNULL)]
        try:
            while not (directory / instance.VHOST).exists():
                time.sleep(0.01)
            processes.append(subprocess.Popen(launch.vmm, cwd=directory))
            yield directory
        finally:
            for process in reversed(processes):
                process.kill()
                process.wait()


def seen(console: Path, text: bytes) -> float:
    """Wait until the console shows `text`, and return when it did, by the monotonic clock."""
    deadline = time.monotonic() + _PATIENCE
    while not console.exists() or text not in console.read_bytes():
        if time.monotonic() > deadline:
            raise TimeoutError(f"the console never shows {text!r}")
        time.sleep(0.001)
    return time.monotonic()


def _healthy(directory: Path) -> float:
    deadline = time.monotonic() + _PATIENCE
    with Agent(directory / instance.VSOCK, vm="bench", timeout=0.5) as agent:
        while time.monotonic() < deadline:
            try:
                agent.ping()
                if all(
                    check.health and check.health.healthy for check in agent.integration_status()
                ):
                    return time.monotonic()
            except AgentError:
                pass
            time.sleep(0.002)
    raise TimeoutError("the guest does not get healthy")


def seconds_to_healthy(bundle: Bundle, given: dict[str, Path]) -> float:
    """From the kernel's `Run /init` to an answer that says that the service is healthy."""
    with running(bundle, bundle.path / bundle.guest.rootfs.file, given) as directory:
        begun = seen(directory / instance.CONSOLE, INIT)
        return _healthy(directory) - begun


def seconds_of_bare(bundle: Bundle, bare: Path, given: dict[str, Path]) -> float:
    """From the kernel's `Run /init` to the bare busybox' last mark."""
    with running(bundle, bare, given) as directory:
        begun = seen(directory / instance.CONSOLE, INIT)
        return seen(directory / instance.CONSOLE, b"bare: healthy") - begun


def smallest_memory(bundle: Bundle, given: dict[str, Path]) -> int:
    """The fewest MiB in which the guest gets healthy."""
    low, high = 16, 64
    while low < high:
        middle = (low + high) // 2
        try:
            with running(
                bundle, bundle.path / bundle.guest.rootfs.file, given, middle
            ) as directory:
                seen(directory / instance.CONSOLE, INIT)
                _healthy(directory)
            high = middle
        except TimeoutError:
            low = middle + 1
    return low
