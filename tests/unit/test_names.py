"""Which names fit."""

import pytest

from mvm_guest import names
from mvm_guest.errors import UsageError


@pytest.mark.parametrize("name", ["a", "0", "hello", "a-b", "a" * 63])
def test_a_name_that_fits_a_guest_is_returned(name: str) -> None:
    assert names.check_guest_name(name) == name


@pytest.mark.parametrize(
    "name", ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "a" * 64, "a\n", "ä", "a b", "\0"]
)
def test_a_name_that_does_not_fit_a_guest_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="cannot name this instance: use 1 to 63"):
        names.check_guest_name(name, "instance")


@pytest.mark.parametrize(
    ("prefix", "fits"),
    [
        ("012345", True),
        ("abcdef", True),
        ("f" * 64, True),
        ("f" * 65, False),
        ("01234", False),
        ("ABCDEF", False),
        ("abcdefg", False),
        ("abcdef\n", False),
    ],
)
def test_a_hash_is_abbreviated_to_at_least_six_digits(prefix: str, fits: bool) -> None:
    assert names.is_hash_prefix(prefix) is fits
