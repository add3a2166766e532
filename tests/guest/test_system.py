"""What a guest is after its boot: mounts, files, name, clock, network; by ACPI as well."""

import re
from datetime import UTC, datetime

import pytest

NET = ("-netdev", "user,id=net", "-device", "virtio-net-device,netdev=net,bus=virtio-mmio-bus.0")


def test_the_system_is_as_the_drive_model_says(boot, rootfs):
    with boot(f"plain-{rootfs}") as machine:
        machine.up()
        mounts = [line.split()[1:4] for line in machine.run("cat /proc/mounts").splitlines()]
        options = {point: (kind, set(opts.split(","))) for point, kind, opts in mounts}
        for point, kind, flags in (
            ("/proc", "proc", {"nosuid", "nodev", "noexec"}),
            ("/sys", "sysfs", {"nosuid", "nodev", "noexec"}),
            ("/sys/fs/cgroup", "cgroup2", {"nosuid", "nodev", "noexec"}),
            ("/dev", "devtmpfs", {"nosuid"}),
            ("/dev/pts", "devpts", {"nosuid", "noexec", "ptmxmode=666"}),
            ("/dev/shm", "tmpfs", {"nosuid", "nodev"}),
            ("/run", "tmpfs", {"nosuid", "nodev"}),
            ("/tmp", "tmpfs", {"nosuid", "nodev"}),
        ):
            assert options[point][0] == kind
            assert flags <= options[point][1], (point, options[point])
        overlays = {point for point, kind, _ in mounts if kind == "overlay"}
        expected = {"/etc", "/home", "/root", "/var"} if rootfs == "squashfs" else set()
        assert overlays == expected
        machine.run("touch /etc/x /var/lib/x && setuidgid guest touch /home/guest/x")

        assert machine.run("hostname") == "plain\n"
        assert machine.run("cat /etc/mvm/variant") == "dev\n"
        assert machine.run("stat -c '%a %U %G' /etc/plain.conf /root /tmp /var/tmp /db") == (
            "640 root root\n700 root root\n1777 root root\n1777 root root\n755 root root\n"
        )
        assert machine.run("cat '/srv/www/.hidden/index \"1\".html'") == "<p>hello</p>\n"
        assert (
            machine.run("cat /proc/sys/net/ipv4/conf/lo/forwarding; ip -o link show lo").find(
                "LOWER_UP"
            )
            > 0
        )
        if rootfs == "ext4":
            assert int(machine.run("df -m / | tail -n 1").split()[3]) >= 63
            assert int(machine.run("df -i / | tail -n 1").split()[3]) >= 4000
        now = int(machine.run("date +%s"))
        assert abs(now - datetime.now(UTC).timestamp()) < 30, "the clock was not read"

        marks = re.findall(r"\[ *([0-9.]+)\] mvm: (.*)", machine.console())
        stages = [text for _, text in marks]
        order = [
            "kernel file systems mounted",
            "network ready",
            "drive data: mounted",
            "drives ready",
        ]
        assert [stage for stage in stages if stage in order] == order
        assert [float(at) for at, _ in marks] == sorted(float(at) for at, _ in marks)


@pytest.mark.parametrize(
    ("arguments", "address", "resolver"),
    [
        ("mvm.ip=10.0.2.77/24 mvm.gw=10.0.2.2", "10.0.2.77/24", ""),
        ("ip=10.0.2.78::10.0.2.2:255.255.255.0::eth0:off:10.0.2.3", "10.0.2.78/24", "10.0.2.3"),
        ("", "10.0.2.15/24", "10.0.2.3"),
    ],
    ids=["mvm.ip", "ip", "dhcp"],
)
def test_the_network_comes_from_the_command_line_or_from_dhcp(
    boot, rootfs, arguments, address, resolver
):
    with boot(f"plain-{rootfs}", arguments=arguments, devices=NET) as machine:
        machine.up()
        assert address in machine.eventually("ip -o -4 address show eth0 | grep inet")
        assert "default via 10.0.2.2" in machine.eventually("ip route | grep default")
        found = machine.run("cat /etc/resolv.conf 2>/dev/null || true")
        assert found.split()[1:2] == ([resolver] if resolver else [])


def test_an_address_that_is_none_is_left_out(boot):
    with boot("plain-squashfs", arguments="mvm.ip=$(reboot)", devices=NET) as machine:
        machine.up()
        assert "mvm.ip is no address and was left out" in machine.console()


def test_the_kernel_boots_by_acpi_as_in_firecracker(boot, rootfs):
    # Emulated, the clock's calibration may find no reference; Firecracker's guests have kvm-clock.
    with boot(f"plain-{rootfs}", machine="acpi=on", arguments="tsc_early_khz=2000000") as machine:
        assert machine.up().drives()["data"]["state"] == "mounted"
        assert "virtio_mmio.device" not in machine.run("cat /proc/cmdline")
        assert machine.run("ls /sys/firmware/acpi/tables/DSDT")
        machine.shut_down()
