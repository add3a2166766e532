"""What is said of files that a lock pins and that the mirror has dropped."""

import json
from pathlib import Path

import pytest
from pytest_subprocess import FakeProcess

from mvm_guest import process
from mvm_guest.nix.debian.apt import Apt
from mvm_guest.nix.debian.fetch import prefetch
from mvm_guest.nix.debian.mirror import (
    MissingFromMirror,
    PinnedFile,
    dropped,
    pinned_and_not_stored,
    refusal,
)

HTOP = PinnedFile("htop.deb", "aa", "apt", "htop=3.4.1-5")
BUSYBOX = PinnedFile("bootstrap-busybox", "sha256-nar", "bootstrap", "busybox-static=1:1.37.0-6")
SOURCE = PinnedFile("busybox.tar", "cc", "apt-source", "busybox=1:1.37.0-6")


def deb(name: str, version: str, sha256: str) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nSize: 1\nSHA256: {sha256}\n"
        f"Filename: pool/main/{name}.deb\nDescription: a package\n that does things\n"
    )


def source(name: str, version: str, sha256: str) -> str:
    return (
        f"Package: {name}\nVersion: {version}\nDirectory: pool/main/{name}\n"
        f"Checksums-Sha256:\n {sha256} 1 {name}.orig.tar.bz2\n"
    )


@pytest.fixture
def apt(tmp_path: Path, fp: FakeProcess, monkeypatch: pytest.MonkeyPatch) -> Apt:
    monkeypatch.setenv("MVM_DEBIAN_MIRROR", "https://mirror.example/debian")
    fp.keep_last_process(True)
    fp.register(["apt-get", fp.any(), "update", fp.any()])
    return Apt(tmp_path)


def shown(fp: FakeProcess, *indexes: str) -> None:
    """Let apt show each of `indexes` in turn."""
    show = ["apt-cache", fp.any(), "show", fp.any()]
    for index in indexes:
        if index:
            fp.register(show, stdout=index)
        else:
            fp.register(show, returncode=100, stderr="E: No packages found")


def updates(fp: FakeProcess) -> int:
    return sum("update" in call for call in fp.calls)


def test_what_the_index_has_is_not_dropped_and_asked_for_once(apt: Apt, fp: FakeProcess) -> None:
    shown(fp, f"{deb('htop', '3.4.1-5', 'aa')}\n{deb('busybox-static', '1:1.37.0-6', 'bb')}")
    fp.register(
        ["apt-cache", fp.any(), "showsrc", fp.any()], stdout=source("busybox", "1:1.37.0-6", "cc")
    )
    assert dropped([HTOP, BUSYBOX, SOURCE], apt) == []
    assert dropped([HTOP], apt) == []
    assert updates(fp) == 1


@pytest.mark.parametrize(
    "index",
    [
        "",
        deb("htop", "3.4.1-6", "aa"),
        deb("htop", "3.4.1-5", "changed"),
    ],
)
def test_what_is_gone_newer_or_changed_is_dropped(apt: Apt, fp: FakeProcess, index: str) -> None:
    shown(fp, index)
    assert dropped([HTOP], apt) == [HTOP]


def test_a_source_that_changed_is_dropped(apt: Apt, fp: FakeProcess) -> None:
    fp.register(
        ["apt-cache", fp.any(), "showsrc", fp.any()], stdout=source("busybox", "1:1.37.0-6", "dd")
    )
    assert dropped([SOURCE], apt) == [SOURCE]


def test_an_old_index_is_not_believed_that_something_is_gone(apt: Apt, fp: FakeProcess) -> None:
    shown(fp, deb("htop", "3.4.1-4", "aa"), deb("htop", "3.4.1-5", "aa"))
    assert dropped([HTOP], apt) == []
    assert updates(fp) == 2


def test_nobody_is_asked_where_nothing_is_missing(apt: Apt, fp: FakeProcess) -> None:
    assert dropped([], apt) == []
    assert len(fp.calls) == 0


def test_an_apt_that_fails_is_not_taken_for_a_mirror_without_packages(
    apt: Apt, fp: FakeProcess
) -> None:
    fp.register(
        ["apt-cache", fp.any(), "show", fp.any()], returncode=100, stderr="E: lists are damaged"
    )
    with pytest.raises(process.ProgramFailed, match="lists are damaged"):
        dropped([HTOP], apt)


def test_the_refusal_names_each_and_what_to_run() -> None:
    assert str(refusal([SOURCE, HTOP])) == (
        "the Debian mirror no longer has busybox 1:1.37.0-6, htop 3.4.1-5 as the lock pins it: "
        "`mvm-guest debian lock` makes a lock of what the mirror has now"
    )


def test_only_what_the_store_lacks_is_looked_for(fp: FakeProcess) -> None:
    pinned = [
        {"path": f"/nix/store/{name}", "store_name": name, "sha256": "aa", "client": "apt"}
        | {"what": f"{name}=1"}
        for name in ("here", "lacking")
    ]
    fp.register([fp.any(), "eval", fp.any()], stdout=json.dumps(pinned))
    fp.register(
        ["nix-store", "--check-validity", "--print-invalid", "/nix/store/here", fp.any()],
        stdout="/nix/store/lacking\n",
    )
    assert [file.what for file in pinned_and_not_stored("path:/x")] == ["lacking=1"]


def test_a_mirror_that_moves_on_between_its_index_and_a_download_is_named(
    apt: Apt, fp: FakeProcess
) -> None:
    environment = {
        "name": HTOP.store_name,
        "outputHash": HTOP.sha256,
        "mvmClient": HTOP.client,
        "mvmWhat": HTOP.what,
    }
    fp.register(
        [fp.any(), "build", "--dry-run", fp.any()],
        stderr="these 1 derivations will be built:\n  /nix/store/x-htop.deb.drv\n",
    )
    fp.register(
        [fp.any(), "show-derivation", fp.any()],
        stdout=json.dumps({"/nix/store/x-htop.deb.drv": {"env": environment}}),
    )
    shown(fp, deb("htop", "3.4.1-5", "aa"), deb("htop", "3.4.1-6", "bb"))
    fp.register(
        ["apt-get", fp.any(), "download", fp.any()], returncode=100, stderr="404  Not Found"
    )
    with pytest.raises(MissingFromMirror, match=r"no longer has htop 3\.4\.1-5"):
        prefetch(["path:/x#htop"], report=lambda _: None)
