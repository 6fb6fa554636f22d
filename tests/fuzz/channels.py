"""What a card says to set up secure messaging and SCP03, and what a host says to the virtual card: read or refused."""

from __future__ import annotations

from contextlib import suppress

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops", "cardwright_simulators"]):
    from cardwright_cardops.globalplatform.scp03 import CardAnswer, Scp03AnswerMalformed
    from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
    from cardwright_cardops.piv.cvc import Cvc, CvcMalformed
    from cardwright_cardops.piv.secure_messaging import (
        SmAnswerMalformed,
        SmCryptogramMismatch,
        SmHandshake,
        SmResponseInvalid,
        SmSuite,
    )
    from cardwright_simulators.card.answers import Refused
    from cardwright_simulators.card.scp03 import SecurityDomainSession
    from cardwright_simulators.card.secure_messaging import CardSession

from cardwright_simulators.card.secure_messaging import make_cvc
from tests.support.scp03 import AID, Domain, open_channel, raw_keys
from tests.support.secure_messaging import open_session, sm_card


def one(raw: bytes) -> None:
    with suppress(CvcMalformed):
        assert Cvc.parse(raw).raw == raw
    with suppress(Scp03AnswerMalformed):
        CardAnswer.parse(ResponseAPDU(raw, 0x9000), bytes(8))
    with suppress(SmAnswerMalformed, CvcMalformed, SmCryptogramMismatch):
        SmHandshake(SmSuite.CS2).finish(ResponseAPDU(raw, 0x9000), None)
    with suppress(Refused):
        CardSession().establish(raw, 0x27, sm_card(SmSuite.CS2).key, b"")
    host, card = open_session(SmSuite.CS2)
    with suppress(Refused):
        card.unwrap(CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF, raw))
    host.wrap(CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, b"", 256))
    with suppress(SmResponseInvalid):
        host.unwrap(ResponseAPDU(raw, 0x9000))
    domain = SecurityDomainSession(Domain(), aid=AID)
    open_channel(domain, raw_keys())
    with suppress(Refused):
        domain.put_key(CommandAPDU(0x80, 0xD8, 0, 0x81, raw))
    with suppress(Refused):
        domain.unwrap(CommandAPDU(0x84, 0xCA, 0, 0x66, raw))


def seeds() -> list[bytes]:
    """A certificate, both messages of a key establishment, an answer to INITIALIZE UPDATE."""
    card = sm_card(SmSuite.CS2)
    request = SmHandshake(SmSuite.CS2).command.data
    answer = CardSession().establish(request, 0x27, card.key, card.cvc)
    intermediate = make_cvc(card.key.public_key(), bytes(8), bytes(8), card.key, role=0x12)
    opening = bytes(10) + b"\x30\x03\x70" + bytes(19)
    return [card.cvc, intermediate, request, answer, opening, b"\x99\x02\x90\x00\x8e\x08" + bytes(8)]


if __name__ == "__main__":
    fuzz(one, seeds())
