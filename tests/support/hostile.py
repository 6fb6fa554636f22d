"""What is done with hostile files and documents, by hypothesis and by the targets of ``make fuzz`` alike.

Each function takes any octets and raises only where the code under test raises what it does not document.
"""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops import wire
from cardwright_cardops.check import CardData, Level, TrustUnreadable, check, load_certificates, load_crls, load_ocsp
from cardwright_cardops.check.image import ImageUnreadable, load_image
from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, UnsupportedAlgorithm
from cardwright_cardops.piv.references import Slot, UnknownSlot
from cardwright_cardops.piv.vendor.attestation import AttestationInvalid, verify_attestation
from cardwright_cardops.plan.inventory import Identity, Inventory
from cardwright_cardops.plan.journal_file import FileJournal, JournalMalformed
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.policy import DevicePolicy, PolicyMalformed, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Entry, JournalOfAnotherCard, Kind, fold, require_same_card, shows_card
from cardwright_cardops.plan.steps import GenerateKey, ImportKey, Plan, SetManagementKey, SetPin, WriteObject
from cardwright_cardops.program.items import Apdu, Batch, Group
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_clients.cli.card_init import read_policy
from cardwright_clients.cli.cards import CardSummary, DirectCard
from cardwright_clients.cli.key import KeyFileUnreadable, load_private_key
from cardwright_clients.cli.secrets import SecretSource
from cardwright_clients.cli.secrets_file import management_keys
from cardwright_proto.card.v1 import inventory_pb2, plan_pb2, programs_pb2
from cardwright_simulators.card import VirtualCard, images
from cardwright_simulators.card.state import CardState, StateDamaged
from tests.support.mangling import as_octets, mangled
from tests.support.piv_card import AT, PivCard, Profile, crl, key
from tests.support.virtual import POOL


