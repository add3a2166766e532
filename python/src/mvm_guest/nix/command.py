"""How Nix is started: the arguments that every call needs, and questions to its store."""

import json
import os
import re
from pathlib import Path

from mvm_guest import process
from mvm_guest.errors import MvmError

STORE = Path("/nix/store")

_EACH_LINE = re.MULTILINE | re.DOTALL
_FEATURES = ["--extra-experimental-features", "nix-command flakes"]


def nix(*arguments: str | Path) -> list[str]:
    """Return the argument list that starts `nix` with flakes, whatever its configuration says.

    Raises ProgramMissing.
    """
    program = process.find("nix", "install Nix 2.8 or later, such as Debian's nix-bin")
    return [str(program), *_FEATURES, *map(str, arguments)]


def error_in(output: str) -> str | None:
    """Return the one error that matters in what `nix` wrote for people, with its suggestion.

    None if there is none. Newer versions put a trace of further errors before it.
    """
    found = list(
        re.finditer(r"^ *error: (.+?)(?=\n\s*\n|\n\s+at |\n\(use |\Z)", output, _EACH_LINE)
    )
    if not found:
        return None
    return found[-1][1].strip() + suggestion(output)


def suggestion(output: str) -> str:
    """Return what Nix suggests in an error, as `; did you mean x?`, or nothing."""
    found = re.search(r"Did you mean ([^?]+\?)", output)
    return f"; did you mean {found[1]}" if found else ""


def path_reference(directory: Path) -> str:
    """Return the flake reference of a directory, taken as it is and not through git.

    Raises MvmError for a path that such a reference cannot hold.
    """
    path = os.fspath(directory.absolute())
    # Nix decodes %20 and the like in a `path:` reference only since 2.19.
    if not re.fullmatch(r"[A-Za-z0-9/._~+=@-]+", path):
        raise MvmError(
            f"Nix cannot refer to {path!r}: move it where the path has only ASCII letters, digits "
            "and -._~+=@ (XDG_CACHE_HOME moves the cache)"
        )
    return f"path:{path}"


def store_path(path: Path) -> str | None:
    """Return `path` if it is a whole path in the Nix store, else None."""
    return os.fspath(path) if path.parent == STORE else None


def nar_hash(path: str) -> str | None:
    """Return the SRI hash that Nix keeps of a store path, or None if there is no Nix to ask."""
    try:
        done = process.run(nix("path-info", "--json", path))
    except (process.ProgramMissing, process.ProgramFailed):
        return None
    info = json.loads(done.stdout)
    # Nix 2.19 made the list of paths an object.
    found = info[path] if isinstance(info, dict) else info[0]
    hash = found.get("narHash")
    return str(hash) if hash else None
