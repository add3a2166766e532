"""Locks the debian package set: names in, a file that pins every package of their closures out.

What to lock stands in ``names.json``; the result, ``lock.json``, holds versions, pool paths, hashes
and the resolved dependencies, and names no host. ``fetch`` downloads what a lock names; the Nix
side reads the same file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from mvm_guest.errors import MvmError, UsageError
from mvm_guest.nix.debian import bootstrap, wheels
from mvm_guest.nix.debian.apt import RELEASE, Apt, DebFile

SCHEMA = 1


def make_lock(
    names: Mapping[str, Any],
    extra: Iterable[str],
    apt: Apt,
    scratch: Path,
    report: Callable[[str], None],
) -> dict[str, Any]:
    """Resolve everything that `names` (``names.json``) and `extra` (package names) ask for.

    Returns the content of ``lock.json``. Raises `UsageError` for a package that the release lacks.
    """
    extra = sorted(set(extra))
    apt.update(force=True)
    _check_exist(extra, apt)
    wanted = sorted({*names["guest"], *names["build"], *extra})
    chosen: set[str] = set()
    for number, name in enumerate(wanted, 1):
        report(f"resolving {name} ({number} of {len(wanted)})")
        chosen.update(apt.closure(name))
    debs = apt.show(sorted(chosen))
    edges = _resolve(debs, names["leftOut"])
    reachable = _reachable(wanted, edges)
    units = _units({name: edges[name] for name in sorted(reachable)}, names["together"])
    unit_of = {member: unit for unit, members in units.items() for member in members}
    packages = {
        name: {
            "version": debs[name].version,
            "path": debs[name].path,
            "sha256": debs[name].sha256,
            "size": debs[name].size,
            "unit": unit_of[name],
        }
        for name in sorted(reachable)
    }
    sources = {}
    for name in names["sources"]:
        version, files = list(apt.sources(name).items())[-1]
        wanted_files = {
            path: {"sha256": sha256, "size": size}
            for path, (sha256, size) in files.items()
            if ".orig." in path and not path.endswith(".asc")
        }
        sources[name] = {"version": version, "files": wanted_files}
    report("making the bootstrap busybox")
    return {
        "schema": SCHEMA,
        "release": RELEASE,
        "system": "x86_64-linux",
        "extra": extra,
        "packages": packages,
        "units": {
            unit: {
                "packages": members,
                "depends": sorted(
                    {unit_of[target] for member in members for target in edges[member]} - {unit}
                ),
            }
            for unit, members in sorted(units.items())
        },
        "sources": sources,
        "wheels": {
            name: wheels.resolve(name, version) for name, version in names["wheels"].items()
        },
        "bootstrap": bootstrap.locked(apt, debs["busybox-static"], scratch),
    }


def write_lock(lock: Mapping[str, Any], file: Path) -> None:
    """Write `lock` to `file` atomically and sorted: the same archive gives the same bytes."""
    text = json.dumps(lock, indent=1, sort_keys=True) + "\n"
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, prefix=".lock-") as beside:
        beside.write(text)
        beside.flush()
        os.fsync(beside.fileno())
    written = Path(beside.name)
    written.chmod(0o644)
    written.replace(file)


def read_lock(file: Path) -> dict[str, Any]:
    """Read a lock file. Raises `MvmError` where it is none, or is of another schema."""
    try:
        lock = json.loads(file.read_text())
    except FileNotFoundError:
        raise MvmError(f"{file} does not exist: `mvm-guest debian lock` makes it") from None
    except (ValueError, OSError) as error:
        raise MvmError(f"{file} is no lock of the debian package set: {error}") from None
    if not isinstance(lock, dict) or lock.get("schema") != SCHEMA:
        raise MvmError(
            f"{file} is no lock of schema {SCHEMA}: make it anew with `mvm-guest debian lock`"
        )
    return lock


def _check_exist(extra: Iterable[str], apt: Apt) -> None:
    if not extra:
        return
    known = apt.names()
    for name in extra:
        if name not in set(known):
            nearest = ", ".join(get_close_matches(name, known)) or "none"
            raise UsageError(f"Debian {RELEASE} has no package {name!r}; nearest names: {nearest}")


def _resolve(
    debs: Mapping[str, DebFile], left_out: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """For each package those that satisfy its dependencies: of each alternative the first chosen.

    `left_out` names, for a package or for all (``*``), dependencies that only maintainer scripts
    use, or features that the set does without.
    """
    providers: dict[str, list[str]] = {}
    for deb in debs.values():
        for virtual in (deb.name, *deb.provides):
            providers.setdefault(virtual, []).append(deb.name)
    edges = {}
    for deb in debs.values():
        targets = set()
        dropped = {*left_out["*"], *left_out.get(deb.name, [])}
        for group in deb.depends:
            if any(name in dropped for name in group):
                continue
            found = [
                providers[name][0] if name not in debs else name
                for name in group
                if name in providers
            ]
            if not found:
                raise MvmError(
                    f"{deb.name} depends on {' | '.join(group)}, and apt chose nothing for that"
                )
            targets.add(found[0])
        edges[deb.name] = sorted(targets - {deb.name})
    return edges


def _reachable(start: Iterable[str], edges: Mapping[str, list[str]]) -> set[str]:
    seen: set[str] = set()
    queue = list(start)
    while queue:
        name = queue.pop()
        if name not in seen:
            seen.add(name)
            queue.extend(edges[name])
    return seen


def _units(
    edges: Mapping[str, list[str]], together: Mapping[str, list[str]]
) -> dict[str, list[str]]:
    """Group packages that must share a store path: cycles, and those that `together` names.

    Returns unit to its members.
    """
    group_of = {member: name for name, members in together.items() for member in members}
    contracted: dict[str, set[str]] = {}
    members_of: dict[str, set[str]] = {}
    for name, targets in edges.items():
        group = group_of.get(name, name)
        members_of.setdefault(group, set()).add(name)
        contracted.setdefault(group, set()).update(
            group_of.get(target, target) for target in targets
        )
    dependents: dict[str, int] = {}
    for targets_of in contracted.values():
        for target in targets_of:
            dependents[target] = dependents.get(target, 0) + 1
    units = {}
    for component in _cycles(contracted):
        name = max(sorted(component), key=lambda group: dependents.get(group, 0))
        units[name] = sorted(set().union(*(members_of[group] for group in component)))
    return units


def _cycles(edges: Mapping[str, set[str]]) -> list[list[str]]:
    """Strongly connected components (Tarjan 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    components: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for target in sorted(edges[node]):
            if target not in index:
                visit(target)
                low[node] = min(low[node], low[target])
            elif target in stack:
                low[node] = min(low[node], index[target])
        if low[node] == index[node]:
            position = stack.index(node)
            components.append(stack[position:])
            del stack[position:]

    for node in sorted(edges):
        if node not in index:
            visit(node)
    return components