@cache
def _folder() -> Path:
    memory = Path("/dev/shm")
    folder = tempfile.mkdtemp(prefix="cardwright-hostile-", dir=memory if memory.is_dir() else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def _file(raw: bytes) -> Path:
    path = _folder() / "file"
    path.write_bytes(raw)
    path.chmod(0o600)
    return path


# --------------------------------------------------------------------------------------------------- card images


@cache
def _image() -> dict[str, Any]:
    card = VirtualCard("yubikey-5.7", serial=7, key_pool=POOL)
    document = images.save(card)
    data = PivCard().data()
    document["objects"] = {f"{tag:X}": (value or b"").hex() for tag, value in data.objects.items()}
    pkcs8 = ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    document["keys"] = {"9A": {"type": "p256", "pkcs8": pkcs8.hex()}, "9C": pkcs8.hex()}
    return document


def _observed(card: VirtualCard) -> Inventory:
    return DirectCard(DirectConnection(card), CardSummary("reader", card.atr)).run(observe())


def image(raw: bytes) -> None:
    """A card image: as the check and as the virtual card read it, and what the check then says of it."""
    for content in (raw, as_octets(mangled(_image(), raw))):
        path = _file(content)
        with suppress(ImageUnreadable):
            check(load_image(path), level=Level.PIV, at=AT)
        for profile in ("yubikey-5.7", "secure-messaging"):
            with suppress(images.ImageDamaged):
                card = images.load(path, profile=profile, key_pool=POOL)
                _observed(card)


def image_seeds() -> list[bytes]:
    """An image, and octets that spoil one."""
    return [as_octets(_image()), b"\x30\x00\x11", b"\x05\x03\x07\x40\x00\x0f"]


def state(raw: bytes) -> None:
    """The file in which a virtual card lives."""
    good = json.loads(VirtualCard("yubikey-5.7", serial=7, key_pool=POOL).snapshot())
    for content in (raw, as_octets(mangled(good, raw))):
        with suppress(StateDamaged):
            CardState.decode(content)


# ------------------------------------------------------------------------------------ trust, CRLs, OCSP responses


@cache
def _checked() -> tuple[CardData, list[x509.Certificate], PivCard]:
    card = PivCard()
    data = card.data()
    return data, card.trust, card


def trust(raw: bytes) -> None:
    """A file given as trust anchors, as CRLs and as OCSP responses: read or refused, and then a check is a report."""
    data, anchors, _ = _checked()
    path = _file(raw)
    with suppress(TrustUnreadable):
        check(data, level=Level.PIV, at=AT, trust=[*anchors, *load_certificates(path)], crls=[crl("CA")])
    with suppress(TrustUnreadable):
        check(data, level=Level.PIV, at=AT, trust=anchors, crls=load_crls(path))
    with suppress(TrustUnreadable):
        check(data, level=Level.PIV, at=AT, trust=anchors, crls=[crl("Root")], ocsp=load_ocsp(path))


def signed(tbs: bytes, signer: str) -> bytes:
    """``tbs`` in the envelope that certificates, CRLs and OCSP responses share, with a signature that holds."""
    used = key(signer)
    assert isinstance(used, ec.EllipticCurvePrivateKey)
    algorithm = bytes.fromhex("300a06082a8648ce3d040302")
    signature = used.sign(tbs, ec.ECDSA(hashes.SHA256()))
    return encode(0x30, tbs + algorithm + encode(0x03, b"\0" + signature))


def believed(raw: bytes) -> None:
    """The same where the authority itself signed the hostile content: ``raw`` is what was signed.

    The first octet chooses between a certificate of a CA and a CRL.
    """
    if not raw:
        return
    data, anchors, _ = _checked()
    der = signed(raw[1:], "CA")
    with suppress(TrustUnreadable):
        if raw[0] & 1:
            check(data, level=Level.PIV, at=AT, trust=anchors, crls=[crl("Root"), der])
        else:
            check(data, level=Level.PIV, at=AT, trust=[*anchors, *load_certificates(_file(der))], crls=[crl("CA")])


def trust_seeds() -> list[bytes]:
    """A certificate and a CRL, in PEM and DER, and an OCSP response."""
    from tests.cardops.check.test_ocsp import response  # it makes them as the tests of OCSP want them

    _, anchors, card = _checked()
    encoding = serialization.Encoding
    return [
        anchors[1].public_bytes(encoding.PEM), anchors[1].public_bytes(encoding.DER), crl("CA"), response(card, None),
    ]  # fmt: skip


def believed_seeds() -> list[bytes]:
    """What a certificate and a CRL sign."""
    _, anchors, _ = _checked()
    lists = x509.load_der_x509_crl(crl("CA", (4242,)))
    return [b"\0" + anchors[1].tbs_certificate_bytes, b"\1" + lists.tbs_certlist_bytes]


# ------------------------------------------------------------------------------------------------- secrets files

_ENTRIES: Final = (
    Entry(Kind.CARD, serial="7", guid=UUID(int=7)),
    Entry(Kind.MANAGEMENT_KEY, "a", algorithm=int(ManagementAlgorithm.AES192), value=Secret(bytes(24))),
    Entry(Kind.MANAGEMENT_KEY_SET, "a"),
    Entry(Kind.PUK, "b", value=Secret(b"12345678")),
    Entry(Kind.GENERATING, slot=Slot.AUTHENTICATION, fingerprint="00"),
    Entry(Kind.KEY, "c", Slot.KEY_MANAGEMENT, "11", int(Algorithm.P256), Secret(b"x")),
    Entry(Kind.WRITTEN, guid=UUID(int=7)),
)


@cache
def _lines() -> list[Any]:
    path = _folder() / "good"
    journal = FileJournal.begin(path)
    journal.note(_ENTRIES)
    journal.close()
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def secrets_file(raw: bytes) -> None:
    """A secrets file: its entries, and what commands make of them."""
    head, *rows = _lines()
    spoiled = mangled(rows, raw)
    lines = [head, *(spoiled if isinstance(spoiled, list) else [spoiled])]
    for content in (raw, b"".join(as_octets(line) + b"\n" for line in lines)):
        try:
            entries = FileJournal.resume(_file(content)).entries()
        except JournalMalformed:
            continue
        fold(entries)
        for who in (Identity(serial="7"), Identity(guid=UUID(int=7)), Identity()):
            shows_card(entries, who)
            with suppress(JournalOfAnotherCard):
                require_same_card(entries, who)
        with suppress(JournalMalformed):
            management_keys(entries)


def secrets_file_seeds() -> list[bytes]:
    """A file as ``card init`` writes it."""
    _lines()
    return [(_folder() / "good").read_bytes()]


# ------------------------------------------------------------------------------------------------------ policies

_POLICY: Final = DevicePolicy(
    slots=parse_keys("9a=p256,9d=rsa2048:import"), secrets=SecretsPolicy(retries=(3, 3))
).document()


def policy(raw: bytes) -> None:
    """A policy file, and the short form of ``--keys``."""
    for content in (raw, as_octets(mangled(_POLICY, raw))):
        with suppress(PolicyMalformed, UnsupportedAlgorithm, UnknownSlot):
            made = read_policy(_file(content))
            assert DevicePolicy.from_document(made.document()) == made
    with suppress(PolicyMalformed, UnsupportedAlgorithm, UnknownSlot):
        parse_keys(raw.decode("latin-1"))


def policy_seeds() -> list[bytes]:
    """A policy in JSON and in TOML, and the short form."""
    toml = b'name = "x"\n[[slots]]\nslot = "9a"\nalgorithm = "p256"\n[secrets]\nretries = [3, 3]\n'
    return [as_octets(_POLICY), toml, b"9a=p256,9d=rsa2048:import"]


# -------------------------------------------------------------------------------------------------- attestations


@cache
def attester() -> x509.Certificate:
    """The certificate of the attestation key, whose key signs as "CA"."""
    return Profile("CA", "CA", "CA", is_ca=True, usages=("key_cert_sign",)).make()


def attestation(raw: bytes) -> None:
    """Statements whose signature holds: ``raw`` is what the token's attestation key signed. And ``raw`` as it is."""
    made = []
    for der in (raw, signed(raw, "CA")):
        with suppress(ValueError, x509.InvalidVersion):
            made.append(x509.load_der_x509_certificate(der))
    for statement in made:
        for signer, known in ((attester(), [attester()]), (None, [attester(), *made]), (statement, [statement])):
            with suppress(AttestationInvalid):
                verify_attestation(statement, signer, known)


def attestation_seeds() -> list[bytes]:
    """What a token signs, with and without its extensions."""
    oid = "1.3.6.1.4.1.41482.3."
    values = {"3": b"\5\7\4", "7": bytes.fromhex("0203123456"), "8": b"\2\1"}
    more = tuple(x509.UnrecognizedExtension(x509.ObjectIdentifier(oid + end), row) for end, row in values.items())
    return [
        Profile("YubiKey PIV Attestation 9a", "9A", more=rows, addresses=None).make().tbs_certificate_bytes
        for rows in (more, ())
    ]


# ---------------------------------------------------------------------------------------------------- key files


class _Typed(SecretSource):
    """Somebody types the same password every time."""

    def __init__(self) -> None:
        super().__init__(descriptor=None, pinentry=None, act="fuzz")

    def password(self, what: str) -> Secret:
        return Secret(b"password")


def key_file(raw: bytes) -> None:
    """A private key file."""
    with suppress(KeyFileUnreadable):
        load_private_key(raw, _Typed())


def key_file_seeds() -> list[bytes]:
    """A key in both encodings."""
    private = ec.generate_private_key(ec.SECP256R1())
    encodings = (serialization.Encoding.DER, serialization.Encoding.PEM)
    plain = serialization.NoEncryption()
    return [private.private_bytes(one, serialization.PrivateFormat.PKCS8, plain) for one in encodings]


# ---------------------------------------------------------------------------------------- inventories and plans


@cache
def _inventory() -> Inventory:
    data, _, _ = _checked()
    card = images.load(
        {"objects": {f"{tag:X}": (value or b"").hex() for tag, value in data.objects.items()}}, profile="yubikey-5.7"
    )
    return _observed(card)


_PLAN: Final = Plan(
    "p", Identity(UUID(int=1), "", "7", ""),
    (
        SetPin(), SetManagementKey(ManagementAlgorithm.AES192, False),
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), ImportKey(Slot.KEY_MANAGEMENT, Algorithm.P256),
        WriteObject(0x5FC102),
    ),
)  # fmt: skip


