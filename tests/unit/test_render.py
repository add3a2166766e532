"""Specifications as flakes."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mvm_guest.nix.render import render
from mvm_guest.spec import GuestSpec

# What a guest gets is what reaches mkGuest: these stand for the flake's inputs.
EVALUATE = """
  let
    flake = import ./flake.nix;
    mvm.lib.x86_64-linux.mkGuest = arguments: arguments;
    nixpkgs.legacyPackages.x86_64-linux = {
      python3 = "the python3";
      "7zz" = "the 7zz";
      python3Packages.flask = "the flask";
    };
  in
  { description = flake.description; inputs = flake.inputs or { };
    guest = (flake.outputs { inherit mvm nixpkgs; }).packages.x86_64-linux.default; }
"""
TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]))


def evaluate(spec: dict[str, Any], directory: Path) -> Any:
    text = render(GuestSpec.model_validate({"system": "x86_64-linux"} | spec))
    (directory / "flake.nix").write_text(text, encoding="utf-8")
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", "--expr", EVALUATE],
        cwd=directory,
        capture_output=True,
        check=False,
        env=os.environ | {"LC_ALL": "C.UTF-8"},
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def test_a_specification_becomes_the_flake_that_a_person_would_write() -> None:
    spec = GuestSpec.model_validate(
        {
            "name": "hello",
            "system": "x86_64-linux",
            "packageSet": "debian",
            "packages": ["python3", "7zz", "python3Packages.flask"],
            "services": {"web": {"command": "a\nb ${c}\n", "env": {"A": "1", "B": "2"}}},
            "healthChecks": {"web": {"healthCmd": "true"}},
            "rootfs": "squashfs",
        }
    )
    assert (
        render(spec)
        == """\
{
  description = "Guest image hello";

  inputs = {
    mvm.url = "github:mvm-guest/mvm-guest";
    nixpkgs.follows = "mvm/nixpkgs";
  };

  outputs =
    { mvm, nixpkgs, ... }:
    let
      system = "x86_64-linux";
      pkgs = nixpkgs.legacyPackages.${system};
    in
    {
      packages.${system}.default = mvm.lib.${system}.mkGuest {
        name = "hello";
        packages = [
          pkgs.python3
          pkgs."7zz"
          pkgs.python3Packages.flask
        ];
        services.web = {
          command = ''
            a
            b ''${c}
          '';
          env = {
            A = "1";
            B = "2";
          };
        };
        healthChecks.web.healthCmd = "true";
        rootfs = "squashfs";
      };
    };
}
"""
    )


def test_packages_are_those_of_the_package_set(tmp_path: Path) -> None:
    spec = {"name": "x", "packages": ["python3", "7zz", "python3Packages.flask"]}
    found = evaluate(spec, tmp_path)
    assert found["guest"]["packages"] == ["the python3", "the 7zz", "the flask"]
    assert found["inputs"]["nixpkgs"] == {"follows": "mvm/nixpkgs"}


def test_a_guest_without_packages_has_no_use_for_a_package_set(tmp_path: Path) -> None:
    found = evaluate({"name": "x"}, tmp_path)
    assert found["guest"] == {"name": "x"}
    assert list(found["inputs"]) == ["mvm"]


def test_what_is_null_is_left_to_its_default(tmp_path: Path) -> None:
    spec = {"name": "x", "services": {"web": {"command": "a", "user": None}}}
    assert evaluate(spec, tmp_path)["guest"]["services"] == {"web": {"command": "a"}}


@settings(max_examples=60, deadline=None)
@given(
    command=TEXT,
    value=TEXT,
    check=TEXT,
    user=st.from_regex(r"[a-z_][a-z0-9_-]{0,30}", fullmatch=True),
)
def test_every_text_reaches_mkguest_unchanged(
    tmp_path_factory: Any, command: str, value: str, check: str, user: str
) -> None:
    services = {"inherit": {"command": command, "env": {"HOME": value}, "user": user}}
    spec = {"name": "x", "services": services, "healthChecks": {"or": {"healthCmd": check}}}
    guest = evaluate(spec, tmp_path_factory.mktemp("flake"))["guest"]
    assert guest == {"name": "x", "services": services, "healthChecks": spec["healthChecks"]}
