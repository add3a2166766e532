"""The whole configuration of an instance, in the form of Firecracker's `--config-file`.

It is the one description of the machine that every backend starts from, with paths relative to the
instance's directory (Firecracker's API definition, `FullVmConfiguration`).
"""

import json
from typing import Any

from mvm_guest.errors import MvmError
from mvm_guest.registry import Revision
from mvm_guest.vm import instance

GUEST_CID = 3
DATA_ARGUMENT = "mvm.data"


def full_configuration(
    revision: Revision, vcpus: int, mem_mib: int, data_path: str | None
) -> dict[str, Any]:
    """Add to a revision's `fc-base.json` what makes it an instance.

    `data_path` is where the guest mounts its data drive, None if it has none. Raises MvmError if
    the revision is damaged.
    """
    file = revision.path / instance.CONFIGURATION
    try:
        base = json.loads(file.read_bytes())
        boot, (root,) = base["boot-source"], base["drives"]
        arguments = boot["boot_args"]
    except (OSError, ValueError, KeyError, TypeError):
        raise MvmError(f"{file} cannot be used; register the guest again") from None
    drives = [
        root,
        _drive("config", instance.CONFIG_DRIVE, read_only=True),
        _drive("secrets", instance.SECRETS_DRIVE, read_only=True),
    ]
    if data_path is not None:
        # Only what a guest wants to keep has to be on the disk when the guest says so.
        data = _drive("data", instance.DATA_DRIVE, read_only=False)
        drives.append(data | {"cache_type": "Writeback"})
        arguments = f"{arguments} {DATA_ARGUMENT}={data_path}"
    return {
        "boot-source": {**boot, "boot_args": arguments},
        "drives": drives,
        "machine-config": {**base["machine-config"], "vcpu_count": vcpus, "mem_size_mib": mem_mib},
        "vsock": {"guest_cid": GUEST_CID, "uds_path": instance.VSOCK},
        "entropy": {},
    }


def _drive(id: str, path: str, *, read_only: bool) -> dict[str, Any]:
    return {
        "drive_id": id,
        "path_on_host": path,
        "is_root_device": False,
        "is_read_only": read_only,
    }
