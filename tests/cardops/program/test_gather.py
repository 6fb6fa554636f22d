"""gather: reads of several programs in one batch, everything else alone and in order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.piv import commands
from cardwright_cardops.program.gather import gather
from cardwright_cardops.program.items import Answer, Answers, AnyBatch, Apdu, Batch, Outcome, Program, VerifyPin, ask
from cardwright_cardops.program.runner import run, run_async


class Recorder:
    """An executing end that answers each item with its own command, and remembers the batches."""

    def __init__(self) -> None:
        self.batches: list[list[list[str]]] = []
        self.ended = 0

    def execute(self, batch: AnyBatch) -> Answers:
        assert isinstance(batch, Batch)
        self.batches.append([[name(item) for item in group.items] for group in batch.groups])
        return tuple(
            tuple(Answer(Outcome.ANSWERED, 0x9000, name(item).encode()) for item in group.items)
            for group in batch.groups
        )

    def end_stage(self) -> None:
        self.ended += 1


def name(item: object) -> str:
    return item.command.data.hex() if isinstance(item, Apdu) else type(item).__name__


def reads(*tags: int) -> Program[list[str]]:
    found = []
    for tag in tags:
        answer, = yield from ask(Apdu(commands.get_data(tag)))
        found.append(answer.data.decode())
    return found


def selects(tag: int) -> Program[str]:
    answer, = yield from ask(Apdu(CommandAPDU(0, 0xA4, 4, 0, bytes((tag,)))))
    return answer.data.decode()


def test_reads_travel_together_and_results_keep_their_order() -> None:
    end = Recorder()
    assert run(gather(reads(0x30, 0x31), reads(0x32)), end) == (["5c0130", "5c0131"], ["5c0132"])
    assert end.batches == [[["5c0130"], ["5c0132"]], [["5c0131"]]]


def test_what_selects_or_verifies_goes_alone() -> None:
    def verifies() -> Program[bool]:
        answer, = yield from ask(VerifyPin())
        return answer.ok

    end = Recorder()
    assert run(gather(reads(0x30), selects(0x01), verifies()), end) == (["5c0130"], "01", True)
    assert sorted(end.batches) == sorted([[["01"]], [["VerifyPin"]], [["5c0130"]]])


@pytest.mark.parametrize(
    ("command", "merged"),
    [
        (commands.pin_state(), True),
        (commands.clear_status(), False),
        (CommandAPDU(0, 0xF7, 0, 0x9A), True),
        (CommandAPDU(0, 0x87, 3, 0x9B), False),
        (commands.put_data(0x30, b""), False),
        (CommandAPDU(0, 0x47, 0, 0x9A), False),
    ],
)
def test_only_commands_without_effect_are_merged(command: CommandAPDU, merged: bool) -> None:
    def one() -> Program[None]:
        yield from ask(Apdu(command))

    end = Recorder()
    run(gather(one(), reads(0x30)), end)
    assert (len(end.batches) == 1) is merged


@given(st.lists(st.lists(st.integers(1, 0x7E).filter(lambda tag: tag & 0x1F != 0x1F), max_size=4), max_size=4))
def test_as_many_batches_as_the_longest_program(plans: list[list[int]]) -> None:
    end = Recorder()
    found = run(gather(*[reads(*tags) for tags in plans]), end)
    assert list(found) == [[f"5c01{tag:02x}" for tag in tags] for tags in plans]
    assert len(end.batches) == max((len(tags) for tags in plans), default=0)


def test_a_program_that_fails_ends_them_all() -> None:
    closed = []

    def fails() -> Program[None]:
        yield from ask(Apdu(commands.get_data(0x30)))
        raise CardwrightError("no")

    def waits() -> Program[None]:
        try:
            yield from ask(Apdu(commands.get_data(0x31)))
            yield from ask(Apdu(commands.get_data(0x32)))
        finally:
            closed.append(True)

    with pytest.raises(CardwrightError):
        run(gather(fails(), waits()), Recorder())
    assert closed == [True]


def test_the_async_runner_runs_the_same_programs() -> None:
    inner = Recorder()

    class Line:
        async def execute(self, batch: AnyBatch) -> Answers:
            await asyncio.sleep(0)
            return inner.execute(batch)

        async def end_stage(self) -> None:
            inner.end_stage()

    assert asyncio.run(run_async(gather(reads(0x30), reads(0x31)), Line())) == (["5c0130"], ["5c0131"])
    assert inner.batches == [[["5c0130"], ["5c0131"]]] and inner.ended == 1


def test_a_lost_line_is_thrown_into_the_program() -> None:
    class Lost:
        ended = 0

        async def execute(self, batch: AnyBatch) -> Answers:
            raise CardwrightError("line lost")

        async def end_stage(self) -> None:
            self.ended += 1

    def program() -> Program[str]:
        try:
            yield from ask(Apdu(commands.get_data(0x30)))
        except CardwrightError as error:
            return error.message
        return ""

    line = Lost()
    assert asyncio.run(run_async(program(), line)) == "line lost"
    assert line.ended == 1
