"""Several programs side by side: their reads travel in one batch."""

from __future__ import annotations

from typing import Any

from .items import Answers, AnyBatch, Batch, Group, Program


def gather(*programs: Program[Any], stage: str = "") -> Program[tuple[Any, ...]]:
    """Run ``programs`` in step and return their values in order.

    In each step the batches that only read are merged into one; every other batch goes alone, in the order of
    the programs, so no two programs ever disturb each other's selection or security status. A program that
    raises ends them all.
    """
    results: list[Any] = [None] * len(programs)
    waiting: dict[int, AnyBatch] = {}

    def advance(index: int, answers: Answers | None) -> None:
        waiting.pop(index, None)
        try:
            program = programs[index]
            waiting[index] = next(program) if answers is None else program.send(answers)
        except StopIteration as done:
            results[index] = done.value

    try:
        for index in range(len(programs)):
            advance(index, None)
        while waiting:
            reading = {index: groups for index, batch in waiting.items() if (groups := _reads_of(batch))}
            for index in [index for index in waiting if index not in reading]:
                advance(index, (yield waiting[index]))
            if not reading:
                continue
            answers = yield Batch(tuple(group for groups in reading.values() for group in groups), stage)
            start = 0
            for index, groups in reading.items():
                advance(index, answers[start : start + len(groups)])
                start += len(groups)
    finally:
        for program in programs:
            program.close()
    return tuple(results)


def _reads_of(batch: AnyBatch) -> tuple[Group, ...]:
    """The groups of a batch that only reads; none of any other batch."""
    if isinstance(batch, Batch) and all(group.only_reads for group in batch.groups):
        return batch.groups
    return ()
