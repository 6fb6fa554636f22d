"""Names with nothing to see are refused in every call that takes one, before anything is recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from google.protobuf.message import Message

from cardwright_proto.cms.v1 import devices_pb2, operators_pb2, people_pb2, workstations_pb2
from cardwright_server.api.reading import RequestMalformed, line
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database
from tests.support.api import Refusal
from tests.support.issuance import ON_SQLITE
from tests.support.whole import whole

BLANKS = (" ", "   ", "\u00a0", "\u3000\u2003", "\u200b\u2060", " \ufeff ")
LOT = devices_pb2.RegisterLotRequest(
    kind=devices_pb2.DEVICE_KIND_SMART_CARD, source=devices_pb2.SECRET_SOURCE_PER_CARD
)
SERVICE = operators_pb2.CreateOperatorRequest(kind=operators_pb2.ACCOUNT_KIND_SERVICE)
NAMED: Mapping[str, tuple[Message, str]] = {
    "OperatorService.Create": (SERVICE, "label"),
    "GroupService.Create": (people_pb2.CreateGroupRequest(), "name"),
    "DeviceService.RegisterLot": (LOT, "name"),
    "WorkstationService.CreateToken": (
        workstations_pb2.CreateTokenRequest(station_class=workstations_pb2.STATION_CLASS_USER), "host",
    ),
    "PersonService.Create": (people_pb2.CreatePersonRequest(login="ada"), "display_name"),
}  # fmt: skip


@pytest.mark.parametrize("text", BLANKS)
def test_a_text_that_is_given_has_something_to_see(text: str) -> None:
    for least in (0, 1):
        with pytest.raises(RequestMalformed, match=r"label is blank|label has 1 to|control characters"):
            line(text, "label", 200, least=least)
    assert line(f"{text}x", "label", 200, least=1) == f"{text}x"
    assert line("", "label", 200) == ""


@ON_SQLITE
async def test_no_call_takes_a_blank_name(open_database: Callable[..., Database], tmp_path: Path) -> None:
    database = open_database()
    async with whole(database, tmp_path) as world:
        caller = world.callers["everywhere"]
        before = await database.read(lambda unit: unit.rows(audit_entry.select()))
        for call, (request, field) in NAMED.items():
            for text in BLANKS:
                asked = type(request)()
                asked.CopyFrom(request)
                setattr(asked, field, text)
                assert await world.api.refused(call, asked, caller) == Refusal("INVALID_ARGUMENT", "REQUEST_MALFORMED")
        assert await database.read(lambda unit: unit.rows(audit_entry.select())) == before
        for call, (request, field) in NAMED.items():
            setattr(request, field, "visible")
            await world.api.call(call, request, caller)
