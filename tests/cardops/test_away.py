"""Every error of the way to a card or token is on purpose one that a session goes on after, or none."""

from __future__ import annotations

import subprocess
import sys

from cardwright_cardops.away import AWAY, CARD_AWAY, TOKEN_AWAY
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.pkcs11.errors import Pkcs11Error
from cardwright_cardops.transport.connection import TransportError
from cardwright_daemon.errors import StageEnded
from cardwright_server.sessions.errors import LineLost, SessionLost
from cardwright_server.sessions.resuming import BROKE_OFF
from scripts.errors_doc import error_classes

REFUSED = {
    "PKCS11_ALREADY_LOGGED_IN",
    "PKCS11_DATA_REJECTED",
    "PKCS11_FAILED",
    "PKCS11_KEY_REFUSED",
    "PKCS11_NOT_LOGGED_IN",
    "PKCS11_OBJECT_EXISTS",
    "PKCS11_OBJECT_NOT_FOUND",
    "PKCS11_OBJECT_REJECTED",
    "PKCS11_PIN_EXPIRED",
    "PKCS11_PIN_INCORRECT",
    "PKCS11_PIN_INVALID",
    "PKCS11_PIN_LAST_TRY",
    "PKCS11_PIN_LENGTH",
    "PKCS11_PIN_LOCKED",
    "PKCS11_PIN_NEEDED",
    "PKCS11_PIN_NOT_SET",
    "PKCS11_READ_ONLY",
    "PKCS11_TOKEN_FULL",
    "UNSUPPORTED_BY_TOKEN",
}
"""The same step would fail again, or cost a try of the PIN."""


def codes_of(base: type[CardwrightError]) -> set[str]:
    return {cls.code for cls in error_classes() if issubclass(cls, base)}


def test_every_error_of_the_way_to_a_card_is_one() -> None:
    assert {*codes_of(TransportError), StageEnded.code} == CARD_AWAY


def test_errors_of_tokens_are_divided_on_purpose() -> None:
    codes = codes_of(Pkcs11Error)
    assert set(codes) == REFUSED | TOKEN_AWAY
    assert not REFUSED & AWAY


def test_the_server_takes_the_same_for_broken_off() -> None:
    assert {*AWAY, LineLost.code, SessionLost.code} == BROKE_OFF


def test_the_list_costs_nothing() -> None:
    """The daemon loads it before it is ready, and the server has no PC/SC."""
    script = "import sys; import cardwright_cardops.away; print(*(m for m in sys.modules if 'cardwright' in m))"
    ran = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert set(ran.stdout.split()) == {"cardwright_cardops", "cardwright_cardops.away"}
