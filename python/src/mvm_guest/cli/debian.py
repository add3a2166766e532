"""``mvm-guest debian``: look after what the debian package set pins."""

from pathlib import Path
from typing import Annotated

import typer

from mvm_guest.cli.output import say


def lock(
    packages: Annotated[
        list[str] | None,
        typer.Argument(help="Debian packages to have beside those that the set always has."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The lock file to write or to add to.")
    ] = Path("debian.lock.json"),
) -> None:
    """Pin the Debian packages of a project by version and hash, as the mirror has them now.

    `build --packages debian` uses a debian.lock.json that stands beside the guest.yaml or the
    flake.nix, and the tool's own lock otherwise. What the file already adds stays in it.

    \b
    Example:
      mvm-guest debian lock htop tcpdump
    """
    import json
    import tempfile

    from mvm_guest import settings
    from mvm_guest.nix import source
    from mvm_guest.nix.debian.apt import Apt
    from mvm_guest.nix.debian.lock import make_lock, read_lock, write_lock

    extra = list(packages or [])
    if output.exists():
        extra += read_lock(output).get("extra", [])
    names = json.loads((source.project_source() / "mkguest" / "debian" / "names.json").read_text())
    cache = settings.cache_dir()
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache, prefix="lock-") as scratch:
        made = make_lock(names, extra, Apt(cache), Path(scratch), say)
    write_lock(made, output)
    print(output)


def fetch(
    packages: Annotated[
        list[str],
        typer.Argument(help="Packages of the set, such as python3 or debianPackages.htop."),
    ],
) -> None:
    """Download what building packages of the debian set needs and the Nix store lacks.

    `build` does this by itself.

    \b
    Example:
      mvm-guest debian fetch python3 jq
    """
    from mvm_guest.nix import source
    from mvm_guest.nix.command import path_reference
    from mvm_guest.nix.debian.fetch import prefetch

    flake = path_reference(source.debian_flake())
    prefetch([f"{flake}#{package}" for package in packages])


def check(
    lock: Annotated[
        Path | None, typer.Argument(help="The lock file, by default the tool's own.")
    ] = None,
) -> None:
    """Say what a lock pins that neither the Nix store nor the mirror has any more.

    Downloads the mirror's index at most. Exits with 3 if there is anything to say.

    \b
    Example:
      mvm-guest debian check debian.lock.json
    """
    from mvm_guest import settings
    from mvm_guest.errors import CheckFailed
    from mvm_guest.nix import source
    from mvm_guest.nix.command import path_reference
    from mvm_guest.nix.debian.apt import Apt
    from mvm_guest.nix.debian.lock import read_lock
    from mvm_guest.nix.debian.mirror import dropped, pinned_and_not_stored, refusal

    if lock:
        read_lock(lock)
    flake = path_reference(source.debian_flake(lock))
    if gone := dropped(pinned_and_not_stored(flake), Apt(settings.cache_dir())):
        raise CheckFailed(str(refusal(gone)))
