"""The command line: one module for each group of commands, loaded only when one of them runs."""

import sys

from mvm_guest import __version__


def main() -> int:
    """Run the command that the process was started with, and return its exit code."""
    if sys.argv[1:] == ["--version"]:
        print(f"mvm-guest {__version__}")
        return 0
    from mvm_guest.cli.app import run

    return run(sys.argv[1:])
