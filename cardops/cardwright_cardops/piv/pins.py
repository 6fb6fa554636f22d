"""PIN safety: who holds PINs, what is known of the tries, and the guard that keeps the last one."""

from __future__ import annotations

from typing import Protocol

from ..errors import CardwrightError
from ..iso7816.status import tries_left
from ..secret import Secret
from .references import PinReference

KEEP_ONE: int = 1
"""Default guard: the last try is never spent."""


def reference_name(reference: int) -> str:
    """What people call a reference."""
    return {
        PinReference.PIN: "PIN",
        PinReference.GLOBAL_PIN: "Global PIN",
        PinReference.PUK: "PUK",
        PinReference.PAIRING_CODE: "pairing code",
    }.get(PinReference(reference), f"reference {reference:02X}")


class LastTry(CardwrightError):
    """A try was not spent because too few are left. ``tries_left`` as the card counts."""

    code = "LAST_TRY"
    default_effect = "No try was spent; the card is as before."
    default_advice = "Be sure of the value, then say that the last try may be spent."

    def __init__(self, reference: int, left: int) -> None:
        name = reference_name(reference)
        word = "try" if left == 1 else "tries"
        advice = {
            PinReference.PUK: "Nothing unblocks a PUK: allow the last try expressly only if you are sure of it.",
            PinReference.GLOBAL_PIN: (
                "The PUK unblocks no Global PIN: allow the last try expressly only if you are sure of it."
            ),
        }.get(PinReference(reference), f"Unblock the {name} instead, or allow the last try expressly if you are sure.")
        super().__init__(f"Only {left} {word} left for the {name}.", advice=advice)
        self.reference = reference
        self.tries_left = left


class AlreadyBlocked(CardwrightError):
    """The reference is blocked; no value was sent."""

    code = "ALREADY_BLOCKED"
    default_effect = "No value was sent to the card."
    default_advice = "A blocked PIN is unblocked with the PUK; a blocked PUK needs the card's issuer."

    def __init__(self, reference: int) -> None:
        name = reference_name(reference)
        advice = {
            PinReference.PUK: "It can only be replaced by the card's issuer, or the card reset.",
            PinReference.GLOBAL_PIN: "Only the card's issuer can unblock it: the PUK is for the PIN.",
        }.get(PinReference(reference), "Unblock it with the PUK.")
        super().__init__(f"The {name} is blocked.", advice=advice)
        self.reference = reference


class PukCounterUnknown(CardwrightError):
    """The card does not tell how many tries its PUK has, and nobody said that they may be spent; nothing was sent."""

    code = "PUK_COUNTER_UNKNOWN"
    default_effect = "No try was spent; the card is as before."
    default_advice = "A wrong PUK may be the last: allow the last try expressly if you are sure of the value."

    def __init__(self) -> None:
        super().__init__("This card does not tell how many tries the PUK has left.")


class NoPin(CardwrightError):
    """The person gave no PIN, or there is no way to ask for one."""

    code = "PIN_NOT_GIVEN"
    default_effect = "Nothing was sent to the card."
    default_advice = "Start again and enter the PIN when asked."


class Custodian(Protocol):
    """Where PINs come from on this side of the line. Every method may raise NoPin.

    A custodian asks a person once and then remembers: it is asked before a transaction and again inside it.
    """

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """The PIN that is set now; ``tries`` are left, None where the card does not say."""

    def new_pin(self, reference: int) -> Secret:
        """The PIN to set."""


class FixedPins:
    """A custodian for values that are known beforehand: tests, secrets files, a PIN just typed."""

    __slots__ = ("_current", "_new")

    def __init__(self, current: Secret | None = None, new: Secret | None = None) -> None:
        self._current = current
        self._new = new

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """The value given at the start. Raises NoPin without one."""
        if self._current is None:
            raise NoPin(f"The {reference_name(reference)} is needed and was not given.")
        return self._current

    def new_pin(self, reference: int) -> Secret:
        """The value given at the start. Raises NoPin without one."""
        if self._new is None:
            raise NoPin(f"A new {reference_name(reference)} is needed and was not given.")
        return self._new


class TriesGuard:
    """What one executing end knows of the counters, and the rule that no last try is spent.

    ``keep`` tries always stay; 0 switches the guard off and asks the card nothing. Counters are forgotten when a
    transaction begins: another program may have spent tries.
    """

    __slots__ = ("_known", "_untold", "_verified", "keep")

    def __init__(self, keep: int = KEEP_ONE) -> None:
        self.keep = keep
        self._known: dict[int, int] = {}
        self._untold: set[int] = set()
        self._verified: set[int] = set()

    def forget(self) -> None:
        """Another transaction: nothing is known any more."""
        self._known.clear()
        self._untold.clear()
        self._verified.clear()

    def note_status(self, reference: int, sw: int) -> None:
        """Learn from the status word of VERIFY, with or without a value, CHANGE or RESET RETRY COUNTER."""
        left = tries_left(sw)
        if left is not None:
            self._known[reference] = left
            self._verified.discard(reference)
        elif sw == 0x9000:
            self._known.pop(reference, None)
            self._verified.add(reference)

    def note_count(self, reference: int, left: int) -> None:
        """Learn a counter that the card told outright (vendor metadata)."""
        self._known[reference] = left

    def note_untold(self, reference: int) -> None:
        """Learn that the card was asked outright and does not tell this counter."""
        self._untold.add(reference)

    def note_restored(self, reference: int) -> None:
        """Another reference gave it a new value, and with it all its tries."""
        self._known.pop(reference, None)
        self._verified.add(reference)

    def tries(self, reference: int) -> int | None:
        """Tries known to be left, None if not known."""
        return self._known.get(reference)

    def must_ask(self, reference: int) -> bool:
        """Whether the card has to be asked before a value is sent to it."""
        return self.keep > 0 and reference not in self._known and reference not in self._verified

    def check(self, reference: int) -> None:
        """Raise AlreadyBlocked, LastTry or PukCounterUnknown where sending a value would break the rule."""
        left = self._known.get(reference)
        if self.keep > 0 and left is None and reference == PinReference.PUK and reference in self._untold:
            raise PukCounterUnknown
        if left is None or self.keep == 0:
            return
        if left == 0:
            raise AlreadyBlocked(reference)
        if left <= self.keep:
            raise LastTry(reference, left)
