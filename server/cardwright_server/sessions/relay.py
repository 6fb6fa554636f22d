"""The line to a workstation as the executions of a session see it."""

from __future__ import annotations

from functools import partial

from cardwright_cardops import wire
from cardwright_cardops.program.items import Answers, AnyBatch, SealedBatch

from .errors import ConsentRefused, PeerTooOld
from .ledger import Ledger
from .model import Greeting, SessionEvent, Showing
from .ports import Line


class Relay:
    """The line as executions see it: records first, and only what the other end knows."""

    def __init__(self, line: Line, ledger: Ledger, greeting: Greeting, showing: Showing | None = None) -> None:
        self._line = line
        self._ledger = ledger
        self._greeting = greeting
        self._showing = showing

    async def execute(self, batch: AnyBatch) -> Answers:
        """Commit what the batch makes true, then send it: the first one, which only reads, with the preview.

        Raises PeerTooOld, SessionLost, LineLost, ConsentRefused.
        """
        message = wire.batch_to_wire(batch)
        if isinstance(batch, SealedBatch):
            raise PeerTooOld("This contract has no sealed sessions.")
        kinds = {item.WhichOneof("kind") or "" for group in message.open.groups for item in group.items}
        if unknown := kinds - self._greeting.items:
            raise PeerTooOld(f"The workstation does not know {', '.join(sorted(unknown))}.")
        if message.ByteSize() > self._greeting.max_batch:
            raise PeerTooOld(f"A batch has {message.ByteSize()} octets, the workstation takes fewer.")
        await self._ledger.commit()
        showing, self._showing = self._showing, None
        if showing is None:
            return await self._line.execute(batch)
        answers = await self._line.show(showing, batch, partial(self._ledger.agreed, showing.plan.digest))
        if answers is None:
            raise ConsentRefused("The person did not agree to the plan.")
        self._ledger.later(SessionEvent.EXECUTE)
        return answers

    async def end_stage(self) -> None:
        """The stage is over."""
        await self._line.end_stage()
