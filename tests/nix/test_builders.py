"""The functions of the debian set that make derivations, used as in nixpkgs."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Build = Callable[[str], Path]
STRINGS = json.loads((Path(__file__).parent / "derivations" / "strings.json").read_text())


def output(*command: str | Path) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True, env={}).stdout


def test_run_command_has_its_variables_and_inputs(build: Build) -> None:
    made = json.loads(build("makes-runCommand").read_text())
    assert made == {"given": "a value", "list": "a b"}
    assert build("makes-runCommandLocal").read_text() == "here\n"


def test_text_is_written(build: Build) -> None:
    assert build("makes-writeText").read_text() == "text\n"
    assert build("makes-overrideAttrs").read_text() == "overridden"
    assert build("makes-imported").read_text() == "imported\n"


def test_scripts_run(build: Build) -> None:
    assert output(build("makes-writeTextFile") / "share/made/it") == "text\n"
    assert output(build("makes-writeShellScript")) == "42\n"
    assert output(build("makes-writeShellScriptBin") / "bin/made") == "42\n"


def test_of_joined_trees_the_first_wins(build: Build) -> None:
    joined = build("makes-symlinkJoin")
    assert output(joined / "bin/one") == "one\n"
    assert output(joined / "bin/two") == "two\n"
    assert (joined / "bin/two").is_symlink()
    assert (joined / "after").read_text() == "built\n"


def test_a_closure_is_what_nix_says_it_is(build: Build) -> None:
    info = build("makes-closureInfo")
    paths = (info / "store-paths").read_text().split()
    (root,) = [path for path in paths if "-jq-" in path]
    # Nix takes the registration for its own, so that it is read as it is meant.
    assert paths == sorted(
        output("/usr/bin/env", "nix-store", "--query", "--requisites", root).split()
    )
    sizes = output("/usr/bin/env", "nix-store", "--query", "--size", *paths).split()
    assert int((info / "total-nar-size").read_text()) == sum(map(int, sizes))


def test_a_c_program_is_built_and_runs_from_its_store_path(build: Build) -> None:
    greet = build("makes-stdenv")
    assert output(greet / "bin/greet") == "hello, chown\n"
    assert (greet / "after").read_text() == "after\n"
    assert build("makes-ran").read_text() == "hello, chown\n"


def test_without_a_compiler_phases_and_final_attributes_work(build: Build) -> None:
    made = build("makes-stdenvNoCC")
    assert made.name.endswith("-made-2.0")
    assert (made / "greet.c").exists()


def test_overlays_see_each_other(build: Build) -> None:
    assert build("makes-overlay").read_text() == "hello from an overlay\n"


def test_every_string_arrives_byte_for_byte(build: Build) -> None:
    made = build("strings")
    for way in ("writeText", "variable", "escapeShellArg"):
        arrived = [(made / way / f"text{n}").read_bytes() for n in range(len(STRINGS))]
        assert arrived == [text.encode() for text in STRINGS], way
