"""The QEMU backend: a Firecracker configuration as a `microvm` machine.

The vsock device is vhost-device-vsock, a vhost-user program that gives the host the same Unix
socket with the same `CONNECT` handshake as Firecracker does. Guests are emulated (TCG).
"""

import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path
from typing import Any

from mvm_guest import process
from mvm_guest.agent.frames import connect
from mvm_guest.errors import MvmError
from mvm_guest.vm import instance
from mvm_guest.vm.launch import Launch
from mvm_guest.vm.processes import Process

_SYSTEM = "x86_64-linux"
_PROGRAM = "qemu-system-x86_64"
_VSOCK_PROGRAM = "vhost-device-vsock"
_VSOCK_VARIABLE = "MVM_VHOST_DEVICE_VSOCK"
_POLL_SECONDS = 0.05
# A guest finds the eight buses of a microvm from the last to the first, which gives drives their
# letters. Bus 3 has interrupt 8, which is the clock's, and stays empty.
_BUSES = (7, 6, 5, 4, 2, 1, 0)


def launch(configuration: dict[str, Any], system: str) -> Launch:
    """Return what to start for a configuration of a guest for `system`.

    Raises MvmError if a program is missing, with what to install, or for a foreign system.
    """
    if system != _SYSTEM:
        raise MvmError(f"the qemu backend runs guests for {_SYSTEM}; this one is for {system}")
    qemu = process.find(_PROGRAM, "install QEMU (Debian: qemu-system-x86)")
    boot, machine = configuration["boot-source"], configuration["machine-config"]
    vsock = configuration["vsock"]
    memory = f"{machine['mem_size_mib']}M"
    # vhost-user devices reach into the guest's memory, so it has to be shared.
    vmm = [
        *(str(qemu), "-M", "microvm,acpi=off,memory-backend=memory"),
        *("-object", f"memory-backend-memfd,id=memory,share=on,size={memory}", "-m", memory),
        *("-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(machine["vcpu_count"])),
        *("-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
        *("-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"),
        *("-qmp", f"unix:{instance.CONTROL},server=on,wait=off"),
        *("-chardev", f"file,id=console,path={instance.CONSOLE}", "-serial", "chardev:console"),
        *("-kernel", boot["kernel_image_path"], "-append", boot["boot_args"]),
    ]
    devices = [_drive(drive) for drive in configuration["drives"]]
    devices.append(_device("vhost-user-vsock-device,chardev=vsock"))
    if "entropy" in configuration:
        devices.append(_device("virtio-rng-device"))
    for bus, arguments in zip(_BUSES, devices, strict=False):
        vmm += [*arguments[:-1], f"{arguments[-1]},bus=virtio-mmio-bus.{bus}"]
    vmm += [
        *("-chardev", f"socket,id=vsock,path={instance.VHOST}"),
        # The keyboard for Ctrl-Alt-Del.
        *("-device", "i8042"),
    ]
    device = f"guest-cid={vsock['guest_cid']},socket={instance.VHOST},uds-path={vsock['uds_path']}"
    return Launch(
        vmm=vmm,
        helper=[str(_vsock_program()), "--vm", device],
        helper_socket=instance.VHOST,
    )


def wait_until_running(directory: Path, vmm: Process, seconds: float) -> None:
    """Return when QEMU has made all devices and its processors run.

    Raises MvmError if it ends or does not get there in time. QEMU speaks the QEMU Machine Protocol
    (docs/interop/qmp-spec) on its control socket as soon as the machine is complete.
    """
    deadline = time.monotonic() + seconds
    while vmm.alive() and time.monotonic() < deadline:
        try:
            if _status(directory, deadline) == "running":
                return
        except (OSError, ValueError, KeyError):
            pass
        time.sleep(_POLL_SECONDS)
    raise MvmError(
        f"QEMU did not start within {seconds:g} s" if vmm.alive() else "QEMU ended at its start"
    )


def _drive(drive: dict[str, Any]) -> list[str]:
    id = drive["drive_id"]
    read_only = "on" if drive["is_read_only"] else "off"
    # As in Firecracker, a guest's flush reaches the disk where the cache is of this type.
    cache = "writeback" if drive.get("cache_type") == "Writeback" else "unsafe"
    return [
        "-drive",
        f"if=none,id={id},file={drive['path_on_host']},format=raw,readonly={read_only},"
        f"cache={cache},discard=unmap",
        *_device(f"virtio-blk-device,drive={id}"),
    ]


def _device(description: str) -> list[str]:
    return ["-device", description]


def _vsock_program() -> Path:
    named = os.environ.get(_VSOCK_VARIABLE)
    beside = Path(sys.executable).parent
    found = shutil.which(named or _VSOCK_PROGRAM) or shutil.which(_VSOCK_PROGRAM, path=str(beside))
    if found is None or (named and not shutil.which(named)):
        raise process.ProgramMissing(
            f"{named or _VSOCK_PROGRAM} is no program on PATH; install it with `cargo install "
            f"--locked {_VSOCK_PROGRAM}`, or name it in {_VSOCK_VARIABLE}"
        )
    return Path(found).absolute()


def _status(directory: Path, deadline: float) -> str:
    """Ask QEMU over QMP for the state of its machine."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(max(0.1, deadline - time.monotonic()))
        connect(client, directory / instance.CONTROL)
        with client.makefile("rw", encoding="utf-8") as stream:
            stream.readline()
            for command in ("qmp_capabilities", "query-status"):
                stream.write(json.dumps({"execute": command}) + "\n")
                stream.flush()
                answer = json.loads(stream.readline())
                while "event" in answer:
                    answer = json.loads(stream.readline())
            return str(answer["return"]["status"])
