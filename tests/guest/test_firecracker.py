"""The real Firecracker takes what is generated: kernel, root, three further drives, vsock.

Where its guests' code does not run, as under a hypervisor that only offers /dev/kvm's interface,
this is as far as it goes; QEMU shows what the guest does.
"""

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from mvm_guest.registry import Source, Store
from mvm_guest.vm import instance
from mvm_guest.vm.configuration import full_configuration

FIRECRACKER = Path(sys.executable).with_name("firecracker")

pytestmark = pytest.mark.skipif(
    not os.access("/dev/kvm", os.R_OK | os.W_OK), reason="Firecracker needs /dev/kvm"
)


class Api(http.client.HTTPConnection):
    """Firecracker's API on its Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self._path))

    def call(self, method: str, path: str, body: Any = None) -> Any:
        self.request(method, path, None if body is None else json.dumps(body))
        answer = self.getresponse()
        content = answer.read()
        assert answer.status < 300, content
        return json.loads(content) if content else None


def test_firecracker_starts_a_guest_with_its_four_drives(bundle_of, make_drives, tmp_path, rootfs):
    bundle = bundle_of(f"plain-{rootfs}")
    registered = Store(tmp_path / "mvm").register(bundle, Source(kind="path", ref="test"))
    revision = Store(tmp_path / "mvm").resolve(f"plain@{registered.hash}")
    directory = tmp_path / "vm"
    directory.mkdir()
    (directory / "volumes").symlink_to(make_drives()["config"].parent)
    (directory / instance.KERNEL).symlink_to(revision.path / instance.KERNEL)
    shutil.copyfile(revision.path / bundle.guest.rootfs.file, directory / bundle.guest.rootfs.file)
    configuration = full_configuration(revision, 1, 256, "/data")
    (directory / instance.CONFIGURATION).write_text(json.dumps(configuration))
    vmm = subprocess.Popen(
        [
            *(FIRECRACKER, "--api-sock", instance.CONTROL),
            *("--config-file", instance.CONFIGURATION),
        ],
        cwd=directory,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        deadline = time.monotonic() + 20
        while not (directory / instance.CONTROL).exists():
            assert vmm.poll() is None, vmm.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.02)
        api = Api(directory / instance.CONTROL)
        described = api.call("GET", "/")
        print(f"Firecracker {described['vmm_version']}")
        assert described["state"] == "Running"
        found = api.call("GET", "/vm/config")
        assert [drive["path_on_host"] for drive in found["drives"]] == [
            bundle.guest.rootfs.file,
            instance.CONFIG_DRIVE,
            instance.SECRETS_DRIVE,
            instance.DATA_DRIVE,
        ]
        assert [drive["is_read_only"] for drive in found["drives"]] == [
            rootfs == "squashfs",
            True,
            True,
            False,
        ]
        assert found["boot-source"]["boot_args"] == configuration["boot-source"]["boot_args"]
        assert found["vsock"]["guest_cid"] == 3
        for state, name in (("Paused", "Paused"), ("Resumed", "Running")):
            api.call("PATCH", "/vm", {"state": state})
            assert api.call("GET", "/")["state"] == name
    finally:
        vmm.kill()
        vmm.wait()
