"""Quoting, against the parser that reads it."""

import json
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mvm_guest.nix import quote

# Everything that a Nix string can hold, with what its syntax knows made likely.
PIECES = st.sampled_from(
    r"""' '' ''' $ ${ $${ ''${ ''$ ''\n ''\ \ \n \${ " } ; # /* */ a é""".split()  # noqa: SIM905 - quotes around each would hide it
) | st.sampled_from(" \n\r\t\x01")
CHARACTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.lists(PIECES | CHARACTERS, max_size=12).map("".join)
LINES = st.lists(TEXT, max_size=5).map(lambda lines: "".join(f"{line}\n" for line in lines))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | TEXT | LINES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def evaluate(source: str) -> Any:
    done = subprocess.run(
        ["nix-instantiate", "--eval", "--strict", "--json", "-"],
        input=source.encode(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, f"{done.stderr.decode()} in {source}"
    return json.loads(done.stdout)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(VALUES, min_size=1, max_size=20), st.integers(0, 5))
def test_every_value_evaluates_to_itself(values: list[Any], indent: int) -> None:
    assert evaluate(quote.expression(values, indent)) == values


@settings(max_examples=50, deadline=None)
@given(st.lists(TEXT, min_size=1, max_size=30, unique=True))
def test_every_name_names_its_attribute(names: list[str]) -> None:
    source = "".join(f"{quote.attribute(name)} = {n};" for n, name in enumerate(names))
    assert evaluate("{" + source + "}") == {name: n for n, name in enumerate(names)}


@pytest.mark.parametrize(
    "name", ["if", "then", "or", "inherit", "with", "rec", "let", "true", "null", "__curPos", "7zz"]
)
def test_a_path_reaches_an_attribute_whatever_its_name(name: str) -> None:
    path = quote.attribute_path(["set", name])
    assert evaluate(f"let set = {quote.expression({name: 'found', 'b': 1})}; in {path}") == "found"


def test_a_null_character_is_refused() -> None:
    with pytest.raises(ValueError, match="null character"):
        quote.expression({"a": ["b\0"]})


def test_lines_of_text_stay_lines() -> None:
    written = quote.expression({"command": "if true; then\n  echo ${HOME}\nfi\n"})
    assert written == (
        "{\n  command = ''\n    if true; then\n      echo ''${HOME}\n    fi\n  '';\n}"
    )


def test_sets_and_lists_are_laid_out_as_nixfmt_does() -> None:
    value: quote.Value = {"a": [1], "b": [1, 2], "c": {}, "d": [], "e": {"f": {"g": "h"}}}
    assert quote.expression(value) == (
        '{\n  a = [ 1 ];\n  b = [\n    1\n    2\n  ];\n  c = { };\n  d = [ ];\n  e.f.g = "h";\n}'
    )
