"""Revisions: guests stored by the hash of what they hold.

Other parts use `Store` and what its methods take and return.
"""

from mvm_guest.registry.store import RegisterResult, Revision, RevisionSummary, Source, Store

__all__ = ["RegisterResult", "Revision", "RevisionSummary", "Source", "Store"]
