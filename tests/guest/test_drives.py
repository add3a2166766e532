"""What a guest does with its drives: as the host makes them, and as it must not be given them."""

import os
from pathlib import Path

import pytest
from e2fsprogs import state, tool


def ext4(image: Path, label: str, content: Path | None = None, size: str = "32M") -> Path:
    """Make a filesystem that the project's own tool would not."""
    image.unlink(missing_ok=True)
    source = ["-d", content] if content else []
    tool("mke2fs", "-q", "-t", "ext4", "-L", label, *source, image, size)
    return image


def options(mount: dict[str, str]) -> set[str]:
    return set(mount["options"].split(","))


def test_config_and_data_arrive(boot, make_drives, tmp_path, rootfs):
    config = tmp_path / "config"
    (config / "deep" / "er").mkdir(parents=True)
    (config / "app.toml").write_text("a = 1\n")
    (config / "deep" / "er" / "binary").write_bytes(bytes(range(256)) * 100)
    with boot(f"plain-{rootfs}", make_drives(config), arguments="mvm.data=/db") as machine:
        drives = machine.up().drives()
        assert {name: drive["state"] for name, drive in drives.items()} == dict.fromkeys(
            ("root", "config", "secrets", "data"), "mounted"
        )
        assert {"ro", "nosuid", "nodev", "noexec"} <= options(drives["config"])
        assert {"ro", "nosuid", "nodev", "noexec"} <= options(drives["secrets"])
        assert {"rw", "nosuid", "nodev", "noexec", "errors=remount-ro"} <= options(drives["data"])
        assert machine.run("stat -c '%a %U %G' /mnt/config/app.toml") == "444 root root\n"
        assert (
            machine.run("md5sum </mnt/config/deep/er/binary").split()[0]
            == (tool("md5sum", config / "deep/er/binary").split()[0])
        )
        assert machine.run("stat -c '%a %U %G' /mnt/data") == "2775 root mvm\n"
        machine.run("su -s /bin/sh svc-web -c 'touch /db/file' && test -e /mnt/data/file")
        assert machine.run("grep -c ' /db ext4 rw,nosuid,nodev,noexec' /proc/mounts") == "1\n"
        assert machine.result("touch /mnt/config/x")[0] != 0
        assert machine.result("touch /mnt/secrets/x")[0] != 0


def test_secrets_are_read_by_the_group_and_by_the_service_that_they_are_for(
    boot, make_drives, tmp_path, rootfs
):
    secrets = tmp_path / "secrets"
    (secrets / "web" / "deep").mkdir(parents=True)
    (secrets / "shared").mkdir()
    (secrets / "shared" / "token").write_text("shared")
    (secrets / "web.key").write_text("key")
    (secrets / "web" / "deep" / "password").write_text("password")
    with boot(f"plain-{rootfs}", make_drives(secrets_dir=secrets)) as machine:
        machine.up()
        as_web, as_other = "su -s /bin/sh svc-web -c", "su -s /bin/sh svc-other -c"
        for place in ("/mnt/secrets", "/run/mvm-secrets"):
            assert machine.run(f"{as_other} 'cat {place}/shared/token'") == "shared"
            assert machine.run(f"stat -c '%a %U %G' {place}/shared/token {place}/shared") == (
                "440 root mvm\n550 root mvm\n"
            )
            assert machine.result(f"setuidgid mvm-agent cat {place}/shared/token")[0] != 0
        own = "/run/mvm-secrets/web"
        assert machine.run(f"{as_web} 'cat {own}/web.key {own}/deep/password'") == "keypassword"
        assert machine.run(f"stat -c '%a %U' {own} {own}/web.key {own}/deep/password") == (
            "500 svc-web\n400 svc-web\n400 svc-web\n"
        )
        assert machine.result(f"{as_other} 'ls {own}'")[0] != 0
        assert machine.run("ls /mnt/secrets") == "secrets.json\nshared\n"
        # The drive itself is not mounted any more.
        assert "vdc" not in machine.run("cat /proc/mounts")
        assert machine.run("df -k /mnt/secrets | tail -n 1").split()[1] == "4096"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A tree of what the host's own tool refuses."""
    tree = tmp_path / "hostile"
    tree.mkdir()
    (tree / "link").symlink_to("/etc/passwd")
    (tree / "linked").symlink_to("/etc")
    (tree / "web").symlink_to("/root")
    os.mkfifo(tree / "fifo")
    os.mknod(tree / "device", 0o600 | 0o020000, os.makedev(1, 3))
    (tree / "-rf").write_text("a")
    (tree / "*").write_text("b")
    (tree / "a b'\"$(reboot)`\\").write_text("c")
    (tree / ("n" * 255)).write_text("d")
    (tree / "line\nbreak").write_text("e")
    return tree


