"""Building with Nix, on flakes that need nothing but a shell."""

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from mvm_guest.errors import MvmError, UsageError
from mvm_guest.nix import build as building
from mvm_guest.nix.build import build_flake, build_spec
from mvm_guest.nix.command import error_in, nar_hash, path_reference, store_path
from mvm_guest.nix.log import BuildLog
from mvm_guest.spec import read

MVM = """
{
  outputs = { self }: {
    lib.x86_64-linux.mkGuest = guest:
      if guest ? rootfs then throw "mkGuest: services.web.user: admin is taken"
      else derivation {
        name = "guest-${guest.name}";
        system = "x86_64-linux";
        builder = "/bin/sh";
        args = [ "-c" guest.services.web.command ];
      };
    legacyPackages.x86_64-linux.python3 = "python3";
  };
}
"""


@pytest.fixture(autouse=True)
def nix(monkeypatch: pytest.MonkeyPatch) -> None:
    # Without flakes: the tool must ask for them itself. /bin/sh is the host's.
    monkeypatch.setenv("NIX_CONFIG", "build-users-group =\nsubstituters =\nsandbox = false\n")


@pytest.fixture
def mvm(tmp_path: Path) -> str:
    return flake(tmp_path / "mvm", MVM)


def flake(directory: Path, text: str) -> str:
    directory.mkdir()
    (directory / "flake.nix").write_text(text)
    return path_reference(directory)


def package(directory: Path, expression: str) -> str:
    text = f"{{ outputs = {{ self }}: {{ packages.x86_64-linux.default = {expression}; }}; }}"
    return flake(directory, text)


def shell(script: str, name: str = "thing") -> str:
    return (
        f'derivation {{ name = "{name}"; system = "x86_64-linux"; builder = "/bin/sh"; '
        f'args = [ "-c" {json.dumps(script)} ]; }}'
    )


def specification(directory: Path, text: str) -> Path:
    directory.mkdir()
    (directory / "guest.yaml").write_text("system: x86_64-linux\n" + text)
    return directory / "guest.yaml"


def test_a_flake_is_built_and_linked(tmp_path: Path) -> None:
    reference = package(tmp_path / "a_b-c+d", shell("echo built > $out"))
    out = build_flake(reference, packages="nixpkgs", out_link=tmp_path / "result")
    assert out.read_text() == "built\n"
    assert (tmp_path / "result").resolve() == out
    assert store_path(out) == str(out)
    assert str(nar_hash(str(out))).startswith("sha256-")


@pytest.mark.parametrize("name", ["a b", "a#b", "a?b", "a%20b", "ä"])
def test_a_path_that_a_reference_cannot_hold_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(MvmError, match="Nix cannot refer to"):
        path_reference(tmp_path / name)


def test_a_flake_is_built_without_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    build_flake(package(tmp_path / "flake", shell("echo > $out")), packages="nixpkgs")
    assert not (tmp_path / "result").exists()


def test_a_specification_is_built_by_the_flake_that_is_given_for_mkguest(
    tmp_path: Path, mvm: str
) -> None:
    command = "'echo \"${x}$HOME\" >$out'"
    file = specification(
        tmp_path / "spec", f"name: hello\nservices: {{web: {{command: {command}}}}}\n"
    )
    out = build_spec(read(file), packages="nixpkgs", mvm=mvm)
    assert out.name.endswith("-guest-hello")
    assert list(file.parent.iterdir()) == [file]


def test_what_is_built_is_told_line_by_line_where_there_is_no_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    reference = package(tmp_path / "flake", shell(f"echo {uuid.uuid4()} > $out", "slow"))
    build_flake(reference, packages="nixpkgs")
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "building slow (1/1)\nfinished with slow\n"


def test_a_failing_build_shows_the_end_of_its_log(tmp_path: Path) -> None:
    script = "for n in 1 2 3 4 5 6 7 8 9 10 11 12; do echo line $n; done; exit 3"
    with pytest.raises(MvmError) as caught:
        build_flake(package(tmp_path / "flake", shell(script, "bad")), packages="nixpkgs")
    message = str(caught.value)
    assert message.startswith("building bad failed; `nix log /nix/store/")
    assert "line 2\n" not in message
    assert message.endswith("\n  line 11\n  line 12")


def test_a_missing_attribute_keeps_the_suggestion(tmp_path: Path) -> None:
    with pytest.raises(MvmError, match=r"attribute 'abd' missing; did you mean abc\?$"):
        build_flake(package(tmp_path / "flake", "{ abc = 1; }.abd"), packages="nixpkgs")


def test_a_flake_without_the_attribute_is_named(tmp_path: Path) -> None:
    reference = package(tmp_path / "flake", "1")
    with pytest.raises(MvmError, match="does not provide attribute") as caught:
        build_flake(f"{reference}#nope", packages="nixpkgs")
    assert "\n" not in str(caught.value)


def test_a_reference_cannot_be_an_option() -> None:
    with pytest.raises(UsageError, match="'--impure' is no flake reference"):
        build_flake("--impure", packages="nixpkgs")
    with pytest.raises(UsageError, match="'-x' is no flake reference"):
        build_flake(".", packages="nixpkgs", mvm="-x")


