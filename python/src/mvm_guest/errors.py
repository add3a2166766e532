"""The errors that a user sees: each carries one sentence and the exit code of its kind.

The command line alone decides how they are shown; everything else only raises them.
"""


class MvmError(Exception):
    """Something failed; the message says in one sentence what, where, and what to do."""

    exit_code = 1


class UsageError(MvmError):
    """The command was given something that it cannot accept."""

    exit_code = 2


class CheckFailed(MvmError):
    """Everything ran, but what was checked did not hold."""

    exit_code = 3
