"""The program that reads a card into an Inventory, in as few commands as the card's own answers allow."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ..errors import CardwrightError
from ..iso7816.exchange import BrokenExchange
from ..iso7816.status import SW, tries_left
from ..iso7816.tlv import MalformedTlv
from ..piv import commands, containers, signed
from ..piv.algorithms import Algorithm, ManagementAlgorithm, UnsupportedAlgorithm
from ..piv.objects import Ccc, CertificateObject, Chuid, Discovery, KeyHistory, MalformedObject, SecurityObject, decode
from ..piv.objects.security_object import HashTable
from ..piv.references import ACTIVE_SLOTS, MANAGEMENT_KEY, RETIRED_SLOTS, PinReference, Slot
from ..piv.responses import ApplicationProperties, MalformedAnswer, parse_select
from ..piv.vendor import yubico
from ..program.items import Answer, Answers, Apdu, Batch, Group, Outcome, Program
from .capabilities import backend_of
from .inventory import (
    CertificateState,
    Evidence,
    Features,
    Inventory,
    KeyState,
    ObjectState,
    Presence,
    SecretState,
    fingerprint,
    spki,
)

_ABSENT: Final = frozenset((int(SW.NOT_FOUND), int(SW.REFERENCE_NOT_FOUND)))
_METADATA_ANSWERS: Final = frozenset(
    map(int, (SW.OK, SW.REFERENCE_NOT_FOUND, SW.NOT_FOUND, SW.WRONG_P1P2, SW.WRONG_DATA, SW.FUNCTION))
)
"""What a card that has GET METADATA may answer; 6D00 ends the group, so a card without it is asked once."""

_FAULTS: Final = (0x64, 0x65, 0x6F)
"""First octets of statuses by which a card reports a fault of its own (ISO 7816-4 table 5)."""


class NotPivCard(CardwrightError):
    """The card has no PIV application. ``sw`` is its answer to SELECT."""

    code = "NOT_PIV"
    default_effect = "Nothing on the card was changed."
    default_advice = "Use a card or token with the PIV application, and see that PIV is switched on in it."

    def __init__(self, sw: int) -> None:
        super().__init__(f"This card has no PIV application: it answered SELECT with {sw:04X}.")
        self.sw = sw


@dataclass(frozen=True, slots=True)
class Look:
    """What to read. ``objects`` are container tags beside the certificates of ``slots``.

    A card that shows no CHUID, tells its keys outright and has none in ``slots`` is fresh, and is asked no further
    unless ``thorough``. ``retired`` looks into every retired slot, in a batch of its own; ``counted`` does so where Key
    History counts keys in them. ``one_batch`` asks the rest at once: more commands, fewer round trips.
    """

    slots: tuple[Slot, ...] = ACTIVE_SLOTS
    objects: tuple[int, ...] = (containers.CHUID.tag, containers.CCC.tag)
    thorough: bool = False
    retired: bool = False
    counted: bool = False
    one_batch: bool = False
    stage: str = ""


EVERYTHING: Final = Look(
    objects=tuple(row.tag for row in containers.PIV_CONTAINERS if row.slot is None and not row.contact.needs_person),
    thorough=True,
    retired=True,
)
"""What a person wants to see: every slot in use and every object that is free to read."""

_ALWAYS: Final = (containers.CHUID.tag, containers.DISCOVERY.tag)


def observe(look: Look = EVERYTHING) -> Program[Inventory]:
    """SELECT and read. Raises NotPivCard, TransportError, MalformedAnswer (of SELECT).

    Whatever else is damaged is said in the inventory.
    """
    inventory, _ = yield from observe_with_witness(look, None)
    return inventory


def observe_with_witness(look: Look, algorithm: ManagementAlgorithm | None) -> Program[tuple[Inventory, bytes | None]]:
    """As ``observe``, and ask last for a witness of the management key, if ``algorithm`` is given.

    The witness is None where the card gives none for that algorithm.
    """
    references = (PinReference.PIN, PinReference.PUK, MANAGEMENT_KEY, *look.slots)
    objects = dict.fromkeys(_ALWAYS)
    if look.one_batch:
        objects |= _further(look)
    groups = (
        Group((Apdu(commands.select()),), essential=True),
        Group((Apdu(yubico.get_version()),)),
        Group((Apdu(yubico.get_serial()),)),
        Group(tuple(Apdu(yubico.get_metadata(reference), _METADATA_ANSWERS) for reference in references)),
        *(Group((Apdu(commands.get_data(tag)),)) for tag in objects),
        *(() if algorithm is None else (Group((Apdu(commands.management_witness(algorithm)),)),)),
    )
    (selected,), (version,), (serial,), metadata, *rest = _arrived((yield Batch(groups, look.stage)))
    witness = rest.pop()[0] if algorithm is not None else None
    if any(answer.outcome is Outcome.ANSWERED and answer.sw in _METADATA_ANSWERS for answer in metadata):
        metadata = yield from _completed(references, metadata, look.stage)
    reading = _Reading(_properties(selected))
    reading.version(version)
    reading.serial(serial)
    for reference, answer in zip(references, metadata, strict=True):
        reading.metadata(reference, answer)
    for tag, (answer,) in zip(objects, rest, strict=True):
        reading.object(tag, answer)
    if look.thorough or (not look.one_batch and not reading.is_fresh):
        missing = [tag for tag in _further(look) if tag not in objects]
        asked = [Apdu(commands.get_data(tag)) for tag in missing]
        if not reading.has_metadata:
            asked.append(Apdu(commands.pin_state()))
        if asked:
            answers = _arrived((yield Batch(tuple(Group((item,)) for item in asked), look.stage)))
            for tag, (answer,) in zip(missing, answers, strict=False):
                reading.object(tag, answer)
            if not reading.has_metadata:
                reading.pin_state(answers[-1][0])
    if look.retired or (look.counted and reading.counts_retired):
        yield from _retired(look, reading)
    return reading.inventory(), witness.data if witness is not None and witness.ok else None


def _retired(look: Look, reading: _Reading) -> Program[None]:
    """Keys of retired slots from metadata where the card has it; every retired certificate in any case.

    Key History is not relied on: other tools fill retired slots and leave it as it was.
    """
    slots = tuple(slot for slot in RETIRED_SLOTS if slot not in look.slots) if reading.has_metadata else ()
    tags = tuple(row.tag for row in containers.RETIRED if not reading.was_asked(row.tag))
    metadata = Group(tuple(Apdu(yubico.get_metadata(slot), _METADATA_ANSWERS) for slot in slots))
    reads = tuple(Group((Apdu(commands.get_data(tag)),)) for tag in tags)
    answers = _arrived((yield Batch((*((metadata,) if slots else ()), *reads), look.stage)))
    if slots:
        for slot, answer in zip(slots, (yield from _completed(slots, answers[0], look.stage)), strict=True):
            reading.metadata(slot, answer)
        answers = answers[1:]
    for tag, (answer,) in zip(tags, answers, strict=True):
        if answer.sw not in _ABSENT:
            reading.object(tag, answer)


def _completed(references: Sequence[int], answers: tuple[Answer, ...], stage: str) -> Program[tuple[Answer, ...]]:
    """The metadata of all ``references`` of a card that has it.

    What an unlisted status in between cut off is asked for by itself.
    """
    cut = [number for number, answer in enumerate(answers) if answer.outcome is Outcome.NOT_SENT]
    if not cut:
        return answers
    groups = (Group((Apdu(yubico.get_metadata(references[number]), _METADATA_ANSWERS),)) for number in cut)
    further = _arrived((yield Batch(tuple(groups), stage)))
    found = dict(zip(cut, (answer for (answer,) in further), strict=True))
    return tuple(found.get(number, answer) for number, answer in enumerate(answers))


def taken_in(inventory: Inventory, contents: Mapping[int, bytes]) -> Inventory:
    """A copy of ``inventory`` with the contents of some objects, as their codecs encode them."""
    reading = _Reading(None, inventory)
    for tag, content in contents.items():
        reading.object(tag, Answer(Outcome.ANSWERED, SW.OK, containers.wrap(tag, content)))
    return reading.inventory()


def _further(look: Look) -> dict[int, None]:
    tags = dict.fromkeys((*look.objects, *(slot.certificate_tag for slot in look.slots)))
    if any(slot.is_retired for slot in look.slots):
        tags[containers.KEY_HISTORY.tag] = None
    return tags


def _properties(selected: Answer) -> ApplicationProperties:
    if selected.sw in (SW.NOT_FOUND, SW.INS_NOT_SUPPORTED, SW.CLA_NOT_SUPPORTED, SW.SELECT_FAILED, SW.WRONG_P1P2):
        raise NotPivCard(selected.sw)
    return parse_select(selected.require("selecting the PIV application"))


def _arrived(answers: Answers) -> Answers:
    """The answers, if the card is still there. Raises the cause of the first that was lost with the card."""
    for answer in (one for group in answers for one in group):
        if answer.cause is not None and not (isinstance(answer.cause, BrokenExchange) and answer.sw is not None):
            raise answer.cause
    return answers


class _Reading:
    """An inventory while it is put together."""

    def __init__(self, properties: ApplicationProperties | None, known: Inventory | None = None) -> None:
        self._value = known or Inventory()
        self._defects: list[str] = list(self._value.defects)
        self.raw_answers: dict[int, bytes] = {}
        if properties is not None:
            features = Features(
                label=properties.label, aid=properties.aid.hex(), announced=properties.algorithms, metadata=False
            )
            self._value = replace(self._value, features=features)

    @property
    def has_metadata(self) -> bool:
        return bool(self._value.features.metadata)

    @property
    def is_fresh(self) -> bool:
        absent = self._value.object(containers.CHUID.tag).presence is Presence.ABSENT
        return self.has_metadata and absent and not self._value.keys

    @property
    def counts_retired(self) -> bool:
        """Whether Key History counts keys in retired slots."""
        return any(self._value.retired_counts or ())

    def was_asked(self, tag: int) -> bool:
        """Whether the inventory already has an answer for the container."""
        return self._value.object(tag).presence is not Presence.UNREAD

    def _features(self, **changes: object) -> None:
        self._value = replace(self._value, features=replace(self._value.features, **changes))  # type: ignore[arg-type]

    def version(self, answer: Answer) -> None:
        if answer.ok and len(answer.data) == 3:
            self._features(version=".".join(map(str, answer.data)))

    def serial(self, answer: Answer) -> None:
        known = answer.ok and len(answer.data) == 4
        self._features(serial=known)
        if known:
            number = str(int.from_bytes(answer.data, "big"))
            self._value = replace(self._value, identity=replace(self._value.identity, serial=number))

    def _unknown(self, reference: int, answer: Answer) -> None:
        """A slot of which a card only reports a fault is taken for full: no key is lost for a passing fault."""
        fault = answer.outcome is Outcome.ANSWERED and answer.sw is not None and answer.sw >> 8 in _FAULTS
        if fault and self.has_metadata and reference in set(Slot):
            self._defects.append(f"{reference:02X}: the card reports a fault of its own ({answer.sw:04X})")
            self._value = self._value.with_key(KeyState(Slot(reference), Evidence.METADATA))

    def metadata(self, reference: int, answer: Answer) -> None:
        if answer.outcome is Outcome.ANSWERED and answer.sw in _METADATA_ANSWERS:
            self._features(metadata=True)
        if not answer.ok:
            self._unknown(reference, answer)
            return
        zero = backend_of(self._value.features).origin_from_zero
        try:
            told = yubico.parse_metadata(answer.data, origin_from_zero=zero)
        except MalformedAnswer as error:
            self._defects.append(f"{reference:02X}: {error.message}")
            return
        total, left = told.tries or (None, None)
        state = SecretState(told.is_default, total, left)
        if reference == PinReference.PIN:
            self._value = replace(self._value, pin=state)
        elif reference == PinReference.PUK:
            self._value = replace(self._value, puk=state)
        elif reference == MANAGEMENT_KEY:
            state = SecretState(told.is_default, algorithm=told.algorithm, touch_policy=told.touch_policy)
            self._value = replace(self._value, management_key=state)
        else:
            public = told.public_key
            self._value = self._value.with_key(
                KeyState(
                    Slot(reference),
                    Evidence.METADATA,
                    told.algorithm,
                    "" if public is None else fingerprint(public),
                    b"" if public is None else spki(public),
                    told.origin,
                    told.pin_policy,
                    told.touch_policy,
                )
            )

    def pin_state(self, answer: Answer) -> None:
        left = None if answer.sw is None else tries_left(answer.sw)
        self._value = replace(self._value, pin=replace(self._value.pin, tries_left=left))

    def object(self, tag: int, answer: Answer) -> None:
        """Take in the answer of GET DATA."""
        if answer.ok:
            self._content(tag, answer.data)
            return
        if answer.sw in _ABSENT:
            state = ObjectState(tag, Presence.ABSENT)
        elif answer.sw in (SW.SECURITY_STATUS, SW.FUNCTION):
            state = ObjectState(tag, Presence.PROTECTED)
        elif answer.sw is None:
            state = ObjectState(tag, Presence.UNREAD)
        else:
            state = ObjectState(tag, Presence.DAMAGED, defect=f"the card answers {answer.sw:04X}")
        self._put(state)

    def _put(self, state: ObjectState) -> None:
        """Set the container's state and forget what stood in it before."""
        slot = containers.CONTAINERS[state.tag].slot
        rows = tuple(row for row in self._value.certificates if row.slot != slot)
        self._value = replace(self._value.with_object(state), certificates=rows)

    def _content(self, tag: int, raw: bytes) -> None:
        try:
            value = containers.unwrap(tag, raw)
        except MalformedTlv as error:
            self._put(ObjectState(tag, Presence.DAMAGED, size=len(raw), defect=str(error)))
            return
        if not value:
            self._put(ObjectState(tag, Presence.ABSENT))
            return
        self.raw_answers[tag] = raw
        digest = hashlib.sha256(value).hexdigest()
        self._put(ObjectState(tag, Presence.PRESENT, digest, len(value)))
        try:
            self._meaning(tag, value)
        except CardwrightError as error:
            reason = error.reason if isinstance(error, MalformedObject) else error.message
            self._put(ObjectState(tag, Presence.DAMAGED, digest, len(value), reason))

    def _meaning(self, tag: int, value: bytes) -> None:
        """What an object says. Raises CardwrightError for a damaged one."""
        match decode(tag, value):
            case Chuid() as chuid:
                who = replace(self._value.identity, guid=_guid(chuid.guid), fascn=chuid.fascn.hex())
                self._value = replace(self._value, identity=who, expiration=chuid.expiration)
            case CertificateObject() as found:
                row = containers.CONTAINERS[tag]
                assert row.slot is not None
                self._certificate(Slot(row.slot), found.x509(row))
            case Discovery() as discovery:
                usage = bytes((discovery.policy.first, discovery.policy.second)).hex()
                self._value = replace(self._value, pin_usage=usage)
            case KeyHistory() as history:
                counts = (history.on_card, history.off_card)
                self._value = replace(self._value, retired_counts=counts)
            case SecurityObject() | Ccc() | _:
                pass

    def _certificate(self, slot: Slot, certificate: x509.Certificate) -> None:
        public = certificate.public_key()
        info = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        key = hashlib.sha256(info).hexdigest()
        self._value = self._value.with_certificate(
            CertificateState(
                slot,
                certificate.fingerprint(hashes.SHA256()).hex(),
                key,
                certificate.subject.rfc4514_string(),
                certificate.issuer.rfc4514_string(),
                certificate.serial_number,
                certificate.not_valid_before_utc,
                certificate.not_valid_after_utc,
            )
        )
        known = self._value.key(slot)
        if (known is None and not self.has_metadata) or (known is not None and known.evidence is Evidence.CERTIFICATE):
            try:
                algorithm: int | None = Algorithm.of(public)  # type: ignore[arg-type]
            except UnsupportedAlgorithm:
                algorithm = None
            self._value = self._value.with_key(KeyState(slot, Evidence.CERTIFICATE, algorithm, key, info))

    def inventory(self) -> Inventory:
        """The finished value."""
        card_key = self._value.key(Slot.CARD_AUTHENTICATION)
        who = replace(self._value.identity, card_key="" if card_key is None else card_key.fingerprint)
        holds = self._security_object()
        if holds is None and containers.SECURITY_OBJECT.tag not in self.raw_answers:
            holds = self._value.security_object_holds
        return replace(self._value, identity=who, security_object_holds=holds, defects=tuple(self._defects))

    def _security_object(self) -> bool | None:
        """Whether every hash fits the object that was read with it."""
        tag = containers.SECURITY_OBJECT.tag
        raw = self.raw_answers.get(tag)
        if raw is None or self._value.object(tag).presence is not Presence.PRESENT:
            return None
        try:
            found = SecurityObject.decode(containers.unwrap(tag, raw))
            table = HashTable.decode(signed.read(found.signed).content or b"")
            by_number = {number: containers.CONTAINERS_BY_ID.get(owner) for number, owner in found.groups}
            read = {
                number: containers.hashed_content(row.tag, self.raw_answers[row.tag])
                for number, row in by_number.items()
                if row is not None and row.tag in self.raw_answers
            }
            return all(table.matches(number, content) for number, content in read.items())
        except (CardwrightError, ValueError):
            return False


def _guid(value: UUID) -> UUID | None:
    """The card's UUID; all zeros is none (SP 800-73-4 cards that only have a FASC-N)."""
    return value if value.int else None
