"""Carry out a plan: the same code for this process and for a relay.

Where round trips count there are four: (1) the card is observed and gives a management-key witness; (2) the response
to it, GENERATE; (3) PUK, PIN, what card keys sign; (4) imports, PUT DATA, management key, and all of it read back.
Without PUK and PIN to set, keys sign where they are made, and there are three.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..errors import CardwrightError
from ..iso7816.tlv import MalformedTlv
from ..piv import commands, containers
from ..piv.algorithms import PinPolicy, PrivateKey
from ..piv.management_key import ManagementKey
from ..piv.objects import CertificateObject, MalformedObject
from ..piv.objects.certificate import load
from ..piv.references import Slot
from ..piv.responses import parse_public_key
from ..piv.vendor import yubico
from ..program.items import Answer, Apdu, Item, VerifyPin, Want
from ..secret import Secret
from . import authority as to
from .acts import Act, Circumstances, Pace, Session, Signature, expect
from .apply import apply
from .conduct import Execution, asking
from .inventory import Inventory, fingerprint, public_key, spki
from .locking import block
from .observe import observe, taken_in
from .planner import SELF_SIGNED
from .policy import slot_pin_policy
from .records import Entry, Kind
from .steps import (
    GenerateKey,
    ImportKey,
    LockCard,
    Plan,
    ResetCard,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
)
from .unlocking import authenticate, respond, set_person_secrets
from .wiping import all_slots, reset


class ReadBackDiffers(CardwrightError):
    """An object that was written reads back as something else. ``tag`` names it."""

    code = "READ_BACK_DIFFERS"
    default_effect = "The object on the card is not what was written."
    default_advice = "Start again; if it stays, the card is damaged or another program writes to it."

    def __init__(self, tag: int) -> None:
        super().__init__(f"{containers.CONTAINERS[tag].name} ({tag:X}) reads back as something else.")
        self.tag = tag


class ObjectTooLarge(CardwrightError):
    """An object or certificate has more octets than the card takes for one object."""

    code = "OBJECT_TOO_LARGE"
    default_effect = "This object was not sent to the card."
    default_advice = "Use a smaller certificate or key, or leave the object out."

    def __init__(self, tag: int, size: int, limit: int) -> None:
        name = containers.CONTAINERS[tag].name
        super().__init__(f"{name} ({tag:X}) has {size} octets, the card takes {limit}.")
        self.tag, self.size, self.limit = tag, size, limit


class CertificateUnfit(CardwrightError):
    """A certificate is damaged, or is not for the key of the slot it was issued for."""

    code = "CERTIFICATE_UNFIT"
    default_effect = "The certificate was not written to the card."
    default_advice = "Have the certificate issued again for the key in this slot."

    def __init__(self, slot: Slot, why: str) -> None:
        super().__init__(f"The certificate for slot {slot.label} {why}.")
        self.slot = slot

_PROVES_PIN: Final = Act(None, (VerifyPin(),), "verifying the PIN that the card has")
_WRITES: Final = (ImportKey, WriteObject, WriteCertificate, SetManagementKey)


@dataclass(frozen=True, slots=True)
class Report:
    """What was done. ``pending`` are slots whose certificate the authority will bring later.

    ``inventory`` is the card afterwards: what was read back, and what the card confirmed.
    """

    done: tuple[Step, ...] = ()
    pending: tuple[Slot, ...] = ()
    inventory: Inventory = field(default_factory=Inventory)


def execute(plan: Plan, inventory: Inventory, circumstances: Circumstances | None = None) -> Execution[Report]:
    """Carry out ``plan`` on the card that ``inventory`` was observed on, in the same stage.

    Raises the typed error of what went wrong; its ``effect`` then says which steps are done. After any error a new
    observation and a new plan finish the work.
    """
    session = Session(plan, inventory, circumstances or Circumstances())
    if not plan:
        return Report(inventory=inventory)
    reply, = yield from asking(to.Preflight(plan, inventory))
    guid = expect(to.Granted, reply, "this plan").guid
    shown = inventory.identity.guid
    has_guid = () if shown is None else (Entry(Kind.WRITTEN, guid=shown),)
    yield from session.note(Entry(Kind.CARD, serial=inventory.identity.serial, guid=guid), *has_guid)
    try:
        if session.steps(ResetCard):
            yield from reset(session)
            return Report(tuple(session.done), inventory=(yield from observe(all_slots(session.how.stage))))
        if session.steps(LockCard):
            yield from block(session)
            return Report(tuple(session.done), inventory=session.inventory)
        yield from (_by_steps(session) if session.how.pace is Pace.STEP else _by_phases(session))
    except CardwrightError as error:
        error.effect = session.so_far(error.effect)
        raise
    return Report(tuple(session.done), tuple(session.pending), _after(session))


def _by_steps(session: Session) -> Execution[None]:
    """The person's secrets first: what may fail by them fails before keys are made."""
    if _wants_management(session):
        yield from authenticate(session)
    yield from _prove_pin(session)
    yield from set_person_secrets(session)
    yield from _generate(session)
    yield from _finish(session)


