"""The drives, made by the real e2fsprogs and read back with debugfs."""

import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mvm_guest.drives import config, data, image, secrets, volume
from mvm_guest.drives.tree import host_directory
from mvm_guest.drives.volume import Volume
from mvm_guest.errors import MvmError, UsageError

SBIN = f"{os.environ['PATH']}:/usr/sbin:/sbin"
DESCRIPTION = config.Description("web", "tenant", "web@" + "a" * 64, 1, 256, 64, {"/data": 64})


def tool(*argv: str | Path) -> str:
    program = shutil.which(str(argv[0]), path=SBIN)
    assert program
    done = subprocess.run([program, *argv[1:]], capture_output=True, check=False)
    assert done.returncode == 0, done
    return done.stdout.decode(errors="surrogateescape")


def listing(path: Path, directory: str = "/") -> dict[str, tuple[int, int, int]]:
    """What a directory of an image holds: name to mode, owner and group."""
    lines = tool("debugfs", "-R", f'ls -p "{directory}"', path).splitlines()
    rows = [line.split("/") for line in lines if line.startswith("/")]
    return {
        row[5]: (int(row[2], 8), int(row[3]), int(row[4]))
        for row in rows
        if row[5] not in (".", "..", "lost+found")
    }


def mode(path: Path, name: str) -> int:
    found = re.search(r"Mode: +(\d+)", tool("debugfs", "-R", f'stat "{name}"', path))
    assert found
    return int(found[1], 8)


def label(path: Path) -> str:
    return tool("e2label", path).strip()


def features(path: Path) -> str:
    found = re.search(r"Filesystem features: +(.*)", tool("dumpe2fs", "-h", path))
    assert found
    return found[1]


def extracted(path: Path, to: Path) -> dict[str, bytes | None]:
    """The paths in an image, each with what a file holds, None for a directory."""
    to.mkdir()
    tool("debugfs", "-R", f'rdump / "{to}"', path)
    shutil.rmtree(to / "lost+found", ignore_errors=True)
    return contents(to)


def contents(root: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(root)): path.read_bytes() if path.is_file() else None
        for path in root.rglob("*")
    }


@pytest.fixture
def given_dir(tmp_path: Path) -> Path:
    path = tmp_path / "given"
    path.mkdir()
    return path


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "secrets.ext4"
    yield path
    secrets.discard(path)


def make_config(tmp_path: Path, directory: Path | None, **environment: str) -> Path:
    path = tmp_path / "config.ext4"
    config.make(path, DESCRIPTION, environment, directory)
    return path


def test_the_config_drive_says_what_the_instance_is(tmp_path: Path) -> None:
    path = make_config(tmp_path, None)
    assert json.loads(tool("debugfs", "-R", "cat config.json", path)) == {
        "schema": 1,
        "name": "web",
        "role": "tenant",
        "revision": "web@" + "a" * 64,
        "resources": {"vcpus": 1, "memMib": 256, "dataMib": 64},
        "volumes": [{"guestPath": "/data", "sizeMib": 64}],
    }
    assert listing(path) == {"config.json": (0o100444, 0, 0)}
    assert mode(path, "/") == 0o555
    assert label(path) == "mvm-config"
    assert "has_journal" not in features(path)
    tool("e2fsck", "-fn", path)


def test_a_directory_is_taken_whole_with_modes_of_its_own(tmp_path: Path, given_dir: Path) -> None:
    (given_dir / "a" / "b").mkdir(parents=True)
    (given_dir / "a" / "b" / "binary").write_bytes(bytes(range(256)) * 100)
    (given_dir / "a" / "b" / "binary").chmod(0o700)
    (given_dir / ("n" * 255)).write_text("long name")
    (given_dir / "grüße ✓").write_text("non-ASCII")
    (given_dir / "empty").mkdir(mode=0o700)
    path = make_config(tmp_path, given_dir)
    held = extracted(path, tmp_path / "out")
    assert held.pop("config.json") == DESCRIPTION.json()
    assert held == contents(given_dir)
    assert listing(path, "/a/b") == {"binary": (0o100444, 0, 0)}
    assert mode(path, "/empty") == 0o555
    tool("e2fsck", "-fn", path)


