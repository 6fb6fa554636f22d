"""The eight date octets of a biometric header: there and back, and what is no date."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.piv.objects.biometric import date_octets, when


def test_octets_are_numbers_not_bcd() -> None:
    moment = datetime(2031, 12, 30, 23, 59, 58, tzinfo=UTC)
    assert date_octets(moment) == bytes((20, 31, 12, 30, 23, 59, 58)) + b"Z"
    assert when(bytes((20, 31, 12, 30, 23, 59, 58)) + b"Z") == moment


def test_other_time_zones_become_utc_and_fractions_fall_off() -> None:
    moment = datetime(2000, 1, 1, 1, 30, 5, 999_999, tzinfo=timezone(timedelta(hours=2)))
    assert date_octets(moment) == bytes((19, 99, 12, 31, 23, 30, 5)) + b"Z"


@given(st.datetimes(timezones=st.just(UTC)))
def test_a_moment_comes_back_to_the_second(moment: datetime) -> None:
    assert when(date_octets(moment)) == moment.replace(microsecond=0)


@pytest.mark.parametrize(
    "octets",
    [b"", bytes(7), bytes(8), bytes((20, 31, 12, 30, 23, 59, 58)) + b"z", bytes((20, 31, 12, 30, 23, 59, 58)) + b"ZZ",
     bytes((20, 31, 13, 1, 0, 0, 0)) + b"Z", bytes((20, 31, 2, 29, 0, 0, 0)) + b"Z",
     bytes((20, 31, 1, 1, 24, 0, 0)) + b"Z", bytes((0, 0, 1, 1, 0, 0, 0)) + b"Z"],
)  # fmt: skip
def test_what_is_no_date_is_none(octets: bytes) -> None:
    assert when(octets) is None
