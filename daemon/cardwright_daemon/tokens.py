"""Tokens behind configured PKCS#11 modules: devices like cards, each module in a process of its own.

That a token came or went is found out by looking: ykcs11 has no C_WaitForSlotEvent, that of SoftHSM2 never tells of
anything, and a module that waits in it does nothing else meanwhile. A module is looked at every few seconds, and at
once when something changes at the PC/SC readers, as most tokens are smart cards.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.token import TokenName

from .asking import while_in
from .cards import Card
from .config import Pkcs11Module
from .errors import NoSuchCard
from .operations import Kind, Operation, Operations
from .prompts import Prompter, StagePins, ask_current, ask_new
from .worker import ReaderWorker

if TYPE_CHECKING:
    from cardwright_cardops.pkcs11 import Module, PinState, Token, TokenInventory

T = TypeVar("T")

_log = logging.getLogger(__name__)

TOKEN: Final = "token-"
"""How the ids of PKCS#11 tokens begin."""
FIRST_LOOK: Final = 1.0
"""Seconds before the first look: clients are answered first."""
WHILE_ASKED: Final = 2.0
"""Seconds between looks for a token whose person is asked for a PIN."""
LONGEST_PAUSE: Final = 600.0
"""Seconds between looks at a module that fails, at most."""


