"""Card sessions: open, show, carry out, release. There is one way to recover: the next session."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Mapping, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import ManagementAlgorithm, PublicKey
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.acts import STAGE
from cardwright_cardops.plan.authority import Issued, Pending
from cardwright_cardops.plan.capabilities import backend_of
from cardwright_cardops.plan.conduct import conduct_async
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.inventory import Identity, Inventory, fingerprint
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.policy import DevicePolicy
from cardwright_cardops.plan.records import Entry, Kind, fold, require_same_card
from cardwright_cardops.plan.steps import LockCard, Plan, SetPin, SetPuk, Step, WriteCertificate, WriteObject
from cardwright_cardops.plan.wiping import all_slots
from cardwright_cardops.program.runner import run_async
from cardwright_cardops.secret import Secret

from ..audit.model import AuditEntry, Fact, Target
from ..audit.model import Outcome as AuditOutcome
from ..authentication.authorize import Authorize, sought
from ..authentication.matrix import Call
from ..authentication.principal import Principal, PrincipalKind
from ..machine import Actor
from ..notify.model import DomainEvent
from ..requests.errors import NoSuchRequest
from ..store.columns import canonical
from ..store.ids import new_id
from ..store.lease import Lease, acquire
from ..store.unit import Database, Unit
from ..vault.model import Authorization
from ..vault.protocol import Vault
from . import store
from .authority import SessionAuthority
from .course import as_delivered, course, has_retired, intact, look_of, proving, steps_for, tells_enough, what_goes
from .errors import (
    CardInSession,
    LineLost,
    NotAtGoal,
    PeerTooOld,
    SessionCancelled,
    SessionLost,
    WrongCard,
)
from .failures import Failure, failure_of
from .ledger import LEASE, Knows, Ledger, lease_name
from .model import CardKey, CardSession, Greeting, Outcome, Purpose, SessionEvent, Showing
from .ports import CertificateOrder, Certificates, Contents, Devices, Escrow, Line, Task
from .relay import Relay
from .resuming import Standing, gone_on, used_again
from .same_card import made_unseen, prover_at_goal, prover_for, prover_of, prover_of_rest
from .secrets import CardSecrets
from .token_course import TokenCourse

_E = SessionEvent
_LOST = (LineLost, SessionLost, SessionCancelled)


@dataclass(frozen=True, slots=True)
class Ports:
    """Other parts that sessions need."""

    devices: Devices
    certificates: Certificates
    contents: Contents
    escrow: Escrow
    vault: Vault
    proofs: Standing


@dataclass(frozen=True, slots=True)
class _Opened:
    """``principal``: who has the session; whoever was called, or the person whose session ``before`` broke off."""

    principal: Principal
    before: CardSession | None
    session: CardSession
    lease: Lease
    task: Task
    journal: store.Journal
    objects: Mapping[int, bytes]
    keys: tuple[CardKey, ...]
    made: frozenset[str]
    unfinished: bool
    now: datetime


class SessionService:
    """Runs sessions; holds nothing between them."""

    def __init__(self, database: Database, authorize: Authorize, ports: Ports) -> None:
        self._database = database
        self._authorize = authorize
        self._ports = ports

    async def run(self, principal: Principal, greeting: Greeting, line: Line) -> Outcome:
        """One session on one card, to its end.

        Raises CardInSession, AuthorizationError and what ``Devices.task`` raises before there is a session; after
        that any CardwrightError of what went wrong, which is recorded.
        """
        opened = await self._database.transact(lambda unit: self._open(unit, principal, greeting))
        task, principal = opened.task, opened.principal

        async def again(unit: Unit) -> None:
            await self._authorize(unit, principal, _call(task), task.target)
            await self._ports.devices.still_wanted(unit, task)

        async def shows(unit: Unit, secret: Entry) -> None:
            if secret.kind is Kind.PUK:
                await self._ports.devices.exposed(unit, task, principal.workstation, secret.reference)
            unit.audit(_shown(principal, task, ledger.session, secret))

        async def alone(unit: Unit, plan: str) -> None:
            unit.audit(self._entry(principal, task, replace(ledger.session, plan=plan), "agreed-unasked"))

        knows = Knows(principal.workstation, task.trusted, shows)
        proof = principal.authentication if principal.kind is PrincipalKind.PERSON else None
        ledger = Ledger(
            self._database, opened.session, opened.lease, opened.journal, opened.objects, again, opened.made, knows,
            None if proof is None else proof.id, alone,
        )  # fmt: skip

        async def ended(event: SessionEvent, code: str, failure: Failure | None = None) -> None:
            entry = self._entry(principal, task, ledger.session, event, code)
            await ledger.end(event, code, entry, partial(self._ports.devices.ended, failure=failure))

        try:
            async with self._held(ledger):
                await line.greet(opened.session.id)
                return await self._conduct(principal, greeting, line, opened, ledger)
        except CardwrightError as error:
            event = _E.LOSE if isinstance(error, _LOST) else _E.FAIL
            await asyncio.shield(ended(event, error.code, failure_of(error, wrote=ledger.wrote)))
            raise
        except Exception:
            await asyncio.shield(ended(_E.FAIL, "INTERNAL"))
            raise
        except BaseException:
            # The call was cancelled, or the server stops.
            await asyncio.shield(ended(_E.LOSE, LineLost.code))
            raise

    # ------------------------------------------------------------------------------------------------- beginning

    async def _open(self, unit: Unit, principal: Principal, greeting: Greeting) -> _Opened:
        asked = Call(f"SessionService.Run/{greeting.purpose}")
        finding = self._ports.devices.task(unit, principal, greeting)
        task = await sought(self._authorize, unit, principal, asked, finding, NoSuchRequest)
        found = await gone_on(unit, self._ports.proofs, principal, task)
        principal, before = found or (principal, None)
        permission = await self._authorize(unit, principal, _call(task), task.target)
        identifier = new_id()
        lease = await acquire(unit, lease_name(task.device), identifier, LEASE)
        if lease is None:
            raise CardInSession("Another session holds this card.")
        for left in await store.live(unit, task.org, task.device):
            await store.move(unit, left, _E.LOSE, Actor.TIMER, {"outcome": SessionLost.code})
            await self._ports.devices.ended(unit, task.org, left.request, left.id, None)
        await self._ports.devices.begin(unit, permission, task, identifier)
        unfinished = task.adrift or task.activates or task.is_due
        unfinished = unfinished or await store.is_unfinished(unit, task.org, task.device, task.life)
        journal = await store.records(unit, task.org, task.device, task.life)
        if task.purpose is Purpose.ISSUE:
            task = replace(task, revoked=await self._ports.certificates.revoked(unit, task))
            journal = _without(journal, task.revoked)
        recorded = fold(journal.entries).guid
        if task.guid_is_new and recorded is not None:
            task = replace(task, guid=recorded)
        session = await store.insert(
            unit,
            task.org,
            {
                "id": identifier,
                "device": task.device,
                "purpose": task.purpose,
                "request": task.request,
                "person": task.person,
                "actor": principal.actor,
                "workstation": principal.workstation,
                "trusted": int(task.trusted),
                "software": greeting.software,
                "reader": greeting.reader,
                "policy": task.policy.name,
                "life": task.life,
                "fascn": task.fascn.hex(),
            },
        )
        session = await store.move(unit, session, _E.OBSERVE, Actor.SERVER, {})
        unit.audit(self._entry(principal, task, session, "opened"))
        if before is not None:
            unit.audit(used_again(principal, task, session.id, before))
        keys = await store.keys(unit, task.org, task.device, task.life)
        objects = await store.objects(unit, task.org, task.device, task.life)
        # The old PUK is given to a card only that proves itself.
        proves = any(row.slot is Slot.CARD_AUTHENTICATION for row in keys)
        task = replace(task, rotate_puk=task.rotate_puk and proves)
        reissued = task.request if task.purpose is Purpose.REISSUE else None
        made = await store.made_for(unit, task.org, reissued) if reissued is not None else frozenset()
        return _Opened(principal, before, session, lease, task, journal, objects, keys, made, unfinished, unit.now)

    async def _conduct(
        self, principal: Principal, greeting: Greeting, line: Line, opened: _Opened, ledger: Ledger
    ) -> Outcome:
        if greeting.token is not None:
            ended = await self._token_course(principal, greeting, line, opened, ledger).run(opened.task)
            return await self._finish(principal, ended.task, ledger, ended.outcome, ended.card, *ended.events)
        card, seen = greeting.card, None
        if greeting.purpose.follows_policy:
            opened, card, seen = await self._known(opened, line, ledger, greeting)
        task = await self._without_pending(opened, ledger, card) if greeting.purpose.follows_policy else opened.task
        outcome = Outcome.DONE if task is opened.task else Outcome.PENDING
        plan = _planned(task, card, ledger, opened.now)
        if not plan:
            if not opened.unfinished and task.request is None and task.purpose is not Purpose.LOCK:
                return await self._finish(principal, task, ledger, Outcome.NOTHING_DUE, card)
            # Records change only by what the card shows to us, now.
            seen = seen or await self._look(line, ledger, opened, greeting, task.policy.card)
            if _planned(task, seen, ledger, opened.now):
                raise NotAtGoal("The card is not as the workstation said.")
            records, goes_on = fold(ledger.entries), opened.before is not None
            if (key := prover_at_goal(task, seen, records, opened.keys, goes_on=goes_on)) is not None:
                await run_async(proving(key, os.urandom(32), alone=True), Relay(line, ledger, greeting))
            return await self._finish(principal, task, ledger, outcome, seen)
        authority = self._authority(principal, opened, ledger, task, {})
        await authority.preflight(plan, attests=backend_of(card.features).attests)
        _require_known(plan, greeting)
        contents = await self._contents(task, plan, card, intact(card, ledger.objects))
        keys, unknown = made_unseen(card, fold(ledger.entries), opened.keys)
        showing = Showing(plan, contents, task.policy.pin, keys, unknown)
        shown = {"plan": plan.digest, "plan_document": canonical(plan.document()), "steps": len(plan.steps)}
        ledger.later(_E.PREVIEW, shown)
        report = await self._execute(principal, greeting, line, replace(opened, task=task), ledger, showing)
        outcome = Outcome.PENDING if report.pending else outcome
        return await self._finish(principal, task, ledger, outcome, report.inventory, _E.VERIFY)

    async def _known(
        self, opened: _Opened, line: Line, ledger: Ledger, greeting: Greeting
    ) -> tuple[_Opened, Inventory, Inventory | None]:
        """The task with the keys to be recovered, and the card as far as planning needs it: as the workstation read it,
        or where that is not enough as it shows itself now, which then comes once more.
        """
        card, seen = greeting.card, None
        policy = opened.task.policy.card
        # After a session that was cut there may be keys in retired slots that no certificate and no object tells of.
        if opened.unfinished or not tells_enough(policy, card):
            card = seen = await self._look(line, ledger, opened, greeting, policy)
        if greeting.purpose is Purpose.ISSUE and not opened.task.policy.escrowed:
            # Such a card is not for decrypting, and may not take keys from outside at all.
            return opened, card, seen
        goes = what_goes(_planned(opened.task, card, ledger, opened.now), fold(ledger.entries))
        found = await self._database.read(
            lambda unit: self._ports.escrow.recoverable(unit, opened.task, goes)
        )
        if not found:
            return opened, card, seen
        policy = replace(policy, recovered=tuple(one.recovered for one in found))
        if not card.features.metadata:
            # Which retired slots are free such a card tells by their certificates only, and nobody has looked there.
            card = seen = await self._look(line, ledger, opened, greeting, policy)
        task = replace(opened.task, policy=replace(opened.task.policy, card=policy))
        return replace(opened, task=task), card, seen

    @staticmethod
    async def _look(
        line: Line, ledger: Ledger, opened: _Opened, greeting: Greeting, policy: DevicePolicy
    ) -> Inventory:
        """The card as it shows itself to the server; reads only."""
        erased = greeting.purpose is Purpose.RECYCLE
        retired = _retired(opened, greeting)
        wanted = all_slots(STAGE) if erased else look_of(greeting.purpose, policy, retired=retired)
        return await run_async(observe(wanted), Relay(line, ledger, greeting))

    async def _without_pending(self, opened: _Opened, ledger: Ledger, card: Inventory) -> Task:
        """The task without slots whose certificate another authority has not issued yet: their keys stay.

        A certificate that came meanwhile is noted, so the plan writes it and makes no new key.
        """
        task, known = opened.task, fold(ledger.entries).certificates
        orders = []
        for made in opened.keys:
            row, there = task.policy.card.slot(made.slot), card.key(made.slot)
            waits = there is not None and there.fingerprint == made.fingerprint and row is not None
            waits = waits and made.fingerprint not in task.revoked
            if row is not None and waits and (made.slot, made.fingerprint) not in known:
                public = load_der_public_key(made.public_key)
                assert isinstance(public, PublicKey)
                orders.append(
                    CertificateOrder(
                        task, ledger.session.id, made.slot, row.algorithm, row.profile, public, made.origin
                    )
                )
        pending = set()
        replies = await self._ports.certificates.certify(orders) if orders else ()
        for order, reply in zip(orders, replies, strict=True):
            if isinstance(reply, Issued):
                mark = fingerprint(order.public_key)
                entry = Entry(Kind.CERTIFICATE, slot=order.slot, fingerprint=mark, value=Secret(reply.content))
                await ledger.note((entry,))
            elif isinstance(reply, Pending):
                pending.add(order.slot)
        if not pending:
            return task
        slots = tuple(row for row in task.policy.card.slots if row.slot not in pending)
        return replace(task, policy=replace(task.policy, card=replace(task.policy.card, slots=slots)))

    async def _contents(self, task: Task, plan: Plan, card: Inventory, kept: Mapping[int, bytes]) -> dict[int, bytes]:
        """The content of every object that the plan writes, fixed before it is shown."""
        made: dict[int, bytes] = {}
        written = {step.slot.certificate_tag: b"" for step in plan.steps if isinstance(step, WriteCertificate)}
        for step in plan.steps:
            if isinstance(step, WriteObject):
                reply = await self._ports.contents.content(task, step.tag, card, {**written, **made}, kept)
                if not isinstance(reply, Issued):
                    raise NotAtGoal(f"The plan cannot be carried out: {reply.reason}")
                made[step.tag] = reply.content
        return made

    # ------------------------------------------------------------------------------------------------- execution

    def _authority(
        self, principal: Principal, opened: _Opened, ledger: Ledger, task: Task, contents: Mapping[int, bytes]
    ) -> SessionAuthority:
        behalf = Authorization(str(principal.actor), str(task.request or ledger.session.id), str(ledger.session.id))
        secrets = CardSecrets(self._ports.vault, ledger, task, behalf)
        certificates, escrow = self._ports.certificates, self._ports.escrow
        return SessionAuthority(task, ledger, secrets, certificates, escrow, contents, opened.now)

    def _token_course(
        self, principal: Principal, greeting: Greeting, line: Line, opened: _Opened, ledger: Ledger
    ) -> TokenCourse:
        return TokenCourse(
            self._database, self._ports.escrow, ledger, line, greeting,
            lambda task: self._authority(principal, opened, ledger, task, {}),
            lambda task, card: self._without_pending(replace(opened, task=task), ledger, card),
            now=opened.now, unfinished=opened.unfinished, prover=self._token_prover(greeting, opened, ledger),
        )  # fmt: skip

    @staticmethod
    def _token_prover(greeting: Greeting, opened: _Opened, ledger: Ledger) -> PublicKey | None:
        if greeting.purpose.unlocks:
            return prover_of(opened.task, opened.keys)
        if opened.before is None:
            return None
        return prover_of_rest(greeting.card.identity, fold(ledger.entries), opened.keys, tells=True)

    async def _execute(
        self,
        principal: Principal,
        greeting: Greeting,
        line: Line,
        opened: _Opened,
        ledger: Ledger,
        showing: Showing,
    ) -> Report:
        task, plan = opened.task, showing.plan
        authority = self._authority(principal, opened, ledger, task, showing.contents)
        execution = course(
            task.purpose,
            task.policy.card,
            now=opened.now,
            expected=plan.digest,
            objects=ledger.objects,
            made=ledger.made,
            revoked=task.revoked,
            rotate=task.rotate_puk,
            initial=task.delivered,
            retired=_retired(opened, greeting),
            management_algorithm=_algorithm(task, greeting.card, plan),
            prover=prover_for(
                task, plan, greeting.card, fold(ledger.entries), opened.keys, goes_on=opened.before is not None
            ),
        )

        def progress(step: Step, done: bool) -> None:
            if isinstance(step, LockCard) and not done:
                ledger.once_sent(lambda unit: self._ports.devices.locking(unit, task))
            ledger.done += done
            line.progress(step.kind, 100 * ledger.done // len(plan.steps))

        relay = Relay(line, ledger, greeting, showing)
        report: Report = await conduct_async(execution, relay, authority, ledger, progress)
        if not task.purpose.unlocks:
            left = _planned(task, report.inventory, ledger, opened.now)
            if any(getattr(step, "slot", None) not in report.pending for step in left.steps):
                raise NotAtGoal("After the last step the card is not as the policy wants it.")
        return report

    async def _finish(
        self,
        principal: Principal,
        task: Task,
        ledger: Ledger,
        outcome: Outcome,
        card: Inventory,
        *before: SessionEvent,
    ) -> Outcome:
        """Release and end, in one transaction."""

        async def work(unit: Unit) -> CardSession:
            await self._authorize(unit, principal, _call(task), task.target)
            session = await ledger.within(unit, *before, _E.FINISH, values={"outcome": outcome})
            if outcome is not Outcome.NOTHING_DUE:
                if task.purpose.follows_policy:
                    keys = _certified(card)
                    bare = {row.fingerprint for row in card.keys} - set(keys.values())
                    await self._ports.certificates.settle(unit, principal, task, session.id, keys, bare)
                await self._ports.devices.finished(unit, principal, task, session.id, outcome, card)
                unit.emit(
                    DomainEvent(
                        task.org,
                        f"session.{task.purpose}-{outcome}",
                        "device",
                        task.device,
                        task.person,
                        correlation=session.id,
                    )
                )
            unit.audit(self._entry(principal, task, session, outcome))
            await ledger.let_go(unit)
            return session

        ledger.written(await self._database.transact(work))
        return outcome

    @asynccontextmanager
    async def _held(self, ledger: Ledger) -> AsyncIterator[None]:
        """Renew the lease while inside."""

        async def keep() -> None:
            while True:
                await asyncio.sleep(LEASE.total_seconds() / 3)
                await ledger.renew()

        task = asyncio.create_task(keep())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @staticmethod
    def _entry(principal: Principal, task: Task, session: CardSession, what: str, code: str = "") -> AuditEntry:
        facts: dict[str, Fact] = {
            "purpose": str(task.purpose),
            "plan": session.plan,
            "trusted": task.trusted,
            "code": code,
        }
        return AuditEntry(
            task.org,
            principal.who,
            f"session.{what}",
            Target("device", task.device),
            AuditOutcome.FAILED if code else AuditOutcome.DONE,
            facts,
            session=session.id,
        )


def _retired(opened: _Opened, greeting: Greeting) -> bool:
    """Whether retired slots have to be looked at."""
    return opened.unfinished or has_retired(greeting.card)


def _without(journal: store.Journal, revoked: Set[str]) -> store.Journal:
    """The journal without certificates of keys that have revoked ones only. Old keys in retired slots keep theirs."""

    def counts(entry: Entry) -> bool:
        retired = entry.slot is not None and entry.slot.is_retired
        return entry.kind is not Kind.CERTIFICATE or retired or entry.fingerprint not in revoked

    return replace(journal, entries=tuple([entry for entry in journal.entries if counts(entry)]))


def _call(task: Task) -> Call:
    return Call(f"SessionService.Run/{task.purpose}")


def _planned(task: Task, card: Inventory, ledger: Ledger, now: datetime) -> Plan:
    """Raises WrongCard, JournalOfAnotherCard and what ``plan`` raises."""
    _require_card(task, card.identity, ledger.entries)
    records = fold(ledger.entries)
    card = as_delivered(card, task.delivered, records)
    rotate = task.rotate_puk and not ledger.rotated
    policy = task.policy.card
    return steps_for(task.purpose, policy, card, records, ledger.objects, now, ledger.made, task.revoked, rotate=rotate)


def _require_card(task: Task, identity: Identity, entries: tuple[Entry, ...]) -> None:
    require_same_card(entries, identity)
    if task.serial and identity.serial and task.serial != identity.serial:
        raise WrongCard("This card has another number than the device that the request is for.")
    if identity.guid is not None and identity.guid != task.guid:
        raise WrongCard("This card has another card UUID than the device that the request is for.")


def _require_known(plan: Plan, greeting: Greeting) -> None:
    if unknown := {step.kind for step in plan.steps} - greeting.steps:
        raise PeerTooOld(f"The workstation cannot show {', '.join(sorted(unknown))}.")


def _algorithm(task: Task, card: Inventory, plan: Plan) -> ManagementAlgorithm | None:
    """That of the management key, where the card or the policy says it: it saves round trips. None for a plan that
    does without that key.
    """
    if all(isinstance(step, SetPuk | SetPin) for step in plan.steps):
        return None
    told = card.management_key.algorithm or task.policy.card.secrets.management_algorithm
    return ManagementAlgorithm(told) if told in set(ManagementAlgorithm) else None


def _shown(principal: Principal, task: Task, session: CardSession, secret: Entry) -> AuditEntry:
    """That a workstation knows a generation of a secret from now on: an open channel shows it to it (S2)."""
    facts: dict[str, Fact] = {
        "secret": secret.kind.name.lower(),
        "generation": secret.reference,
        "workstation": None if principal.workstation is None else str(principal.workstation),
        "trusted": task.trusted,
    }
    target = Target("device", task.device)
    return AuditEntry(task.org, principal.who, "device.secret-shown", target, facts=facts, session=session.id)


def _certified(card: Inventory) -> Mapping[Slot, str]:
    """Fingerprints of the keys that are on the card with their certificates, by slot."""
    found = {}
    for row in card.certificates:
        key = card.key(row.slot)
        if key is not None and key.fingerprint == row.key:
            found[row.slot] = row.key
    return found
