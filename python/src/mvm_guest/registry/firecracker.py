"""The configuration that Firecracker boots a revision with, before an instance adds its drives.

The form is that of Firecracker's `--config-file`, with paths relative to the revision.
"""

from typing import Any

from mvm_guest.bundle import KERNEL, Guest


def base_configuration(guest: Guest) -> dict[str, Any]:
    """Make `fc-base.json` of a guest: kernel, root drive and machine, no other drives."""
    rootfs = guest.rootfs
    return {
        "boot-source": {"kernel_image_path": KERNEL, "boot_args": guest.kernel.bootArgs},
        "drives": [
            {
                "drive_id": "root",
                "path_on_host": rootfs.file,
                # A verified root is named by the kernel's own arguments: it is the verity device.
                "is_root_device": rootfs.verity is None,
                "is_read_only": rootfs.type == "squashfs",
            }
        ],
        "machine-config": {
            "vcpu_count": guest.resources.vcpus,
            "mem_size_mib": guest.resources.memMib,
        },
    }
