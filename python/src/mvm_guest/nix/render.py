"""Renders a guest specification as a flake that a person could have written.

The layout is `templates/flake.nix.j2`; every value in it is written by `quote.py`, and the
template engine refuses any other.
"""

import platform
from collections.abc import Mapping
from typing import Any

import jinja2

from mvm_guest import project
from mvm_guest.errors import MvmError
from mvm_guest.nix import quote
from mvm_guest.spec import GuestSpec


def render(spec: GuestSpec) -> str:
    """Return the text of the `flake.nix` that builds this guest."""
    given = spec.model_dump(exclude_unset=True)
    arguments = {key: given[key] for key in given if key not in ("system", "packageSet")}
    if spec.packages:
        arguments["packages"] = [
            quote.attribute_path(["pkgs", *package.split(".")]) for package in spec.packages
        ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(project.root() / "templates"),
        autoescape=False,  # noqa: S701 - it would escape for HTML; `finalize` guards Nix
        finalize=_only_nix,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["nix"] = quote.expression
    return environment.get_template("flake.nix.j2").render(
        description=f"Guest image {spec.name}",
        system=spec.system or _host_system(),
        packages=bool(spec.packages),
        arguments=_without_none(arguments),
    )


def _only_nix(value: Any) -> Any:
    if not isinstance(value, quote.Nix):
        raise TypeError(f"the template writes {value!r} without the filter `nix`")
    return value


def _without_none(value: Any) -> Any:
    """Leave out what a specification gives as null, which is the same as not giving it."""
    if isinstance(value, Mapping):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return value


def _host_system() -> str:
    machine = platform.machine()
    if machine not in ("x86_64", "aarch64"):
        raise MvmError(f"guests for {machine} cannot be built; say `system: x86_64-linux`")
    return f"{machine}-linux"
