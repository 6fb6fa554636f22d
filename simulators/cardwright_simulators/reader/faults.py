"""Faults between a program and a card, one line each, for any card in any virtual reader.

    where:what[,where:what...]

    apdu=7        the 7th command APDU        ins=CB       the first GET DATA
    apdu=7+       and all after it            ins=DB@3     the third PUT DATA    ins=DB@3+   and all after

    unsent        the command is lost; the card does not execute it
    lost          the card executes it; the answer is lost
    remove        the card is pulled just before it      remove-after  just after it, without an answer
    corrupt       the answer's data (or status word, if there are none) are inverted
    truncate=N    only N octets of the answer arrive     truncate      half of them
    slow=S        the card takes S seconds longer
    full          6A84, not executed                     sw=XXXX       that status word, not executed
    reset         another program reset the card before it; nothing was sent
    select=AID    another program selected AID before it (without =AID, an application that is not there)
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.apdu import MAX_SHORT_LE, CommandAPDU
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.transport.connection import CardRemoved, CardReset, CardUnresponsive

from .around import Around
from .slot import Card


class Effect(Enum):
    """What goes wrong."""

    UNSENT = "unsent"
    LOST = "lost"
    REMOVE = "remove"
    REMOVE_AFTER = "remove-after"
    CORRUPT = "corrupt"
    TRUNCATE = "truncate"
    SLOW = "slow"
    FULL = "full"
    STATUS = "sw"
    RESET = "reset"
    SELECT = "select"


class FaultSyntaxError(CardwrightError):
    """A fault that cannot be read."""

    code = "SIM_FAULT_SYNTAX"
    default_effect = "No virtual card was started."
    default_advice = (
        "Write where:what, for example apdu=7:lost, ins=47:remove, ins=DB@3:full. Where: apdu=N or ins=HH[@N],"
        " with + for all after it. What: " + ", ".join(effect.value for effect in Effect) + "."
    )


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. ``ins`` None counts all commands, else those with that instruction; ``number`` is from 1.

    ``value`` is seconds, octets, a status word or nothing, as ``effect`` needs it; ``aid`` is for SELECT.
    """

    effect: Effect
    number: int
    ins: int | None = None
    lasting: bool = False
    value: float | None = None
    aid: bytes = b""

    def hits(self, total: int, of_ins: int, ins: int) -> bool:
        """Whether it strikes the command that is the ``total``-th, and the ``of_ins``-th with ``ins``."""
        if self.ins is not None and self.ins != ins:
            return False
        count = total if self.ins is None else of_ins
        return count == self.number or (self.lasting and count > self.number)


_WHERE: Final = re.compile(r"(?:apdu=(?P<apdu>\d{1,6})|ins=(?P<ins>[0-9A-Fa-f]{2})(?:@(?P<nth>\d{1,6}))?)(?P<all>\+)?")
_NOWHERE: Final = bytes.fromhex("F0000000FF")
_NEEDS_VALUE: Final = frozenset((Effect.SLOW, Effect.STATUS))
_TAKES_VALUE: Final = _NEEDS_VALUE | {Effect.TRUNCATE, Effect.SELECT}


def parse(script: str) -> tuple[Fault, ...]:
    """The faults in ``script``, written as above. Raises FaultSyntaxError."""
    return tuple(_parse_one(part.strip()) for part in script.split(",") if part.strip())


def _parse_one(text: str) -> Fault:
    where, colon, what = text.partition(":")
    match = _WHERE.fullmatch(where)
    if match is None or not colon:
        raise FaultSyntaxError(f"{text!r} does not say which command the fault strikes.")
    name, equals, value = what.partition("=")
    try:
        effect = Effect(name)
    except ValueError:
        raise FaultSyntaxError(f"{name!r} is no fault.") from None
    number = int(match["apdu"] or match["nth"] or 1)
    if number < 1:
        raise FaultSyntaxError(f"{where!r}: commands are counted from 1.")
    if (equals and effect not in _TAKES_VALUE) or (not value and (equals or effect in _NEEDS_VALUE)):
        raise FaultSyntaxError(f"{what!r} has a value too many or too few.")
    try:
        quantity, aid = _value(effect, value)
    except ValueError:
        raise FaultSyntaxError(f"{value!r} is no value for {name}.") from None
    ins = int(match["ins"], 16) if match["ins"] else None
    return Fault(effect, number, ins, match["all"] is not None, quantity, aid)


