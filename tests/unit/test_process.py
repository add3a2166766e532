"""Starting external programs."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from mvm_guest import process
from mvm_guest.errors import MvmError


def test_output_is_returned() -> None:
    done = process.run(["sh", "-c", "echo out; echo err >&2"])
    assert (done.returncode, done.stdout, done.stderr) == (0, "out\n", "err\n")


@pytest.mark.parametrize("given", ["päth\n", b"p\xc3\xa4th\n"])
def test_input_reaches_the_program(given: str | bytes) -> None:
    assert process.run(["cat"], input=given).stdout == "päth\n"


def test_without_input_the_program_reads_nothing() -> None:
    assert process.run(["cat"], timeout=5).stdout == ""


def test_arguments_are_never_read_by_a_shell(tmp_path: Path) -> None:
    hostile = f"$(touch {tmp_path}/owned); `id` 'a' \"b\""
    assert process.run(["printf", "%s", hostile]).stdout == hostile
    assert list(tmp_path.iterdir()) == []


def test_a_failure_holds_the_command_and_the_end_of_its_output() -> None:
    script = "for n in $(seq 100); do echo line $n >&2; done; exit 3"
    with pytest.raises(process.ProgramFailed) as caught:
        process.run(["sh", "-c", script])
    assert "sh -c" in str(caught.value)
    assert "failed with exit status 3: " in str(caught.value)
    assert str(caught.value).endswith("line 99\nline 100")
    assert "line 50" not in str(caught.value)
    assert "line 1\n" in caught.value.output


def test_a_program_ended_by_a_signal_says_so() -> None:
    with pytest.raises(process.ProgramFailed, match="was ended by signal 9"):
        process.run(["sh", "-c", "kill -9 $$"])


def test_a_program_that_takes_too_long_is_ended() -> None:
    with pytest.raises(process.ProgramFailed, match=r"did not end within 0\.2 s"):
        process.run(["sleep", "60"], timeout=0.2)


def test_a_missing_program_is_named() -> None:
    with pytest.raises(process.ProgramMissing, match="no-such-program is not installed"):
        process.run(["no-such-program"])
    with pytest.raises(process.ProgramMissing, match="no-such-program is not installed"):
        process.spawn(["no-such-program"])
    with pytest.raises(process.ProgramMissing, match="is not on PATH; install it"):
        process.find("no-such-program", "install it")


def test_a_missing_directory_is_not_taken_for_a_missing_program(tmp_path: Path) -> None:
    with pytest.raises(MvmError, match="no such directory to run true in") as caught:
        process.run(["true"], cwd=tmp_path / "none")
    assert not isinstance(caught.value, process.ProgramMissing)


def test_a_program_is_found_on_path() -> None:
    assert process.find("sh", "install a shell").name == "sh"


def test_commands_are_logged_for_debugging_and_their_input_is_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    process.run(["cat", "-"], input="secret")
    assert "run cat -" in caplog.text
    assert "secret" not in caplog.text


def test_a_spawned_program_has_a_session_of_its_own() -> None:
    child = process.spawn(
        [sys.executable, "-c", "import os; print(os.getsid(0) == os.getpid())"],
        stdout=subprocess.PIPE,
    )
    assert child.communicate()[0] == b"True\n"
