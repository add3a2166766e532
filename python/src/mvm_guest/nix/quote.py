"""Python values as Nix expressions: the only way by which a value reaches Nix source.

What is written evaluates to exactly what was given, and is laid out as nixfmt would.
"""

import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Value: TypeAlias = "bool | int | str | Sequence[Value] | Mapping[str, Value] | None"

_IDENTIFIER = re.compile(r"[a-zA-Z_][a-zA-Z0-9_'-]*")
_KEYWORDS = frozenset(
    ["assert", "else", "if", "in", "inherit", "let", "or", "rec", "then", "with", "__curPos"]
)
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_INDENT = "  "


class Nix(str):
    """Text that is Nix source already; values of this type are written as they are."""

    __slots__ = ()


def expression(value: Value, indent: int = 0) -> Nix:
    """Write a value as an expression whose first line starts at `indent` levels of two spaces.

    Raises ValueError for a string that Nix cannot hold.
    """
    if isinstance(value, Nix):
        return value
    if value is None:
        return Nix("null")
    if isinstance(value, bool):
        return Nix("true" if value else "false")
    if isinstance(value, int):
        return Nix(str(value))
    if isinstance(value, str):
        return _lines(value, indent) if _reads_well_as_lines(value) else string(value)
    if isinstance(value, Mapping):
        return _attributes(value, indent)
    return _list(value, indent)


def string(text: str) -> Nix:
    """Write a string on one line. Raises ValueError for one that Nix cannot hold."""
    if "\0" in text:
        raise ValueError("a Nix string cannot hold a null character")
    escaped = "".join(_ESCAPES.get(character, character) for character in text)
    return Nix('"' + escaped.replace("${", "\\${") + '"')


def attribute(name: str) -> Nix:
    """Write the name of an attribute, quoted where it must be."""
    if _IDENTIFIER.fullmatch(name) and name not in _KEYWORDS:
        return Nix(name)
    return string(name)


def attribute_path(names: Sequence[str]) -> Nix:
    """Write a path of attributes, such as `python3Packages.flask`."""
    return Nix(".".join(attribute(name) for name in names))


def _attributes(values: Mapping[str, Value], indent: int) -> Nix:
    if not values:
        return Nix("{ }")
    inner = _INDENT * (indent + 1)
    lines = []
    for name, value in values.items():
        path = [name]
        while isinstance(value, Mapping) and len(value) == 1:
            ((name, value),) = value.items()
            path.append(name)
        lines.append(f"{inner}{attribute_path(path)} = {expression(value, indent + 1)};\n")
    return Nix("{\n" + "".join(lines) + _INDENT * indent + "}")


def _list(values: Sequence[Value], indent: int) -> Nix:
    if not values:
        return Nix("[ ]")
    if len(values) == 1 and "\n" not in (only := _element(values[0], indent)):
        return Nix(f"[ {only} ]")
    inner = _INDENT * (indent + 1)
    lines = [f"{inner}{_element(value, indent + 1)}\n" for value in values]
    return Nix("[\n" + "".join(lines) + _INDENT * indent + "]")


def _element(value: Value, indent: int) -> str:
    written = expression(value, indent)
    # In a list, a sign would be an operator.
    return f"({written})" if isinstance(value, int) and value < 0 else written


def _reads_well_as_lines(text: str) -> bool:
    """Tell whether an indented string holds this text exactly.

    Nix strips the indentation that all lines share, so one line must have none; the exceptions in
    the other conditions are what its escapes cannot tell apart.
    """
    return (
        text.endswith("\n")
        and any(line and line[0] not in " \t" for line in text.split("\n"))
        and not any(character < " " and character not in "\n\t" for character in text)
        and "''" not in text
        and "'$" not in text
    )


def _lines(text: str, indent: int) -> Nix:
    inner = _INDENT * (indent + 1)
    lines = [f"{inner}{line}\n" if line else "\n" for line in text[:-1].split("\n")]
    return Nix("''\n" + "".join(lines).replace("${", "''${") + _INDENT * indent + "''")
