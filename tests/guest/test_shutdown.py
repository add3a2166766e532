"""How guests end: services in order, the data drive clean, and the VMM with them."""

import re
import time

import pytest
from e2fsprogs import state, tool

CTRL_ALT_DEL = {
    "execute": "send-key",
    "arguments": {"keys": [{"type": "qcode", "data": key} for key in ("ctrl", "alt", "delete")]},
}


def ask(machine) -> None:
    with machine.agent() as agent:
        agent.shutdown()


@pytest.mark.parametrize(
    "end",
    [
        pytest.param(ask, id="shutdown"),
        pytest.param(lambda machine: machine.qmp(CTRL_ALT_DEL), id="ctrl-alt-del"),
        pytest.param(lambda machine: machine.result("poweroff"), id="poweroff"),
        pytest.param(lambda machine: machine.result("reboot"), id="reboot"),
    ],
)
def test_services_end_in_reverse_order_and_data_is_clean(boot, make_drives, rootfs, end):
    drives = make_drives()
    with boot(f"plain-{rootfs}", drives, arguments="mvm.data=/db") as machine:
        machine.up()
        for service in ("web", "other"):
            machine.eventually(f"grep -q . /sys/fs/cgroup/mvm/service-{service}/cgroup.procs")
        machine.eventually("test $(pgrep -f '^sleep 1$' | wc -l) -ge 2")
        end(machine)
        machine.wait()
        marks = re.findall(r"mvm: service (\w+): asked to end|mvm: (going down)", machine.console())
        assert marks == [("web", ""), ("other", ""), ("", "going down")]
    assert state(drives["data"]) == "clean"
    for service in ("web", "other"):
        assert tool("debugfs", "-R", f"cat /ended-{service}", drives["data"]) == "\n"


def test_what_ignores_the_request_is_killed_after_ten_seconds(boot, make_drives, rootfs):
    drives = make_drives()
    with boot(f"unruly-{rootfs}", drives) as machine:
        machine.up().eventually("grep -q . /sys/fs/cgroup/mvm/service-stubborn/cgroup.procs")
        begun = time.monotonic()
        ask(machine)
        machine.wait()
        assert time.monotonic() - begun > 9
        assert "killing what did not end within 10 s" in machine.console()
    assert state(drives["data"]) == "clean"


def test_a_database_keeps_its_data_through_an_unclean_end(boot, make_drives, rootfs):
    psql = "su -s /bin/sh postgres -c 'psql -h /run/postgresql -d postgres -Atc \"{}\"'"
    drives = make_drives(data_mib=256)
    with boot(f"database-{rootfs}", drives, mem_mib=512) as machine:
        machine.up().eventually(psql.format("SELECT 1"), 120)
        machine.run(psql.format("CREATE TABLE t AS SELECT generate_series(1, 1000) AS n"))
        for number in range(20):
            machine.run(psql.format(f"INSERT INTO t VALUES ({2000 + number})"))
        machine.kill()
    assert "journal not empty" in state(drives["data"])
    with boot(f"database-{rootfs}", drives, mem_mib=512) as machine:
        machine.up().eventually(psql.format("SELECT 1"), 120)
        assert machine.run(psql.format("SELECT count(*) FROM t")) == "1020\n"
        machine.shut_down()
    assert state(drives["data"]) == "clean"
