"""Over a line a PIN that the card keeps is proved before a key is made over another, in the same round trip."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from cardwright_cardops.iso7816.status import VerificationFailed
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.plan.acts import Pace
from cardwright_cardops.plan.authority import Question, Reply, SignFirst, SignsAhead
from cardwright_cardops.plan.conduct import conduct_async
from cardwright_cardops.plan.init import personalize
from cardwright_cardops.plan.policy import DevicePolicy
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.program.items import SignRequest
from cardwright_simulators.card import VirtualCard, Write
from tests.cardops.plan.test_relay import FOUR, Database, Issuer, Line, over, replacing
from tests.support.card_init import NOW, PIN

AES192 = ManagementAlgorithm.AES192


class Foresighted(Issuer):
    """Says beforehand what new keys shall sign."""

    def _one(self, question: Question) -> Reply:
        if isinstance(question, SignsAhead):
            subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"slot {question.slot.label}")])
            return SignFirst(SignRequest(question.slot, subject.public_bytes()))
        return super()._one(question)


def renewed(card: VirtualCard, journal: MemoryJournal) -> int:
    """Renew 9A and 9C; the round trips that it took."""
    policy = DevicePolicy(slots=FOUR[:2], replace=True, renew_before=timedelta(days=400))
    execution = personalize(
        policy, now=NOW, pace=Pace.PHASE, management_algorithm=AES192, certifies_existing=False
    )
    line = Line(card)
    report = asyncio.run(conduct_async(execution, line, Foresighted(journal), Database(journal)))
    assert [step.kind for step in report.done] == ["generate-key"] * 2 + ["write-certificate"] * 2
    return line.trips


def test_a_wrong_pin_costs_a_try_and_no_key() -> None:
    card, journal = VirtualCard("yubikey-5.7", serial=1), MemoryJournal()
    over(Line(card), replacing(), journal, AES192)
    reference = card._core.state.references[0x80]
    reference.value = b"999999\xff\xff"
    before, writes = dict(card._core.state.keys), sum(isinstance(record, Write) for record in card.log)
    with pytest.raises(VerificationFailed) as caught:
        renewed(card, journal)
    assert caught.value.tries_left == 2 and "done" not in caught.value.effect
    assert card._core.state.keys == before
    assert sum(isinstance(record, Write) for record in card.log) == writes
    reference = card._core.state.references[0x80]
    reference.value, reference.tries = PIN.ljust(8, b"\xff"), 3
    assert renewed(card, journal) == 3
