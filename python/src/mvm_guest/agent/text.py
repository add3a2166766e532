"""Text that a guest wrote, made harmless for a terminal."""

from typing import Any


def printable(text: str, *, keep: str = "") -> str:
    r"""Return `text` with everything that could steer a terminal as an escape such as `\x1b`.

    That is all that Unicode does not count as printable: control characters of both sets, line
    and paragraph separators, marks that turn the direction of writing. `keep` names characters
    that stay, such as a line break.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else _escaped(c) for c in text)


def printable_json(value: Any, *, keep: str = "") -> Any:
    """Return a JSON value with every string in it, keys included, made printable."""
    if isinstance(value, str):
        return printable(value, keep=keep)
    if isinstance(value, list):
        return [printable_json(item, keep=keep) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable_json(item, keep=keep) for key, item in value.items()}
    return value


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()
