"""What counts as a bundle."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mvm_guest import bundle
from mvm_guest.errors import MvmError

MakeBundle = Callable[..., Path]


def problem(path: Path) -> str:
    with pytest.raises(MvmError) as caught:
        bundle.read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_bundle_is_read_through_the_link_that_a_build_leaves(
    make_bundle: MakeBundle, tmp_path: Path
) -> None:
    made = make_bundle("hello")
    (tmp_path / "result").symlink_to(made)
    found = bundle.read(tmp_path / "result")
    assert found.path == made.resolve()
    assert found.guest.name == "hello"
    assert found.guest.rootfs.type == "ext4"
    assert found.files["rootfs.ext4"] == (made / "rootfs.ext4").stat().st_size


def test_a_path_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    assert "there is no bundle at" in problem(tmp_path / "result")


def test_a_file_is_not_a_bundle(make_bundle: MakeBundle) -> None:
    assert "it is no directory" in problem(make_bundle() / "vmlinux")


def test_a_directory_without_a_description_is_not_a_bundle(tmp_path: Path) -> None:
    assert "it holds no guest.json" in problem(tmp_path)


def test_a_bundle_without_a_kernel_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "vmlinux").unlink()
    assert "it holds no kernel (vmlinux)" in problem(made)


@pytest.mark.parametrize("content", [b"", b"MZ" + bytes(600), b"\x7fELF" + bytes(60)])
def test_a_kernel_that_is_no_uncompressed_elf_is_refused(
    make_bundle: MakeBundle, content: bytes
) -> None:
    made = make_bundle()
    (made / "vmlinux").write_bytes(content)
    assert "vmlinux is not an uncompressed x86-64 ELF kernel" in problem(made)


def test_an_arm_guest_needs_an_arm_kernel(make_bundle: MakeBundle) -> None:
    made = make_bundle(system="aarch64-linux")
    assert "vmlinux is not an arm64 Image" in problem(made)
    (made / "vmlinux").write_bytes(bytes(56) + b"ARM\x64" + bytes(4))
    assert bundle.read(made).guest.system == "aarch64-linux"


def test_a_bundle_without_a_root_file_system_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "rootfs.ext4").unlink()
    assert "it holds no root file system" in problem(made)


def test_a_bundle_with_two_root_file_systems_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "rootfs.squashfs").write_bytes(b"hsqs")
    assert "it holds two root file systems" in problem(made)


def test_a_description_of_another_root_file_system_is_refused(make_bundle: MakeBundle) -> None:
    rootfs = {"type": "squashfs", "file": "rootfs.squashfs", "sizeBytes": 1, "label": None}
    assert "guest.json speaks of squashfs in rootfs.squashfs" in problem(make_bundle(rootfs=rootfs))


def test_a_truncated_root_file_system_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    with (made / "rootfs.ext4").open("r+b") as file:
        file.truncate(500_000)
    assert "rootfs.ext4 has 500000 bytes where guest.json says 600000" in problem(made)


def test_a_root_file_system_of_another_kind_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "rootfs.ext4").write_bytes(bytes(600_000))
    assert "rootfs.ext4 holds no ext4 file system" in problem(made)


def test_a_newer_description_is_refused_by_its_schema(make_bundle: MakeBundle) -> None:
    assert "has schema 2, and this mvm-guest reads up to 1" in problem(make_bundle(schema=2))


def test_a_description_that_lacks_something_is_refused_by_its_path(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    described = json.loads((made / "guest.json").read_text())
    del described["kernel"]["bootArgs"]
    (made / "guest.json").write_text(json.dumps(described))
    assert "does not describe a guest: kernel.bootArgs" in problem(made)


def test_a_description_that_is_no_json_is_refused(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "guest.json").write_text("{")
    assert "does not describe a guest" in problem(made)


def test_what_a_later_version_adds_to_the_description_is_ignored(make_bundle: MakeBundle) -> None:
    assert bundle.read(make_bundle(added={"later": True})).guest.name == "hello"


def test_a_link_in_a_bundle_is_refused_by_name(make_bundle: MakeBundle) -> None:
    made = make_bundle()
    (made / "vmlinux").rename(made.parent / "kernel")
    (made / "vmlinux").symlink_to(made.parent / "kernel")
    assert "vmlinux in it is no regular file" in problem(made)
