"""What a person is asked, in words of ours only: which act, for which card, how many tries, which rules.

No text of a server comes in here. Everything that blocks on the person happens off the event loop and can be cancelled
at any time.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final, Protocol, TypeVar

from cardwright_cardops.pinentry import PinentryCancelled, Seat
from cardwright_cardops.piv.pins import NoPin, reference_name
from cardwright_cardops.piv.references import PinReference
from cardwright_cardops.plan.pin_rules import PinFault, PinRules, check
from cardwright_cardops.secret import Secret

from .config import Pins
from .dialogs import Dialog, Opening, open_dialog
from .errors import BadRequest
from .operations import Kind

T = TypeVar("T")

ROUNDS: Final = 5
"""How often a new value is asked for again because it breaks a rule or the two entries differ."""
PUK_OCTETS: Final = 8

_ACTS: Final = {
    Kind.CHECK: "check {}",
    Kind.CHANGE_PIN: "change the PIN of {}",
    Kind.UNBLOCK_PIN: "unblock {}",
    Kind.ISSUE: "set up {}",
    Kind.UPDATE: "update {}",
    Kind.UNLOCK: "unlock {}",
    Kind.FORGOTTEN_PIN: "set a new PIN on {}",
    Kind.RECOVER: "put recovered keys on {}",
    Kind.SIGN_IN: "sign in with {}",
    Kind.RECYCLE: "erase {}",
    Kind.LOCK: "lock {}",
}
_FAULTS: Final = {
    PinFault.TOO_SHORT: "It is too short.",
    PinFault.TOO_LONG: "It is too long.",
    PinFault.NOT_DIGITS: "It has something else than digits.",
    PinFault.NOT_PRINTABLE: "It has characters that cards do not take.",
    PinFault.TRIVIAL: "It is too regular.",
    PinFault.COMMON: "Too many people choose it.",
    PinFault.SAME_AS_OLD: "It is the old one.",
}


class Value(Enum):
    """What is asked for, beside PINs and PUKs."""

    DIRECTORY_PASSWORD = "password of your account"
    INITIAL_PASSWORD = "password that you were given for your first card"
    EMERGENCY_PASSWORD = "password that the help desk gave you"
    ANSWER = "answer to your security question"


@dataclass(frozen=True, slots=True)
class Asked:
    """One question. ``what`` names the value, ``act`` what it is for; ``note`` and ``error`` are further sentences."""

    what: str
    act: str
    tries: int | None = None
    note: str = ""
    error: str = ""

    @property
    def sentence(self) -> str:
        """The question for a person."""
        left = "" if self.tries is None else f" {self.tries} {'try' if self.tries == 1 else 'tries'} left."
        return f"Enter the {self.what} to {self.act}.{left}" + (f" {self.note}" if self.note else "")


class Prompter(Protocol):
    """Somebody who can be asked."""

    async def ask(self, asked: Asked) -> Secret:
        """What was typed. Raises NoPin, PinentryCancelled, PinentryUnavailable."""

    async def tell(self, text: str) -> None:
        """Show ``text`` until it is closed. Raises PinentryCancelled, PinentryUnavailable, NoPin."""


class DialogPrompter:
    """Asks through pinentry or the system's own dialog, one at a time for the whole daemon."""

    def __init__(
        self, pins: Pins, one_at_a_time: asyncio.Lock, seat: Seat | None = None, opening: Opening = open_dialog
    ) -> None:
        """``opening`` starts the program that asks."""
        self._opening = opening
        self._pins = pins
        self._alone = one_at_a_time
        self._seat = seat

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        prompt = f"{asked.what[:1].upper()}{asked.what[1:]}:"
        return await self._dialog(
            lambda entry: entry.ask(title="cardwright", description=asked.sentence, prompt=prompt, error=asked.error)
        )

    async def tell(self, text: str) -> None:
        """See ``Prompter``."""
        await self._dialog(lambda entry: entry.tell(title="cardwright", description=text))

    async def _dialog(self, show: Callable[[Dialog], T]) -> T:
        async with self._alone:
            dialog = _Showing(self._opening, self._pins, self._seat)
            task = asyncio.create_task(asyncio.to_thread(dialog.run, show))
            try:
                return await asyncio.shield(task)
            except asyncio.CancelledError:
                dialog.cancel()
                await asyncio.gather(task, return_exceptions=True)
                raise


class _Showing:
    """One dialog, on its thread."""

    def __init__(self, opening: Opening, pins: Pins, seat: Seat | None) -> None:
        self._opening = opening
        self._pins = pins
        self._seat = seat
        self._entry: Dialog | None = None
        self._cancelled = False

    def run(self, show: Callable[[Dialog], T]) -> T:
        entry = self._opening(self._pins, self._seat)
        self._entry = entry
        if self._cancelled:
            entry.close()
            raise PinentryCancelled("The PIN entry was cancelled.")
        with entry:
            return show(entry)

    def cancel(self) -> None:
        """From the loop."""
        self._cancelled = True
        if self._entry is not None:
            self._entry.cancel()


