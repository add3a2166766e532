"""What takes long: run by `make soak`."""

import os

import pytest
from e2fsprogs import state, tool

pytestmark = pytest.mark.soak

TIMES = int(os.environ.get("MVM_SOAK_TIMES", "100"))


def test_many_starts_and_stops_leave_the_data_drive_clean(boot, make_drives, rootfs):
    drives = make_drives()
    for number in range(TIMES):
        with boot(f"plain-{rootfs}", drives) as machine:
            machine.up().run(f"echo {number} >>/mnt/data/starts")
            machine.shut_down()
        assert state(drives["data"]) == "clean", number
        tool("e2fsck", "-fn", drives["data"])
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