def test_a_package_that_does_not_exist_is_named_with_its_line(tmp_path: Path, mvm: str) -> None:
    file = specification(
        tmp_path / "spec",
        "name: x\npackages:\n  - pythn3\nservices: {web: {command: echo > $out}}\n",
    )
    inputs = 'inputs.nixpkgs.url = "path:/nonexistent";'
    (tmp_path / "mvm" / "flake.nix").write_text(
        MVM.replace("outputs = { self }", f"{inputs} outputs = {{ self, nixpkgs }}").replace(
            'name = "guest', 'packages = guest.packages; name = "guest'
        )
    )
    nixpkgs = flake(tmp_path / "nixpkgs", MVM)
    overrides = building._override
    document = read(file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            building,
            "_override",
            lambda name, value: overrides(name, value) + overrides("mvm/nixpkgs", nixpkgs),
        )
        with pytest.raises(UsageError) as caught:
            build_spec(document, packages="nixpkgs", mvm=mvm)
    assert str(caught.value) == (
        f"{file}:4: packages[0]: the nixpkgs package set has no pythn3; did you mean python3?"
    )


def test_what_mkguest_refuses_is_named_with_its_line(tmp_path: Path, mvm: str) -> None:
    file = specification(
        tmp_path / "spec",
        "name: x\nservices:\n  web:\n    command: a\n    user: admin\nrootfs: ext4\n",
    )
    with pytest.raises(UsageError) as caught:
        build_spec(read(file), packages="nixpkgs", mvm=mvm)
    assert str(caught.value) == f"{file}:6: services.web.user: admin is taken"


def test_every_nixpkgs_of_an_input_tree_is_found() -> None:
    nodes = {
        "root": {"inputs": {"mvm": "mvm", "nixpkgs": ["mvm", "nixpkgs"], "pkgs": "other"}},
        "mvm": {"inputs": {"nixpkgs": "nixpkgs", "utils": "utils"}},
        "nixpkgs": {"original": {"type": "path", "path": "/x"}},
        "other": {"original": {"owner": "NixOS", "repo": "nixpkgs", "type": "github"}},
        "utils": {"inputs": {"deep": "registry"}, "original": {"repo": "utils"}},
        "registry": {"original": {"id": "nixpkgs", "type": "indirect"}},
    }
    found = {"/".join(path) for path in building._nixpkgs_inputs(nodes, "root", ())}
    assert found == {"mvm/nixpkgs", "mvm/utils/deep", "pkgs"}


@pytest.mark.parametrize(
    ("output", "error"),
    [
        (
            "warning: x\nerror: attribute 'a' missing\n\n   at /x:1\n\n   1| a\n",
            "attribute 'a' missing",
        ),
        (
            "error:\n       … while calling\n\n         at /x:1:2:\n\n"
            "       error: attribute 'a' missing\n       at /x:1:3:\n       Did you mean b?\n",
            "attribute 'a' missing; did you mean b?",
        ),
        (
            "error: mkGuest: name: is required\n(use '--show-trace' to show)\n",
            "mkGuest: name: is required",
        ),
        ("E: Unable to locate package x\n", None),
    ],
)
def test_the_error_that_matters_is_found_in_what_nix_writes(output: str, error: str | None) -> None:
    assert error_in(output) == error


def test_a_newer_nix_that_words_a_failed_build_differently_is_understood() -> None:
    derivation = "/nix/store/zix0bjfzxrmfjf4gcwbsf1jazghawhwm-good.drv"
    events = [
        {"action": "start", "id": 1, "type": 105, "fields": [derivation, "", 1, 1]},
        {"action": "result", "id": 1, "type": 101, "fields": ["\x1b[31mred\x1b[0m\x07"]},
        {"action": "stop", "id": 1},
        {"action": "unheard-of"},
        {"action": "start"},
        {
            "action": "msg",
            "level": 0,
            "raw_msg": f"Cannot build '\x1b[35;1m{derivation}\x1b[0m'.\nReason: builder failed",
            "msg": "",
        },
    ]
    log = BuildLog(lambda *_: None)
    log.read([b"noise\n", b"@nix {\n", *(f"@nix {json.dumps(e)}\n".encode() for e in events)])
    message = str(building._failure(log, 1))
    assert message.startswith(f"building good failed; `nix log {derivation}`")
    assert message.endswith("which ends:\n  red")


def test_without_nix_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MvmError, match=r"nix is not on PATH; install Nix 2\.8 or later"):
        build_flake(".", packages="nixpkgs")
    assert nar_hash("/nix/store/x") is None


def test_a_terminal_sees_the_build_in_place(tmp_path: Path) -> None:
    # Unlike any before, or there would be nothing to build.
    line = str(uuid.uuid4())
    reference = package(
        tmp_path / "flake", shell(f"echo {line}; /bin/sleep 1; echo > $out", "slow")
    )
    code = (
        "from mvm_guest.nix.build import build_flake; import sys;"
        "build_flake(sys.argv[1], packages='nixpkgs')"
    )
    done = subprocess.run(
        ["script", "-qec", f"{sys.executable} -c \"{code}\" '{reference}'", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"TERM": "xterm", "COLUMNS": "120"},
    )
    assert "slow (1/1)" in done.stdout
    assert line in done.stdout
