"""The command line as its users see it."""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mvm_guest import __version__
from mvm_guest.cli import app
from mvm_guest.errors import CheckFailed, MvmError, UsageError

Command = Callable[..., subprocess.CompletedProcess[str]]
MakeBundle = Callable[..., Path]


def commands() -> list[tuple[list[str], str]]:
    """Return the words of every command, with the help that the list of commands shows."""
    found = []
    for group, prefix in ((app.RootGroup, []), (app.DebianGroup, ["debian"])):
        for section in group.sections.values():
            found += [([*prefix, name], help) for name, (_, help) in section.items()]
    return found


def test_the_version_is_printed(command: Command) -> None:
    assert command("--version").stdout == f"mvm-guest {__version__}\n"
    assert command("--debug", "--version").stdout == f"mvm-guest {__version__}\n"


def test_help_lists_every_command(command: Command) -> None:
    done = command("--help")
    assert done.returncode == 0
    for words, help in commands():
        if len(words) == 1:
            assert f"  {words[0]} " in done.stdout
            assert help in done.stdout


@pytest.mark.parametrize("words", [words for words, _ in commands()], ids=" ".join)
def test_every_command_has_help_with_an_example(command: Command, words: list[str]) -> None:
    done = command(*words, "--help")
    assert done.returncode == 0, done.stderr
    if words == ["debian"]:
        assert "lock" in done.stdout
    else:
        assert f"mvm-guest {' '.join(words)}" in done.stdout.partition("Example:")[2]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "Missing command (see `mvm-guest --help`)"),
        (["buidl"], "No such command 'buidl'"),
        (["--nope"], "No such option: --nope (see `mvm-guest --help`)"),
        (["ls", "--nope"], "No such option: --nope (see `mvm-guest ls --help`)"),
        (["init"], "Missing argument 'DIR' (see `mvm-guest init --help`)"),
        (["build", "guest.yaml", "--flake", "."], "give either a guest.yaml or --flake"),
        (["build", "--flake", ".", "--packages", "brew"], "--packages is 'brew'"),
        (["render"], "there is no guest.yaml"),
    ],
)
def test_wrong_use_is_one_sentence_and_code_2(
    command: Command, arguments: list[str], says: str
) -> None:
    done = command(*arguments)
    assert done.returncode == 2
    assert says in done.stderr
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_a_failure_is_one_sentence_and_code_1(command: Command) -> None:
    done = command("register", "nope")
    assert done.returncode == 1
    assert done.stderr == (
        "mvm-guest: there is no bundle at nope; make one with `mvm-guest build`\n"
    )


def test_a_traceback_appears_only_with_debug(command: Command) -> None:
    assert "Traceback" not in command("register", "nope").stderr
    assert "Traceback" in command("--debug", "register", "nope").stderr


def test_debug_shows_which_programs_are_started(command: Command, tmp_path: Path) -> None:
    (tmp_path / "here" / "flake.nix").write_text("{")
    done = command("--debug", "build", "--flake", ".")
    assert "mvm_guest.process: spawn" in done.stderr
    assert "nix" in done.stderr


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (MvmError("it broke"), 1, "mvm-guest: it broke\n"),
        (UsageError("not so"), 2, "mvm-guest: not so\n"),
        (CheckFailed("unwell"), 3, "mvm-guest: unwell\n"),
        (KeyboardInterrupt(), 130, ""),
        (PermissionError(13, "Permission denied", "/x"), 1, "mvm-guest: /x: permission denied\n"),
        (ValueError("odd"), 1, "mvm-guest: internal error (ValueError: odd); run again with"),
        (MvmError("a\x1b[2Jb"), 1, "mvm-guest: a\N{REPLACEMENT CHARACTER}[2Jb\n"),
    ],
)
def test_every_error_has_its_code(
    error: BaseException,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setattr("mvm_guest.cli.revisions.ls", fail)
    assert app.run(["ls"]) == code
    assert capsys.readouterr().err.startswith(says)


def test_a_guest_goes_from_example_to_flake(command: Command, tmp_path: Path) -> None:
    assert command("init", "hello").stdout == "hello/guest.yaml\n"
    assert 'name = "hello";' in command("render", "hello/guest.yaml").stdout
    again = command("init", "hello")
    assert (again.returncode, again.stdout) == (1, "")
    assert "hello/guest.yaml exists already" in again.stderr


def test_a_bundle_is_registered_and_listed(
    command: Command, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    (tmp_path / "here" / "result").symlink_to(make_bundle("hello"))
    first = command("register")
    name, _, hash = first.stdout.strip().partition("@")
    assert (first.returncode, name, len(hash)) == (0, "hello", 64)
    assert first.stderr == ""
    again = command("register", "--no-current", "--json")
    assert json.loads(again.stdout)["created"] is False
    assert f"hello@{hash} is stored already" in again.stderr
    assert command("register", "--name", "other").stdout == f"other@{hash}\n"
    lines = command("ls").stdout.splitlines()
    assert lines[0].split() == ["NAME", "HASH", "ROOTFS", "SIZE", "CURRENT", "AGE"]
    assert lines[1].split()[:6] == ["hello", hash[:12], "ext4", "586.0", "KiB", "yes"]
    listed = json.loads(command("ls", "--json").stdout)
    assert [(one["name"], one["hash"], one["current"]) for one in listed] == [
        ("hello", hash, True),
        ("other", hash, True),
    ]


def test_a_reader_that_goes_away_is_no_error(command: Command) -> None:
    done = subprocess.run(
        ["sh", "-c", f"{sys.executable} -m mvm_guest --help | true"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_completion_knows_the_commands(command: Command) -> None:
    env = {"_MVM_GUEST_COMPLETE": "complete_bash", "COMP_WORDS": "mvm-guest re", "COMP_CWORD": "1"}
    assert command(**env).stdout.split() == ["render", "register"]


def test_nothing_heavy_is_loaded_for_version_and_help() -> None:
    for argument, unwanted in (
        ("--version", {"typer", "pydantic", "yaml", "rich", "json"}),
        ("--help", {"pydantic", "yaml", "rich", "jinja2", "psutil"}),
    ):
        code = (
            "import sys; from mvm_guest.cli import main; sys.argv[1:] = [sys.argv[1]]; main();"
            "print(*sys.modules, file=sys.stderr)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, argument], capture_output=True, text=True, check=True
        )
        assert not unwanted & set(done.stderr.split())


@pytest.mark.slow
def test_a_thousand_revisions_are_listed_in_twice_the_time_of_one(
    command: Command, make_bundle: MakeBundle, tmp_path: Path
) -> None:
    (tmp_path / "here" / "result").symlink_to(make_bundle("hello"))
    command("register")

    def seconds() -> float:
        measured = []
        for _ in range(7):
            start = time.perf_counter()
            command("ls")
            measured.append(time.perf_counter() - start)
        return statistics.median(measured)

    one = seconds()
    for number in range(999):
        path = tmp_path / "data" / "templates" / f"guest-{number % 100}" / "revisions"
        (path / f"{number:064x}").mkdir(parents=True)
        for file in ("vmlinux", "rootfs.ext4", "guest.json", "revision.json", "fc-base.json"):
            (path / f"{number:064x}" / file).touch()
    assert len(command("ls").stdout.splitlines()) == 1001
    assert seconds() <= 2 * one
