"""Protocols and coupling out of real and broken ATRs."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from smartcard.ATR import ATR

from cardwright_cardops.transport.atr import coupling, offered
from cardwright_cardops.transport.connection import Interface, Transmission

T0, T1 = Transmission.T0, Transmission.T1


@pytest.mark.parametrize(
    ("atr", "protocols", "interface"),
    [
        ("3BFD1300008131FE158073C021C057597562694B657940", (T1,), Interface.CONTACT),
        ("3B8D80018073C021C057597562694B6579F9", (T0, T1), Interface.CONTACTLESS),
        ("3B6500002063CBAD20", (T0,), Interface.CONTACT),
        ("3BDB960080B1FE451F830031C064C3081000900089", (T0, T1), Interface.CONTACT),
        ("", (T0,), Interface.CONTACT),
        ("3B", (T0,), Interface.CONTACT),
        ("3BF0", (T0,), Interface.CONTACT),
    ],
)
def test_known_cards(atr: str, protocols: tuple[Transmission, ...], interface: Interface) -> None:
    octets = bytes.fromhex(atr)
    assert offered(octets) == protocols
    assert coupling(octets) is interface
    if len(octets) > 4:
        judge = ATR(list(octets))
        assert (judge.isT0Supported(), judge.isT1Supported()) == (T0 in protocols, T1 in protocols)


@given(st.binary(max_size=40))
def test_any_octets_offer_something(atr: bytes) -> None:
    assert 1 <= len(offered(atr)) <= 2
    assert coupling(atr) in Interface
