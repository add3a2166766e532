"""The commands on stored revisions."""

from pathlib import Path
from typing import Annotated

import typer

from mvm_guest import settings
from mvm_guest.cli.output import age, as_json, say, size, table


def register(
    bundle: Annotated[
        Path, typer.Argument(help="The bundle, or a link to it.", show_default=True)
    ] = Path("result"),
    name: Annotated[
        str | None, typer.Option(help="Name of the revision, in place of the guest's own.")
    ] = None,
    current: Annotated[
        bool, typer.Option("--current/--no-current", help="Make it the name's current revision.")
    ] = True,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Store a bundle as a revision.

    Prints NAME@HASH. The hash is that of the bundle's content: the same content is stored once.

    \b
    Example:
      mvm-guest build hello/guest.yaml && mvm-guest register
    """
    from mvm_guest import bundle as bundles
    from mvm_guest.nix.command import nar_hash, store_path
    from mvm_guest.registry import Source, Store

    found = bundles.read(bundle)
    in_store = store_path(found.path)
    source = Source(
        kind="store" if in_store else "path",
        ref=str(bundle),
        storePath=in_store,
        narHash=nar_hash(in_store) if in_store else None,
    )
    result = Store(settings.load().data_dir).register(
        found, source, name=name, move_current=current
    )
    if not result.created:
        say(f"{result.name}@{result.hash} is stored already; its further source is recorded")
    if json:
        as_json(
            {
                "name": result.name,
                "hash": result.hash,
                "path": str(result.path),
                "created": result.created,
            }
        )
    else:
        print(f"{result.name}@{result.hash}")


def ls(
    json: Annotated[bool, typer.Option("--json", help="Print the list as JSON.")] = False,
) -> None:
    """List the stored revisions.

    The one that NAME alone stands for is marked as current. SIZE is that of kernel and root file
    system together.

    \b
    Example:
      mvm-guest ls
    """
    from mvm_guest.registry import Store

    revisions = Store(settings.load().data_dir).summaries()
    if json:
        as_json(
            [
                {
                    "name": revision.name,
                    "hash": revision.hash,
                    "rootfs": revision.rootfs,
                    "sizeBytes": revision.sizeBytes,
                    "current": revision.current,
                    "registeredAt": revision.registeredAt.isoformat(),
                }
                for revision in revisions
            ]
        )
        return
    table(
        ["NAME", "HASH", "ROOTFS", "SIZE", "CURRENT", "AGE"],
        [
            [
                revision.name,
                revision.hash[:12],
                revision.rootfs,
                size(revision.sizeBytes),
                "yes" if revision.current else "",
                age(revision.registeredAt),
            ]
            for revision in revisions
        ],
    )
