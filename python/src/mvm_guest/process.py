"""The one place that starts external programs.

Programs are given as argument lists, never as shell strings, and are logged at debug level. What
must stay secret reaches a program through its standard input or a file, never as an argument.
"""

import logging
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from mvm_guest.errors import MvmError

_log = logging.getLogger(__name__)


class ProgramMissing(MvmError):
    """A program that is needed is not installed."""


class ProgramFailed(MvmError):
    """A program ended with an error, or not in time.

    `output` is what it wrote to standard error, or to standard output if that was empty.
    """

    def __init__(self, argv: Sequence[str], how: str, output: str) -> None:
        self.argv = list(argv)
        self.output = output
        end = "\n".join(output.strip().splitlines()[-10:])[-2000:]
        super().__init__(f"`{_shown(argv)}` {how}" + (f": {end}" if end else ""))


def find(program: str, hint: str) -> Path:
    """Return the path of `program`; `hint` says what to install, as in "install qemu-system-x86".

    Raises ProgramMissing.
    """
    path = shutil.which(program)
    if path is None:
        raise ProgramMissing(f"{program} is not on PATH; {hint}")
    return Path(path)


def run(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    input: str | bytes | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and return what it wrote, decoded as UTF-8.

    `env` replaces the whole environment; `timeout` is in seconds. Without `input`, standard input
    is empty. Raises ProgramMissing and ProgramFailed.
    """
    command = [str(argument) for argument in argv]
    _log.debug("run %s", shlex.join(command))
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            input=input.encode() if isinstance(input, str) else input or b"",
            capture_output=True,
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError as error:
        raise _missing(command, error) from None
    except subprocess.TimeoutExpired as error:
        output = _decoded(error.stderr) or _decoded(error.stdout)
        raise ProgramFailed(command, f"did not end within {timeout:g} s", output) from None
    stdout, stderr = _decoded(done.stdout), _decoded(done.stderr)
    if done.returncode != 0:
        raise ProgramFailed(command, how_it_ended(done.returncode), stderr.strip() or stdout)
    return subprocess.CompletedProcess(command, done.returncode, stdout, stderr)


def spawn(
    argv: Sequence[str | Path],
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdin: int | IO[bytes] = subprocess.DEVNULL,
    stdout: int | IO[bytes] = subprocess.DEVNULL,
    stderr: int | IO[bytes] = subprocess.DEVNULL,
    pass_fds: Sequence[int] = (),
    new_session: bool = True,
) -> subprocess.Popen[bytes]:
    """Start a program and return at once; the caller owns it from then on.

    In a session of its own it outlives the terminal and the caller. Raises ProgramMissing.
    """
    command = [str(argument) for argument in argv]
    _log.debug("spawn %s", shlex.join(command))
    try:
        return subprocess.Popen(
            command,
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            start_new_session=new_session,
        )
    except FileNotFoundError as error:
        raise _missing(command, error) from None


def how_it_ended(returncode: int) -> str:
    """Say in words how a program ended, from the return code that subprocess gives."""
    if returncode < 0:
        return f"was ended by signal {-returncode}"
    return f"failed with exit status {returncode}"


def _missing(command: Sequence[str], error: FileNotFoundError) -> MvmError:
    if error.filename != command[0]:
        return MvmError(f"{error.filename}: no such directory to run {command[0]} in")
    return ProgramMissing(f"{command[0]} is not installed, or not on PATH")


def _decoded(output: bytes | None) -> str:
    return (output or b"").decode(errors="replace")


def _shown(argv: Sequence[str]) -> str:
    shown = shlex.join(argv)
    return shown if len(shown) <= 200 else f"{shown[:197]}..."