def _prove_pin(session: Session) -> Execution[None]:
    """A PIN that the card keeps, and that signatures will need, is verified before anything is written."""
    if session.steps(SetPin):
        return
    brought = {step.slot for step in session.steps(ImportKey)}
    wanted = any(
        step.profile == SELF_SIGNED
        and step.slot not in brought
        and (step.slot, step.key) not in session.records.certificates
        and _pin_policy(session, step.slot) is not PinPolicy.NEVER
        for step in session.steps(WriteCertificate)
    )
    if wanted:
        yield from session.hold(_PROVES_PIN)


def _by_phases(session: Session) -> Execution[None]:
    """PUK and PIN go with the signatures, so that no PUK is sent before the card proved its management key."""
    if _wants_management(session):
        check = yield from respond(session)
        ahead: dict[Slot, to.SignFirst] = {}
        if not session.steps(SetPuk, SetPin, SetRetries):
            ahead = yield from _ask_ahead(session)
        proved = any(_pin_policy(session, slot) is not PinPolicy.NEVER for slot in ahead)
        if proved:  # before GENERATE, which would destroy a key that a wrong PIN then leaves without a certificate
            yield from session.hold(_PROVES_PIN)
        yield from _generate(session)
        yield from _hold_signing(session, ahead, verified=proved)
        yield from session.send()
        yield from check()
    yield from set_person_secrets(session)
    yield from _finish(session)


def _finish(session: Session) -> Execution[None]:
    yield from _prepare_imports(session)
    yield from _certify(session)
    yield from _write(session)
    yield from _read_back(session)


def _wants_management(session: Session) -> bool:
    return not all(isinstance(step, SetPuk | SetPin) for step in session.plan.steps)


def _generate(session: Session) -> Execution[None]:
    steps = session.steps(GenerateKey)
    yield from session.note(*(Entry(Kind.GENERATING, slot=step.slot, fingerprint=step.replaces) for step in steps))
    for step in steps:
        command = commands.generate(
            step.slot, step.algorithm, pin_policy=step.pin_policy, touch_policy=step.touch_policy
        )

        def take(answers: tuple[Answer, ...], step: GenerateKey = step) -> None:
            session.public[step.slot] = parse_public_key(step.algorithm, answers[0].data)

        doing = f"generating the {step.algorithm.label} key of slot {step.slot.label}"
        yield from session.hold(Act(step, (Apdu(command),), doing, take=take))


def _prepare_imports(session: Session) -> Execution[None]:
    steps = session.steps(ImportKey)
    replies = yield from asking(*(to.KeyToImport(step.slot, step.algorithm, step.key) for step in steps))
    for step, reply in zip(steps, replies, strict=True):
        key = expect(to.KeyGiven, reply, f"the key for slot {step.slot.label}").key
        session.private[step.slot] = key
        session.public[step.slot] = key.public_key()


def _certify(session: Session) -> Execution[None]:
    """Have every certificate issued; card keys sign where the authority wants it."""
    orders = []
    for step in session.steps(WriteCertificate):
        public = session.public.get(step.slot)
        if public is None:
            key = session.inventory.key(step.slot)
            if key is None or not key.public_key:
                raise CertificateUnfit(step.slot, "has no key on the card to be for")
            public = session.public[step.slot] = public_key(key.public_key)
        private = session.private.get(step.slot)
        orders.append(to.Certify(step.slot, step.algorithm, step.profile, public, private))
    fresh = [order for order in orders if order.slot not in session.signed]
    first: dict[Slot, to.SignFirst] = {}
    for order, reply in zip(fresh, (yield from asking(*fresh)), strict=True):
        if isinstance(reply, to.SignFirst):
            first[order.slot] = reply
        else:
            yield from _certified(session, order, reply)
    yield from _hold_signing(session, first)
    yield from session.send()
    signed = [_signed(session, order) for order in orders if order.slot in session.signed]
    for one, reply in zip(signed, (yield from asking(*signed)), strict=True):
        yield from _certified(session, one.request, reply)