@dataclass(eq=False)
class TokenDevice:
    """One token. ``id`` stays the same as long as label, serial number and module do."""

    id: str
    module: str
    token: Token = field(repr=False)
    worker: ReaderWorker = field(repr=False)
    operation: str = ""
    gone: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Never set: a token that is away for a while is the same one when it is back."""
    problem: None = None

    @property
    def identity(self) -> Identity:
        """Who it is, in the form of a card."""
        told = self.token.info.identity
        return TokenName(told.label, told.serial, told.manufacturer, told.model).identity()

    def proof(self, nonce: bytes) -> bytes:
        """What 9E signs to show that the token is here; b"" where it has no such key. Blocks. Raises Pkcs11Error."""
        from cardwright_cardops.piv.proofs import PROOF_AUDIENCE
        from cardwright_cardops.pkcs11.errors import ObjectNotFound
        from cardwright_cardops.plan.token_steps import prove

        try:
            return prove(self.token, Slot.CARD_AUTHENTICATION, PROOF_AUDIENCE, nonce)
        except ObjectNotFound:
            return b""

    @property
    def reader(self) -> str:
        """What stands where a card has its reader."""
        return self.token.info.slot_description or self.module

    @property
    def name(self) -> str:
        """What to call it in a sentence of ours."""
        return f"token {self.token.info.identity.serial or self.token.info.identity.label}"

    async def left(self) -> CardwrightError:
        """Wait until it is taken out; the error that whoever waits for its person ends with.

        It looks, as nothing tells. Only that the token is gone counts: a module that fails otherwise may be well again
        when the PIN was typed, and is looked at less and less often.
        """
        from cardwright_cardops.pkcs11.errors import TokenRemoved

        failed = 0
        while True:
            await asyncio.sleep(pause_after(WHILE_ASKED, failed))
            try:
                await self.worker.run(self.token.refresh)
                failed = 0
            except TokenRemoved as error:
                return error
            except CardwrightError:
                failed += 1


Device: TypeAlias = Card | TokenDevice
"""What a session works on."""


@dataclass(eq=False)
class _Shelf:
    """A module and what was in it."""

    module: Module
    worker: ReaderWorker
    look_seconds: float
    present: dict[str, TokenDevice] = field(default_factory=dict)
    look: asyncio.Event = field(default_factory=asyncio.Event)
    """Set: something happened that may have to do with its tokens."""


class Tokens:
    """All tokens of the configured modules. For one event loop.

    ``tell`` hears of each that came (True) or went; ``inserted`` and ``removed`` are called, too, as for cards.
    """

    def __init__(
        self,
        configured: Sequence[Pkcs11Module],
        operations: Operations,
        tell: Callable[[TokenDevice, bool], None] = lambda device, present: None,
    ) -> None:
        self._configured = configured
        self._operations = operations
        self._tell = tell
        self._shelves: list[_Shelf] = []
        self._met: dict[str, TokenDevice] = {}
        self._watches: list[asyncio.Task[None]] = []
        self.problems: dict[str, CardwrightError] = {}
        """Modules that cannot be used, and why."""
        self.inserted: list[Callable[[TokenDevice], None]] = []
        self.removed: list[Callable[[TokenDevice], None]] = []

    @property
    def present(self) -> tuple[TokenDevice, ...]:
        """The tokens that were there when it was last looked."""
        return tuple(device for shelf in self._shelves for device in shelf.present.values())

    def start(self) -> None:
        """Take up the modules, and begin to look. What cannot be used is among ``problems``."""
        if not self._configured:
            return
        from cardwright_cardops.pkcs11 import Module  # takes long to load, and most have no module

        for row in self._configured:
            try:
                module = Module(row.path, environment=row.environment)
            except CardwrightError as error:
                self.problems[row.path] = error
            else:
                shelf = _Shelf(module, ReaderWorker(row.path), row.look_seconds)
                self._shelves.append(shelf)
                if shelf.look_seconds:
                    self._watches.append(asyncio.create_task(self._watch(shelf), name=f"tokens:{row.path}"))

    async def stop(self) -> None:
        """End the modules' processes; what they do now ends with an error."""
        for watch in self._watches:
            watch.cancel()
        if self._watches:
            await asyncio.wait(self._watches)
        for shelf in self._shelves:
            await asyncio.to_thread(shelf.module.abort)
            shelf.worker.stop()

    def look(self) -> None:
        """Something changed at the readers: look soon."""
        for shelf in self._shelves:
            shelf.look.set()

    async def list(self) -> tuple[TokenDevice, ...]:
        """The tokens that are there now. A module that fails is among ``problems`` and hides no other."""
        found: list[TokenDevice] = []
        for shelf in self._shelves:
            if await self._looked(shelf):
                found += shelf.present.values()
        return tuple(found)

    async def get(self, identifier: str) -> TokenDevice:
        """The token with this id. Raises NoSuchCard."""
        for look in (self.present, None):
            for device in await self.list() if look is None else look:
                if device.id == identifier:
                    return device
        raise NoSuchCard("This token is not there.")

    async def _watch(self, shelf: _Shelf) -> None:
        """Look again and again; less often at a module that fails."""
        failed = 0
        await asyncio.sleep(FIRST_LOOK)
        while True:
            shelf.look.clear()
            # Whoever works with a token of this module finds out by themselves that it left.
            if not any(device.operation for device in shelf.present.values()):
                failed = 0 if await self._looked(shelf) else failed + 1
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_after(shelf.look_seconds, failed)):
                    await shelf.look.wait()

    async def _looked(self, shelf: _Shelf) -> bool:
        """Look which tokens are there, and tell what changed; whether that could be found out."""
        from cardwright_cardops.pkcs11.errors import ModuleUnusable

        path = str(shelf.module.path)
        try:
            tokens = await shelf.worker.run(shelf.module.tokens)
        except CardwrightError as error:
            if path not in self.problems:
                _log.warning("%s cannot be used: %s", path, error.code)
            # To whoever hears of it the module cannot be used, whatever it answered; its advice is for other acts.
            error.effect, error.advice = "", ModuleUnusable.default_advice
            self.problems[path] = error
            if not any(device.operation for device in shelf.present.values()):
                # Some never get over what went wrong once, as SoftHSM2's whose folder was away: the next look is a
                # new process's.
                await shelf.worker.run(shelf.module.close)
            return False
        self.problems.pop(path, None)
        before, shelf.present = shelf.present, {}
        for token in tokens:
            identifier = _id_of(path, token)
            known = self._met.get(identifier)
            if known is None:
                known = self._met[identifier] = TokenDevice(identifier, path, token, shelf.worker)
            shelf.present[identifier] = known
        for device in [one for identifier, one in before.items() if identifier not in shelf.present]:
            self._happened(device, False, self.removed)
        for device in [one for identifier, one in shelf.present.items() if identifier not in before]:
            self._happened(device, True, self.inserted)
        return True

    def _happened(self, device: TokenDevice, present: bool, listeners: Sequence[Callable[[TokenDevice], None]]) -> None:
        self._tell(device, present)
        for listener in listeners:
            listener(device)

    async def inventory(self, device: TokenDevice) -> TokenInventory:
        """Keys and certificates. Raises CardInOperation, Pkcs11Error."""
        return await self._run(Kind.READ, device, device.token.inventory)

    async def pin_state(self, device: TokenDevice) -> PinState:
        """State of the user PIN; no try is spent. Raises CardInOperation, Pkcs11Error."""
        return await self._run(Kind.READ, device, device.token.pin_state)

    async def change_pin(
        self, device: TokenDevice, prompter: Prompter, rules: PinRules, *, last_try: bool = False
    ) -> None:
        """The old PIN to a new one, both asked for. Raises CardInOperation, NoPin, Pkcs11Error."""
        from cardwright_cardops.pkcs11.errors import PinIncorrect

        act = f"change the PIN of {device.name}"

        async def work(operation: Operation) -> None:
            error = ""
            while True:
                longest, pins = device.token.info.max_pin_length, StagePins()
                try:
                    with operation.prompting():
                        asked = ask_current(prompter, PinReference.PIN, act, None, error=error, longest=longest)
                        old = pins.current = await while_in(device, asked)
                        new = pins.new = await while_in(device, ask_new(prompter, PinReference.PIN, act, rules, old))
                    with operation.writing():
                        send = partial(device.token.change_pin, old, new, spend_last_try=last_try)
                        await device.worker.run(send)
                    return
                except PinIncorrect:
                    # The token reads its flags anew before each try and refuses the last one by itself.
                    error = "It was wrong."
                finally:
                    pins.wipe()

        await self._operations.run(Kind.CHANGE_PIN, device, work)

    async def _run(self, kind: Kind, device: TokenDevice, work: Callable[[], T]) -> T:
        async def read(operation: Operation) -> T:
            return await device.worker.run(work)

        return await self._operations.run(kind, device, read)


def pause_after(look_seconds: float, failed: int) -> float:
    """Seconds to the next look, after so many that failed."""
    return max(look_seconds, min(look_seconds * 2.0 ** min(failed, 16), LONGEST_PAUSE))


def _id_of(path: str, token: Token) -> str:
    identity = token.info.identity
    text = "\x00".join((path, identity.label, identity.serial, identity.manufacturer, identity.model))
    return TOKEN + hashlib.sha256(text.encode()).hexdigest()[:24]
