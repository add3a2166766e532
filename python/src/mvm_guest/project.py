"""Where the project's own files are that are no Python: Nix expressions and templates."""

from pathlib import Path

from mvm_guest.errors import MvmError

_PACKAGE = Path(__file__).parent


def root() -> Path:
    """Return the directory that holds flake.nix, mkguest and templates.

    An installed package carries it; in a checkout it is the checkout's root. Raises MvmError if
    neither is there.
    """
    carried = _PACKAGE / "_source"
    found = carried if carried.is_dir() else _PACKAGE.parents[2]
    if not (found / "mkguest").is_dir():
        raise MvmError(f"{found} holds no mkguest directory; install mvm-guest again")
    return found
