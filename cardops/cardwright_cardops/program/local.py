"""The executing end for a card on this machine: transactions, items to APDUs, outcomes to answers."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Protocol

from ..errors import CardwrightError
from ..iso7816.apdu import CommandAPDU, MalformedApdu, ResponseAPDU
from ..iso7816.exchange import BrokenExchange, Exchange, Limits, Sends
from ..iso7816.status import SW
from ..transport.connection import Connection, TransportError
from .items import (
    INS_GENERAL_AUTHENTICATE,
    INS_SELECT,
    NOT_SENT,
    Answer,
    Answers,
    AnyBatch,
    Apdu,
    Batch,
    Item,
    ItemRefused,
    KeyItem,
    Outcome,
    SealedBatch,
    SealedItem,
    UnexpectedAnswer,
    Want,
    refusal,
)

log = logging.getLogger(__name__)

_ISSUER_SECURITY_DOMAIN = bytes.fromhex("A000000151000000")
_CLEAR_PIN = CommandAPDU(0x00, 0x20, 0xFF, 0x80)
_SELECT_OTHER = CommandAPDU(0x00, INS_SELECT, 0x04, 0x00, _ISSUER_SECURITY_DOMAIN, 256)
_MANAGEMENT_KEY = 0x9B


class KeyItemHandler(Protocol):
    """What builds and sends key items; ``piv.key_items.KeyItems`` is the one there is."""

    pin_used: bool

    def prepare(self, items: Iterable[Item]) -> None:
        """Ask the person for what ``items`` will need. Raises CardwrightError when it is not given."""

    def perform(self, item: KeyItem, card: Sends) -> Answer:
        """Send one key item."""

    def observe(self, command: CommandAPDU, response: ResponseAPDU) -> None:
        """See one answered APDU item."""

    def forget(self) -> None:
        """A transaction begins."""


class LocalExecutor:
    """Executes batches on one Connection. Not safe for two threads at once.

    A batch without a stage is a short transaction of its own. The batches of a stage share one transaction,
    which ends with the next batch of another stage, with ``end_stage``, or when the card is lost; ending it drops
    PIN and management-key status: VERIFY with P1=FF where only a PIN was verified, else SELECT of another
    application, else a reset of the card.
    """

    def __init__(self, connection: Connection, key_items: KeyItemHandler, limits: Limits | None = None) -> None:
        self._connection = connection
        self._keys = key_items
        self._plain = Exchange(connection, limits)
        self._card: Sends = self._plain
        self._stage = ""
        self._open = ExitStack()
        self._managing = False
        self.drops_status = True
        """Whether the end of a transaction drops security statuses; a bare measurement switches it off."""

    @property
    def limits(self) -> Limits:
        """What is known of the card's APDU sizes."""
        return self._plain.limits

    def use_channel(self, channel: Sends | None) -> None:
        """Send items through ``channel`` (PIV secure messaging) from now on; None goes back to plain."""
        self._card = channel or self._plain

    @property
    def plain(self) -> Exchange:
        """The exchange below any secure channel."""
        return self._plain

    def execute(self, batch: AnyBatch) -> Answers:
        """Execute ``batch``; outcomes are in the answers. Raises ItemRefused before anything is sent."""
        if isinstance(batch, Batch):
            for group in batch.groups:
                for item in group.items:
                    if isinstance(item, Apdu) and (reason := refusal(item.command)):
                        raise ItemRefused(f"An item of the program is refused: {reason}.")
        try:
            # People take their time: whatever has to be asked is asked before the transaction.
            if isinstance(batch, Batch):
                self._keys.prepare(batch.items)
            self._enter(batch.stage)
        except CardwrightError as error:
            unsent = Answer(Outcome.NOT_SENT, cause=error)
            return _fill(batch, [], unsent, unsent)
        done: list[list[Answer]] = []
        try:
            self._connection.perform(lambda: self._work(batch, done))
        except TransportError as error:
            # Only a deadline ends here: the item that hangs may still take effect.
            return _fill(batch, done, Answer(Outcome.IN_DOUBT, cause=error))
        finally:
            if not batch.stage:
                self._leave()
        return _fill(batch, done)

    def _work(self, batch: AnyBatch, done: list[list[Answer]]) -> None:
        """Execute ``batch``; ``done`` always holds what is known so far."""
        if isinstance(batch, SealedBatch):
            self._sealed(batch, done)
        else:
            self._groups(batch, done)

    def begin_stage(self, stage: str) -> None:
        """Open the transaction of ``stage`` before its first batch. Raises TransportError: CardBusy and others."""
        self._enter(stage)

    def end_stage(self) -> None:
        """End the open transaction, if any, dropping every security status. Never raises."""
        if self._stage:
            self._leave()

    def _enter(self, stage: str) -> None:
        if stage and stage == self._stage:
            return
        self.end_stage()
        self._open.enter_context(self._connection.transaction())
        self._stage = stage
        self._keys.forget()
        self._managing = False

    def _leave(self) -> None:
        try:
            if self.drops_status and (self._managing or self._keys.pin_used):
                self._drop_status()
        except CardwrightError as error:
            # The card is gone or was reset: its statuses went with it.
            log.debug("statuses not dropped: %s", error.code)
        finally:
            self._stage = ""
            self._managing = False
            self._keys.pin_used = False
            self._open.close()

    def _drop_status(self) -> None:
        if not self._managing and self._plain.send(_CLEAR_PIN).sw == SW.OK:
            return
        if self._plain.send(_SELECT_OTHER).sw != SW.OK:
            self._connection.reset()

    def _groups(self, batch: Batch, done: list[list[Answer]]) -> None:
        for group in batch.groups:
            answers: list[Answer] = []
            done.append(answers)
            for item in group.items:
                answer, go_on, fatal = self._item(item)
                answers.append(answer)
                if not go_on:
                    answers.extend((NOT_SENT,) * (len(group.items) - len(answers)))
                    if fatal or group.essential:
                        return
                    break

    def _item(self, item: Item) -> tuple[Answer, bool, bool]:
        """The answer to ``item``, whether its group goes on, and whether the batch must end."""
        try:
            if not isinstance(item, Apdu):
                answer = self._keys.perform(item, self._card)
                return answer, answer.ok, not answer.ok
            command = item.command
            response = self._card.send(command)
        except BrokenExchange as error:
            return Answer(Outcome.IN_DOUBT, error.sw, cause=error), False, error.sw is None
        except TransportError as error:
            outcome = Outcome.IN_DOUBT if error.sent else Outcome.NOT_SENT
            return Answer(outcome, cause=error), False, True
        except MalformedApdu as error:
            return Answer(Outcome.IN_DOUBT, cause=error), False, True
        except CardwrightError as error:
            # A key item that was not sent: no PIN, the last try, an answer that is none.
            return Answer(Outcome.NOT_SENT, cause=error), False, True
        sw = response.sw
        self._keys.observe(command, response)
        if command.ins == INS_GENERAL_AUTHENTICATE and command.p2 == _MANAGEMENT_KEY:
            self._managing = True
        elif command.ins == INS_SELECT:
            self._managing = self._managing and sw != SW.OK
        data = response.data
        if item.expect is not None and hashlib.sha256(data).digest() != item.expect:
            cause = UnexpectedAnswer("The card answered other data than this batch is meant for.")
            return Answer(Outcome.ANSWERED, sw, cause=cause), False, True
        if item.want is not Want.DATA:
            data = hashlib.sha256(data).digest() if item.want is Want.DIGEST else b""
        return Answer(Outcome.ANSWERED, sw, data), sw in item.accept, False

    def _sealed(self, batch: SealedBatch, done: list[list[Answer]]) -> None:
        answers: list[Answer] = []
        done.append(answers)
        for item in batch.items:
            answers.append(self._sealed_item(item))
            if not answers[-1].ok:
                return

    def _sealed_item(self, item: SealedItem) -> Answer:
        """Send wrapped APDUs as they are; only the answer is put together here."""
        response = ResponseAPDU(b"", SW.OK)
        for number, raw in enumerate(item.apdus):
            try:
                command = CommandAPDU.parse(raw)
                response = self._plain.send(command)
            except TransportError as error:
                sent = error.sent or number > 0
                return Answer(Outcome.IN_DOUBT if sent else Outcome.NOT_SENT, cause=error)
            except (BrokenExchange, MalformedApdu) as error:
                return Answer(Outcome.IN_DOUBT, getattr(error, "sw", None), cause=error)
            if response.sw != SW.OK:
                doubtful = number < len(item.apdus) - 1
                return Answer(Outcome.IN_DOUBT if doubtful else Outcome.ANSWERED, response.sw, response.data)
        return Answer(Outcome.ANSWERED, response.sw, response.data)


def _fill(
    batch: AnyBatch, done: list[list[Answer]], first: Answer = NOT_SENT, rest: Answer = NOT_SENT
) -> Answers:
    """The answers of the whole batch: what is ``done``, ``first`` for the next item, ``rest`` for the others."""
    sizes = [len(batch.items)] if isinstance(batch, SealedBatch) else [len(group.items) for group in batch.groups]
    answers: list[tuple[Answer, ...]] = []
    for index, size in enumerate(sizes):
        known = tuple(done[index]) if index < len(done) else ()
        if len(known) < size:
            known += (first, *(rest,) * (size - len(known) - 1))
            first = rest
        answers.append(known)
    return tuple(answers)
