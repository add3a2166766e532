"""Reads a guest specification, and says for each mistake where in the file it is.

The file is YAML in the core schema of YAML 1.2, so that `no` and `1:30` are text. Tags have no
meaning here, and aliases are followed only as far as a specification could need.
"""

import difflib
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError

from mvm_guest.errors import UsageError
from mvm_guest.spec.model import GuestSpec

_SIZE_LIMIT = 1024 * 1024
_NODE_LIMIT = 20_000
_DEPTH_LIMIT = 32

_CONSTANTS = {
    **dict.fromkeys(["", "~", "null", "Null", "NULL"]),
    **dict.fromkeys(["true", "True", "TRUE"], True),
    **dict.fromkeys(["false", "False", "FALSE"], False),
}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")

Place = tuple[str | int, ...]

_EXPECTED = {
    "string_type": "expected text; a number or truth value must stand in quotes",
    "int_type": "expected a whole number",
    "bool_type": "expected true or false",
    "list_type": "expected a list",
    "dict_type": "expected keys and values",
    "model_type": "expected keys and values",
    "missing": "is required",
}


@dataclass(frozen=True)
class Document:
    """A specification and the line of each of its values, by its path of keys and indices."""

    file: Path
    spec: GuestSpec
    lines: dict[Place, int] = field(repr=False)

    def where(self, place: Place) -> str:
        """Say where a value is, as `guest.yaml:12: services.web`, or where it would be."""
        return _where(self.file, self.lines, place)


def read(file: Path) -> Document:
    """Read the specification in `file`. Raises UsageError at the first mistake in it."""
    value, lines = _parse(file)
    try:
        return Document(file, GuestSpec.model_validate(value), lines)
    except ValidationError as error:
        # A misspelt key is also a missing one: the first says what to do.
        mistake = min(
            error.errors(),
            key=lambda m: (m["type"] != "extra_forbidden", _line(lines, tuple(m["loc"]))),
        )
        at = _where(file, lines, tuple(mistake["loc"]))
        raise UsageError(f"{at}: {_sentence(mistake)}") from None


def _parse(file: Path) -> tuple[Any, dict[Place, int]]:
    try:
        with file.open("rb") as stream:
            content = stream.read(_SIZE_LIMIT + 1)
    except FileNotFoundError:
        raise UsageError(f"there is no {file}; `mvm-guest init` writes an example") from None
    except IsADirectoryError:
        raise UsageError(f"{file} is a directory; give the guest.yaml in it") from None
    if len(content) > _SIZE_LIMIT:
        raise UsageError(f"{file} is larger than {_SIZE_LIMIT >> 20} MiB, too large for a guest")
    try:
        node = yaml.compose(content.decode(), Loader=yaml.BaseLoader)
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8 text") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise UsageError(f"{file}{line}: not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file}: not YAML: {str(error).splitlines()[0]}") from None
    except RecursionError:
        raise UsageError(f"{file} is nested too deeply for a guest") from None
    if node is None:
        raise UsageError(f"{file} is empty; `mvm-guest init` writes an example")
    builder = _Builder(file)
    return builder.build(node, ()), builder.lines


class _Builder:
    """Makes plain values of YAML's nodes, and notes where each was."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lines: dict[Place, int] = {}
        self.count = 0

    def build(self, node: yaml.Node, place: Place) -> Any:
        self.lines.setdefault(place, node.start_mark.line + 1)
        self.count += 1
        if self.count > _NODE_LIMIT or len(place) > _DEPTH_LIMIT:
            raise self._error(node, "holds more than a guest could need")
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rpartition(":")[2] not in (
            "str",
            "seq",
            "map",
        ):
            raise self._error(node, f"the tag {node.tag!r} has no meaning in a guest")
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*place, index)) for index, item in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        assert isinstance(node, yaml.ScalarNode)  # noqa: S101 - there is no fourth kind
        return _scalar(node)

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise self._error(key_node, "a key must be plain text")
            key = str(key_node.value)
            if key in values:
                raise self._error(key_node, f"{key!r} is given twice")
            self.lines[(*place, key)] = key_node.start_mark.line + 1
            values[key] = self.build(value_node, (*place, key))
        return values

    def _error(self, node: yaml.Node, problem: str) -> UsageError:
        return UsageError(f"{self.file}:{node.start_mark.line + 1}: {problem}")


def _scalar(node: yaml.ScalarNode) -> Any:
    text = node.value
    if node.style is not None:
        return text
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


def _line(lines: dict[Place, int], place: Place) -> int:
    while place and place not in lines:
        place = place[:-1]
    return lines.get(place, 1)


def _where(file: Path, lines: dict[Place, int], place: Place) -> str:
    # pydantic ends the place of a bad key with this mark.
    place = tuple(part for part in place if part != "[key]")
    path = ""
    for part in place:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return f"{file}:{_line(lines, place)}" + (f": {path}" if path else "")


def _sentence(mistake: Any) -> str:
    kind, place, context = mistake["type"], mistake["loc"], mistake.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(place)
    if kind == "literal_error":
        return f"expected {context['expected']}"
    if kind == "string_pattern_mismatch":
        return f"{mistake['input']!r} does not fit {context['pattern']}"
    if kind == "greater_than_equal":
        return f"must be at least {context['ge']}"
    if kind == "less_than_equal":
        return f"must be at most {context['le']}"
    if kind == "value_error":
        return str(context["error"])
    return _EXPECTED.get(kind, str(mistake["msg"]))


def _unknown_key(place: Place) -> str:
    model: Any = GuestSpec
    for part in place[:-1]:
        model = _inner(model, part)
    known = list(model.model_fields)
    near = difflib.get_close_matches(str(place[-1]), known, n=1)
    if near:
        return f"unknown key, did you mean {near[0]!r}?"
    return f"unknown key; known are {', '.join(known)}"


def _inner(kind: Any, part: str | int) -> Any:
    """Return the type of what `part` leads to inside a value of type `kind`."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return kind.model_fields[str(part)].annotation
    return get_args(kind)[-1] if get_origin(kind) in (dict, list) else kind
