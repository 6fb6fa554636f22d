"""The PIN usage policy: every first octet that the standard lists, with what it means (SP 800-73-5 part 1, 3.3.2)."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.objects.discovery import PinUsagePolicy

# First octet to Global PIN, on-card comparison, virtual contact interface, and that one without pairing code.
LISTED = {
    0x40: (False, False, False, False), 0x48: (False, False, True, False), 0x4C: (False, False, True, True),
    0x50: (False, True, False, False), 0x58: (False, True, True, False), 0x5C: (False, True, True, True),
    0x60: (True, False, False, False), 0x68: (True, False, True, False), 0x6C: (True, False, True, True),
    0x70: (True, True, False, False), 0x78: (True, True, True, False), 0x7C: (True, True, True, True),
}  # fmt: skip


@pytest.mark.parametrize("first", range(256))
def test_each_bit_says_one_thing(first: int) -> None:
    policy = PinUsagePolicy(first, 0)
    seen = (policy.global_pin, policy.occ, policy.vci, policy.vci_without_pairing_code)
    assert policy.application_pin is bool(first & 0x40)
    assert seen == (bool(first & 0x20), bool(first & 0x10), bool(first & 0x08), bool(first & 0x04))
    if first in LISTED:
        assert policy.application_pin and seen == LISTED[first]


@pytest.mark.parametrize("first", range(256))
def test_only_listed_octets_are_allowed(first: int) -> None:
    listed = first in LISTED
    with_global = bool(first & 0x20)
    assert PinUsagePolicy(first, 0x00).is_allowed is (listed and not with_global)
    for second in (0x10, 0x20):
        assert PinUsagePolicy(first, second).is_allowed is (listed and with_global)
    for second in (0x01, 0x0F, 0x11, 0x30):
        assert not PinUsagePolicy(first, second).is_allowed


def test_the_global_pin_is_preferred_only_where_it_is_taken() -> None:
    assert PinUsagePolicy(0x60, 0x20).global_pin_preferred
    assert not PinUsagePolicy(0x60, 0x10).global_pin_preferred
    assert not PinUsagePolicy(0x40, 0x20).global_pin_preferred