def _value(effect: Effect, text: str) -> tuple[float | None, bytes]:
    """The value of a fault. Raises ValueError."""
    if effect is Effect.SELECT:
        aid = bytes.fromhex(text) if text else _NOWHERE
        if not 5 <= len(aid) <= 16:
            raise ValueError
        return None, aid
    if not text:
        return None, b""
    if effect is Effect.STATUS:
        if not re.fullmatch(r"[0-9A-Fa-f]{4}", text):
            raise ValueError
        return int(text, 16), b""
    if effect is Effect.TRUNCATE:
        if not text.isdecimal():
            raise ValueError
        return int(text), b""
    seconds = float(text)
    if not 0 <= seconds <= 3600:
        raise ValueError
    return seconds, b""


class FaultyCard(Around[Card]):
    """``card`` with faults in front of it: put it into a reader instead of the card.

    ``faults`` is a script or parsed faults. Commands are counted from when this is made. ``struck`` lists what
    happened, in order. A command that ``reset`` kept back is not counted: it comes again.
    """

    def __init__(
        self, card: Card, faults: str | tuple[Fault, ...], *, sleep: Callable[[float], object] = time.sleep
    ) -> None:
        """Raises FaultSyntaxError."""
        super().__init__(card)
        self.struck: list[Fault] = []
        self._faults = list(parse(faults) if isinstance(faults, str) else faults)
        self._sleep = sleep
        self._total = 0
        self._by_ins: Counter[int] = Counter()

    def transmit(self, command: bytes) -> bytes:
        """The card's answer, or what a fault makes of it.

        Raises CardUnresponsive, CardRemoved or CardReset where a fault says so.
        """
        ins = command[1] if len(command) > 1 else 0
        total, of_ins = self._total + 1, self._by_ins[ins] + 1
        hits = [fault for fault in self._faults if fault.hits(total, of_ins, ins)]
        for fault in hits:
            self.struck.append(fault)
            if not fault.lasting:
                self._faults.remove(fault)
        if any(fault.effect is Effect.RESET for fault in hits):
            self.inside.reset()
            raise CardReset("Another program reset the card.", sent=False)
        self._total, self._by_ins[ins] = total, of_ins
        for fault in hits:
            if (answer := self._before(fault)) is not None:
                return answer
        answer = self.inside.transmit(command)
        for fault in hits:
            answer = _after(fault, answer)
        return answer

    def _before(self, fault: Fault) -> bytes | None:
        """What happens before the card sees the command; an answer when it never does."""
        match fault.effect:
            case Effect.UNSENT:
                raise CardUnresponsive("The card does not answer.")
            case Effect.REMOVE:
                raise CardRemoved("The card was pulled.")
            case Effect.SLOW:
                self._sleep(fault.value or 0)
            case Effect.FULL:
                return SW.NO_SPACE.to_bytes(2, "big")
            case Effect.STATUS:
                return int(fault.value or 0).to_bytes(2, "big")
            case Effect.SELECT:
                self.inside.transmit(CommandAPDU(0x00, 0xA4, 0x04, 0x00, fault.aid, MAX_SHORT_LE).encode())
            case _:
                pass
        return None


def _after(fault: Fault, answer: bytes) -> bytes:
    """What becomes of the answer of a command that was executed."""
    match fault.effect:
        case Effect.LOST:
            raise CardUnresponsive("The card does not answer.")
        case Effect.REMOVE_AFTER:
            raise CardRemoved("The card was pulled.")
        case Effect.CORRUPT:
            spared = answer[-2:] if len(answer) > 2 else b""
            damaged = answer[:-2] if spared else answer
            return bytes(octet ^ 0xFF for octet in damaged) + spared
        case Effect.TRUNCATE:
            return answer[: len(answer) // 2 if fault.value is None else int(fault.value)]
        case _:
            return answer
