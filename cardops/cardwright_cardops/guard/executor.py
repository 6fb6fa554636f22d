"""An executing end that asks the guard first: what the daemon puts between a server and a card."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from ..program.items import Answer, Answers, AnyBatch, ItemRefused, Outcome, SealedBatch
from .identity import NONCE_OCTETS, check_proof, proof_batch
from .judge import judge, observe
from .state import State
from .verdict import Deny, Rule


class Executes(Protocol):
    """The executing end behind the guard; ``program.local.LocalExecutor`` is one."""

    def execute(self, batch: AnyBatch) -> Answers:
        """Execute ``batch``. Raises ItemRefused before anything is sent."""

    def end_stage(self) -> None:
        """End the open transaction, if any."""


class GuardRefused(ItemRefused):
    """The guard refuses a batch: it is not what the preview showed. ``rule`` is one of docs/guard.md.

    ``index`` is the item's place in the batch.
    """

    code = "GUARD_REFUSED"
    default_effect = "Nothing of this batch was sent to the card."
    default_advice = "Start again with a new preview. If it happens again, the server is defective or hostile."

    def __init__(self, denied: Deny) -> None:
        super().__init__(f"The guard refused the server's request ({denied.rule.value}): {denied.reason}.")
        self.rule = denied.rule
        self.index = denied.index


class GuardedExecutor:
    """Executes what the guard allows, and lets the card prove itself where that matters.

    ``state`` comes from ``begin``. ``unbroken`` says whether the card has neither been reset nor left the reader since
    the preview; only a card that cannot prove itself depends on it. Not safe for two threads at once.
    """

    def __init__(
        self,
        executor: Executes,
        state: State,
        *,
        unbroken: Callable[[], bool] = lambda: False,
        random: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._executor = executor
        self._unbroken = unbroken
        self._random = random
        self.state = state

    def execute(self, batch: AnyBatch) -> Answers:
        """Execute ``batch`` as the executor behind does. Raises GuardRefused before anything of it is sent."""
        verdict = judge(self.state, batch)
        if isinstance(verdict, Deny):
            raise GuardRefused(verdict)
        if verdict.proof:
            self.state = self.state.enter(batch.stage)
            failure = None if self.state.proven else self._prove(batch.stage)
            if failure is not None:
                return _unsent(batch, failure)
        answers = self._sent(batch)
        self.state = observe(self.state, batch, answers)
        return answers

    def end_stage(self) -> None:
        """End the open transaction, if any: the card has to prove itself again in the next one."""
        self.state = self.state.enter("")
        self._executor.end_stage()

    def _prove(self, stage: str) -> Answer | None:
        """Let the card prove itself in the transaction of ``stage``; the failing answer where it was lost meanwhile.

        Raises GuardRefused for another card, after which nothing more is allowed.
        """
        if self.state.card_key is None and not self._unbroken():
            self._lose("the card was reset or taken out and cannot prove that it is the same one")
        nonce = self._random(NONCE_OCTETS)
        asked = proof_batch(self.state, stage, nonce)
        (answers,) = self._sent(asked)
        for answer in answers:
            if answer.outcome is not Outcome.ANSWERED and answer.cause is not None:
                return answer
        checked = check_proof(self.state, answers, nonce)
        if isinstance(checked, Deny):
            self._lose(checked.reason)
        else:
            self.state = checked
        return None

    def _sent(self, batch: AnyBatch) -> Answers:
        try:
            return self._executor.execute(batch)
        except ItemRefused:
            raise
        except BaseException:
            # What of it reached the card is not known here, so nothing more is allowed on the old knowledge.
            self.state = replace(self.state, lost="the executing end failed; it needs a new preview")
            raise

    def _lose(self, reason: str) -> None:
        self.state = replace(self.state, lost=reason)
        raise GuardRefused(Deny(Rule.PLAN, reason))


def _unsent(batch: AnyBatch, failure: Answer) -> Answers:
    answer = Answer(Outcome.NOT_SENT, cause=failure.cause)
    if isinstance(batch, SealedBatch):
        return ((answer,) * len(batch.items),)
    return tuple((answer,) * len(group.items) for group in batch.groups)
