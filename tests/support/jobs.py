"""The jobs and card states on which costs are compared: ours, and those of the public tools in bench/.

Certificates have the sizes with which the public tools were measured, because one octet can be one APDU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey, PublicKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import DEFAULT_KEY, ManagementKey, authenticate
from cardwright_cardops.piv.objects import Ccc, CertificateObject, Chuid
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_cardops.plan import bare
from cardwright_cardops.plan.local_authority import NON_FEDERAL, make_key
from cardwright_cardops.program.items import Apdu, Program, SetPin, Unblock, VerifyPin, ask
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Connection
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import KeyPool, VirtualCard

PROFILE: Final = "yubikey-5.4"
"""3DES management key, the default value: what the measured tools all know."""
OLD_PIN, NEW_PIN = b"123456", b"654321"
OLD_PUK, NEW_PUK = b"12345678", b"87654321"
NOW: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
CERTIFICATE_OCTETS: Final = {Algorithm.P256: 457, Algorithm.RSA2048: 853}
READ: Final = (containers.CHUID.tag, containers.CCC.tag, *(slot.certificate_tag for slot in ACTIVE_SLOTS))
POOL: Final = KeyPool(size=4)
_FILLING: Final = ObjectIdentifier("2.16.840.1.113730.1.13")
"""Netscape's comment: an extension that nobody minds."""


@dataclass(frozen=True, slots=True)
class Certified:
    """A key and its self-signed certificate."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def content(self) -> bytes:
        """What a certificate container holds."""
        return CertificateObject(self.certificate.public_bytes(Encoding.DER)).encode()


@cache
def certified(algorithm: Algorithm) -> Certified:
    """A certificate of exactly ``CERTIFICATE_OCTETS``; one for each process."""
    key: Any = make_key(algorithm)
    wanted = CERTIFICATE_OCTETS[algorithm]
    filling = 64
    while True:
        made = _self_signed(key, filling)
        size = len(made.public_bytes(Encoding.DER))
        if size == wanted:
            return Certified(key, made)
        # ECDSA signatures differ by an octet or two, so that a close miss is signed again.
        filling += wanted - size if abs(wanted - size) > 3 else 0


def _self_signed(key: Any, filling: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cost of a card")])
    comment = b"\x16\x82" + filling.to_bytes(2, "big") + b"." * filling
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 << 62, NOW, NOW + timedelta(days=365))
    return builder.add_extension(x509.UnrecognizedExtension(_FILLING, comment), critical=False).sign(
        key, hashes.SHA256()
    )


def chuid() -> bytes:
    """An unsigned CHUID."""
    return Chuid(NON_FEDERAL.encode(), UUID(int=0x5EED << 64), NOW.date()).encode()


def bare_executor(
    connection: Connection, *, short: bool, pin: bytes = OLD_PIN, new_pin: bytes = NEW_PIN
) -> LocalExecutor:
    """An executing end that adds nothing to what a program asks for: no tries guard, no status dropped."""
    keys = KeyItems(FixedPins(Secret(pin), Secret(new_pin)), TriesGuard(0), local=True)
    made = LocalExecutor(connection, keys, Limits(extended=False) if short else None)
    made.drops_status = False
    return made


def personalization(algorithm: Algorithm) -> Program[dict[Slot, PublicKey]]:
    """Three keys made on the card, one imported, four certificates, CHUID, CCC, and all three secrets."""
    own = certified(algorithm)
    work = bare.Personalization(
        management_key=ManagementKey(ManagementAlgorithm.TDES, Secret(DEFAULT_KEY)),
        new_management_key=ManagementKey(ManagementAlgorithm.TDES, Secret(bytes(range(1, 49, 2)))),
        puk=Secret(OLD_PUK),
        new_puk=Secret(NEW_PUK),
        objects={containers.CHUID.tag: chuid(), containers.CCC.tag: Ccc().encode()},
        generate={slot: algorithm for slot in ACTIVE_SLOTS if slot is not Slot.KEY_MANAGEMENT},
        imports={Slot.KEY_MANAGEMENT: own.key},
    )

    def certify(keys: Mapping[Slot, PublicKey]) -> dict[int, bytes]:
        return {slot.certificate_tag: own.content for slot in ACTIVE_SLOTS}

    return bare.personalize(work, certify)


def reading() -> Program[dict[int, bytes]]:
    """CHUID, CCC and the four certificates."""
    return bare.read(*READ)


def verifying() -> Program[None]:
    return bare.select_and(VerifyPin(), "verifying the PIN")


def changing() -> Program[None]:
    return bare.select_and(SetPin(), "changing the PIN")


def unblocking() -> Program[None]:
    return bare.select_and(Unblock(Secret(OLD_PUK)), "unblocking the PIN")


def fresh_card() -> VirtualCard:
    """A card as it leaves the factory; RSA keys come from a pool."""
    return VirtualCard(PROFILE, serial=12345678, key_pool=POOL)


@cache
def _filled(algorithm: Algorithm) -> bytes:
    card = fresh_card()
    run(_filling_in(algorithm), bare_executor(DirectConnection(card), short=False))
    return card.snapshot()


def _filling_in(algorithm: Algorithm) -> Program[None]:
    yield from ask(Apdu(commands.select()), stage="fill")
    yield from authenticate(ManagementKey(ManagementAlgorithm.TDES, Secret(DEFAULT_KEY)), stage="fill")
    contents = {slot.certificate_tag: certified(algorithm).content for slot in ACTIVE_SLOTS}
    contents |= {containers.CHUID.tag: chuid(), containers.CCC.tag: Ccc().encode()}
    answers = yield from ask(
        *(Apdu(commands.generate(slot, algorithm)) for slot in ACTIVE_SLOTS),
        *(Apdu(commands.put_data(tag, content)) for tag, content in contents.items()),
        stage="fill",
    )
    assert all(answer.ok for answer in answers)


def filled_card(algorithm: Algorithm) -> VirtualCard:
    """Four keys, the same certificate in each slot, CHUID and CCC; PIN, PUK and management key of the factory."""
    return VirtualCard.restore(_filled(algorithm), key_pool=POOL)


def blocked_card() -> VirtualCard:
    """A filled P-256 card whose PIN was wrong six times."""
    card = filled_card(Algorithm.P256)
    card.transmit(commands.select().encode())
    for _ in range(6):
        card.transmit(commands.verify(0x80, Secret(b"000000")).encode())
    return card