def _signed(session: Session, order: to.Certify) -> to.Signed:
    made = session.signed[order.slot]
    signer = session.signer if made.statement else b""
    return to.Signed(order, made.asked.item, made.answer, made.statement, signer)


def _ask_ahead(session: Session) -> Execution[dict[Slot, to.SignFirst]]:
    """What the keys that are going to be made shall sign, where the authority says it beforehand."""
    made = {step.slot for step in session.steps(GenerateKey)}
    steps = [step for step in session.steps(WriteCertificate) if step.slot in made]
    replies = yield from asking(*(to.SignsAhead(step.slot, step.algorithm, step.profile) for step in steps))
    pairs = zip(steps, replies, strict=True)
    return {step.slot: reply for step, reply in pairs if isinstance(reply, to.SignFirst)}


def _hold_signing(
    session: Session, asked: Mapping[Slot, to.SignFirst], *, verified: bool = False
) -> Execution[None]:
    """Hold signatures by the keys of slots, each behind the PIN that it needs, and statements about them.

    ``verified``: the PIN is verified before in the same stage.
    """
    for slot in sorted(asked, key=lambda slot: _signing_order(_pin_policy(session, slot))):
        first, policy = asked[slot], _pin_policy(session, slot)
        always = policy in (PinPolicy.ALWAYS, PinPolicy.MATCH_ALWAYS)
        wants = always or (policy is not PinPolicy.NEVER and not verified)
        before: tuple[Item, ...] = (Apdu(yubico.attest(slot)),) if first.attest else ()
        items = (*before, *((VerifyPin(),) if wants else ()), first.item)
        verified = verified or wants

        def take(group: tuple[Answer, ...], slot: Slot = slot, first: to.SignFirst = first) -> None:
            statement = group[0].data if first.attest else b""
            session.signed[slot] = Signature(first, group[-1].data, statement)

        yield from session.hold(Act(None, items, f"signing with the key of slot {slot.label}", take=take))
    if any(first.attest for first in asked.values()) and not session.signer:
        tag = containers.YUBICO_ATTESTATION.tag

        def read(group: tuple[Answer, ...]) -> None:
            try:
                session.signer = CertificateObject.decode(containers.unwrap(tag, group[0].data)).der
            except (MalformedTlv, MalformedObject) as error:
                raise CertificateUnfit(Slot.ATTESTATION, "is damaged") from error

        item = Apdu(commands.get_data(tag))
        yield from session.hold(Act(None, (item,), "reading the attestation certificate", take=read))


def _pin_policy(session: Session, slot: Slot) -> PinPolicy:
    generated = (step for step in session.plan.steps if isinstance(step, GenerateKey))
    made = next((step for step in generated if step.slot is slot), None)
    if made is not None:
        return made.pin_policy or slot_pin_policy(slot)
    key = session.inventory.key(slot)
    return (key.pin_policy if key is not None else None) or slot_pin_policy(slot)


def _certified(session: Session, request: to.Certify, reply: to.Reply) -> Execution[None]:
    """Keep an issued certificate, in the journal too, once it is known to fit."""
    if isinstance(reply, to.Pending):
        session.pending.append(request.slot)
        return
    der = expect(to.Issued, reply, f"the certificate for slot {request.slot.label}").content
    tag = request.slot.certificate_tag
    try:
        certified = load(der, containers.CONTAINERS[tag]).public_key()
    except MalformedObject as error:
        raise CertificateUnfit(request.slot, "is damaged") from error
    if certified != request.public_key:
        raise CertificateUnfit(request.slot, "is for another key")
    mark = fingerprint(request.public_key)
    yield from session.note(Entry(Kind.CERTIFICATE, slot=request.slot, fingerprint=mark, value=Secret(der)))
    _fits(session, tag, CertificateObject(der).encode())


def _fits(session: Session, tag: int, content: bytes) -> None:
    """Take ``content`` for writing. Raises ObjectTooLarge."""
    if len(content) > session.backend.max_object:
        raise ObjectTooLarge(tag, len(content), session.backend.max_object)
    session.contents[tag] = content


