"""The commands that make a guest: its specification, its flake, its bundle."""

from pathlib import Path
from typing import Annotated

import typer

from mvm_guest import settings
from mvm_guest.cli.output import as_json

Specification = Annotated[
    Path, typer.Argument(metavar="[guest.yaml]", help="The guest specification.")
]


def init(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where guest.yaml is put.")],
    preset: Annotated[str, typer.Option(help="The example to start from.")] = "python",
) -> None:
    """Write an example guest.yaml.

    Prints the path of what was written. An existing file is left alone.

    \b
    Example:
      mvm-guest init hello && mvm-guest build hello/guest.yaml
    """
    from mvm_guest.spec.presets import write_preset

    print(write_preset(preset, directory))


def render(specification: Specification = Path("guest.yaml")) -> None:
    """Print a guest.yaml as a Nix flake.

    \b
    Example:
      mvm-guest render hello/guest.yaml > flake.nix
    """
    from mvm_guest.nix.render import render
    from mvm_guest.spec import read

    print(render(read(specification).spec), end="")


def build(
    specification: Annotated[
        Path | None,
        typer.Argument(
            metavar="[guest.yaml]", help="The guest specification, ./guest.yaml if not given."
        ),
    ] = None,
    flake: Annotated[
        str | None, typer.Option(metavar="REF[#ATTR]", help="Build this flake instead.")
    ] = None,
    packages: Annotated[
        str | None,
        typer.Option(metavar="nixpkgs|debian", help="The package set to build from."),
    ] = None,
    mvm: Annotated[
        str | None, typer.Option(metavar="REF", help="Replaces the flake's input `mvm`.")
    ] = None,
    out_link: Annotated[
        Path, typer.Option("--out-link", "-o", help="Where a link to the bundle is put.")
    ] = Path("result"),
    no_link: Annotated[bool, typer.Option("--no-link", help="Put no link anywhere.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Build a guest's bundle with Nix.

    Prints the bundle's path in the Nix store.

    \b
    Example:
      mvm-guest build hello/guest.yaml --packages debian
      mvm-guest build --flake .#web
    """
    from mvm_guest.errors import UsageError
    from mvm_guest.nix.build import build_flake, build_spec
    from mvm_guest.spec import read

    if flake and specification:
        raise UsageError("give either a guest.yaml or --flake, not both")
    link = None if no_link else out_link
    if flake:
        chosen = settings.load(packages=packages).packages
        bundle = build_flake(flake, packages=chosen, mvm=mvm, out_link=link)
    else:
        document = read(specification or Path("guest.yaml"))
        chosen = settings.load(packages=packages or document.spec.packageSet).packages
        bundle = build_spec(document, packages=chosen, mvm=mvm, out_link=link)
    if json:
        as_json({"bundle": str(bundle), "packages": chosen, "outLink": str(link) if link else None})
    else:
        print(bundle)
