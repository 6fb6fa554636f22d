"""Our bare jobs on a card in the state that they are for: what a client process needs, and no virtual card.

Certificates have the sizes with which the public tools were measured, because one octet can be one APDU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PrivateKey, PublicKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import DEFAULT_KEY, ManagementKey
from cardwright_cardops.piv.objects import Ccc, CertificateObject, Chuid
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_cardops.plan import bare
from cardwright_cardops.plan.local_authority import NON_FEDERAL
from cardwright_cardops.program.items import Program, SetPin, Unblock, VerifyPin
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Connection

OLD_PIN, NEW_PIN = b"123456", b"654321"
OLD_PUK, NEW_PUK = b"12345678", b"87654321"
NOW: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
READ: Final = (containers.CHUID.tag, containers.CCC.tag, *(slot.certificate_tag for slot in ACTIVE_SLOTS))


@dataclass(frozen=True, slots=True)
class Certified:
    """A key and its self-signed certificate."""

    key: PrivateKey
    certificate: x509.Certificate

    @property
    def content(self) -> bytes:
        """What a certificate container holds."""
        return CertificateObject(self.certificate.public_bytes(Encoding.DER)).encode()


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


def personalization(algorithm: Algorithm, own: Certified) -> Program[dict[Slot, PublicKey]]:
    """Three keys made on the card, ``own`` imported, its certificate in four slots, CHUID, CCC, all three secrets."""
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
