"""What takes long: run by `make soak`."""

import os
import subprocess

import pytest

pytestmark = pytest.mark.soak

TIMES = int(os.environ.get("MVM_SOAK_TIMES", "100"))


def test_many_starts_and_stops_leave_the_data_drive_clean(boot, make_drives, rootfs):
    drives = make_drives()
    environment = {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    for number in range(TIMES):
        with boot(f"plain-{rootfs}", drives) as machine:
            machine.up().run(f"echo {number} >>/mnt/data/starts")
            machine.shut_down()
        header = subprocess.run(
            ["dumpe2fs", "-h", drives["data"]],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "Filesystem state:         clean" in header, number
        assert "needs_recovery" not in header, number
        subprocess.run(["e2fsck", "-fn", drives["data"]], env=environment, check=True)
    with boot(f"plain-{rootfs}", drives) as machine:
        expected = "".join(f"{number}\n" for number in range(TIMES))
        assert machine.up().run("cat /mnt/data/starts") == expected


def test_a_service_that_was_up_for_a_minute_is_started_again_after_a_second(boot):
    with boot("unruly-squashfs") as machine:
        machine.up().eventually("test $(cut -d. -f1 /proc/uptime) -ge 190", 240)
        lines = [
            line for line in machine.console().splitlines() if "service lasting: ended" in line
        ]
        assert len(lines) >= 2
        assert all(line.endswith("again in 1 s") for line in lines)
