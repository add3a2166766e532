"""Storing revisions, finding them again, and surviving whatever happens meanwhile."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvm_guest import bundle
from mvm_guest.errors import MvmError, UsageError
from mvm_guest.registry import RegisterResult, Source, Store

MakeBundle = Callable[..., Path]
SOURCE = Source(kind="path", ref="./result")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "data")


def put(store: Store, path: Path, name: str | None = None, current: bool = True) -> RegisterResult:
    return store.register(bundle.read(path), SOURCE, name=name, move_current=current)


def tree(directory: Path) -> dict[str, bytes | str]:
    found: dict[str, bytes | str] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        found[name] = str(path.readlink()) if path.is_symlink() else ""
        if path.is_file() and not path.is_symlink():
            found[name] = path.read_bytes()
    return found


def test_a_revision_is_named_by_the_hash_of_its_files(
    store: Store, make_bundle: MakeBundle
) -> None:
    made = make_bundle("hello")
    result = put(store, made)
    files = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in made.iterdir()}
    manifest = json.dumps({"files": files, "schema": 1}, sort_keys=True, separators=(",", ":"))
    assert result.hash == hashlib.sha256(manifest.encode()).hexdigest()
    assert result.created
    assert result.path == store.data_dir / "templates/hello/revisions" / result.hash
    for path in made.iterdir():
        assert (result.path / path.name).read_bytes() == path.read_bytes()


def test_the_name_is_not_part_of_the_hash(store: Store, make_bundle: MakeBundle) -> None:
    made = make_bundle("hello")
    assert put(store, made).hash == put(store, made, name="other").hash


def test_a_revision_says_what_it_holds_and_where_it_came_from(
    store: Store, make_bundle: MakeBundle
) -> None:
    result = put(store, make_bundle("hello"))
    described = json.loads((result.path / "revision.json").read_text())
    assert described["schema"] == 1
    assert described["hash"] == result.hash
    assert described["files"]["rootfs.ext4"]["sizeBytes"] == 600_000
    (source,) = described["sources"]
    assert source["kind"] == "path"
    assert source["ref"] == "./result"
    assert source["packageSet"] == {"name": "debian", "narHash": "sha256-abc"}
    assert source["storePath"] is None
    assert source["registeredAt"].endswith("+00:00")


def test_a_revision_holds_a_firecracker_configuration_with_relative_paths(
    store: Store, make_bundle: MakeBundle
) -> None:
    result = put(store, make_bundle("hello", resources={"vcpus": 2, "memMib": 512, "dataMib": 0}))
    assert json.loads((result.path / "fc-base.json").read_text()) == {
        "boot-source": {"kernel_image_path": "vmlinux", "boot_args": "root=/dev/vda init=/init"},
        "drives": [
            {
                "drive_id": "root",
                "path_on_host": "rootfs.ext4",
                "is_root_device": True,
                "is_read_only": False,
            }
        ],
        "machine-config": {"vcpu_count": 2, "mem_size_mib": 512},
    }


def test_the_files_of_a_revision_are_read_only(store: Store, make_bundle: MakeBundle) -> None:
    for path in put(store, make_bundle()).path.iterdir():
        assert path.stat().st_mode & 0o777 == 0o444


def test_zeros_take_no_room(store: Store, make_bundle: MakeBundle) -> None:
    status = (put(store, make_bundle()).path / "rootfs.ext4").stat()
    assert status.st_size == 600_000
    assert status.st_blocks * 512 < 400_000


def test_registering_again_adds_a_source_and_nothing_else(
    store: Store, make_bundle: MakeBundle
) -> None:
    made = make_bundle("hello")
    first = put(store, made)
    before = tree(first.path)
    again = put(store, made)
    assert (again.hash, again.created) == (first.hash, False)
    after = tree(first.path)
    assert before.keys() == after.keys()
    assert {name for name in before if before[name] != after[name]} == {"revision.json"}
    assert len(json.loads((first.path / "revision.json").read_text())["sources"]) == 2


def test_a_known_bundle_is_not_read_again(
    store: Store, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make_bundle()
    time.sleep(1.1)
    put(store, made)
    monkeypatch.setattr("mvm_guest.registry.files.copy_hashed", lambda *_: pytest.fail("read"))
    assert not put(store, made).created


def test_a_bundle_that_changed_in_place_is_read_again(
    store: Store, make_bundle: MakeBundle
) -> None:
    made = make_bundle()
    time.sleep(1.1)
    first = put(store, made)
    content = (made / "vmlinux").read_bytes()
    (made / "vmlinux").write_bytes(content[:-1] + b"x")
    assert put(store, made).hash != first.hash


def test_current_is_a_relative_link_to_what_was_registered_last(
    store: Store, make_bundle: MakeBundle
) -> None:
    first, second = make_bundle("hello", b"1"), make_bundle("hello", b"2")
    old, new = put(store, first), put(store, second)
    link = store.data_dir / "templates" / "hello" / "current"
    assert str(link.readlink()) == f"revisions/{new.hash}"
    put(store, first)
    assert str(link.readlink()) == f"revisions/{old.hash}"
    put(store, second, current=False)
    assert str(link.readlink()) == f"revisions/{old.hash}"


@pytest.mark.parametrize("name", ["../evil", "a/b", "Hello", "", "-a", "a\n", "a" * 64])
def test_a_name_that_does_not_fit_stores_nothing(
    store: Store, make_bundle: MakeBundle, name: str
) -> None:
    with pytest.raises(UsageError, match="cannot name this revision"):
        put(store, make_bundle(), name=name)
    assert not store.data_dir.exists()


def test_a_guest_whose_own_name_does_not_fit_is_not_stored(
    store: Store, make_bundle: MakeBundle
) -> None:
    made = make_bundle("hello")
    described = json.loads((made / "guest.json").read_text()) | {"name": "../evil"}
    (made / "guest.json").write_text(json.dumps(described))
    with pytest.raises(UsageError, match=r"'\.\./evil' cannot name this revision"):
        put(store, made)
    assert not store.data_dir.exists()


def test_a_revision_is_found_by_every_form_of_its_name(
    store: Store, make_bundle: MakeBundle
) -> None:
    old = put(store, make_bundle("hello", b"1"))
    new = put(store, make_bundle("hello", b"2"))
    assert store.resolve("hello").hash == new.hash
    assert store.resolve("hello@current").hash == new.hash
    assert store.resolve(f"hello@{old.hash[:6]}").hash == old.hash
    assert store.resolve(f"hello@{old.hash}").hash == old.hash
    assert store.resolve(old.hash[:8]).path == old.path
    assert store.resolve(new.hash).guest.name == "hello"


def test_a_word_that_could_be_a_name_and_a_hash_is_a_name_if_there_is_one(
    store: Store, make_bundle: MakeBundle
) -> None:
    named = put(store, make_bundle("hello"), name="abcdef")
    assert store.resolve("abcdef").hash == named.hash


def test_an_ambiguous_prefix_lists_its_candidates(store: Store, make_bundle: MakeBundle) -> None:
    made = make_bundle("hello")
    hash = put(store, made).hash
    put(store, made, name="other")
    with pytest.raises(MvmError) as caught:
        store.resolve(hash[:6])
    assert str(caught.value) == (
        f"'{hash[:6]}' is ambiguous; it can mean hello@{hash[:12]}, other@{hash[:12]}"
    )


def test_an_unknown_revision_lists_those_that_exist(store: Store, make_bundle: MakeBundle) -> None:
    with pytest.raises(MvmError, match="none is stored yet, so `mvm-guest register` one"):
        store.resolve("hello")
    hash = put(store, make_bundle("hello")).hash
    with pytest.raises(MvmError, match="no revision is named 'helo'; there are hello"):
        store.resolve("helo")
    with pytest.raises(MvmError, match=f"hello has no revision 000000; it has hello@{hash[:12]}"):
        store.resolve("hello@000000")
    with pytest.raises(MvmError, match="starts with '000000'; there are hello"):
        store.resolve("000000")


@pytest.mark.parametrize("text", ["", "../x", "hello@", "hello@12345", "hello@xyz123", "a@b@c"])
def test_what_is_no_reference_is_a_usage_error(store: Store, text: str) -> None:
    with pytest.raises(UsageError):
        store.resolve(text)


def test_a_name_without_a_current_revision_lists_its_revisions(
    store: Store, make_bundle: MakeBundle
) -> None:
    hash = put(store, make_bundle("hello"), current=False).hash
    with pytest.raises(MvmError, match=f"no current revision; choose one of hello@{hash[:12]}"):
        store.resolve("hello")


def test_revisions_are_summarised_by_name_and_from_the_newest(
    store: Store, make_bundle: MakeBundle
) -> None:
    old = put(store, make_bundle("hello", b"1"))
    new = put(store, make_bundle("hello", b"2"))
    other = put(store, make_bundle("another"))
    os.utime(old.path / "rootfs.ext4", (1000, 1000))
    summaries = store.summaries()
    assert [(s.name, s.hash) for s in summaries] == [
        ("another", other.hash),
        ("hello", new.hash),
        ("hello", old.hash),
    ]
    assert [s.current for s in summaries] == [True, True, False]
    assert (summaries[2].rootfs, summaries[2].sizeBytes) == ("ext4", 600_001 + 64)


def test_a_registry_of_a_newer_schema_is_refused_and_left_as_it_is(
    store: Store, make_bundle: MakeBundle
) -> None:
    put(store, make_bundle("hello"))
    (store.data_dir / "registry.json").unlink()
    (store.data_dir / "registry.json").write_text('{"schema": 2}')
    before = tree(store.data_dir)
    for act in (
        lambda: store.resolve("hello"),
        store.summaries,
        lambda: put(store, make_bundle("other")),
    ):
        with pytest.raises(MvmError, match="reads registry schema 2"):
            act()
    assert tree(store.data_dir) == before


def test_leftovers_of_a_killed_command_are_cleaned_by_the_next(
    store: Store, make_bundle: MakeBundle
) -> None:
    (store.data_dir / "staging" / "revision").mkdir(parents=True)
    (store.data_dir / "staging" / "revision" / "rootfs.ext4").write_bytes(bytes(1000))
    put(store, make_bundle("hello"))
    assert not (store.data_dir / "staging").exists()


def test_a_failing_write_leaves_everything_as_it_was(
    store: Store, make_bundle: MakeBundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, make_bundle("hello", b"1"))
    before = tree(store.data_dir)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        put(store, make_bundle("hello", b"2"))
    assert tree(store.data_dir) == before


def test_a_process_killed_at_any_moment_leaves_the_old_state_or_the_new(
    store: Store, make_bundle: MakeBundle
) -> None:
    first, second = make_bundle("hello", b"1"), make_bundle("hello", os.urandom(8_000_000))
    old = put(store, first)
    script = (
        "import sys; from pathlib import Path; from mvm_guest import bundle\n"
        "from mvm_guest.registry import Source, Store\n"
        "found = bundle.read(Path(sys.argv[1])); print('ready', flush=True)\n"
        "Store(Path(sys.argv[2])).register(found, Source('path', 'x'))\n"
    )
    for delay in (0.0, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05):
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(second), str(store.data_dir)],
            stdout=subprocess.PIPE,
        )
        assert child.stdout
        child.stdout.readline()
        time.sleep(delay)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        for summary in store.summaries():
            path = store.resolve(summary.hash).path
            described = json.loads((path / "revision.json").read_text())
            for name, file in described["files"].items():
                assert hashlib.sha256((path / name).read_bytes()).hexdigest() == file["sha256"]
        assert store.resolve("hello").hash
    assert put(store, first).hash == old.hash
    assert not (store.data_dir / "staging").exists()


def test_many_registrations_at_once_all_succeed(store: Store, make_bundle: MakeBundle) -> None:
    bundles = [make_bundle(f"guest-{n % 3}", bytes([n])) for n in range(6)] * 2
    failures: list[BaseException] = []

    def one(path: Path) -> None:
        try:
            put(store, path)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=[path]) for path in bundles]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(store.summaries()) == 6
    assert sum(summary.current for summary in store.summaries()) == 3
