"""PIN rules: each code by examples, and what holds of every PIN."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.plan.pin_rules import PinFault, PinRules, PinRulesMalformed, check
from cardwright_cardops.secret import Secret

GOOD = ("830274", "59038264", "4907153")


@pytest.mark.parametrize(
    ("pin", "faults"),
    [
        *((pin, []) for pin in GOOD),
        ("83027", [PinFault.TOO_SHORT]),
        ("830274915", [PinFault.TOO_LONG]),
        ("83a274", [PinFault.NOT_DIGITS]),
        ("8302 4", [PinFault.NOT_DIGITS, PinFault.NOT_PRINTABLE]),
        ("777777", [PinFault.TRIVIAL]),
        ("345678", [PinFault.TRIVIAL]),
        ("890123", [PinFault.TRIVIAL]),
        ("987654", [PinFault.TRIVIAL]),
        ("210987", [PinFault.TRIVIAL]),
        ("494949", [PinFault.TRIVIAL]),
        ("83083083", [PinFault.TRIVIAL]),
        ("123456", [PinFault.TRIVIAL, PinFault.COMMON]),
        ("159753", [PinFault.COMMON]),
        ("83", [PinFault.TOO_SHORT]),
        ("8", [PinFault.TOO_SHORT, PinFault.TRIVIAL]),
        ("", [PinFault.TOO_SHORT, PinFault.NOT_DIGITS, PinFault.TRIVIAL]),
    ],
)
def test_faults_by_example(pin: str, faults: list[PinFault]) -> None:
    assert check(Secret.of(pin)) == faults


def test_the_old_pin_is_refused_again() -> None:
    assert check(Secret.of("830274"), old=Secret.of("830274")) == [PinFault.SAME_AS_OLD]
    assert check(Secret.of("830274"), old=Secret.of("830275")) == []
    assert check(Secret.of("830274"), PinRules(differs=False), Secret.of("830274")) == []


def test_each_rule_can_be_left_out() -> None:
    assert check(Secret.of("Tr0mbone"), PinRules(digits_only=False)) == []
    assert check(Secret.of("PASSWORD"), PinRules(digits_only=False)) == [PinFault.COMMON]
    assert check(Secret.of("abcdefgh"), PinRules(digits_only=False)) == [PinFault.TRIVIAL]
    assert check(Secret.of("777777"), PinRules(refuse_trivial=False)) == []
    assert check(Secret.of("159753"), PinRules(refuse_common=False)) == []
    assert check(Secret.of("8302"), PinRules(min_length=4)) == []


def test_octets_that_no_pin_has() -> None:
    for raw in (b"830274\xff\xff", b"83027\x7f", b"83027\x00", "83027\u0663".encode()):
        assert PinFault.NOT_PRINTABLE in check(Secret(raw), PinRules(digits_only=False))


@given(st.binary(max_size=12), st.booleans())
def test_accepted_pins_fit_the_card_and_never_show(raw: bytes, digits: bool) -> None:
    rules = PinRules(digits_only=digits)
    faults = check(Secret(raw), rules)
    assert len(set(faults)) == len(faults)
    if not faults:
        assert 6 <= len(raw) <= 8 and len(set(raw)) > 1
        assert raw.isdigit() or not digits


@given(st.integers(min_value=4, max_value=8), st.integers(min_value=0, max_value=9))
def test_repeated_and_running_digits_are_trivial(length: int, first: int) -> None:
    for step in (0, 1, 9):
        pin = "".join(str((first + step * place) % 10) for place in range(length))
        assert PinFault.TRIVIAL in check(Secret.of(pin), PinRules(min_length=4))


def test_rules_travel_strictly() -> None:
    rules = PinRules(min_length=7, refuse_common=False)
    assert PinRules.from_document(rules.document()) == rules
    wrong: object
    for wrong in ({"min": 6}, {"min_length": True}, {"min_length": 9}, {"digits_only": 1}, {"max_length": 5}, []):
        with pytest.raises(PinRulesMalformed):
            PinRules.from_document(wrong)  # type: ignore[arg-type]
