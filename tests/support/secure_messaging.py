"""A card with a secure messaging key, the signer that vouches for it, and sessions with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from cryptography.hazmat.primitives.cmac import CMAC

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import ResponseAPDU
from cardwright_cardops.piv.cvc import CONTENT_SIGNING, ContentSigner, Cvc
from cardwright_cardops.piv.secure_messaging import SmHandshake, SmSession, SmSuite
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.secure_messaging import ROLE_SIGNER, CardSession, intermediate_subject, make_cvc

GUID = bytes.fromhex("00112233445566778899AABBCCDDEEFF")
NOW = datetime(2026, 6, 1, tzinfo=UTC)

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


def signer_certificate(
    key: SigningKey,
    *,
    usage: x509.ObjectIdentifier | None = CONTENT_SIGNING,
    key_identifier: bool = True,
    not_after: datetime = NOW + timedelta(days=400),
) -> x509.Certificate:
    """A self-signed content signing certificate; the path above it is not looked at here."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Content Signer")])
    public = key.public_key()
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=30))
        .not_valid_after(not_after)
    )
    if usage is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
    if key_identifier:
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    return builder.sign(key, hashes.SHA256())


def issuer_id(certificate: x509.Certificate) -> bytes:
    """What a CVC calls this certificate."""
    identifier = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
    return identifier.value.digest[:8]


@dataclass(frozen=True, slots=True)
class SmTestCard:
    """Key and certificate of a card, and its signer."""

    suite: SmSuite
    key: ec.EllipticCurvePrivateKey
    cvc: bytes
    signer: ContentSigner
    signing_key: SigningKey


def sm_card(suite: SmSuite, *, through_intermediate: bool = False) -> SmTestCard:
    """One card per suite and kind of signer, made once per process."""
    return _make_card(suite, through_intermediate)


@cache
def _make_card(suite: SmSuite, through_intermediate: bool) -> SmTestCard:
    curve = suite.parameters.curve
    key = ec.generate_private_key(curve)
    if not through_intermediate:
        direct = ec.generate_private_key(curve)
        certificate = signer_certificate(direct)
        cvc = make_cvc(key.public_key(), GUID, issuer_id(certificate), direct)
        return SmTestCard(suite, key, cvc, ContentSigner(certificate), direct)
    root = rsa.generate_private_key(65537, 2048)
    certificate = signer_certificate(root)
    middle = ec.generate_private_key(curve)
    subject = intermediate_subject(middle.public_key())
    raw = make_cvc(middle.public_key(), subject, issuer_id(certificate), root, role=ROLE_SIGNER)
    cvc = make_cvc(key.public_key(), GUID, subject, middle)
    return SmTestCard(suite, key, cvc, ContentSigner(certificate, Cvc.parse(raw)), middle)


def answer_to(
    handshake: SmHandshake, card: SmTestCard, session: CardSession, draw: Callable[[int], bytes] | None = None
) -> ResponseAPDU:
    """The card's answer to the key establishment; ``session`` holds its keys afterwards."""
    request = handshake.command
    extra = {} if draw is None else {"draw": draw}
    return ResponseAPDU(session.establish(request.data, request.p1, card.key, card.cvc, **extra), 0x9000)


def open_session(suite: SmSuite, *, through_intermediate: bool = False) -> tuple[SmSession, CardSession]:
    """Both ends of a session."""
    card, session, handshake = (
        sm_card(suite, through_intermediate=through_intermediate),
        CardSession(),
        SmHandshake(suite),
    )
    return handshake.finish(answer_to(handshake, card, session), card.signer, at=NOW), session


def genuine_cryptogram(session: SmSession, counter: bytes, padded: bytes) -> bytes:
    """``padded`` encrypted with the session's own key under the IV made of ``counter`` (16 octets)."""
    key = AES(session._keys.enc.reveal())
    iv = Cipher(key, ECB()).encryptor().update(counter)
    return Cipher(key, CBC(iv)).encryptor().update(padded)


def genuine_mac(key: Secret, message: bytes) -> bytes:
    """The data object 8E over ``message``, the first that is MACed with ``key``."""
    state = CMAC(AES(key.reveal()))
    state.update(bytes(16) + message)
    return tlv.encode(0x8E, state.finalize()[:8])
