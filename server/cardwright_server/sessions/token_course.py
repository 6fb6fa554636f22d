"""The course of a session on a PKCS#11 token: plan, show, read again, carry steps out, read back.

The records, the authority and the laws are those of a card: what a step changes is committed before it is sent, and
whatever breaks off, the next session reads the token and plans again.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Final, TypeVar

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops import wire_tokens
from cardwright_cardops.piv.algorithms import PinPolicy, PrivateKey, PublicKey
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, verify
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan import authority as ask
from cardwright_cardops.plan.acts import expect
from cardwright_cardops.plan.candidates import PukUnknown, puk_candidates
from cardwright_cardops.plan.capabilities import CapabilityMissing
from cardwright_cardops.plan.execute import CertificateUnfit
from cardwright_cardops.plan.init import PlanChanged
from cardwright_cardops.plan.inventory import Inventory, fingerprint, public_key
from cardwright_cardops.plan.planner import KeyInUse
from cardwright_cardops.plan.policy import slot_pin_policy
from cardwright_cardops.plan.records import DEFAULT, Entry, Kind, Records, fold, require_same_card
from cardwright_cardops.plan.steps import (
    DeleteKey,
    GenerateKey,
    ImportKey,
    Plan,
    SetPin,
    SetPuk,
    Step,
    WriteCertificate,
)
from cardwright_cardops.plan.token import TokenAnswer, TokenFeatures, plan_token, require_able, token_policy
from cardwright_cardops.program import token_items as t
from cardwright_cardops.program.items import Outcome as Did
from cardwright_cardops.secret import Secret

from ..devices.model import SecretName
from ..store.columns import canonical
from ..store.unit import Database
from .authority import SessionAuthority
from .course import as_delivered, what_goes, worn
from .errors import CardNotProven, ConsentRefused, NotAtGoal, PeerTooOld, WrongCard
from .ledger import Ledger
from .model import Greeting, Outcome, Purpose, SessionEvent, Showing
from .ports import Escrow, Line, Task

S = TypeVar("S", bound=Step)

_E = SessionEvent
_KNOWN: Final = frozenset(
    {
        Purpose.ISSUE, Purpose.UPDATE, Purpose.REISSUE,
        Purpose.UNLOCK, Purpose.UNLOCK_ASSISTED, Purpose.FORGOTTEN_PIN,
    }
)  # fmt: skip
_WRONG_PIN: Final = "PKCS11_PIN_INCORRECT"

MakesAuthority = Callable[[Task], SessionAuthority]
Pending = Callable[[Task, Inventory], Awaitable[Task]]


@dataclass(frozen=True, slots=True)
class Conclusion:
    """How it ended well: ``card`` is the token as it was read last, ``events`` are what its machine has to go through.
    """

    task: Task
    outcome: Outcome
    card: Inventory
    events: tuple[SessionEvent, ...] = ()


class TokenCourse:
    """One session on one token, between its opening and its end.

    ``without_pending`` leaves slots out that wait for certificates; ``prover`` is the key in 9E by which the token
    proves itself, before the security officer's PIN is released to unlock it or what broke off is gone on with.
    """

    def __init__(
        self,
        database: Database,
        escrow: Escrow,
        ledger: Ledger,
        line: Line,
        greeting: Greeting,
        authority: MakesAuthority,
        without_pending: Pending,
        *,
        now: datetime,
        unfinished: bool,
        prover: PublicKey | None = None,
    ) -> None:
        assert greeting.token is not None
        self._database = database
        self._escrow = escrow
        self._ledger = ledger
        self._line = line
        self._greeting = greeting
        self._features: TokenFeatures = greeting.token
        self._make_authority = authority
        self._without_pending = without_pending
        self._now = now
        self._unfinished = unfinished
        self._prover = prover

    async def run(self, task: Task) -> Conclusion:
        """The whole of it. Raises the CardwrightError of what went wrong."""
        card = self._greeting.card
        if task.purpose not in _KNOWN:
            raise CapabilityMissing("A PKCS#11 token is not erased over a session; its module has a tool.", "erase")
        if not task.purpose.unlocks:
            task = await self._with_recovered(task, card)
        whole, task = task, await self._without_pending(task, card)
        outcome = Outcome.DONE if task is whole else Outcome.PENDING
        plan = self._planned(task, card)
        if not plan:
            if not self._unfinished and task.request is None:
                return Conclusion(task, Outcome.NOTHING_DUE, card)
            seen = _seen(await self._send(t.TokenBatch((t.ReadToken(),))))
            if self._planned(task, seen):
                raise NotAtGoal("The token is not as the workstation said.")
            if self._prover is not None:
                await self._prove(self._prover)
            return Conclusion(task, outcome, seen)
        await self._make_authority(task).preflight(plan, attests=False)
        if unknown := {step.kind for step in plan.steps} - self._greeting.steps:
            raise PeerTooOld(f"The workstation cannot show {', '.join(sorted(unknown))}.")
        carried = await _Carrying(self, task, plan).through()
        outcome = Outcome.PENDING if carried.pending else outcome
        return Conclusion(task, outcome, carried.card, (_E.VERIFY,))

    # ------------------------------------------------------------------------------------------------- planning

    def _planned(self, task: Task, card: Inventory) -> Plan:
        """Raises WrongCard, JournalOfAnotherCard, PukUnknown and what ``plan_token`` raises."""
        require_same_card(self._ledger.entries, card.identity)
        if card.identity.guid != task.guid or card.identity.serial != task.serial:
            raise WrongCard("This token is another one than the device that the request is for.")
        records = fold(self._ledger.entries)
        if task.purpose.unlocks:
            if not _knows_so_pin(task, records):
                raise PukUnknown
            plan = Plan(task.policy.card.name, card.identity, (SetPuk(), SetPin()))
            require_able(plan, self._features)
            return plan
        so_pin = task.purpose is Purpose.ISSUE and self._features.unlocks and _knows_so_pin(task, records)
        policy = token_policy(task.policy.card, so_pin=so_pin)
        card = as_delivered(card, task.delivered, records)
        card = worn(task.purpose, policy, card, records, self._now, self._ledger.made, task.revoked)
        deletes = task.policy.delete_superseded
        return plan_token(policy, card, self._features, records, now=self._now, deletes=deletes)

    async def _with_recovered(self, task: Task, card: Inventory) -> Task:
        """The task with the archived keys that belong in retired slots."""
        if task.purpose is Purpose.ISSUE and not task.policy.escrowed:
            return task
        plan = self._planned(task, card)
        goes = what_goes(plan, fold(self._ledger.entries))
        goes |= {step.key for step in plan.steps if isinstance(step, DeleteKey)}
        found = await self._database.read(lambda unit: self._escrow.recoverable(unit, task, goes))
        if not found:
            return task
        policy = replace(task.policy.card, recovered=tuple(one.recovered for one in found))
        return replace(task, policy=replace(task.policy, card=policy))

    # ------------------------------------------------------------------------------------------------- the line

    async def _send(self, batch: t.TokenBatch) -> tuple[TokenAnswer, ...]:
        """Commit what the steps make true, then send them. Raises PeerTooOld, SessionLost, LineLost."""
        self._require_known(batch)
        await self._ledger.commit()
        return await self._line.steps(batch)

    async def _show(self, showing: Showing, batch: t.TokenBatch) -> tuple[TokenAnswer, ...]:
        """The plan and the first steps, which only read. Raises as ``_send``, and ConsentRefused."""
        self._require_known(batch)
        await self._ledger.commit()
        answers = await self._line.show_steps(showing, batch, partial(self._ledger.agreed, showing.plan.digest))
        if answers is None:
            raise ConsentRefused("The person did not agree to the plan.")
        self._ledger.later(_E.EXECUTE)
        return answers

    async def _prove(self, key: PublicKey) -> None:
        """Raises CardNotProven."""
        nonce = os.urandom(32)
        (answer,) = await self._send(t.TokenBatch((t.ProveToken(nonce),)))
        try:
            if answer.outcome is not Did.ANSWERED:
                raise ProofInvalid("no answer") from answer.cause
            verify(answer.data, audience=PROOF_AUDIENCE, nonce=nonce, key=key)
        except ProofInvalid as error:
            raise CardNotProven("The token did not prove that it holds the key it was issued with.") from error

    def _require_known(self, batch: t.TokenBatch) -> None:
        if unknown := {t.TOKEN_ITEMS[type(item)] for item in batch.items} - self._greeting.items:
            raise PeerTooOld(f"The workstation does not know {', '.join(sorted(unknown))}.")
        if (octets := wire_tokens.steps_to_wire(batch).ByteSize()) > self._greeting.max_batch:
            raise PeerTooOld(f"Steps have {octets} octets, the workstation takes fewer.")


@dataclass(frozen=True, slots=True)
class _Carried:
    card: Inventory
    pending: frozenset[Slot]


class _Carrying:
    """One plan that is carried out."""

    def __init__(self, course: TokenCourse, task: Task, plan: Plan) -> None:
        self._course = course
        self._ledger = course._ledger
        self._task = task
        self._plan = plan
        self._authority = course._make_authority(task)
        self._public: dict[Slot, PublicKey] = {}
        self._private: dict[Slot, PrivateKey] = {}
        self._requests: dict[Slot, tuple[ask.SignFirst, bytes]] = {}
        self._certificates: dict[Slot, bytes] = {}
        self._pending: set[Slot] = set()

    async def through(self) -> _Carried:
        """From the preview to the reading back."""
        plan, task, ledger = self._plan, self._task, self._ledger
        shown = {"plan": plan.digest, "plan_document": canonical(plan.document()), "steps": len(plan.steps)}
        ledger.later(_E.PREVIEW, shown)
        first = await self._course._show(Showing(plan, {}, task.policy.pin), t.TokenBatch((t.ReadToken(),)))
        card = _seen(first)
        records = fold(await ledger.recall(card.identity))
        await self._refuse_hidden(first[0], records)
        if self._course._planned(task, card).digest != plan.digest:
            raise PlanChanged("The plan for this token is not the one that was shown.")
        (reply,) = await self._authority.answer((ask.Preflight(plan, card),))
        expect(ask.Granted, reply, "this plan")
        await ledger.note((Entry(Kind.CARD, serial=card.identity.serial, guid=task.guid),))
        if self._course._prover is not None:
            await self._course._prove(self._course._prover)
        await self._secrets(as_delivered(card, task.delivered, records), records)
        await self._make_keys()
        await self._bring_keys()
        await self._certify(card)
        card = await self._write(card)
        if not task.purpose.unlocks:
            left = self._course._planned(task, card)
            if any(getattr(step, "slot", None) not in self._pending for step in left.steps):
                raise NotAtGoal("After the last step the token is not as the policy wants it.")
        return _Carried(card, frozenset(self._pending))

    async def _refuse_hidden(self, answer: TokenAnswer, records: Records) -> None:
        """What only the login shows. A key whose private half is gone is made again, which needs another preview; one
        of ours that is half there is written over; anybody else's is not. Raises PlanChanged, KeyInUse.
        """
        keys = {step.slot for step in self._of(GenerateKey) + self._of(ImportKey)}
        ours = {slot for slot, _ in records.certificates} | records.keys.keys() | records.generating.keys()
        for slot in sorted(answer.bare & keys):
            if slot not in ours:
                raise KeyInUse(slot, "a private key without a public one is there, and it is not ours")
        wanted = {row.slot for row in self._task.policy.card.slots}
        lost = sorted((answer.broken & wanted) - keys)
        if lost and answer.seen is not None:
            there = ((slot, answer.seen.key(slot)) for slot in lost)
            await self._ledger.note(
                tuple(Entry(Kind.GENERATING, slot=slot, fingerprint=key.fingerprint) for slot, key in there if key)
            )
            await self._ledger.commit()
            raise PlanChanged("A private key is gone that the token still has the public half of.")

    # -------------------------------------------------------------------------------------------------- secrets

    async def _secrets(self, card: Inventory, records: Records) -> None:
        """The security officer's PIN, from the newest candidate to the target, and the person's. Each attempt is
        recorded before it is sent; a wrong value leads to the next one. Raises PukBlocked, PukUnknown.
        """
        changes, sets_pin = self._of(SetPuk), self._of(SetPin)
        if not changes and not sets_pin:
            return
        target, value = await self._so_pin("")
        names = puk_candidates(card, records.puk, given=False, target=target)
        older = [Entry(Kind.PUK, name) for name in reversed(names) if name not in (*records.puk.names, target)]
        await self._ledger.note((*older, *((Entry(Kind.PUK, target),) if changes else ())))
        if sets_pin:
            await self._ledger.note((Entry(Kind.PIN),))
        for number, name in enumerate(names):
            so_pin = (await self._so_pin(name))[1]
            items: list[t.TokenItem] = [t.SetSoPin(so_pin, value)] if changes else []
            items += [t.InitPin(value if changes else so_pin)] if sets_pin else []
            answers = await self._course._send(t.TokenBatch(tuple(items)))
            wrong = answers[0].cause is not None and answers[0].cause.code == _WRONG_PIN
            if wrong and number + 1 < len(names):
                continue
            steps: tuple[SetPuk | SetPin, ...] = (*changes, *sets_pin)
            for step, answer in zip(steps, answers, strict=True):
                answer.require(f"step {step.kind}")
                own = Entry(Kind.PUK_SET, target) if isinstance(step, SetPuk) else Entry(Kind.PIN_SET)
                await self._ledger.note((own,))
                self._done(step)
            return

    async def _so_pin(self, name: str) -> tuple[str, Secret]:
        if name == DEFAULT and SecretName.PUK not in self._task.initial:
            raise PukUnknown
        (reply,) = await self._authority.answer((ask.Puk(name),))
        given = expect(ask.SecretGiven, reply, "a PIN of the security officer")
        return given.name, given.value

    # ----------------------------------------------------------------------------------------------------- keys

    async def _make_keys(self) -> None:
        steps = self._of(GenerateKey)
        if not steps:
            return
        profiles = {step.slot: step.profile for step in self._of(WriteCertificate)}
        asked = await self._authority.answer(
            tuple(ask.SignsAhead(step.slot, step.algorithm, profiles[step.slot]) for step in steps)
        )
        firsts = {step.slot: expect(ask.SignFirst, one, "a request") for step, one in zip(steps, asked, strict=True)}
        await self._ledger.note(
            tuple(Entry(Kind.GENERATING, slot=step.slot, fingerprint=step.replaces) for step in steps)
        )
        items: list[t.TokenItem] = []
        for step in steps:
            policy = step.pin_policy or slot_pin_policy(step.slot)
            subject = firsts[step.slot].item.subject  # type: ignore[union-attr]
            items.append(t.MakeTokenKey(step.slot, step.algorithm, policy is PinPolicy.ALWAYS))
            items.append(t.RequestTokenCertificate(step.slot, subject))
        answers = await self._course._send(t.TokenBatch(tuple(items)))
        for place, step in enumerate(steps):
            made, request = answers[2 * place], answers[2 * place + 1]
            self._public[step.slot] = public_key(made.require(f"making the key of slot {step.slot.label}"))
            self._done(step)
            signed = request.require(f"requesting a certificate for slot {step.slot.label}")
            self._requests[step.slot] = firsts[step.slot], signed

    async def _bring_keys(self) -> None:
        steps = self._of(ImportKey)
        if not steps:
            return
        questions = tuple(ask.KeyToImport(step.slot, step.algorithm, step.key) for step in steps)
        for step, reply in zip(steps, await self._authority.answer(questions), strict=True):
            key = expect(ask.KeyGiven, reply, f"the key for slot {step.slot.label}").key
            self._private[step.slot], self._public[step.slot] = key, key.public_key()

    # ------------------------------------------------------------------------------------------------ certificates

    async def _certify(self, card: Inventory) -> None:
        steps = self._of(WriteCertificate)
        orders = [self._order(step, card) for step in steps]
        plain = [order for order in orders if order.slot not in self._requests]
        signed = [self._signed(order) for order in orders if order.slot in self._requests]
        for order, reply in zip(plain, await self._authority.answer(tuple(plain)) if plain else (), strict=True):
            await self._certified(order, reply)
        for one, reply in zip(signed, await self._authority.answer(tuple(signed)) if signed else (), strict=True):
            await self._certified(one.request, reply)

    def _order(self, step: WriteCertificate, card: Inventory) -> ask.Certify:
        public = self._public.get(step.slot)
        if public is None:
            there = card.key(step.slot)
            if there is None or not there.public_key:
                raise CertificateUnfit(step.slot, "has no key on the token to be for")
            public = self._public[step.slot] = public_key(there.public_key)
        return ask.Certify(step.slot, step.algorithm, step.profile, public, self._private.get(step.slot))

    def _signed(self, order: ask.Certify) -> ask.Signed:
        first, request = self._requests[order.slot]
        return ask.Signed(order, first.item, request)

    async def _certified(self, order: ask.Certify, reply: ask.Reply) -> None:
        if isinstance(reply, ask.Pending):
            self._pending.add(order.slot)
            return
        der = expect(ask.Issued, reply, f"the certificate for slot {order.slot.label}").content
        mark = fingerprint(order.public_key)
        await self._ledger.note((Entry(Kind.CERTIFICATE, slot=order.slot, fingerprint=mark, value=Secret(der)),))
        self._certificates[order.slot] = der

    # ----------------------------------------------------------------------------------------------------- writing

    async def _write(self, card: Inventory) -> Inventory:
        """Keys, certificates and what goes, in the order of the plan, and the token read back behind them."""
        items: list[t.TokenItem] = []
        steps: list[Step] = []
        for step in self._plan.steps:
            match step:
                case ImportKey(slot=slot):
                    key = self._private[slot]
                    await self._ledger.note(
                        (
                            Entry(Kind.KEY, slot=slot, fingerprint=_mark(key), algorithm=int(step.algorithm)),
                            Entry(Kind.GENERATING, slot=slot, fingerprint=step.replaces),
                        )
                    )
                    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
                    items.append(t.PutTokenKey(slot, step.algorithm, Secret(der)))
                    steps.append(step)
                case WriteCertificate(slot=slot) if slot in self._certificates:
                    items.append(t.PutTokenCertificate(slot, self._certificates[slot]))
                    steps.append(step)
                case DeleteKey(slot=slot, key=gone):
                    items.append(t.RemoveToken(slot, gone))
                    steps.append(step)
        answers = await self._course._send(t.TokenBatch((*items, t.ReadToken())))
        for step, answer in zip(steps, answers, strict=False):
            answer.require(f"step {step.kind}")
            if isinstance(step, WriteCertificate):
                await self._ledger.note((Entry(Kind.WRITTEN, slot=step.slot),))
            self._done(step)
        return _seen(answers[-1:])

    # ------------------------------------------------------------------------------------------------------ shared

    def _of(self, kind: type[S]) -> tuple[S, ...]:
        return tuple(step for step in self._plan.steps if isinstance(step, kind))

    def _done(self, step: Step) -> None:
        self._ledger.done += 1
        self._course._line.progress(step.kind, 100 * self._ledger.done // len(self._plan.steps))


def _seen(answers: Sequence[TokenAnswer]) -> Inventory:
    """What the only step of a batch read. Raises its cause."""
    (answer,) = answers
    answer.require("reading the token")
    if answer.seen is None:
        raise WrongCard("The workstation did not say what is on the token.")
    return answer.seen


def _knows_so_pin(task: Task, records: Records) -> bool:
    """Whether the security officer's PIN is known: the one that the token came with, or one of ours."""
    return SecretName.PUK in task.initial or any(name != DEFAULT for name in records.puk.names)


def _mark(key: PrivateKey) -> str:
    return fingerprint(key.public_key())


__all__ = ["Conclusion", "TokenCourse"]
