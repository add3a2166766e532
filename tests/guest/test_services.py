"""How services run: supervised, prepared, confined, logged."""

import errno
import json

# A log is rotated once it has 1 MiB, and grows by what was read at once.
LOG_LIMIT = (1 << 20) + (1 << 16)
TIERS = ("essential", "minimal", "standard", "network", "unrestricted")


def test_a_service_gets_its_environment_and_what_pre_start_exports(boot, make_drives, rootfs):
    drives = make_drives(environment={"ALSO_GIVEN": "by the 'host' $HOME `id`"})
    with boot(f"plain-{rootfs}", drives) as machine:
        machine.up().eventually("grep -q . /sys/fs/cgroup/mvm/service-web/cgroup.procs")
        process = machine.run("head -n 1 /sys/fs/cgroup/mvm/service-web/cgroup.procs").strip()
        environment = machine.run(f"tr '\\000' '\\n' </proc/{process}/environ").splitlines()
        assert {
            "GIVEN=by the image",
            "ALSO_GIVEN=by the 'host' $HOME `id`",
            "MADE=by preStart",
            "USER=svc-web",
            "HOME=/home/svc-web",
            "SSL_CERT_FILE=/etc/ssl/certs/ca-bundle.crt",
        } <= set(environment)
        assert machine.run("cat /run/pre-start") == "0002\n0\n"
        assert machine.run(f"readlink /proc/{process}/cwd") == "/\n"
        assert machine.run("stat -c '%U %a' /home/svc-web /home/guest") == (
            "svc-web 750\nguest 750\n"
        )


def status(text: str) -> dict[str, list[str]]:
    fields = (line.partition(":") for line in text.splitlines())
    return {name: value.split() for name, _, value in fields}


def assert_without_rights(found: dict[str, list[str]], seccomp: str) -> None:
    assert set(found["Uid"]) == {found["Uid"][0]}
    assert found["Uid"][0] != "0"
    assert "0" not in found["Gid"]
    assert "900" in found["Groups"]
    assert found["NoNewPrivs"] == ["1"]
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert found[capabilities] == ["0" * 16]
    assert found["Seccomp"] == [seccomp]


def test_services_and_checks_hold_no_right(boot, rootfs):
    with boot(f"plain-{rootfs}") as machine:
        machine.up()
        for service in ("web", "other"):
            process = machine.eventually(
                f"head -n 1 /sys/fs/cgroup/mvm/service-{service}/cgroup.procs | grep ."
            ).strip()
            assert_without_rights(status(machine.run(f"cat /proc/{process}/status")), "2")
        check = status(machine.eventually("cat /tmp/check-status"))
        assert_without_rights(check, "2")


CALLS = [
    "mkdir",
    "unix",
    "inet",
    "netlink",
    "packet",
    "vsock",
    "clone3",
    "unshare",
    "mount",
    "ptrace",
]
REFUSED, UNKNOWN = errno.EPERM, errno.ENOSYS
# What each tier is the first to allow; with no filter, the kernel decides by the missing rights.
OUTCOMES = {
    "essential": {"mkdir": REFUSED, "unix": REFUSED, "inet": REFUSED},
    "minimal": {"mkdir": 0, "unix": 0, "inet": REFUSED, "netlink": REFUSED},
    "standard": {"mkdir": 0, "unix": 0, "inet": 0, "netlink": 0, "vsock": REFUSED},
    "network": {"inet": 0, "netlink": 0, "vsock": REFUSED},
    "unrestricted": {"unix": 0, "inet": 0, "vsock": 0, "unshare": 0, "clone3": errno.EINVAL},
}


def test_each_tier_refuses_what_the_next_one_allows(boot, rootfs):
    with boot(f"confined-{rootfs}") as machine:
        machine.up()
        for tier in TIERS:
            log = machine.eventually(
                f"grep -q ^ptrace /var/log/{tier}.log && cat /var/log/{tier}.log"
            )
            lines = [line.split(" ") for line in log.splitlines()]
            found = {line[0]: int(line[1]) for line in lines if line[0] in CALLS}
            assert OUTCOMES[tier].items() <= found.items(), (tier, found)
            if tier != "unrestricted":
                assert found["clone3"] == UNKNOWN
                for call in ("unshare", "mount", "ptrace"):
                    assert found[call] == REFUSED, (tier, call)
            assert_without_rights(status(log), "0" if tier == "unrestricted" else "2")


def test_what_ends_is_started_again_later_and_later(boot, rootfs):
    with boot(f"unruly-{rootfs}") as machine:
        machine.up()
        machine.eventually("test $(cut -d. -f1 /proc/uptime) -ge 10", 60)
        console = machine.console()
        for seconds in (1, 2, 4):
            assert f"service ending: ended with status 3, again in {seconds} s" in console
            assert f"service unprepared: ended with status 1, again in {seconds} s" in console
        assert machine.result("test -e /mnt/data/unprepared")[0] == 1
        # What the parent left behind is gone before the parent runs again.
        assert int(machine.run("pgrep -f '^sleep 1000001$' | wc -l")) <= 1


def test_a_log_is_rotated_by_its_size_and_belongs_to_the_service(boot, rootfs):
    with boot(f"unruly-{rootfs}") as machine:
        machine.up().eventually("grep -q 'the last line' /var/log/chatty.log")
        owner, mode, size = machine.run("stat -c '%U %a %s' /var/log/chatty.log").split()
        assert (owner, mode) == ("svc-chatty", "640")
        assert int(size) <= LOG_LIMIT
        old = int(machine.run("stat -c %s /var/log/chatty.log.1"))
        assert 1 << 20 <= old <= LOG_LIMIT
        assert machine.run("ls /var/log | grep -c ^chatty") == "2\n"


def test_a_log_is_not_written_through_a_link(boot, rootfs):
    with boot(f"unruly-{rootfs}") as machine:
        machine.up().says("through a link\n")
        assert machine.run("cat /etc/hostname") == "unruly\n"


COUNT_AUTHORITIES = "import ssl; print(len(ssl.create_default_context().get_ca_certs()))"


def test_python_runs_in_a_guest_that_holds_nothing_but_its_closure(boot, bundle_of, rootfs):
    bundle = bundle_of(f"python-{rootfs}")
    with boot(bundle) as machine:
        machine.up().healthy(90)
        assert int(machine.run(f'python3 -c "{COUNT_AUTHORITIES}"')) > 50
        stored = {path.rpartition("/")[2] for path in machine.run("ls -d /nix/store/*").split()}
        listed = json.loads((bundle.path / "guest.json").read_text())["closure"]
        assert stored == {entry["path"].rpartition("/")[2] for entry in listed}
