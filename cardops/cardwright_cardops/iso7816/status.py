"""Status words (ISO 7816-4 section 5.6, SP 800-73-5 part 1 section 5.6) and the errors they become.

One table maps a status word to an error type; ``error_for`` reads it. Warnings that carry data (62xx) are
no errors by themselves: the program that sent the command says which words it accepts.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar, Final

from ..errors import CardwrightError


class SW(IntEnum):
    """Status words with a fixed value."""

    OK = 0x9000
    EOF_REACHED = 0x6282
    VERIFICATION_FAILED = 0x6300
    EXECUTION_ERROR = 0x6400
    MEMORY_FAILURE = 0x6581
    WRONG_LENGTH = 0x6700
    SM_NOT_SUPPORTED = 0x6882
    CHAINING_NOT_SUPPORTED = 0x6884
    SECURITY_STATUS = 0x6982
    BLOCKED = 0x6983
    CONDITIONS = 0x6985
    SM_MISSING = 0x6987
    SM_INCORRECT = 0x6988
    SELECT_FAILED = 0x6999
    WRONG_DATA = 0x6A80
    FUNCTION = 0x6A81
    NOT_FOUND = 0x6A82
    NO_SPACE = 0x6A84
    WRONG_P1P2 = 0x6A86
    REFERENCE_NOT_FOUND = 0x6A88
    WRONG_P1P2_SHORT = 0x6B00
    INS_NOT_SUPPORTED = 0x6D00
    CLA_NOT_SUPPORTED = 0x6E00
    NO_DIAGNOSIS = 0x6F00


TRIES_LEFT: Final = frozenset(range(0x63C0, 0x63D0))
"""63CX: verification failed, X tries left (an X of 15 means 15 or more)."""

TRIES_LEFT_630X: Final = frozenset(range(0x6301, 0x6310))
"""630X: the same as some older tokens say it."""

PRECEDES_DATA: Final = 0x61
NEEDS_LE: Final = 0x6C


def tries_left(sw: int) -> int | None:
    """Tries that a verification status word counts: 63CX, 630X, 6983. None for any other word."""
    if sw in TRIES_LEFT:
        return sw & 0x0F
    if sw in TRIES_LEFT_630X:
        return sw & 0xFF
    return 0 if sw == SW.BLOCKED else None


class StatusError(CardwrightError):
    """A command answered with a status word that its sender did not accept."""

    code = "CARD_REFUSED"
    meaning: ClassVar[str] = "the card refused it with a status word that PIV does not list"
    default_effect = "The card did not carry out this command; earlier ones stand."
    default_advice = "See what was sent and answered with 'cardwright card trace', and report it with the card's type."

    def __init__(self, sw: int, doing: str, *, effect: str | None = None, advice: str | None = None) -> None:
        super().__init__(f"{doing}: {self.meaning} ({sw:04X}).", effect=effect, advice=advice)
        self.sw = sw
        self.doing = doing


_LAST_TRY_SPENT: Final = "The last try is spent; it is blocked now. Nothing else on the card changed."


class VerificationFailed(StatusError):
    """A PIN, PUK or pairing code was wrong. ``tries_left`` is None where the card does not count."""

    code = "VERIFICATION_FAILED"
    meaning = "the value was wrong"
    default_effect = "One try is spent; nothing else on the card changed."
    default_advice = "Stop if you are not sure of the value."

    def __init__(self, sw: int, doing: str, *, effect: str | None = None, advice: str | None = None) -> None:
        super().__init__(sw, doing, effect=effect, advice=advice)
        self.tries_left = tries_left(sw)
        if advice is None and self.tries_left:
            word = "try is" if self.tries_left == 1 else "tries are"
            self.advice = f"{self.tries_left} {word} left. Stop if you are not sure of the value."


class Blocked(VerificationFailed):
    """The reference has no tries left."""

    code = "REFERENCE_BLOCKED"
    meaning = "it is blocked, no tries are left"
    default_effect = "No comparison was made; nothing on the card changed."
    default_advice = "A blocked PIN is unblocked with the PUK; a blocked PUK needs the card's issuer."

    def __init__(self, sw: int, doing: str, *, effect: str | None = None, advice: str | None = None) -> None:
        # 6983 refuses without comparing; a counting word says that this very value was wrong.
        spent = sw != SW.BLOCKED
        super().__init__(sw, doing, effect=effect or (_LAST_TRY_SPENT if spent else None), advice=advice)


class SecurityStatusNotSatisfied(StatusError):
    """6982. ``reasons`` is what it can mean for this command; the card does not say which."""

    code = "SECURITY_STATUS"
    meaning = "the card wants something proved first"
    default_advice = "Verify the PIN, or give the management key, and try again."

    def __init__(
        self,
        sw: int,
        doing: str,
        *,
        reasons: tuple[str, ...] = (),
        effect: str | None = None,
        advice: str | None = None,
    ) -> None:
        super().__init__(sw, doing, effect=effect, advice=advice)
        self.reasons = reasons or (
            "the PIN was not verified, or not directly before this command",
            "the management key was not authenticated",
            "the key wants a touch that did not come",
            "the command is not allowed over this interface",
        )
        if advice is None:
            self.advice = "Possible reasons: " + "; ".join(self.reasons) + "."


class ConditionsNotSatisfied(StatusError):
    """6985: not now, or not in this state."""

    code = "CONDITIONS_OF_USE"
    meaning = "the conditions of use are not satisfied"
    default_advice = "Some commands need another order or state; see with 'cardwright card show' what the card has now."


class WrongLength(StatusError):
    """6700: the length of the command does not fit."""

    code = "WRONG_LENGTH"
    meaning = "the card does not take a command of this length"
    default_advice = "Use a shorter certificate or key; if it is not about those, the card lacks this command."


class SecureMessagingNotSupported(StatusError):
    """6882."""

    code = "SM_NOT_SUPPORTED"
    meaning = "the card has no secure messaging"
    default_advice = "Use the contact interface, where secure messaging is not needed."


class ChainingNotSupported(StatusError):
    """6884."""

    code = "CHAINING_NOT_SUPPORTED"
    meaning = "the card does not chain this command"
    default_advice = "Use a smaller certificate or key, or a reader with extended length."


class SecureMessagingBroken(StatusError):
    """6987, 6988: the card found the protection missing or wrong and dropped its session keys."""

    code = "SM_BROKEN"
    meaning = "the protection of the command was missing or wrong"
    default_advice = "Start again; if it happens each time, something between here and the card alters commands."


class WrongData(StatusError):
    """6A80."""

    code = "WRONG_DATA"
    meaning = "the card does not accept the data"
    default_advice = "The card lacks the algorithm or the option; 'cardwright card show' lists what it has."


class FunctionNotSupported(StatusError):
    """6A81."""

    code = "FUNCTION_NOT_SUPPORTED"
    meaning = "the card does not have this function, or not over this interface"
    default_advice = "Try the contact interface; else the card cannot do this."


class NotFound(StatusError):
    """6A82: no such object or application."""

    code = "NOT_FOUND"
    meaning = "there is no such object or application on the card"
    default_advice = "See with 'cardwright card show' what is on the card; perhaps it was never written."


class NoSpace(StatusError):
    """6A84."""

    code = "CARD_FULL"
    meaning = "the card has no room for it"
    default_advice = "Delete what is not needed, or use a smaller certificate or key."


class WrongParameters(StatusError):
    """6A86, 6B00: P1 P2 name something that this card does not have."""

    code = "WRONG_PARAMETERS"
    meaning = "the card does not know this key, algorithm or parameter"
    default_advice = "The card lacks this slot, key or option; 'cardwright card show' lists what it has."


class ReferenceNotFound(StatusError):
    """6A88: no such key reference."""

    code = "REFERENCE_NOT_FOUND"
    meaning = "the card has no such key, PIN or reference"
    default_advice = "See with 'cardwright card show' which keys and PINs the card has."


class InstructionNotSupported(StatusError):
    """6D00: an unknown instruction, or another application is selected."""

    code = "INSTRUCTION_NOT_SUPPORTED"
    meaning = "the card does not have this command"
    default_advice = "Check that it is a PIV card of a type that can do this: 'cardwright card show'."


class ClassNotSupported(StatusError):
    """6E00."""

    code = "CLASS_NOT_SUPPORTED"
    meaning = "the card does not have this class of commands"
    default_advice = "Check that it is a PIV card of a type that can do this: 'cardwright card show'."


class CardFailure(StatusError):
    """64xx, 65xx, 6Fxx: the card had a fault of its own."""

    code = "CARD_FAILURE"
    meaning = "the card reports a fault of its own"
    default_effect = "Whether the command took effect is not known."
    default_advice = "Take the card out and try again; if it stays, the card is probably damaged."


_BY_WORD: Final[dict[int, type[StatusError]]] = {
    SW.VERIFICATION_FAILED: VerificationFailed,
    SW.WRONG_LENGTH: WrongLength,
    SW.SM_NOT_SUPPORTED: SecureMessagingNotSupported,
    SW.CHAINING_NOT_SUPPORTED: ChainingNotSupported,
    SW.SECURITY_STATUS: SecurityStatusNotSatisfied,
    SW.BLOCKED: Blocked,
    SW.CONDITIONS: ConditionsNotSatisfied,
    SW.SM_MISSING: SecureMessagingBroken,
    SW.SM_INCORRECT: SecureMessagingBroken,
    SW.SELECT_FAILED: NotFound,
    SW.WRONG_DATA: WrongData,
    SW.FUNCTION: FunctionNotSupported,
    SW.NOT_FOUND: NotFound,
    SW.NO_SPACE: NoSpace,
    SW.WRONG_P1P2: WrongParameters,
    SW.REFERENCE_NOT_FOUND: ReferenceNotFound,
    SW.WRONG_P1P2_SHORT: WrongParameters,
    SW.INS_NOT_SUPPORTED: InstructionNotSupported,
    SW.CLA_NOT_SUPPORTED: ClassNotSupported,
    0x63C0: Blocked,
    **{sw: VerificationFailed for sw in TRIES_LEFT | TRIES_LEFT_630X if sw != 0x63C0},
}

_BY_SW1: Final[dict[int, type[StatusError]]] = {0x64: CardFailure, 0x65: CardFailure, 0x6F: CardFailure}


def error_for(sw: int, doing: str) -> StatusError:
    """The typed error of ``sw``; ``doing`` names the command for a person ("writing the CHUID")."""
    kind = _BY_WORD.get(sw) or _BY_SW1.get(sw >> 8) or StatusError
    return kind(sw, doing)
