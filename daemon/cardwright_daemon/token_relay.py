"""The executing end of a session on a PKCS#11 token: the server's steps, under the guard, on the token of the preview.

A token has no transactions: whoever is logged in stays so in the module's process, which is ours alone, until the
session lets go. The PIN is asked for once, after consent, and proved right by the login itself; where the process
ended, the next steps log in again with it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard import Deny, GuardRefused, Permit
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.tokens import TokenGuard, begin_token
from cardwright_cardops.piv.pins import NoPin
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.pin_rules import PinRules
from cardwright_cardops.plan.token import TokenAnswer, TokenFeatures
from cardwright_cardops.program.token_items import TOKEN_ITEMS, TokenBatch
from cardwright_cardops.secret import Secret

from .asking import while_in
from .errors import StageEnded
from .link.ports import (
    EndStage,
    ExecuteSteps,
    Finished,
    Greeted,
    Message,
    Outcome,
    Preview,
    Progress,
    ServerUnreachable,
    SignInChallenge,
)
from .operations import Operation, Phase
from .prompts import Prompter, ask_current, ask_new
from .relay import SILENCE_SECONDS, Answer, Approved, Show, Wants
from .tokens import TokenDevice

if TYPE_CHECKING:
    from cardwright_cardops.plan.token_steps import TokenExecutor

_log = logging.getLogger(__name__)

ITEMS: Final = tuple(TOKEN_ITEMS.values())


@dataclass(eq=False)
class TokenStagePins:
    """What was asked for; a new PIN is also the current one once it was set."""

    current: Secret | None = None
    new: Secret | None = None

    def current_pin(self) -> Secret:
        """See ``TokenPins``. Raises NoPin."""
        value = self.current or self.new
        if value is None:
            raise NoPin("The PIN was not asked for before this session.")
        return value

    def new_pin(self) -> Secret:
        """See ``TokenPins``. Raises NoPin."""
        if self.new is None:
            raise NoPin("No new PIN was asked for before this session.")
        return self.new

    def wipe(self) -> None:
        """Forget both."""
        for value in (self.current, self.new):
            if value is not None:
                value.wipe()


async def look_at(device: TokenDevice) -> tuple[TokenFeatures, Inventory]:
    """The token as it shows itself to everybody. Raises Pkcs11Error."""

    def read() -> tuple[TokenFeatures, Inventory]:
        from cardwright_cardops.plan.token_state import features_of, inventory_of

        device.token.refresh()
        return features_of(device.token), inventory_of(device.token, device.token.inventory())

    return await device.worker.run(read)


@dataclass(eq=False)
class RelayedToken:
    """One token in one session. For one event loop; module calls happen on the module's worker.

    ``approve`` replaces the guard's state by that of an approved plan; before it, reading only is allowed.
    """

    card: TokenDevice
    operation: Operation
    prompter: Prompter
    act: str
    rules: PinRules = field(default_factory=PinRules)
    silence_seconds: float = SILENCE_SECONDS

    def __post_init__(self) -> None:
        from cardwright_cardops.plan.token_steps import TokenExecutor

        self._pins = TokenStagePins()
        self._proved = False
        self._executor: TokenExecutor = TokenExecutor(self.card.token, self._pins, _begun(begin_token(Permit(b""))))
        self.batches = 0
        """How many were executed."""

    async def meet(self, inventory: Inventory) -> None:
        """Find out whether the token can show, without a login, that it is this one. Raises Pkcs11Error."""
        from cardwright_cardops.plan.token_steps import shows_itself

        self._proved = await self.card.worker.run(lambda: shows_itself(self.card.token, inventory))

    @property
    def touched(self) -> frozenset[int]:
        """Slots whose key the session changed, or may have."""
        return self._executor.state.touched

    @staticmethod
    def wants(permit: Permit) -> Wants:
        """What the person will be asked for: all but PINs is written behind the login."""
        operations = [entry.operation for entry in permit.entries]
        new = any(isinstance(one, o.UnblockPin) for one in operations)
        writes = any(not isinstance(one, o.UnblockPin | o.ChangePuk) for one in operations)
        return Wants(writes and not new, new)

    async def approve(self, approved: Approved) -> None:
        """Allow ``approved``, ask what it needs, and log in, on the token of the preview.

        Raises PreviewUnfit, NoPin, GuardRefused, Pkcs11Error.
        """
        from cardwright_cardops.plan.token_steps import require_same

        token, shown, proved = self.card.token, approved.inventory, self._proved
        await self.card.worker.run(lambda: require_same(token, shown, proved=proved))
        permit, plan = approved.permit, bytes.fromhex(approved.plan.digest)
        self._executor.state = _begun(begin_token(permit, plan=plan))
        wants = self.wants(permit)
        if wants.new:
            with self.operation.prompting():
                asked = ask_new(self.prompter, PinReference.PIN, self.act, self.rules)
                self._pins.new = await while_in(self.card, asked)
        if wants.current:
            await self.logged_in()
        self._executor.logs_in = wants.current

    async def logged_in(self) -> Secret:
        """The PIN that the token took, kept until ``close``. A slip costs a question while the token does not say that
        one try is left. Raises NoPin, Pkcs11Error.
        """
        from cardwright_cardops.pkcs11.errors import PinIncorrect

        error = ""
        while True:
            longest = self.card.token.info.max_pin_length
            with self.operation.prompting():
                asked = ask_current(self.prompter, PinReference.PIN, self.act, None, error=error, longest=longest)
                pin = await while_in(self.card, asked)
            try:
                await self.card.worker.run(lambda pin=pin: self._executor.log_in(pin))  # type: ignore[misc]
                self._pins.current = pin
                return pin
            except PinIncorrect:
                pin.wipe()
                error = "It was wrong."
            except BaseException:
                pin.wipe()
                raise

    async def execute(self, batch: TokenBatch) -> tuple[TokenAnswer, ...]:
        """Carry steps out. Raises GuardRefused, NoPin, Pkcs11Error."""
        self.operation.show(phase=Phase.WORKING, cancellable=False)
        try:
            return await self.card.worker.run(lambda: self._executor.execute(batch))
        finally:
            self.batches += 1
            if not self.operation.over:
                self.operation.show(cancellable=True)

    async def close(self) -> None:
        """Log out and forget everything. Never raises; not to be cancelled in the middle."""
        await asyncio.shield(self._close())

    async def _close(self) -> None:
        try:
            await self.card.worker.run(self._executor.close)
        finally:
            self._pins.wipe()

    async def follow(self, messages: AsyncIterator[Message], answer: Answer, show: Show) -> Preview | Outcome:
        """Do what the server says, until it shows a plan or ends. Raises what ``messages`` and ``answer`` raise."""
        while True:
            try:
                async with asyncio.timeout(self.silence_seconds):
                    message = await anext(messages)
            except StopAsyncIteration:
                raise StageEnded("The server ended the session without a word.") from None
            except TimeoutError:
                raise ServerUnreachable(f"The server said nothing for {self.silence_seconds:.0f} s.") from None
            match message:
                case Preview():
                    return message
                case Finished(outcome=outcome):
                    return outcome
                case Progress():
                    show(message)
                case ExecuteSteps(number=number, batch=batch):
                    await answer(number, await self._answered(batch))
                case Greeted() | EndStage():
                    pass
                case _:
                    raise StageEnded("The server sent commands for a card to a PKCS#11 token.")

    async def _answered(self, batch: TokenBatch) -> tuple[TokenAnswer, ...] | CardwrightError:
        try:
            return await self.execute(batch)
        except CardwrightError as error:
            _log.warning("steps were not carried out: %s", error.code)
            return error


async def signed_in(
    device: TokenDevice, operation: Operation, prompter: Prompter, act: str, challenge: SignInChallenge
) -> bytes:
    """``challenge`` signed by the key in 9A, behind a PIN that is asked for now. Raises NoPin, Pkcs11Error."""
    from cardwright_cardops.plan.token_steps import prove

    relayed = RelayedToken(device, operation, prompter, act)
    try:
        pin = await relayed.logged_in()
        with operation.writing():
            return await device.worker.run(
                lambda: prove(
                    device.token, Slot.AUTHENTICATION, challenge.audience, challenge.nonce, pin=lambda: pin
                )
            )
    finally:
        await relayed.close()


def _begun(state: TokenGuard | Deny) -> TokenGuard:
    if isinstance(state, Deny):
        raise GuardRefused(state)
    return state


__all__ = ["ITEMS", "RelayedToken", "look_at", "signed_in"]