class HeadlessPrompter:
    """Values that came with the call; each is given once, so that a wrong one is not sent again."""

    def __init__(self, **values: Secret) -> None:
        self._values = values

    async def ask(self, asked: Asked) -> Secret:
        """See ``Prompter``."""
        name = "new" if asked.what.startswith("new ") else "current"
        value = self._values.get(name)
        if value is None or asked.error:
            raise NoPin(f"The {asked.what} is needed; what came with the call does not do. {asked.error}".rstrip())
        if name == "current":
            del self._values[name]
        return value

    async def tell(self, text: str) -> None:
        """See ``Prompter``."""
        raise NoPin("There is nobody to show anything to.")


def act_of(kind: Kind, card: str) -> str:
    """What the person is doing, in words; ``card`` is what to call the card."""
    return _ACTS[kind].format(card)


def rules_text(rules: PinRules, *, has_old: bool = False) -> str:
    """The rules for a new PIN in one sentence. ``has_old``: it takes the place of one that was asked for, too."""
    least, most = rules.min_length, rules.max_length
    many = str(least) if least == most else f"{least} to {most}"
    kind = "digits" if rules.digits_only else "characters"
    words = [word for word, told in (("regular", rules.refuse_trivial), ("common", rules.refuse_common)) if told]
    refused = [f"a {' or '.join(words)} one"] if words else []
    refused += ["the old one"] if rules.differs and has_old else []
    return f"It has {many} {kind}{', not ' if refused else ''}{' and not '.join(refused)}."


async def ask_current(
    prompter: Prompter, reference: int, act: str, tries: int | None, *, error: str = "", longest: int = PUK_OCTETS
) -> Secret:
    """The value that is set now, of at most ``longest`` characters. Raises as ``Prompter.ask``."""
    while True:
        value = await prompter.ask(Asked(f"current {reference_name(reference)}", act, tries, error=error))
        if 1 <= len(value) <= longest:
            return value
        value.wipe()
        error = "It has one to eight characters." if longest == PUK_OCTETS else f"It has 1 to {longest} characters."


async def ask_new(
    prompter: Prompter, reference: int, act: str, rules: PinRules, old: Secret | None = None
) -> Secret:
    """A new value, entered twice, that keeps the rules. Raises NoPin, and as ``Prompter.ask``."""
    name = f"new {reference_name(reference)}"
    is_puk = reference == PinReference.PUK
    note = "It has eight characters." if is_puk else rules_text(rules, has_old=old is not None)
    error = ""
    for _ in range(ROUNDS):
        value = await prompter.ask(Asked(name, act, note=note, error=error))
        error = _fault(value, is_puk, rules, old)
        if not error:
            try:
                again = await prompter.ask(Asked(f"{name} once more", act))
            except BaseException:
                value.wipe()
                raise
            same = again == value
            if again is not value:
                again.wipe()
            if same:
                return value
            error = "The two entries differ."
        value.wipe()
    raise NoPin(f"No {name} that keeps the rules was entered.")


def _fault(value: Secret, is_puk: bool, rules: PinRules, old: Secret | None) -> str:
    if is_puk:
        return "" if len(value) == PUK_OCTETS else "It has not eight characters."
    return " ".join(_FAULTS[fault] for fault in check(value, rules, old))


_TTY: Final = re.compile(r"/dev/(pts/[0-9]{1,6}|tty[A-Za-z0-9]{0,8})")
_TYPE: Final = re.compile(r"[A-Za-z0-9.+_-]{1,40}")
_DISPLAY: Final = re.compile(r"[A-Za-z0-9.-]{0,64}:[0-9]{1,5}(\.[0-9]{1,3})?")


def seat_of(tty: str, tty_type: str, display: str) -> Seat | None:
    """The seat that a caller names; None where it names none. Raises BadRequest."""
    if not tty and not display:
        return None
    if (tty and not _TTY.fullmatch(tty)) or (tty_type and not _TYPE.fullmatch(tty_type)):
        raise BadRequest("There is no such terminal.")
    if display and not _DISPLAY.fullmatch(display):
        raise BadRequest("There is no such display.")
    return Seat(tty, tty_type, display)


class StagePins:
    """The custodian of a session: values that were asked for before a stage, until it ends.

    A new PIN that was asked for without the old one is also the current one from then on.
    """

    def __init__(self, current: Secret | None = None, new: Secret | None = None) -> None:
        self.current = current
        self.new = new

    def current_pin(self, reference: int, tries: int | None) -> Secret:
        """See ``Custodian``. Raises NoPin."""
        value = self.current or self.new
        if value is None:
            raise NoPin(f"The {reference_name(reference)} was not asked for before this stage.")
        return value

    def new_pin(self, reference: int) -> Secret:
        """See ``Custodian``. Raises NoPin."""
        if self.new is None:
            raise NoPin(f"No new {reference_name(reference)} was asked for before this stage.")
        return self.new

    def wipe(self) -> None:
        """Forget both."""
        for value in (self.current, self.new):
            if value is not None:
                value.wipe()
        self.current = self.new = None
