"""The course of a session on a card, as executions without I/O: look, plan again, carry out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Set
from dataclasses import replace
from datetime import datetime

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PublicKey
from cardwright_cardops.piv.containers import CONTAINERS, DISCOVERY
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, ProofInvalid, verify
from cardwright_cardops.piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from cardwright_cardops.plan.acts import STAGE, Circumstances, Pace, Witness
from cardwright_cardops.plan.conduct import Execution, Recall
from cardwright_cardops.plan.execute import Report, execute
from cardwright_cardops.plan.init import PlanChanged, look_for
from cardwright_cardops.plan.inventory import Inventory, Presence, SecretState
from cardwright_cardops.plan.locking import lock, state_of_pin
from cardwright_cardops.plan.observe import Look, observe_with_witness
from cardwright_cardops.plan.planner import plan
from cardwright_cardops.plan.policy import DevicePolicy
from cardwright_cardops.plan.records import DEFAULT, FACTORY, Candidates, Records, fold
from cardwright_cardops.plan.steps import GenerateKey, ImportKey, Plan, SetPin, SetPuk
from cardwright_cardops.plan.wiping import wipe
from cardwright_cardops.program.items import Apdu, Batch, Group, Outcome, Program, Prove

from ..devices.model import SecretName
from .errors import CardNotProven
from .model import Purpose


def look(policy: DevicePolicy, *, retired: bool = False, stage: str = STAGE) -> Look:
    """What is read: what the policy needs, and every slot in use; 9E says which card it is. ``retired``: those, too.

    Objects behind the PIN are not asked for: the workstation's guard gives nothing of them.
    """
    wanted = look_for(policy, stage=stage, one_batch=True)
    wanted = replace(wanted, objects=tuple(tag for tag in wanted.objects if not _behind_pin(tag)))
    slots = (*wanted.slots, *ACTIVE_SLOTS, *(RETIRED_SLOTS if retired else ()))
    return replace(wanted, slots=tuple(dict.fromkeys(slots)))


def look_of(purpose: Purpose, policy: DevicePolicy, *, retired: bool = False) -> Look:
    """What is read in a session of that purpose before anything is done."""
    return state_of_pin(STAGE) if purpose is Purpose.LOCK else look(policy, retired=retired)


def has_retired(card: Inventory) -> bool:
    """Whether the card has retired keys, by what was read of it or by its Key History."""
    return any(row.slot.is_retired for row in card.certificates) or any(card.retired_counts or ())


def tells_enough(policy: DevicePolicy, card: Inventory) -> bool:
    """Whether an issued card was read as far as a plan for ``policy`` needs; of a blank one nothing else matters."""
    if not card.is_bound:
        return True
    retired = sum(row.slot.is_retired for row in card.certificates)
    read = all(_behind_pin(tag) or card.object(tag).presence is not Presence.UNREAD for tag in policy.objects)
    return read and retired == (card.retired_counts or (0, 0))[0]


def intact(card: Inventory, objects: Mapping[int, bytes]) -> dict[int, bytes]:
    """Of ``objects``, by tag, as they were written, those that are on the card; it may hide some before the PIN."""
    found = {}
    for tag, content in objects.items():
        state = card.object(tag)
        same = state.presence is Presence.PRESENT and state.digest == hashlib.sha256(content).hexdigest()
        if same or (_is_hidden(card, tag) and card.is_bound):
            found[tag] = content
    return found


def _behind_pin(tag: int) -> bool:
    return CONTAINERS[tag].contact.needs_person


def _is_hidden(card: Inventory, tag: int) -> bool:
    """Whether the card keeps an object behind the PIN, so that nobody was told whether it is there."""
    presence = card.object(tag).presence
    return presence is Presence.PROTECTED or (presence is Presence.UNREAD and _behind_pin(tag))


def believed(policy: DevicePolicy, card: Inventory, objects: Mapping[int, bytes]) -> Inventory:
    """The card, with objects that are not as they were written taken for damaged: they are written anew.

    A Discovery Object may be the card's own and cannot be written on many. What is behind the PIN is on a card in use
    where ``objects`` say that it was written to it, which a version of the policy may be the first to want.
    """
    here = intact(card, objects)
    for tag in policy.objects:
        state = card.object(tag)
        if _is_hidden(card, tag):
            unwritten = card.is_bound and tag not in objects
            card = card.with_object(replace(state, presence=Presence.ABSENT if unwritten else Presence.PROTECTED))
        if state.presence is Presence.PRESENT and tag not in here and tag != DISCOVERY.tag:
            card = card.with_object(replace(state, presence=Presence.DAMAGED, defect="it is not what was written"))
    return card


def what_goes(plan: Plan, records: Records) -> frozenset[str]:
    """Fingerprints of keys in whose place the plan puts others: those on the card, and those imported last.

    A key whose import was begun and not finished is imported again, so it does not go.
    """
    keys = [step for step in plan.steps if isinstance(step, GenerateKey | ImportKey)]
    again = {
        records.keys.get(step.slot, "")
        for step in keys
        if isinstance(step, ImportKey) and step.slot in records.generating
    }
    gone = {step.replaces for step in keys} | {records.keys.get(step.slot, "") for step in keys}
    return frozenset(gone - again - {""})


def as_delivered(card: Inventory, initial: Set[SecretName], records: Records) -> Inventory:
    """The card, whose ``initial`` secrets are those of its lot: they stand in the place of factory values.

    A card says of a lot's secret what it says of ours, that it is not the factory's; so what is recorded decides. While
    a change was begun that the card did not confirm, it is not told. What the card itself calls the factory's is that.
    """
    told = {
        SecretName.MANAGEMENT_KEY: ("management_key", *_known(records.management_key)),
        SecretName.PUK: ("puk", *_known(records.puk)),
        SecretName.PIN: ("pin", records.pin_settled, records.pin_in_flight),
    }
    for name in initial & told.keys():
        place, settled, in_flight = told[name]
        state: SecretState = getattr(card, place)
        if state.is_default is False and not settled:
            state = replace(state, is_default=None if in_flight else True)
            card = replace(card, **{place: state})  # type: ignore[arg-type]
    return card


def _known(candidates: Candidates) -> tuple[bool, bool]:
    """Whether the card confirmed a value of ours, and whether a change to one was begun that it did not confirm."""
    own = any(name not in (DEFAULT, FACTORY) for name in candidates.names)
    return own and candidates.settled, own and not candidates.settled


def steps_for(
    purpose: Purpose,
    policy: DevicePolicy,
    card: Inventory,
    records: Records,
    objects: Mapping[int, bytes],
    now: datetime,
    made: Set[str] = frozenset(),
    revoked: Set[str] = frozenset(),
    *,
    rotate: bool = False,
) -> Plan:
    """The plan of a session. ``objects`` are contents as they were written. ``made``: fingerprints of keys that this
    request made already; a re-issue makes all others anew. ``revoked``: of keys whose certificates are worth nothing
    any more, unless ``records`` have a new one. ``rotate``: the card gets another PUK in any case. Raises what ``plan``
    raises.

    Unlocking sets a new PUK first, so the one that opens the card is known to nobody afterwards but the vault. Keys
    of earlier sessions are made again: a request is signed only for a key of the same session.
    """
    if purpose.unlocks:
        return Plan(policy.name, card.identity, (SetPuk(), SetPin()))
    if purpose is Purpose.RECYCLE:
        return wipe(policy.name, card, records)
    if purpose is Purpose.LOCK:
        return lock(policy.name, card)
    card = worn(purpose, policy, believed(policy, card, objects), records, now, made, revoked)
    steps = plan(policy, card, records, now=now, certifies_existing=False)
    if rotate and policy.secrets.puk and not any(isinstance(step, SetPuk) for step in steps.steps):
        return replace(steps, steps=(SetPuk(), *steps.steps))
    return steps


def worn(
    purpose: Purpose,
    policy: DevicePolicy,
    card: Inventory,
    records: Records,
    now: datetime,
    made: Set[str],
    revoked: Set[str],
) -> Inventory:
    """The card, with certificates that have to be made anew taken for ended. The rest is as for ``steps_for``."""
    for row in card.certificates:
        ended = row.key in revoked and (row.slot, row.key) not in records.certificates
        anew = ended or (purpose is Purpose.REISSUE and row.key not in made)
        if anew and policy.slot(row.slot) is not None:
            card = card.with_certificate(replace(row, not_after=now))
    return card


def course(
    purpose: Purpose,
    policy: DevicePolicy,
    *,
    now: datetime,
    expected: str,
    objects: Mapping[int, bytes],
    initial: Set[SecretName] = frozenset(),
    retired: bool = False,
    made: Set[str] = frozenset(),
    revoked: Set[str] = frozenset(),
    management_algorithm: ManagementAlgorithm | None,
    prover: PublicKey | None = None,
    rotate: bool = False,
) -> Execution[Report]:
    """Observe, plan again, and carry out the plan with digest ``expected``.

    ``objects``, ``made``, ``revoked``, ``initial``, ``retired`` and ``rotate`` are as for the functions above.
    ``prover``: the key by which the card has to prove itself first. Raises CardNotProven, PlanChanged when the card is
    not as it was shown, and what observe, plan and execute raise.
    """
    asked = management_algorithm if purpose.follows_policy else None
    card, sealed = yield from observe_with_witness(look_of(purpose, policy, retired=retired), asked)
    records = fold((yield Recall(card.identity)))
    # Setting the tries put the maker's PUK back, and nothing else since: the lot's would cost a try.
    factory_puk = SecretName.PUK in initial and card.puk.is_default is True
    card = as_delivered(card, initial, records)
    steps = steps_for(purpose, policy, card, records, objects, now, made, revoked, rotate=rotate)
    if steps.digest != expected:
        raise PlanChanged("The plan for this card is not the one that was shown.")
    if prover is not None:
        yield from proving(prover, os.urandom(32))
    witness = Witness(asked, sealed) if asked is not None and sealed else None
    how = Circumstances(records, pace=Pace.PHASE, witness=witness, factory_puk=factory_puk)
    return (yield from execute(steps, card, how))


def proving(key: PublicKey, nonce: bytes, *, alone: bool = False) -> Program[None]:
    """Have the card prove now that it holds ``key`` in 9E; ``alone``: in a stage of its own. Raises CardNotProven."""
    item = Prove(Slot.CARD_AUTHENTICATION, Algorithm.of(key), nonce)
    groups = (Group((Apdu(commands.select()),), essential=True),) if alone else ()
    *_, (answer,) = yield Batch((*groups, Group((item,), essential=True)), STAGE)
    try:
        if answer.outcome is not Outcome.ANSWERED or not answer.ok:
            raise ProofInvalid("no answer")
        verify(answer.data, audience=PROOF_AUDIENCE, nonce=nonce, key=key)
    except ProofInvalid as error:
        raise CardNotProven("The card did not prove that it holds the key it was issued with.") from error
