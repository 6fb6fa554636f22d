"""The card states in which costs are compared with those of the public tools."""

from __future__ import annotations

from datetime import timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, ObjectIdentifier

from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.management_key import DEFAULT_KEY, ManagementKey, authenticate
from cardwright_cardops.piv.objects import Ccc
from cardwright_cardops.piv.references import ACTIVE_SLOTS
from cardwright_cardops.plan.local_authority import make_key
from cardwright_cardops.program.items import Apdu, Program, ask
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import KeyPool, VirtualCard
from tests.support.bare_jobs import NOW, Certified, bare_executor, chuid

PROFILE: Final = "yubikey-5.4"
"""3DES management key, the default value: what the measured tools all know."""
CERTIFICATE_OCTETS: Final = {Algorithm.P256: 457, Algorithm.RSA2048: 853}
"""Those with which the public tools were measured: one octet more can be one APDU more."""
POOL: Final = KeyPool(size=4)
_FILLING: Final = ObjectIdentifier("2.16.840.1.113730.1.13")
"""Netscape's comment: an extension that nobody minds."""


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
        filling += wanted - size  # ECDSA signatures differ by an octet or two, so that it may take some turns


def _self_signed(key: Any, filling: int) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Cost of a card")])
    comment = b"\x16\x82" + filling.to_bytes(2, "big") + b"." * filling
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1 << 62, NOW, NOW + timedelta(days=365))
    return builder.add_extension(x509.UnrecognizedExtension(_FILLING, comment), critical=False).sign(
        key, hashes.SHA256()
    )


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
