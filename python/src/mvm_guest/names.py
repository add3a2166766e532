"""The names that users give: what fits, and the sentence for what does not.

Every name that becomes a path, a Nix attribute or a label passes through here first.
"""

import re

from mvm_guest.errors import UsageError

_GUEST = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_HASH_PREFIX = re.compile(r"[0-9a-f]{6,64}")

GUEST_PATTERN = f"^{_GUEST.pattern}$"
# Of services, users, health checks and probes.
PART_PATTERN = r"^[a-z_][a-z0-9_-]{0,30}$"


def check_guest_name(value: str, what: str = "guest") -> str:
    """Return `value` if it can name a guest, its revisions or an instance.

    `what` says in the error whose name it is. Raises UsageError.
    """
    if not _GUEST.fullmatch(value):
        raise UsageError(
            f"{value!r} cannot name this {what}: use 1 to 63 lower-case letters, digits and "
            "hyphens, with no hyphen at either end"
        )
    return value


def is_hash_prefix(value: str) -> bool:
    """Tell whether `value` may abbreviate a revision's hash: 6 to 64 lower-case hex digits."""
    return _HASH_PREFIX.fullmatch(value) is not None
