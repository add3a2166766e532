"""Derivations depend on nothing of the machine, and give the same again."""

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from mvm_guest import project, settings
from mvm_guest.nix.command import nix, path_reference


def test_packages_that_depend_on_each_other_are_one_store_path(flake: Any) -> None:
    members = 'set: map (name: set.${name}.outPath) [ "libc6" "libgcc-s1" ]'
    debian = flake.overrides[-1]
    done = subprocess.run(
        nix("eval", "--json", f"{debian}#debianPackages", "--apply", members),
        capture_output=True,
        text=True,
        check=True,
    )
    libc, libgcc = json.loads(done.stdout)
    assert libc == libgcc
    libraries = Path(libc, "lib/x86_64-linux-gnu")
    assert (libraries / "libc.so.6").exists()
    assert (libraries / "libgcc_s.so.1").exists()


def test_what_is_built_again_is_the_same(flake: Any) -> None:
    attributes = ["guest", "guest-rootfs", "guest-tree", "makes-stdenv", "makes-closureInfo"]
    flake.build(*attributes)
    flake.build(*attributes, rebuild=True)


@pytest.mark.parametrize("package", ["jq", "python3", "debianPackages.libc6"])
def test_a_package_that_is_built_again_is_the_same(flake: Any, package: str) -> None:
    debian = flake.overrides[-1]
    subprocess.run(nix("build", "--no-link", f"{debian}#{package}"), check=True)
    done = subprocess.run(
        nix("build", "--no-link", "--rebuild", f"{debian}#{package}"),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_a_guest_is_the_same_derivation_from_any_place(
    flake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = flake.nix("eval --raw", "guest.drvPath").stdout
    assert here.endswith("-guest-test.drv")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C")
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    moved = []
    for number, part in enumerate((flake.reference, *flake.overrides)):
        if part.startswith("path:"):
            copy = tmp_path / str(number)
            shutil.copytree(part.removeprefix("path:"), copy)
            moved.append(path_reference(copy))
        else:
            moved.append(part)
    elsewhere = replace(flake, reference=moved[0], overrides=tuple(moved[1:]))
    assert elsewhere.nix("eval --raw", "guest.drvPath").stdout == here


def test_a_guest_is_built_by_nothing_but_the_store(flake: Any) -> None:
    done = flake.nix("show-derivation --recursive", "guest")
    shown = json.loads(done.stdout)
    for path, derivation in shown.get("derivations", shown).items():
        where = f"{path}: {derivation}"
        # The builder of what is put into the store by hand is the message that says so.
        fixed = "outputHash" in derivation["env"]
        assert fixed or derivation["builder"].startswith("/nix/store/"), where
        assert not derivation["env"].keys() & {"__noChroot", "__impureHostDeps"}, where
        assert "impureEnvVars" not in derivation["env"], where
        for place in (str(project.root()), str(settings.cache_dir())):
            assert place not in json.dumps(derivation), where
