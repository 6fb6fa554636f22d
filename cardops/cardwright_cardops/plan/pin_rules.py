"""Which new PINs are good enough. Pure, for the workstation alone: a PIN is never sent anywhere to be judged.

FIPS 201-3 section 4.3.1 wants six digits at least and guidance against values that are easily guessed; SP 800-73-5
part 2 section 3.2.2 pads a PIN to eight octets, so it has eight characters at most.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final

from ..errors import CardwrightError
from ..secret import Secret

SHORTEST: Final = 4
LONGEST: Final = 8


class PinFault(StrEnum):
    """What is wrong with a PIN. The values are stable codes."""

    TOO_SHORT = "PIN_TOO_SHORT"
    TOO_LONG = "PIN_TOO_LONG"
    NOT_DIGITS = "PIN_NOT_DIGITS"
    NOT_PRINTABLE = "PIN_NOT_PRINTABLE"
    TRIVIAL = "PIN_TRIVIAL"
    """One character, a run up or down, or a short piece that repeats itself."""
    COMMON = "PIN_COMMON"
    """One that many people choose, or that comes with cards."""
    SAME_AS_OLD = "PIN_SAME_AS_OLD"


class PinRulesMalformed(CardwrightError):
    """PIN rules that no PIN could meet, or that are no rules."""

    code = "PIN_RULES_MALFORMED"
    default_effect = "Nothing was sent to the card."
    default_advice = "A PIN has 4 to 8 characters; the shortest length cannot be above the longest."


@dataclass(frozen=True, slots=True)
class PinRules:
    """Rules for a new PIN; ``differs`` from the old one. Raises PinRulesMalformed."""

    min_length: int = 6
    max_length: int = LONGEST
    digits_only: bool = True
    refuse_trivial: bool = True
    refuse_common: bool = True
    differs: bool = True

    def __post_init__(self) -> None:
        if not SHORTEST <= self.min_length <= self.max_length <= LONGEST:
            raise PinRulesMalformed(f"No PIN has {self.min_length} to {self.max_length} characters.")

    def document(self) -> dict[str, Any]:
        """JSON values: what travels to the workstation."""
        return asdict(self)

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> PinRules:
        """Read what ``document`` wrote, strictly. Raises PinRulesMalformed."""
        defaults = cls().document()
        if not isinstance(document, Mapping) or set(document) - set(defaults):
            raise PinRulesMalformed("PIN rules with unknown members.")
        if any(type(value) is not type(defaults[name]) for name, value in document.items()):
            raise PinRulesMalformed("A PIN rule has a value of the wrong kind.")
        return cls(**document)


# What comes with cards, what keyboards suggest, and what counts of leaked PINs agree on; runs and repetitions are
# found by rule.
_COMMON: Final = frozenset(
    b"123456 12345678 1234567 1234 000000 00000000 111111 123321 1234321 12344321 112233 11223344 445566 332211 "
    b"147258 14725836 258369 369258 159753 159357 753159 147852 741852 741963 963852 852456 456852 142536 "
    b"102030 10203040 100000 200000 101112 131415 124578 789456 456789 789123 159951 246810 135790 135791 13579 "
    b"314159 3141592 31415926 271828 27182818 141421 112358 11235813 007007 700007 121314 123654 123789 "
    b"520520 131452 147147 696969 420420 666999 password qwerty qwertz abcdef abc123 iloveyou letmein secret "
    b"welcome admin".split()
)


def check(pin: Secret, rules: PinRules = PinRules(), old: Secret | None = None) -> list[PinFault]:
    """Everything that is wrong with a PIN, in the order of ``PinFault``; empty if it may be set."""
    value = pin.reveal()
    wrong = {
        PinFault.TOO_SHORT: len(value) < rules.min_length,
        PinFault.TOO_LONG: len(value) > rules.max_length,
        PinFault.NOT_DIGITS: rules.digits_only and not (value.isdigit() and value.isascii()),
        # 7F is no character, and FF is what pads a short PIN (SP 800-73-5 part 2 section 2.4.3).
        PinFault.NOT_PRINTABLE: any(not 0x21 <= octet <= 0x7E for octet in value),
        PinFault.TRIVIAL: rules.refuse_trivial and _trivial(value),
        PinFault.COMMON: rules.refuse_common and value.lower() in _COMMON,
        PinFault.SAME_AS_OLD: rules.differs and old is not None and pin == old,
    }
    return [fault for fault, found in wrong.items() if found]


def _trivial(value: bytes) -> bool:
    if len(value) < 2:
        return True
    steps = {(second - first) % 10 if value.isdigit() else second - first for first, second in pairwise(value)}
    if steps in ({0}, {1}, {9}, {-1}):
        return True
    # A piece of up to half the length that fills the PIN by repetition, the last one possibly cut: 121212, 12341234.
    return any(
        all(octet == value[place % size] for place, octet in enumerate(value)) for size in range(1, len(value) // 2 + 1)
    )
