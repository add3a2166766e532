"""How users name a revision: NAME, NAME@current, NAME@PREFIX or a bare PREFIX of its hash."""

from collections.abc import Container

from mvm_guest.errors import UsageError
from mvm_guest.names import check_guest_name, is_hash_prefix

CURRENT = "current"


def parse(text: str, names: Container[str]) -> tuple[str | None, str | None]:
    """Split what a user wrote into a name and a prefix of a hash.

    No name means any, no prefix the name's current revision. A bare word that could be both is a
    name if it is one of `names`. Raises UsageError.
    """
    name, at, revision = text.partition("@")
    if not at:
        if is_hash_prefix(text) and text not in names:
            return None, text
        return check_guest_name(name), None
    check_guest_name(name)
    if revision == CURRENT:
        return name, None
    if not is_hash_prefix(revision):
        raise UsageError(
            f"{text!r} names no revision: after '@' comes {CURRENT!r} or at least 6 hexadecimal "
            "digits of its hash"
        )
    return name, revision