def inventory_document(raw: bytes) -> None:
    """A kept inventory that somebody spoiled: what it names, and nothing else, is raised."""
    with suppress(ValueError):
        Inventory.from_document(mangled(_inventory().document(), raw))


def documents_on_the_wire(raw: bytes) -> None:
    """Inventories, plans and answers from the other end of a line."""
    batch = Batch((Group((_SELECT, _SELECT)),))
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        wire.answers_from_wire(wire.parse(raw, programs_pb2.Answers), batch)
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        seen = wire.inventory_from_wire(wire.parse(raw, inventory_pb2.Inventory))
        assert wire.inventory_from_wire(wire.inventory_to_wire(seen)) == seen
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        plan = wire.plan_from_wire(wire.parse(raw, plan_pb2.Plan))
        assert wire.plan_from_wire(wire.plan_to_wire(plan)) == plan


def documents_on_the_wire_seeds() -> list[bytes]:
    """An inventory and a plan as they are sent."""
    return [wire.inventory_to_wire(_inventory()).SerializeToString(), wire.plan_to_wire(_PLAN).SerializeToString()]


_SELECT: Final = Apdu(commands.select())

DECODERS: Final[dict[str, Callable[[bytes], None]]] = {
    "image": image,
    "state": state,
    "trust": trust,
    "believed": believed,
    "secrets file": secrets_file,
    "policy": policy,
    "attestation": attestation,
    "key file": key_file,
    "inventory document": inventory_document,
    "documents on the wire": documents_on_the_wire,
}

SEEDS: Final[dict[str, Callable[[], list[bytes]]]] = {
    "image": image_seeds,
    "trust": trust_seeds,
    "believed": believed_seeds,
    "secrets file": secrets_file_seeds,
    "policy": policy_seeds,
    "attestation": attestation_seeds,
    "key file": key_file_seeds,
    "documents on the wire": documents_on_the_wire_seeds,
}
"""Good contents to begin with."""
