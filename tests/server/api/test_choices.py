"""Enums of the contract and ours: one for one, or the program does not start."""

from __future__ import annotations

from enum import Enum

import pytest

from cardwright_proto.cms.v1 import certificates_pb2 as pb
from cardwright_server.api.choices import Choices
from cardwright_server.api.reading import RequestMalformed

WIRE, PREFIX = pb.AuthorityPurpose, "AUTHORITY_PURPOSE"


class Purpose(Enum):
    ROOT = "r"
    CARDS = "c"
    WORKSTATIONS = "w"
    SERVERS = "s"


def test_numbers_there_and_back() -> None:
    table = Choices(Purpose, WIRE, PREFIX)
    assert [table.one(table.number(one), "purpose") for one in Purpose] == list(Purpose)
    assert table.number(None) == 0
    assert table.numbers({Purpose.SERVERS, Purpose.ROOT}) == [pb.AUTHORITY_PURPOSE_ROOT, pb.AUTHORITY_PURPOSE_SERVERS]
    assert table.several([pb.AUTHORITY_PURPOSE_ROOT] * 4, "purposes") == {Purpose.ROOT}
    assert (table.optional(0, "purpose"), table.optional(1, "purpose")) == (None, Purpose.ROOT)


@pytest.mark.parametrize("number", [0, 5, -1])
def test_other_numbers_are_refused(number: int) -> None:
    table = Choices(Purpose, WIRE, PREFIX)
    with pytest.raises(RequestMalformed, match="purpose"):
        table.one(number, "purpose")
    with pytest.raises(RequestMalformed):
        table.several([number], "purposes")
    with pytest.raises(RequestMalformed):
        table.several([1] * 5, "purposes")


def test_members_that_differ() -> None:
    fewer = Enum("fewer", "ROOT CARDS WORKSTATIONS")
    more = Enum("more", "ROOT CARDS WORKSTATIONS SERVERS PHONES")
    for ours in (fewer, more):
        with pytest.raises(ValueError, match="differ"):
            Choices(ours, WIRE, PREFIX)
    with pytest.raises(ValueError, match="differ"):
        Choices(Purpose, WIRE, "PURPOSE")


def test_members_that_are_called_otherwise_or_stand_for_zero() -> None:
    other = Enum("other", "NONE ROOT CARDS STATIONS SERVERS")
    table = Choices(other, WIRE, PREFIX, unset=other["NONE"], renamed={other["STATIONS"]: "WORKSTATIONS"})
    assert table.number(other["NONE"]) == 0
    assert table.number(other["STATIONS"]) == pb.AUTHORITY_PURPOSE_WORKSTATIONS
    with pytest.raises(RequestMalformed):
        table.one(0, "purpose")
