"""The tree of commands and what becomes of their errors; what a command does is its module's.

Only the module of the command that runs is imported, so the list below repeats each command's
one line of help.
"""

import importlib
import os
import sys
import traceback
from typing import Annotated, Any, ClassVar

import typer
from typer.core import TyperGroup

from mvm_guest import __version__
from mvm_guest.cli.output import say
from mvm_guest.errors import MvmError

Sections = dict[str, dict[str, tuple[str, str]]]


class LazyGroup(TyperGroup):
    """A group of commands given as title → name → (module:function or :group, help)."""

    sections: ClassVar[Sections]

    def list_commands(self, ctx: Any) -> list[str]:
        return [name for commands in self.sections.values() for name in commands]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        for commands in self.sections.values():
            if cmd_name in commands:
                target, help = commands[cmd_name]
                return _load(cmd_name, target, help)
        return None

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, help) for name, (_, help) in commands.items()])


class DebianGroup(LazyGroup):
    sections: ClassVar[Sections] = {
        "Commands": {
            "lock": ("mvm_guest.cli.debian:lock", "Refresh the lock of the debian package set."),
            "fetch": ("mvm_guest.cli.debian:fetch", "Download what a build will need."),
            "check": ("mvm_guest.cli.debian:check", "Say what of a lock is nowhere any more."),
        }
    }


class RootGroup(LazyGroup):
    sections: ClassVar[Sections] = {
        "Guests": {
            "init": ("mvm_guest.cli.build:init", "Write an example guest.yaml."),
            "render": ("mvm_guest.cli.build:render", "Print a guest.yaml as a Nix flake."),
            "build": ("mvm_guest.cli.build:build", "Build a guest's bundle with Nix."),
        },
        "Revisions": {
            "register": ("mvm_guest.cli.revisions:register", "Store a bundle as a revision."),
            "ls": ("mvm_guest.cli.revisions:ls", "List the stored revisions."),
        },
        "Instances": {
            "run": ("mvm_guest.cli.instances:run", "Start an instance of a revision."),
            "ps": ("mvm_guest.cli.instances:ps", "List the instances."),
            "health": ("mvm_guest.cli.instances:health", "Ask a guest how its parts are."),
            "logs": ("mvm_guest.cli.instances:logs", "Print an instance's console."),
            "stop": ("mvm_guest.cli.instances:stop", "Shut instances down."),
            "rm": ("mvm_guest.cli.instances:rm", "Remove an instance."),
        },
        "Package sets": {
            "debian": ("mvm_guest.cli.app:DebianGroup", "Look after the debian package set."),
        },
    }


app = typer.Typer(
    name="mvm-guest",
    cls=RootGroup,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"mvm-guest {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    debug: Annotated[
        bool, typer.Option("--debug", help="Log every program started; show tracebacks.")
    ] = False,
    version: Annotated[
        bool,
        typer.Option("--version", help="Print the version.", callback=_print_version),
    ] = False,
) -> None:
    """Build, store and run guest images for Firecracker microVMs.

    \b
    Example:
      mvm-guest init hello && mvm-guest build hello/guest.yaml
      mvm-guest register && mvm-guest run hello && mvm-guest health hello --wait
    """
    if debug:
        import logging

        logging.basicConfig(level=logging.DEBUG, format="%(name)s: %(message)s")


def run(arguments: list[str]) -> int:
    """Run one command line and return its exit code; errors become one sentence on stderr."""
    debug = "--debug" in arguments[: _command_index(arguments)]
    try:
        code = typer.main.get_command(app).main(
            arguments, prog_name="mvm-guest", standalone_mode=False
        )
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:
        # The reader went away; without this the interpreter complains when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:
        if debug:
            traceback.print_exc()
        say(_sentence(error))
        return error.exit_code if isinstance(error, (MvmError, typer.TyperException)) else 1


def _command_index(arguments: list[str]) -> int:
    return next((i for i, a in enumerate(arguments) if not a.startswith("-")), len(arguments))


def _sentence(error: Exception) -> str:
    if isinstance(error, MvmError):
        return str(error)
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "mvm-guest"
        return f"{error.format_message().rstrip('.')} (see `{command} --help`)"
    if isinstance(error, OSError) and error.strerror:
        where = f"{error.filename}: " if error.filename is not None else ""
        return f"{where}{error.strerror.lower()}"
    kind = type(error).__name__
    return f"internal error ({kind}: {error}); run again with --debug and report what it prints"


def _load(name: str, target: str, help: str) -> Any:
    module_name, _, attribute = target.partition(":")
    loaded = getattr(importlib.import_module(module_name), attribute)
    if isinstance(loaded, type):
        return loaded(name=name, help=help, rich_markup_mode=None)
    single = typer.Typer(
        add_completion=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    single.command(name)(loaded)
    return typer.main.get_command(single)
