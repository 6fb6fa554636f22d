"""Programs that people run by name: make sure of the card, then change a PIN, write a certificate, make a key.

Each works inside the stage it is given and begins with SELECT. Each confirms the card's identity before a PIN or a
management key goes to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from ..errors import CardwrightError
from ..iso7816.status import SW
from ..program.items import ONLY_OK, Answer, Apdu, Item, Program, SetPin, SetPuk, Unblock, VerifyPin, ask
from ..secret import Secret
from . import commands, containers
from .algorithms import Algorithm, PinPolicy, PrivateKey, PublicKey, TouchPolicy
from .management_key import ManagementKey, ManagementKeyRefused, authenticate
from .objects import CertificateObject
from .pins import reference_name
from .references import PinReference, Slot
from .responses import parse_public_key
from .vendor import yubico

_MAYBE = frozenset((int(SW.OK), int(SW.NOT_FOUND), int(SW.INS_NOT_SUPPORTED), int(SW.CLA_NOT_SUPPORTED)))


class AnotherCard(CardwrightError):
    """The card in the reader is not the one that was chosen."""

    code = "ANOTHER_CARD"
    default_effect = "Nothing was sent to this card."
    default_advice = "Put the right card back and start again."


@dataclass(frozen=True, slots=True)
class Marks:
    """What a card is recognised by: the vendor's serial number and the CHUID as the card answers them, or nothing."""

    serial: bytes = b""
    chuid: bytes = b""


def read_marks(stage: str = "") -> Program[Marks]:
    """SELECT, and what the card is recognised by. Raises StatusError when there is no PIV application."""
    selected, serial, chuid = yield from ask(
        Apdu(commands.select()),
        Apdu(yubico.get_serial(), _MAYBE),
        Apdu(commands.get_data(containers.CHUID.tag), _MAYBE),
        stage=stage,
    )
    selected.require("selecting the PIV application")
    return Marks(serial.require("reading the serial number", _MAYBE), chuid.require("reading the CHUID", _MAYBE))


def confirm(marks: Marks, stage: str) -> Program[None]:
    """SELECT, and make sure that this is still the card of ``marks``. Raises AnotherCard."""
    if (yield from read_marks(stage)) != marks:
        raise AnotherCard("The card in the reader is not the one that was chosen.")


def change_pin(marks: Marks, reference: int = PinReference.PIN) -> Program[None]:
    """Old PIN to new PIN, both from the custodian. Raises StatusError, LastTry, AlreadyBlocked, AnotherCard."""
    yield from _one(marks, SetPin(reference), f"changing the {reference_name(reference)}")


def change_puk(marks: Marks, old: Secret, new: Secret) -> Program[None]:
    """Old PUK to new PUK. Raises as ``change_pin``."""
    yield from _one(marks, SetPuk(old, new), "changing the PUK", before=_counter(PinReference.PUK))


def unblock_pin(marks: Marks, puk: Secret) -> Program[None]:
    """A new PIN with the PUK. Raises as ``change_pin``."""
    yield from _one(marks, Unblock(puk), "unblocking the PIN", before=_counter(PinReference.PUK))


def verify_pin(marks: Marks, reference: int = PinReference.PIN) -> Program[None]:
    """Verify the PIN; its status ends with the stage. Raises as ``change_pin``."""
    yield from _one(marks, VerifyPin(reference), f"verifying the {reference_name(reference)}")


def _counter(reference: int) -> Apdu:
    """The counter of the PUK, from cards that tell it; the others are asked nothing."""
    return Apdu(yubico.get_metadata(reference), _MAYBE | {int(SW.REFERENCE_NOT_FOUND), int(SW.WRONG_P1P2)})


def _one(marks: Marks, item: Item, doing: str, before: Item | None = None) -> Program[None]:
    yield from confirm(marks, "pin")
    items = (item,) if before is None else (before, item)
    answers: tuple[Answer, ...] = yield from ask(*items, stage="pin", essential=True)
    answers[-1].require(doing)


def _read(item: Apdu, stage: str) -> Program[Answer]:
    """The answer to ``item``; without a stage, behind a SELECT: other programs leave the application in between."""
    if stage:
        (answer,) = yield from ask(item, stage=stage)
        return answer
    selected, answer = yield from ask(Apdu(commands.select()), item, essential=True)
    selected.require("selecting the PIV application")
    return answer


