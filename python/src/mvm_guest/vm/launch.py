"""What a backend hands to the supervisor: the programs that make up a running instance."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Launch:
    """Argument lists of the VMM and of the helper that must listen at `helper_socket` before it.

    Both run in the instance's directory, and paths in them are relative to it.
    """

    vmm: list[str]
    helper: list[str] | None = None
    helper_socket: str | None = None
