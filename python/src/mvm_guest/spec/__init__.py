"""The guest specification, `guest.yaml`: its model, and reading it with errors at their lines."""

from mvm_guest.spec.model import GuestSpec
from mvm_guest.spec.reader import Document, read

__all__ = ["Document", "GuestSpec", "read"]
