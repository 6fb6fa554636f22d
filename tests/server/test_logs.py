"""Logs name nobody: keys are allowed one by one, and values must look like what their key is for."""

from __future__ import annotations

import io
import json
from uuid import UUID

import pytest
import structlog

from cardwright_server.logs import ALLOWED, REFUSED, AllowList, configure
from cardwright_server.store.errors import DatabaseBusy
from cardwright_server.store.ids import new_id

NAME = "Ada Lovelace"


def through(**event: object) -> dict[str, object]:
    return dict(AllowList()(None, "info", dict(event)))


def test_what_is_allowed_passes() -> None:
    event = {
        "event": "session.opened",
        "device": str(new_id()),
        "count": 3,
        "seconds": 0.25,
        "slot": "9A",
        "serial": "0A1B",
    }
    assert through(**event) == event


@pytest.mark.parametrize("key", ["name", "mail", "address", "login", "display_name", "subject_dn", "pin", "Event", ""])
def test_what_is_not_allowed_does_not(key: str) -> None:
    assert through(event="x", **{key: NAME}) == {"event": "x", "dropped": 1}


@pytest.mark.parametrize("key", sorted(ALLOWED))
def test_no_allowed_key_carries_a_name_or_a_mail_address(key: str) -> None:
    for hidden in (f"{NAME}!", "ada@example.org", [NAME], {"name": NAME}, NAME.encode(), f"x\n{NAME}"):
        assert NAME not in str(through(**{key: hidden}))
        assert "example.org" not in str(through(**{key: hidden}))
        assert through(**{key: hidden}) == {key: REFUSED}


def test_an_error_is_its_code_and_places_and_never_its_text() -> None:
    try:
        raise DatabaseBusy(f"row of {NAME}")
    except DatabaseBusy as error:
        logged = through(event="x", exc_info=error)
        assert through(event="x", exc_info=True)["error"] == "DATABASE_BUSY"
    assert logged["error"] == "DATABASE_BUSY"
    assert "test_logs.py:" in str(logged["place_in_code"])
    assert NAME not in str(logged)
    try:
        raise LookupError(NAME)
    except LookupError as other:
        assert through(event="x", exc_info=other)["error"] == "LookupError"


def test_further_keys_are_allowed_by_pattern() -> None:
    processor = AllowList({"reader": r"[a-z]+"})
    assert processor(None, "info", {"reader": "abc"}) == {"reader": "abc"}
    assert processor(None, "info", {"reader": NAME}) == {"reader": REFUSED}


def test_lines_as_they_are_written() -> None:
    configure()
    try:
        out = io.StringIO()
        log = structlog.wrap_logger(structlog.PrintLogger(out))
        log.info("device.issued", device=UUID(int=7), name=NAME)
        line = json.loads(out.getvalue())
        assert line.pop("timestamp").endswith("Z")
        assert line == {"event": "device.issued", "level": "info", "device": str(UUID(int=7)), "dropped": 1}
    finally:
        structlog.reset_defaults()