def _write(session: Session) -> Execution[None]:
    for wanted in session.steps(WriteObject):
        reply, = yield from asking(to.ObjectContent(wanted.tag, session.inventory, dict(session.contents)))
        _fits(session, wanted.tag, expect(to.Issued, reply, containers.CONTAINERS[wanted.tag].name).content)
    acts: list[Act] = []
    before: list[Entry] = []
    for step in session.steps(*_WRITES):
        match step:
            case ImportKey():
                key = session.private[step.slot]
                before += (_key_entry(step, key), Entry(Kind.GENERATING, slot=step.slot, fingerprint=step.replaces))
                put = yubico.import_key(
                    step.slot, key, pin_policy=step.pin_policy, touch_policy=step.touch_policy
                )
                acts.append(Act(step, (Apdu(put),), f"importing the key of slot {step.slot.label}"))
            case WriteObject():
                is_chuid = step.tag == containers.CHUID.tag
                acts.append(_put(session, step, step.tag, (_guid_entry(session),) if is_chuid else ()))
            case WriteCertificate() if step.slot not in session.pending:
                acts.append(_put(session, step, step.tag, (Entry(Kind.WRITTEN, slot=step.slot),)))
            case SetManagementKey():
                reply, = yield from asking(to.NewManagementKey(step.algorithm))
                given = expect(to.ManagementKeyGiven, reply, "a new management key")
                before.append(_management_entry(given.name, given.key))
                put = yubico.set_management_key(given.key, touch=step.touch)
                confirm = (Entry(Kind.MANAGEMENT_KEY_SET, given.name),)
                acts.append(Act(step, (Apdu(put),), "setting the management key", confirm))
    yield from session.note(*before)
    yield from session.hold(*acts)


def _put(session: Session, step: Step, tag: int, confirm: tuple[Entry, ...]) -> Act:
    put = commands.put_data(tag, session.contents[tag])
    return Act(step, (Apdu(put),), f"writing {containers.CONTAINERS[tag].name} ({tag:X})", confirm)


def _guid_entry(session: Session) -> Entry:
    """From now on a card without this GUID is another one, even if it has no serial number."""
    return Entry(Kind.WRITTEN, guid=session.records.guid)


def _read_back(session: Session) -> Execution[None]:
    """Compare by SHA-256 what can be read freely."""
    wrote = [step.tag for step in session.plan.steps if isinstance(step, WriteObject | WriteCertificate)]
    for tag in wrote:
        if tag not in session.contents or containers.CONTAINERS[tag].contact.needs_person:
            continue
        digest = hashlib.sha256(containers.wrap(tag, session.contents[tag])).digest()

        def compare(answers: tuple[Answer, ...], tag: int = tag, digest: bytes = digest) -> None:
            if answers[0].data != digest:
                raise ReadBackDiffers(tag)

        item = Apdu(commands.get_data(tag), want=Want.DIGEST)
        doing = f"reading back {containers.CONTAINERS[tag].name} ({tag:X})"
        yield from session.hold(Act(None, (item,), doing, take=compare))
    yield from session.send()


def _after(session: Session) -> Inventory:
    """The card now: steps by the planner's model, contents and keys as they really are."""
    inventory = session.inventory
    for step in session.done:
        inventory = apply(step, inventory)
    keys = tuple(
        replace(row, fingerprint=fingerprint(made), public_key=spki(made))
        if (made := session.public.get(row.slot)) is not None
        else row
        for row in inventory.keys
    )
    tags = [step.tag for step in session.done if isinstance(step, WriteObject | WriteCertificate)]
    return taken_in(replace(inventory, keys=keys), {tag: session.contents[tag] for tag in tags})


def _signing_order(policy: PinPolicy) -> int:
    """One PIN first for the keys that ask once, then those that ask each time, then those that never ask."""
    return {PinPolicy.ALWAYS: 1, PinPolicy.MATCH_ALWAYS: 1, PinPolicy.NEVER: 2}.get(policy, 0)


def _key_entry(step: ImportKey, key: PrivateKey) -> Entry:
    der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    mark = fingerprint(key.public_key())
    return Entry(Kind.KEY, slot=step.slot, fingerprint=mark, algorithm=int(step.algorithm), value=Secret(der))


def _management_entry(name: str, key: ManagementKey) -> Entry:
    return Entry(Kind.MANAGEMENT_KEY, name, algorithm=int(key.algorithm), value=key.value)