@pytest.mark.parametrize(
    "name",
    [
        '"',
        '""',
        "a b",
        "<12>",
        "-f",
        "#x",
        "!touch x",
        "a;b",
        "\\",
        "'",
        "\t",
        "$(x)",
        "`x`",
        "\udcff",
    ],
)
def test_a_name_that_means_something_to_a_tool_is_just_a_name(
    tmp_path: Path, given_dir: Path, name: str
) -> None:
    (given_dir / name / name).mkdir(parents=True)
    (given_dir / name / name / name).write_text(name, errors="surrogateescape")
    path = make_config(tmp_path, given_dir)
    held = extracted(path, tmp_path / "out")
    del held["config.json"]
    assert held == contents(given_dir)


names = st.text(
    st.characters(exclude_characters="/\0\n\r", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(lambda name: name not in (".", "..", "lost+found", "config.json", "mvm-env.env"))
trees = st.recursive(
    st.binary(max_size=20_000),
    lambda entries: st.dictionaries(names, entries, max_size=5),
    max_leaves=12,
)


@settings(max_examples=25, deadline=None)
@given(tree=st.dictionaries(names, trees, max_size=6))
def test_any_tree_comes_out_as_it_went_in(
    tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]
) -> None:
    def write(entries: dict[str, object], at: Path) -> None:
        at.mkdir()
        for name, entry in entries.items():
            if isinstance(entry, dict):
                write(entry, at / name)
            else:
                assert isinstance(entry, bytes)
                (at / name).write_bytes(entry)

    tmp_path = tmp_path_factory.mktemp("tree")
    write(tree, tmp_path / "given")
    path = make_config(tmp_path, tmp_path / "given")
    held = extracted(path, tmp_path / "out")
    del held["config.json"]
    assert held == contents(tmp_path / "given")
    tool("e2fsck", "-fn", path)


@pytest.mark.parametrize("mib", [1, 7, 127, 128, 129, 260])
def test_a_large_file_fits_whatever_its_size(tmp_path: Path, given_dir: Path, mib: int) -> None:
    with (given_dir / "large").open("wb") as stream:
        for _ in range(mib):
            stream.write(os.urandom(1 << 20))
        stream.write(b"end")
    path = make_config(tmp_path, given_dir)
    tool("e2fsck", "-fn", path)
    out = tmp_path / "large"
    tool("debugfs", "-R", f'dump large "{out}"', path)
    tool("cmp", out, given_dir / "large")
    assert path.stat().st_size < (mib + 3) * image.MIB


def test_more_files_than_can_be_open_at_once_fit(tmp_path: Path, given_dir: Path) -> None:
    for directory in ("a", "b", "b/c"):
        (given_dir / directory).mkdir()
        for number in range(1500):
            (given_dir / directory / f"{number:0100}").write_text(str(number))
    path = make_config(tmp_path, given_dir)
    held = extracted(path, tmp_path / "out")
    del held["config.json"]
    assert held == contents(given_dir)
    tool("e2fsck", "-fn", path)


def test_the_same_content_makes_the_same_image(
    tmp_path: Path, given_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (given_dir / "a").write_text("a")
    first = make_config(tmp_path, given_dir, B="c").read_bytes()
    os.utime(given_dir / "a", (5, 5))
    (given_dir / "a").chmod(0o600)
    other = tmp_path / "mke2fs.conf"
    other.write_text("[defaults]\n blocksize = 1024\n base_features = has_journal\n")
    monkeypatch.setenv("MKE2FS_CONFIG", str(other))
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    assert make_config(tmp_path, given_dir, B="c").read_bytes() == first


def test_the_environment_becomes_lines_on_the_config_drive(tmp_path: Path) -> None:
    environment = config.parse_environment(["A=b c=$(d) 'e'", "EMPTY=", "A=again"])
    path = make_config(tmp_path, None, **environment)
    assert tool("debugfs", "-R", "cat mvm-env.env", path) == "A=again\nEMPTY=\n"


@pytest.mark.parametrize("assignment", ["A", "=b", "A B=c", "1A=b", "A-B=c", "A=b\nC=d", "Ä=b", ""])
def test_an_assignment_that_cannot_be_a_line_is_refused(assignment: str) -> None:
    with pytest.raises(UsageError, match="--env: "):
        config.parse_environment([assignment])


@pytest.mark.parametrize("name", ["config.json", "mvm-env.env"])
def test_a_file_that_clashes_with_a_made_one_is_refused(
    tmp_path: Path, given_dir: Path, name: str
) -> None:
    (given_dir / name).write_text("{}")
    with pytest.raises(UsageError, match=f"--config-dir: .* holds a {re.escape(name)}"):
        make_config(tmp_path, given_dir)
    assert not (tmp_path / "config.ext4").exists()


def test_links_within_are_stored_as_what_they_lead_to(tmp_path: Path, given_dir: Path) -> None:
    (given_dir / "..data").symlink_to("..2026")
    (given_dir / "..2026").mkdir()
    (given_dir / "..2026" / "key").write_text("value")
    (given_dir / "key").symlink_to("..data/key")
    (given_dir / "absolute").symlink_to(given_dir / "..2026" / "key")
    path = make_config(tmp_path, given_dir)
    held = extracted(path, tmp_path / "out")
    assert {name for name, content in held.items() if content == b"value"} == {
        *("..2026/key", "..data/key", "key", "absolute")
    }
    assert set(listing(path).values()) == {(0o100444, 0, 0), (0o040555, 0, 0)}


def test_links_out_devices_fifos_and_sockets_are_refused_by_name(
    tmp_path: Path, given_dir: Path
) -> None:
    (tmp_path / "outside").write_text("canary")
    (given_dir / "sub").mkdir()
    bad = given_dir / "sub" / "bad"
    with socket.socket(socket.AF_UNIX) as server:
        makers: dict[str, Callable[[], None]] = {
            "is a link that leads out": lambda: bad.symlink_to("../../outside"),
            "leads out, to '/dev/null'": lambda: bad.symlink_to("/dev/null"),
            "is a link that leads nowhere": lambda: bad.symlink_to("missing"),
            "round in a circle": lambda: bad.symlink_to("bad"),
            "leads back to a directory that it is in": lambda: bad.symlink_to("."),
            "is a fifo": lambda: os.mkfifo(bad),
            "is a socket": partial(server.bind, str(bad)),
        }
        for why, make in makers.items():
            make()
            with pytest.raises(UsageError, match=f"--config-dir: '{bad}.* {why}"):
                make_config(tmp_path, given_dir)
            bad.unlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["given", "outside"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")
def test_a_device_is_refused(tmp_path: Path, given_dir: Path) -> None:
    try:
        os.mknod(given_dir / "null", 0o20666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("devices cannot be made here")
    with pytest.raises(UsageError, match="null' is a device"):
        make_config(tmp_path, given_dir)


def test_a_name_with_a_line_break_is_refused(tmp_path: Path, given_dir: Path) -> None:
    (given_dir / "a\nrm b").write_text("")
    with pytest.raises(UsageError, match=r"'.*a\\nrm b' has a line break in its name"):
        make_config(tmp_path, given_dir)


def test_a_file_that_becomes_a_link_out_while_it_is_read_is_refused(
    tmp_path: Path, given_dir: Path
) -> None:
    (tmp_path / "outside").write_text("canary")
    (given_dir / "a").write_text("a")
    with host_directory(given_dir, "--config-dir") as tree:
        (given_dir / "a").unlink()
        (given_dir / "a").symlink_to(tmp_path / "outside")
        with pytest.raises(UsageError, match="leads out"):
            image.make_read_only(
                tmp_path / "image", "x", tree, lambda entry: image.Attributes(0o444)
            )
    assert not (tmp_path / "image").exists()


def test_a_directory_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "missing"):
        with pytest.raises(UsageError, match=r"--config-dir: .* is no directory to read"):
            make_config(tmp_path, path)


def test_a_data_directory_with_an_odd_name_is_no_trouble(tmp_path: Path) -> None:
    odd = tmp_path / "a?offset=4 b,c"
    odd.mkdir()
    path = make_config(odd, None)
    assert list(odd.iterdir()) == [path]
    assert data.ensure(odd / "data.ext4", Volume("/data", 8)) == 8
    assert data.ensure(odd / "data.ext4", Volume("/data", 16)) == 16


def test_a_host_without_the_tools_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_, **__: None)
    with pytest.raises(MvmError, match="mke2fs is not on PATH; install e2fsprogs"):
        make_config(tmp_path, None)
    assert list(tmp_path.iterdir()) == []


def test_secrets_lie_in_memory_where_only_their_owner_looks(link: Path, given_dir: Path) -> None:
    (given_dir / "sub").mkdir()
    (given_dir / "sub" / "token").write_text("s3cret")
    secrets.make(link, given_dir)
    target = link.readlink()
    assert subprocess.run(
        ["stat", "-f", "-c", "%T", target], capture_output=True, check=True
    ).stdout == (b"tmpfs\n")
    assert target.stat().st_mode & 0o777 == 0o600
    assert target.parent.stat().st_mode & 0o777 == 0o700
    assert list(target.parent.iterdir()) == [target]
    assert listing(link) == {"secrets.json": (0o100400, 0, 0), "sub": (0o040500, 0, 0)}
    assert listing(link, "/sub") == {"token": (0o100400, 0, 0)}
    assert mode(link, "/") == 0o500
    assert tool("debugfs", "-R", "cat secrets.json", link) == "{}\n"
    assert label(link) == "mvm-secrets"
    tool("e2fsck", "-fn", link)


def test_discarded_secrets_leave_nothing(link: Path) -> None:
    secrets.make(link, None)
    own = link.readlink().parent
    secrets.discard(link)
    assert not own.exists()
    assert not link.is_symlink()
    secrets.discard(link)


def test_a_link_that_is_not_ours_takes_nothing_with_it(tmp_path: Path) -> None:
    (tmp_path / "secrets.ext4").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "secrets.ext4")
    secrets.discard(tmp_path / "link")
    assert (tmp_path / "secrets.ext4").read_text() == "precious"


def test_the_tenants_secrets_are_taken_from_the_directory(link: Path, given_dir: Path) -> None:
    (given_dir / "secrets.json").write_text('{"key": "value"}')
    secrets.make(link, given_dir)
    assert tool("debugfs", "-R", "cat secrets.json", link) == '{"key": "value"}'


@pytest.mark.parametrize("content", ["[]", '"canary"', "{canary", "", "\0", "[" * 100_000])
def test_tenant_secrets_that_are_no_object_are_refused_without_showing_them(
    link: Path, given_dir: Path, content: str
) -> None:
    (given_dir / "secrets.json").write_text(content)
    with pytest.raises(UsageError, match=r"secrets\.json must be a file that holds") as caught:
        secrets.make(link, given_dir)
    assert "canary" not in str(caught.value)
    secrets.discard(link)
    assert not link.is_symlink()


def test_more_secrets_than_a_guest_keeps_are_refused(link: Path, given_dir: Path) -> None:
    (given_dir / "large").write_bytes(bytes(4 << 20))
    with pytest.raises(UsageError, match="more than the 4 MiB"):
        secrets.make(link, given_dir)


def test_secrets_never_go_to_a_disk(
    link: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets, "_magic", lambda path: 0xEF53)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    with pytest.raises(MvmError, match="mount a tmpfs at /dev/shm"):
        secrets.make(link, None)
    assert list(tmp_path.iterdir()) == []


def test_data_is_filled_once_and_then_kept(tmp_path: Path, given_dir: Path) -> None:
    path = tmp_path / "data.ext4"
    (given_dir / "sub").mkdir()
    (given_dir / "sub" / "file").write_text("first")
    (given_dir / "script").write_text("#!/bin/sh\n")
    (given_dir / "script").chmod(0o700)
    os.utime(given_dir / "script", (1_000_000_000, 1_000_000_000))
    assert data.ensure(path, Volume("/data", 16, given_dir)) == 16
    assert path.stat().st_size == 16 * image.MIB
    assert path.stat().st_mode & 0o777 == 0o600
    assert label(path) == "mvm-data"
    assert "has_journal" in features(path)
    assert listing(path) == {"script": (0o100775, 0, 900), "sub": (0o042775, 0, 900)}
    assert "mtime: 0x3b9aca00" in tool("debugfs", "-R", "stat script", path)
    tool("e2fsck", "-fn", path)
    before = path.read_bytes()
    (given_dir / "sub" / "file").write_text("second")
    assert data.ensure(path, Volume("/data", 16, given_dir)) == 16
    assert data.ensure(path, None) == 16
    assert path.read_bytes() == before


def test_no_volume_is_no_data_drive(tmp_path: Path) -> None:
    assert data.ensure(tmp_path / "data.ext4", None) == 0
    assert list(tmp_path.iterdir()) == []


def test_data_grows_and_never_shrinks(tmp_path: Path, given_dir: Path) -> None:
    path = tmp_path / "data.ext4"
    (given_dir / "file").write_text("kept")
    data.ensure(path, Volume("/data", 8, given_dir))
    assert data.ensure(path, Volume("/data", 300)) == 300
    assert path.stat().st_mode & 0o777 == 0o600
    tool("e2fsck", "-fn", path)
    found = re.search(r"Block count: +(\d+)", tool("dumpe2fs", "-h", path))
    assert found
    assert int(found[1]) == 300 * 256
    assert tool("debugfs", "-R", "cat file", path) == "kept"
    with pytest.raises(UsageError, match="has 300 MiB and cannot shrink to 8"):
        data.ensure(path, Volume("/data", 8))
    assert path.stat().st_size == 300 * image.MIB
    assert [p.name for p in tmp_path.iterdir() if p != given_dir] == ["data.ext4"]


def test_content_that_does_not_fit_is_refused_and_leaves_nothing(
    tmp_path: Path, given_dir: Path
) -> None:
    (given_dir / "large").write_bytes(os.urandom(9 << 20))
    with pytest.raises(UsageError, match="does not fit in 8 MiB; ask for more"):
        data.ensure(tmp_path / "data.ext4", Volume("/data", 8, given_dir))
    assert list(tmp_path.iterdir()) == [given_dir]


def test_a_drive_that_a_crash_left_is_put_in_order(tmp_path: Path) -> None:
    path = tmp_path / "data.ext4"
    data.ensure(path, Volume("/data", 16))
    tool("debugfs", "-w", "-R", "feature needs_recovery", path)
    tool("debugfs", "-w", "-R", "ssv state 0", path)
    assert data.ensure(path, None) == 16
    assert "needs_recovery" not in features(path)
    tool("e2fsck", "-n", path)


def test_a_drive_that_cannot_be_put_in_order_is_not_started_with(tmp_path: Path) -> None:
    path = tmp_path / "data.ext4"
    path.write_bytes(bytes(1 << 20))
    with pytest.raises(MvmError, match=r"data\.ext4 is damaged; keep a copy and repair it"):
        data.ensure(path, None)
    assert path.read_bytes() == bytes(1 << 20)


def test_volumes_name_the_data_drive_and_the_directories() -> None:
    parsed = volume.parse(["./a:b:/data:1024", "c:/mnt/config", "d:/mnt/secrets"])
    assert parsed == volume.Volumes(
        Volume("/data", 1024, Path("./a:b")), config_dir=Path("c"), secrets_dir=Path("d")
    )


@pytest.mark.parametrize(
    "texts",
    [
        [""],
        ["a"],
        ["a:/data"],
        ["a:/data:"],
        ["a:/data:-8"],
        ["a:/data:8M"],
        ["a:/data:7"],
        ["a:/data:99999999"],
        ["a:/data:９"],
        [":/data:8"],
        ["a::8"],
        [":/mnt/config"],
        ["a:/data:8", "b:/srv:8"],
        ["a:/mnt/config", "b:/mnt/config"],
    ],
)
def test_a_volume_that_says_nothing_sensible_is_refused(texts: list[str]) -> None:
    with pytest.raises(UsageError, match="--volume"):
        volume.parse(texts)


@pytest.mark.parametrize(
    "path", ["/mnt/data", "/data", "/srv", "/work", "/pg", "/var/lib/postgresql", "/home/web/x"]
)
def test_data_is_mounted_where_the_image_has_room_for_it(path: str) -> None:
    volume.check_guest_path(path, ["/pg"])


@pytest.mark.parametrize(
    "path",
    [
        *("data", "/", "/etc", "/mnt/config", "/pg/x", "/var/lib", "/var/lib/", "/home/", "/data/"),
        *("/var/lib/../../etc", "/home/./x", "/var/lib//x", "/home/a b", "/home/a\n", '/home/"'),
        *("/home/a,b", "/home/" + "a" * 200, "/home/ä"),
    ],
)
def test_data_is_mounted_nowhere_else(path: str) -> None:
    with pytest.raises(UsageError, match="the guest cannot mount data at"):
        volume.check_guest_path(path, ["/pg"])


def test_an_image_that_fails_leaves_the_one_that_was_there(tmp_path: Path, given_dir: Path) -> None:
    path = make_config(tmp_path, None)
    before = path.read_bytes()
    (given_dir / "large").write_bytes(bytes([1]) * (2 << 20))
    with host_directory(given_dir, "x") as tree, pytest.raises(image.ImageFull):
        image.make_writable(path, "x", 1 << 20, tree, lambda entry: image.Attributes(0o444))
    assert path.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [path, given_dir]


def test_a_lost_and_found_of_the_hosts_is_a_directory_like_others(
    tmp_path: Path, given_dir: Path
) -> None:
    (given_dir / "lost+found").mkdir()
    (given_dir / "lost+found" / "file").write_text("found")
    path = tmp_path / "data.ext4"
    data.ensure(path, Volume("/data", 8, given_dir))
    assert tool("debugfs", "-R", "cat lost+found/file", path) == "found"
    tool("e2fsck", "-fn", path)
