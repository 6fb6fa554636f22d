"""Cards whose Discovery Object lets the Global PIN do what the PIN does (SP 800-73-5 part 1 section 3.3.2)."""

from __future__ import annotations

import pytest

from cardwright_simulators.card import VirtualCard, images
from tests.support.command_line import Desk

FACTORY = "654321"
"""The Global PIN of a virtual card."""


def card(policy: str) -> VirtualCard:
    return images.load({"objects": {"7E": "7E124F0BA0000003080000100001005F2F02" + policy}})


@pytest.mark.parametrize("policy", ["6010", "6020"])
def test_the_global_pin_is_changed_by_its_own_name_only(policy: str) -> None:
    here = Desk(only=card(policy))
    assert here.run("pin", "change", "--global-pin", secrets=f"{FACTORY}\n999999\n").code == 0
    assert here.run("pin", "change", secrets="123456\n222222\n").code == 0
    assert here.run("pin", "status", "--json").json["pin"]["tries_left"] == 3
    wrong = here.run("pin", "change", "--global-pin", secrets="222222\n333333\n")
    assert wrong.code == 1 and "VERIFICATION_FAILED" in wrong.err and "Global PIN" in wrong.err
    assert here.run("pin", "status", "--json").json["pin"]["tries_left"] == 3, "the tries are the Global PIN's own"
    assert here.run("pin", "change", "--global-pin", secrets="999999\n333333\n").code == 0


def test_the_last_try_of_the_global_pin_is_kept_and_no_puk_is_promised() -> None:
    here = Desk(only=card("6010"))
    change = ("pin", "change", "--global-pin")
    for _ in range(2):
        assert "VERIFICATION_FAILED" in here.run(*change, secrets="000000\n333333\n").err
    kept = here.run(*change, secrets="000000\n333333\n")
    assert "LAST_TRY" in kept.err and "The PUK unblocks no Global PIN" in kept.err
    assert here.run(*change, "--allow-last-try", secrets="000000\n333333\n").code == 1
    blocked = here.run(*change, secrets=f"{FACTORY}\n333333\n")
    assert "BLOCKED" in blocked.err and "PUK is for the PIN" in blocked.err


def test_a_card_without_a_global_pin_says_so() -> None:
    ran = Desk(only=card("4000")).run("pin", "change", "--global-pin", secrets=f"{FACTORY}\n333333\n")
    assert ran.code == 1 and "REFERENCE_NOT_FOUND" in ran.err and "Global PIN" in ran.err
