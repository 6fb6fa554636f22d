"""Status words become typed errors; one row per word."""

from __future__ import annotations

import pytest

from cardwright_cardops.iso7816 import status
from cardwright_cardops.iso7816.status import SW, StatusError, error_for, tries_left

ROWS: list[tuple[int, type[StatusError], str]] = [
    (0x6300, status.VerificationFailed, "VERIFICATION_FAILED"),
    (0x6301, status.VerificationFailed, "VERIFICATION_FAILED"),
    (0x630F, status.VerificationFailed, "VERIFICATION_FAILED"),
    (0x63C0, status.Blocked, "REFERENCE_BLOCKED"),
    (0x63C1, status.VerificationFailed, "VERIFICATION_FAILED"),
    (0x63CF, status.VerificationFailed, "VERIFICATION_FAILED"),
    (0x6400, status.CardFailure, "CARD_FAILURE"),
    (0x6581, status.CardFailure, "CARD_FAILURE"),
    (0x6700, status.WrongLength, "WRONG_LENGTH"),
    (0x6882, status.SecureMessagingNotSupported, "SM_NOT_SUPPORTED"),
    (0x6884, status.ChainingNotSupported, "CHAINING_NOT_SUPPORTED"),
    (0x6982, status.SecurityStatusNotSatisfied, "SECURITY_STATUS"),
    (0x6983, status.Blocked, "REFERENCE_BLOCKED"),
    (0x6985, status.ConditionsNotSatisfied, "CONDITIONS_OF_USE"),
    (0x6987, status.SecureMessagingBroken, "SM_BROKEN"),
    (0x6988, status.SecureMessagingBroken, "SM_BROKEN"),
    (0x6999, status.NotFound, "NOT_FOUND"),
    (0x6A80, status.WrongData, "WRONG_DATA"),
    (0x6A81, status.FunctionNotSupported, "FUNCTION_NOT_SUPPORTED"),
    (0x6A82, status.NotFound, "NOT_FOUND"),
    (0x6A84, status.NoSpace, "CARD_FULL"),
    (0x6A86, status.WrongParameters, "WRONG_PARAMETERS"),
    (0x6A88, status.ReferenceNotFound, "REFERENCE_NOT_FOUND"),
    (0x6B00, status.WrongParameters, "WRONG_PARAMETERS"),
    (0x6D00, status.InstructionNotSupported, "INSTRUCTION_NOT_SUPPORTED"),
    (0x6E00, status.ClassNotSupported, "CLASS_NOT_SUPPORTED"),
    (0x6F00, status.CardFailure, "CARD_FAILURE"),
    (0x6FFF, status.CardFailure, "CARD_FAILURE"),
    (0x6A89, StatusError, "CARD_REFUSED"),
    (0x6281, StatusError, "CARD_REFUSED"),
]


@pytest.mark.parametrize(("sw", "kind", "code"), ROWS)
def test_each_word_has_its_type_and_code(sw: int, kind: type[StatusError], code: str) -> None:
    error = error_for(sw, "writing the CHUID")
    assert type(error) is kind
    assert (error.sw, error.code, error.doing) == (sw, code, "writing the CHUID")
    assert str(error).startswith("writing the CHUID: ") and f"({sw:04X})" in str(error)
    assert error.effect


@pytest.mark.parametrize(
    ("sw", "left"),
    [(0x63C0, 0), (0x63C3, 3), (0x63CF, 15), (0x6983, 0), (0x6301, 1), (0x630F, 15), (0x6300, None), (0x6310, None),
     (0x9000, None), (0x6982, None), (0x63D0, None)],
)  # fmt: skip
def test_tries_left(sw: int, left: int | None) -> None:
    assert tries_left(sw) == left


def test_a_wrong_value_says_how_many_tries_are_left() -> None:
    error = error_for(0x63C2, "verifying the PIN")
    assert isinstance(error, status.VerificationFailed)
    assert error.tries_left == 2 and error.advice.startswith("2 tries are left")
    pairing = error_for(SW.VERIFICATION_FAILED, "verifying the pairing code")
    assert isinstance(pairing, status.VerificationFailed)
    assert pairing.tries_left is None and pairing.advice == "Stop if you are not sure of the value."
    assert error_for(0x63C1, "verifying the PIN").advice.startswith("1 try is left")
    blocked = error_for(0x6983, "verifying the PIN")
    assert isinstance(blocked, status.Blocked)
    assert blocked.tries_left == 0 and "unblocked with the PUK" in blocked.advice


def test_the_last_try_spent_is_told_from_a_refusal_without_comparison() -> None:
    spent, refused = error_for(0x63C0, "unblocking the PIN"), error_for(0x6983, "unblocking the PIN")
    assert spent.effect == "The last try is spent; it is blocked now. Nothing else on the card changed."
    assert refused.effect == "No comparison was made; nothing on the card changed."
    assert status.Blocked(0x63C0, "verifying", effect="Known better.").effect == "Known better."


def test_6982_lists_what_it_can_mean() -> None:
    error = error_for(0x6982, "signing")
    assert isinstance(error, status.SecurityStatusNotSatisfied)
    assert any("PIN" in reason for reason in error.reasons)
    assert all(reason in error.advice for reason in error.reasons)
    given = status.SecurityStatusNotSatisfied(0x6982, "signing", reasons=("the touch did not come",))
    assert given.advice == "Possible reasons: the touch did not come."


def test_texts_can_be_set_where_the_sender_knows_more() -> None:
    error = status.NoSpace(0x6A84, "writing", effect="Half is written.", advice="Delete one.")
    assert (error.effect, error.advice) == ("Half is written.", "Delete one.")
    assert error.explain() == f"{error.message} Half is written. Delete one."


def test_words_have_the_values_of_the_standards() -> None:
    """ISO 7816-4 section 5.6 and SP 800-73-5 part 2 section 2.1, written down a second time."""
    assert {word.name: f"{word:04X}" for word in SW} == {
        "OK": "9000",
        "EOF_REACHED": "6282",
        "VERIFICATION_FAILED": "6300",
        "EXECUTION_ERROR": "6400",
        "MEMORY_FAILURE": "6581",
        "WRONG_LENGTH": "6700",
        "SM_NOT_SUPPORTED": "6882",
        "CHAINING_NOT_SUPPORTED": "6884",
        "SECURITY_STATUS": "6982",
        "BLOCKED": "6983",
        "CONDITIONS": "6985",
        "SM_MISSING": "6987",
        "SM_INCORRECT": "6988",
        "SELECT_FAILED": "6999",
        "WRONG_DATA": "6A80",
        "FUNCTION": "6A81",
        "NOT_FOUND": "6A82",
        "NO_SPACE": "6A84",
        "WRONG_P1P2": "6A86",
        "REFERENCE_NOT_FOUND": "6A88",
        "WRONG_P1P2_SHORT": "6B00",
        "INS_NOT_SUPPORTED": "6D00",
        "CLA_NOT_SUPPORTED": "6E00",
        "NO_DIAGNOSIS": "6F00",
    }
