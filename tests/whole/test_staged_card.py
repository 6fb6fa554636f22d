"""What the whole's cards count, by which swapped and bystanding cards are judged."""

from __future__ import annotations

from cardwright_simulators.card import VirtualCard
from tests.support.staged import StagedCard

SELECT = bytes.fromhex("00A404000BA000000308000010000100")
ASK, WRONG = bytes.fromhex("00200080"), bytes.fromhex("0020008008") + b"999999\xff\xff"


def test_it_counts_anew_and_forgets_no_refusal() -> None:
    card = StagedCard(VirtualCard("yubikey-5.7"))
    card.inside.power_on()
    watched = card.commands
    for command in (SELECT, ASK, WRONG):
        card.transmit(command)
    assert (card.commands, card.pin_commands, card.refused) == ([0xA4, 0x20, 0x20], 1, [0x63C2])
    card.count_anew()
    assert (card.commands, card.pin_commands, card.refused) == ([], 0, [0x63C2])
    card.transmit(ASK)
    assert (watched, card.pin_commands) == ([0x20], 0), "who holds the list sees what comes then"
