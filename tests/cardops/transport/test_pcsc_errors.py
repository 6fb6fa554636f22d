"""Each result of PC/SC becomes its own error, which says what happened, what it means and what to do."""

from __future__ import annotations

import pytest

from cardwright_cardops.transport.connection import CardReset
from cardwright_cardops.transport.pcsc_api import Result
from cardwright_cardops.transport.pcsc_errors import PcscFailure, error_for


@pytest.mark.parametrize(
    ("result", "code", "sent"),
    [
        (Result.NO_SERVICE, "PCSC_NOT_RUNNING", False),
        (Result.INVALID_HANDLE, "PCSC_NOT_RUNNING", False),
        (Result.SERVICE_STOPPED, "PCSC_NOT_RUNNING", True),
        (Result.SECURITY_VIOLATION, "PCSC_ACCESS_DENIED", False),
        (Result.NO_ACCESS, "PCSC_ACCESS_DENIED", False),
        (Result.UNKNOWN_READER, "READER_GONE", True),
        (Result.READER_UNAVAILABLE, "READER_GONE", True),
        (Result.NO_SMARTCARD, "NO_CARD", True),
        (Result.REMOVED_CARD, "CARD_REMOVED", True),
        (Result.RESET_CARD, "CARD_RESET", False),
        (Result.SHARING_VIOLATION, "CARD_BUSY", False),
        (Result.UNRESPONSIVE_CARD, "CARD_UNRESPONSIVE", True),
        (Result.UNPOWERED_CARD, "CARD_UNRESPONSIVE", True),
        (Result.NOT_TRANSACTED, "CARD_UNRESPONSIVE", True),
        (Result.COMM_ERROR, "CARD_UNRESPONSIVE", True),
        (Result.PROTO_MISMATCH, "CARD_UNRESPONSIVE", False),
        (0x80100008, "PCSC_FAILURE", True),
    ],
)
def test_of_a_command_on_its_way(result: int, code: str, sent: bool) -> None:
    error = error_for(result, "a command was on its way", "The Reader", sent=True)
    assert (error.code, error.sent, error.reader) == (code, sent, "The Reader")
    assert error.effect and error.advice
    assert ("not known" in error.effect) is sent


def test_of_connecting() -> None:
    codes = {
        error_for(result, "connecting", "The Reader", sent=False).code: result
        for result in (Result.UNKNOWN_READER, Result.READER_UNAVAILABLE, Result.NO_SMARTCARD, Result.SHARING_VIOLATION)
    }
    assert set(codes) == {"NO_READER", "READER_GONE", "NO_CARD", "CARD_BUSY"}


def test_an_unknown_result_is_told() -> None:
    error = error_for(0x80100008, "connecting", "The Reader", sent=False)
    assert isinstance(error, PcscFailure) and error.hresult == 0x80100008 and "80100008" in str(error)
    assert not isinstance(error, CardReset)