def test_links_and_odd_names_on_drives_do_no_harm(boot, make_drives, hostile, rootfs):
    drives = make_drives()
    config = drives["config"].with_name("hostile-config")
    secrets = drives["config"].with_name("hostile-secrets")
    given = {
        **drives,
        "config": ext4(config, "mvm-config", hostile),
        "secrets": ext4(secrets, "mvm-secrets", hostile),
    }
    with boot(f"plain-{rootfs}", given) as machine:
        drives = machine.up().drives()
        assert drives["config"]["state"] == drives["secrets"]["state"] == "mounted"
        assert machine.run("find /mnt/secrets ! -type f ! -type d") == ""
        assert machine.run("cat /mnt/secrets/-rf '/mnt/secrets/*'") == "ab"
        assert machine.run("find /mnt/secrets -type f | wc -l") == "6\n"
        assert machine.run("stat -c '%a %U' /etc/passwd /root") == "644 root\n700 root\n"
        assert "vdc" not in machine.run("cat /proc/mounts")


def test_more_secrets_than_fit_are_refused_whole(boot, make_drives, tmp_path, rootfs):
    tree = tmp_path / "huge"
    tree.mkdir()
    (tree / "small").write_text("s")
    with (tree / "huge").open("wb") as huge:
        huge.write(os.urandom(6 << 20))
    drives = make_drives()
    drives["secrets"] = ext4(tmp_path / "huge-secrets", "mvm-secrets", tree)
    with boot(f"plain-{rootfs}", drives) as machine:
        assert machine.up().drives()["secrets"]["state"] == "failed"
        assert machine.run("ls -A /mnt/secrets /run/mvm-secrets").split() == [
            "/mnt/secrets:",
            "/run/mvm-secrets:",
        ]
        assert machine.result("touch /mnt/secrets/x")[0] != 0


def test_drives_that_are_not_there_are_absent_and_the_guest_comes_up(boot, make_drives, rootfs):
    drives = make_drives()
    with boot(f"plain-{rootfs}", {"config": drives["config"]}) as machine:
        states = {name: drive["state"] for name, drive in machine.up().drives().items()}
        assert states == {
            "root": "mounted",
            "config": "mounted",
            "secrets": "absent",
            "data": "absent",
        }
        for place in ("/mnt/secrets", "/mnt/data"):
            assert machine.result(f"touch {place}/x")[0] != 0


def unlabelled(image: Path) -> None:
    tool("tune2fs", "-L", "other", image)


def corrupted(image: Path) -> None:
    with image.open("r+b") as stream:
        stream.write(os.urandom(64 * 1024))


def marked(image: Path) -> None:
    tool("debugfs", "-w", "-R", "set_super_value state 2", image)


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        (unlabelled, "no ext4 file system with the label mvm-data"),
        (corrupted, "no ext4 file system with the label mvm-data"),
        (marked, "check it with e2fsck"),
    ],
)
def test_a_data_drive_that_cannot_be_used_is_reported_and_not_written_beside(
    boot, make_drives, rootfs, harm, says
):
    drives = make_drives()
    harm(drives["data"])
    with boot(f"plain-{rootfs}", drives, arguments="mvm.data=/db") as machine:
        data = machine.up().drives()["data"]
        assert data["state"] == "failed"
        assert says in data["detail"]
        assert says in machine.console()
        for place in ("/mnt/data", "/db"):
            assert machine.result(f"touch {place}/x")[0] != 0
        with machine.agent() as agent:
            probes = {probe.name: probe for probe in agent.probe_status()}
            assert not probes["mvm-drives"].healthy


def test_a_full_data_drive_is_mounted_and_says_so_to_who_writes(boot, make_drives, rootfs):
    drives = make_drives()
    with boot(f"plain-{rootfs}", drives) as machine:
        machine.up().result("cat /dev/zero >/mnt/data/all")
        machine.shut_down()
    with boot(f"plain-{rootfs}", drives) as machine:
        assert machine.up().drives()["data"]["state"] == "mounted"
        code, _, errors = machine.result("dd if=/dev/zero of=/mnt/data/more bs=1M count=1")
        assert code != 0
        assert "No space left" in errors
        machine.shut_down()
    assert state(drives["data"]) == "clean"


def test_data_grows_to_its_device(boot, make_drives, rootfs):
    drives = make_drives(data_mib=32)
    os.truncate(drives["data"], 96 << 20)
    with boot(f"plain-{rootfs}", drives) as machine:
        machine.up()
        assert int(machine.run("df -k /mnt/data | tail -n 1").split()[1]) > 80 * 1024
        machine.shut_down()
    tool("e2fsck", "-fn", drives["data"])


@pytest.mark.parametrize("path", ["/etc", "/db/../etc", "/nix/store", "/db/", "/var/lib/../../etc"])
def test_data_is_not_bound_where_the_image_does_not_allow_it(boot, path):
    with boot("plain-squashfs", arguments=f"mvm.data={path}") as machine:
        data = machine.up().drives()["data"]
        assert data["state"] == "failed"
        assert machine.run("grep -c /dev/vdd /proc/mounts") == "1\n"