def read_certificate(slot: Slot, stage: str = "") -> Program[CertificateObject | None]:
    """The certificate of a slot; None when there is none. Raises StatusError, MalformedObject, MalformedTlv."""
    accept = frozenset((int(SW.OK), int(SW.NOT_FOUND)))
    answer = yield from _read(Apdu(commands.get_data(slot.certificate_tag), accept), stage)
    data = answer.require(f"reading the certificate of slot {slot.label}", accept)
    content = containers.unwrap(slot.certificate_tag, data) if data else b""
    return CertificateObject.decode(content, containers.CONTAINERS[slot.certificate_tag]) if content else None


def write_object(tag: int, content: bytes, doing: str, stage: str) -> Program[None]:
    """PUT DATA; the management key must have been authenticated in ``stage``. Raises StatusError."""
    (answer,) = yield from ask(Apdu(commands.put_data(tag, content)), stage=stage)
    answer.require(doing)


def open_management(keys: Iterable[ManagementKey], marks: Marks, stage: str) -> Program[ManagementKey]:
    """Authenticate with the first of ``keys`` that the card takes, at most three. Raises ManagementKeyRefused."""
    refused: ManagementKeyRefused | None = None
    for key in tuple(keys)[:3]:
        yield from confirm(marks, stage)
        try:
            yield from authenticate(key, stage=stage)
        except ManagementKeyRefused as error:
            refused = error
        else:
            return key
    raise refused or ManagementKeyRefused("No management key was given.")


def generate_key(
    slot: Slot, algorithm: Algorithm, pin_policy: PinPolicy, touch_policy: TouchPolicy, stage: str
) -> Program[PublicKey]:
    """Make a key on the card, over whatever was in the slot. Raises StatusError, MalformedAnswer."""
    command = commands.generate(slot, algorithm, pin_policy=pin_policy, touch_policy=touch_policy)
    (answer,) = yield from ask(Apdu(command), stage=stage)
    return parse_public_key(algorithm, answer.require(f"generating a key in slot {slot.label}"))


def import_key(
    slot: Slot, key: PrivateKey, pin_policy: PinPolicy, touch_policy: TouchPolicy, stage: str
) -> Program[None]:
    """Write a key to the card, over whatever was in the slot. Raises StatusError, UnsupportedAlgorithm."""
    command = yubico.import_key(slot, key, pin_policy=pin_policy, touch_policy=touch_policy)
    (answer,) = yield from ask(Apdu(command), stage=stage)
    answer.require(f"importing a key into slot {slot.label}")


def slot_key(slot: Slot, stage: str = "") -> Program[PublicKey | None]:
    """The public key of a slot as the card tells it; None for an empty slot or a card that does not tell.

    Raises StatusError, MalformedAnswer.
    """
    accept = _MAYBE | {int(SW.REFERENCE_NOT_FOUND), int(SW.WRONG_P1P2), int(SW.WRONG_DATA)}
    answer = yield from _read(Apdu(yubico.get_metadata(slot), accept), stage)
    data = answer.require(f"asking what is in slot {slot.label}", accept)
    return yubico.parse_metadata(data).public_key if answer.ok else None


def attestation(slot: Slot) -> Program[tuple[x509.Certificate, x509.Certificate | None]]:
    """The card's statement that it made the key of ``slot``, and the certificate of the key that signed it.

    Raises StatusError, MalformedCertificate.
    """
    (selected, answer) = yield from ask(Apdu(commands.select()), Apdu(yubico.attest(slot)))
    selected.require("selecting the PIV application")
    statement = load_certificate(answer.require(f"attesting the key of slot {slot.label}", ONLY_OK))
    signer = yield from read_certificate(Slot.ATTESTATION)
    return statement, load_certificate(signer.der) if signer is not None else None


class MalformedCertificate(CardwrightError):
    """Octets that should be an X.509 certificate and are none."""

    code = "CERTIFICATE_MALFORMED"
    default_effect = "Nothing on the card was changed."
    default_advice = "Give a certificate in PEM or DER."


def load_certificate(der: bytes) -> x509.Certificate:
    """A DER certificate. Raises MalformedCertificate."""
    try:
        return x509.load_der_x509_certificate(der)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedCertificate("This is not an X.509 certificate.") from error


def certificate_content(certificate: x509.Certificate, *, compress: bool = False) -> bytes:
    """What goes into the container of a certificate."""
    return CertificateObject(der=certificate.public_bytes(Encoding.DER), compressed=compress).encode()


