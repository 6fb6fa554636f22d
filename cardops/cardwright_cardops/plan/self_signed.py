"""Self-signed certificates for ``card init``, also when the key that signs is on a card and answers later."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from ..piv.algorithms import Algorithm, KeyKind, PrivateKey, PublicKey
from ..piv.private_key import card_private_key
from ..piv.references import Slot
from ..piv.signing import default_hash

PIV_CARD_AUTHENTICATION = ObjectIdentifier("2.16.840.1.101.3.6.8")
_NAMES = {
    Slot.AUTHENTICATION: "PIV Authentication",
    Slot.SIGNATURE: "Digital Signature",
    Slot.KEY_MANAGEMENT: "Key Management",
    Slot.CARD_AUTHENTICATION: "Card Authentication",
}


class _NotYet(Exception):
    """The block to sign, on its way out of cryptography's builder."""

    def __init__(self, block: bytes) -> None:
        super().__init__("to be signed")
        self.block = block


@dataclass(frozen=True, slots=True)
class Draft:
    """A certificate before it is signed; the same draft always makes the same octets."""

    slot: Slot
    public_key: PublicKey
    guid: UUID
    serial_number: int
    not_before: datetime
    not_after: datetime

    def block(self) -> bytes:
        """What the card's key has to sign: padded block, hash or message (SP 800-73-5 part 2 appendix A.4)."""

        def use(data: bytes, agree: bool) -> bytes:
            raise _NotYet(data)

        try:
            self._sign(card_private_key(self.public_key, use))
        except _NotYet as asked:
            return asked.block
        raise AssertionError("the builder asked for no signature")

    def with_signature(self, answer: bytes) -> bytes:
        """The DER certificate, with the card's answer to ``block``. Raises DecryptionFailed if it is no signature."""
        return self._sign(card_private_key(self.public_key, lambda data, agree: answer))

    def signed_by(self, key: PrivateKey) -> bytes:
        """The DER certificate, signed by the private key itself."""
        return self._sign(key)

    def _sign(self, key: object) -> bytes:
        algorithm = Algorithm.of(self.public_key)
        label = _NAMES.get(self.slot, f"Retired Key {self.slot.label}")
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{label} {self.guid.hex[:8]}")])
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(name)
            .public_key(self.public_key)
            .serial_number(self.serial_number)
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(_key_usage(self.slot, algorithm), critical=True)
            .add_extension(
                x509.SubjectAlternativeName([x509.UniformResourceIdentifier(self.guid.urn)]), critical=False
            )
        )
        if self.slot is Slot.CARD_AUTHENTICATION:
            builder = builder.add_extension(x509.ExtendedKeyUsage([PIV_CARD_AUTHENTICATION]), critical=True)
        elif self.slot is Slot.AUTHENTICATION:
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        hashed = None if algorithm is Algorithm.ED25519 else default_hash(algorithm)
        return builder.sign(key, hashed).public_bytes(Encoding.DER)  # type: ignore[arg-type]


def _key_usage(slot: Slot, algorithm: Algorithm) -> x509.KeyUsage:
    """Key usage by slot: 9C binds, 9D and retired keys decrypt or agree, the others authenticate."""
    management = slot is Slot.KEY_MANAGEMENT or slot.is_retired
    return x509.KeyUsage(
        digital_signature=not management,
        content_commitment=slot is Slot.SIGNATURE,
        key_encipherment=management and algorithm.kind is KeyKind.RSA,
        data_encipherment=False,
        key_agreement=management and algorithm.kind is not KeyKind.RSA,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
