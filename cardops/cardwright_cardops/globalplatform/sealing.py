"""Sealed batches: commands wrapped ahead for an executing end that cannot read them, and their answers.

    sealed = seal(channel, commands)
    answers = sealed.open(executor.execute(sealed.batch))

After ``open`` the channel stands behind the last command that the card executed, so what was not sent can be
sealed again. After a doubt it is closed: whether the card counted the command is not known, so only a new
channel can go on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..iso7816.apdu import CLA_CHAINING, MAX_SHORT_DATA, MAX_SHORT_LE, CommandAPDU, ResponseAPDU
from ..program.items import Answer, Answers, Outcome, SealedBatch, SealedItem
from .channel import ChannelState, Scp03Channel, Scp03CommandUnfit, Scp03ResponseInvalid


@dataclass(frozen=True, slots=True)
class Sealed:
    """A batch and what is needed to read its answers. ``open`` is called once."""

    batch: SealedBatch
    channel: Scp03Channel
    before: ChannelState
    after: tuple[ChannelState, ...]

    def open(self, answers: Answers) -> tuple[Answer, ...]:
        """The plain answers, one for each command.

        An answer whose protection is wrong becomes an answer in doubt with Scp03ResponseInvalid as its cause.
        Raises Scp03ResponseInvalid (and closes the channel) when there are not as many answers as commands.
        """
        received = answers[0] if len(answers) == 1 else ()
        if len(received) != len(self.after):
            self.channel.close()
            raise Scp03ResponseInvalid(f"{len(self.after)} commands got {len(received)} answers.")
        opened, stand = [], self.before
        for answer, state in zip(received, self.after, strict=True):
            if answer.outcome is Outcome.ANSWERED and answer.sw is not None and not self.channel.closed:
                answer = self._unwrap(answer, answer.sw, state)
                stand = state
            if answer.outcome is Outcome.IN_DOUBT:
                self.channel.close()
            opened.append(answer)
        if not self.channel.closed:
            self.channel.restore(stand)
        return tuple(opened)

    def _unwrap(self, answer: Answer, sw: int, state: ChannelState) -> Answer:
        try:
            plain = self.channel.unwrap(ResponseAPDU(answer.data, sw), after=state)
        except Scp03ResponseInvalid as error:
            return Answer(Outcome.IN_DOUBT, sw, cause=error)
        return Answer(Outcome.ANSWERED, plain.sw, plain.data, answer.cause)


def seal(
    channel: Scp03Channel,
    commands: Sequence[CommandAPDU],
    *,
    stage: str = "",
    max_data: int = MAX_SHORT_DATA,
    each_block: bool = False,
) -> Sealed:
    """Wrap ``commands`` for one batch.

    Up to ``max_data`` octets go into one APDU (an extended one above 255), more are chained. ``each_block`` is for
    cards that protect the blocks of a chain one by one. Where answers carry a MAC, a command without Le gets
    one, which saves a GET RESPONSE. Raises Scp03CommandUnfit (the channel then stands where
    it stood) and Scp03ChannelClosed.
    """
    before = channel.snapshot()
    items: list[SealedItem] = []
    after: list[ChannelState] = []
    try:
        for plain in commands:
            command = plain
            if channel.level.macs_responses and not plain.le:
                command = CommandAPDU(plain.cla, plain.ins, plain.p1, plain.p2, plain.data, MAX_SHORT_LE)
            if each_block:
                wrapped = [channel.wrap(block) for block in channel.split(command)]
            else:
                wrapped = _blocks(channel.wrap(command), max_data)
            apdus = tuple(block.encode(extended=len(block.data) > MAX_SHORT_DATA) for block in wrapped)
            items.append(SealedItem(wrapped[-1].header, apdus))
            after.append(channel.snapshot())
    except Scp03CommandUnfit:
        channel.restore(before)
        raise
    return Sealed(SealedBatch(tuple(items), stage), channel, before, tuple(after))


def _blocks(wrapped: CommandAPDU, max_data: int) -> list[CommandAPDU]:
    """``wrapped`` as it is, or as a chain of short APDUs."""
    size = len(wrapped.data)
    if size <= max(max_data, MAX_SHORT_DATA):
        return [wrapped]
    pieces = [wrapped.data[at : at + MAX_SHORT_DATA] for at in range(0, size, MAX_SHORT_DATA)]
    last = len(pieces) - 1
    return [
        CommandAPDU(
            wrapped.cla if index == last else wrapped.cla | CLA_CHAINING,
            wrapped.ins,
            wrapped.p1,
            wrapped.p2,
            piece,
            min(wrapped.le, MAX_SHORT_LE) if index == last else 0,
        )
        for index, piece in enumerate(pieces)
    ]
