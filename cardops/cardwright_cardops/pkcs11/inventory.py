"""What is on a token: private keys and certificates, matched by CKA_ID and by public key."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from asn1crypto.core import OctetString
from asn1crypto.keys import ECDomainParameters
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from ..piv.objects.certificate import readable
from .messages import ObjectRecord
from .quirks import Quirks, key_reference_of
from .values import KeyAlgorithm

CKO_CERTIFICATE: Final = 1
CKO_PUBLIC_KEY: Final = 2
CKO_PRIVATE_KEY: Final = 3
_CKK_RSA: Final = 0
_CKK_EC: Final = 3
_MAX_RSA_BITS: Final = 16384

_CURVES: Final[dict[str, ec.EllipticCurve]] = {
    "1.2.840.10045.3.1.7": ec.SECP256R1(),
    "1.3.132.0.34": ec.SECP384R1(),
    "1.3.132.0.35": ec.SECP521R1(),
}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


@dataclass(frozen=True, slots=True)
class CertificateEntry:
    """A certificate. ``public_key`` is None, and ``problem`` says why, if the DER cannot be read."""

    id: bytes
    label: str
    der: bytes = field(repr=False)
    public_key: bytes | None = field(repr=False)
    subject: str
    attestation: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class KeyEntry:
    """A key pair. ``private`` is False while the private half cannot be seen (nobody is logged in) or is not there.

    ``public_key`` is SubjectPublicKeyInfo DER, None where no object on the token tells it. ``certificates`` are the
    places in TokenInventory.certificates of those that carry this public key. ``generated`` is CKA_LOCAL, ``public``
    whether a public key object is there.
    """

    id: bytes
    label: str
    private: bool
    algorithm: KeyAlgorithm | None
    public_key: bytes | None = field(repr=False)
    sign: bool
    decrypt: bool
    derive: bool
    always_authenticate: bool
    extractable: bool | None
    generated: bool | None
    key_reference: int | None
    certificates: tuple[int, ...]
    public: bool = False


@dataclass(frozen=True, slots=True)
class TokenInventory:
    """Keys and certificates in a stable order. ``problems`` are sentences about what does not fit together."""

    keys: tuple[KeyEntry, ...]
    certificates: tuple[CertificateEntry, ...]
    problems: tuple[str, ...]

    def key(self, identifier: bytes) -> KeyEntry | None:
        """The key with that CKA_ID."""
        return next((entry for entry in self.keys if entry.id == identifier), None)

    def certificate(self, identifier: bytes) -> CertificateEntry | None:
        """The certificate with that CKA_ID, attestation certificates left aside."""
        return next((entry for entry in self.certificates if entry.id == identifier and not entry.attestation), None)

    def describe(self) -> dict[str, object]:
        """JSON form. Names and meanings of existing entries stay."""
        return {
            "keys": [
                {
                    "id": entry.id.hex(),
                    "label": entry.label,
                    "key_reference": None if entry.key_reference is None else f"{entry.key_reference:02X}",
                    "private": entry.private,
                    "algorithm": entry.algorithm.value if entry.algorithm else None,
                    "public_key": _base64(entry.public_key),
                    "uses": [
                        name
                        for name, allowed in (
                            ("sign", entry.sign),
                            ("decrypt", entry.decrypt),
                            ("derive", entry.derive),
                        )
                        if allowed
                    ],
                    "always_authenticate": entry.always_authenticate,
                    "extractable": entry.extractable,
                    "generated": entry.generated,
                    "certificates": list(entry.certificates),
                }
                for entry in self.keys
            ],
            "certificates": [
                {
                    "id": entry.id.hex(),
                    "label": entry.label,
                    "subject": entry.subject,
                    "attestation": entry.attestation,
                    "der": _base64(entry.der),
                    "problem": entry.problem,
                }
                for entry in self.certificates
            ],
            "problems": list(self.problems),
        }


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode("ascii")


def spki(key: PublicKey) -> bytes:
    """SubjectPublicKeyInfo DER."""
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def algorithm_of(key: object) -> KeyAlgorithm | None:
    """The algorithm of a public or private key of ``cryptography``; None for one we do not handle."""
    if isinstance(key, rsa.RSAPublicKey | rsa.RSAPrivateKey):
        name = f"rsa{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePublicKey | ec.EllipticCurvePrivateKey):
        name = {"secp256r1": "p256", "secp384r1": "p384"}.get(key.curve.name, "")
    else:
        return None
    return next((algorithm for algorithm in KeyAlgorithm if algorithm.value == name), None)


def public_key_of(record: ObjectRecord) -> PublicKey | None:
    """The public key in an object's attributes; None where they do not hold one."""
    try:
        if record.key_type == _CKK_RSA and record.modulus and record.exponent:
            modulus = int.from_bytes(record.modulus, "big")
            if modulus.bit_length() > _MAX_RSA_BITS:
                return None
            return rsa.RSAPublicNumbers(int.from_bytes(record.exponent, "big"), modulus).public_key()
        if record.key_type == _CKK_EC and record.ec_params and record.ec_point:
            parameters = ECDomainParameters.load(record.ec_params, strict=True)
            curve = _CURVES.get(parameters.chosen.dotted) if parameters.name == "named" else None
            if curve is None:
                return None
            # CKA_EC_POINT is an OCTET STRING; a few modules leave the wrapping out.
            raw = record.ec_point
            point = raw if raw[0] == 4 and len(raw) == 1 + 2 * ((curve.key_size + 7) // 8) else _octets(raw)
            return ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
    except (ValueError, TypeError):
        return None
    return None


def _octets(raw: bytes) -> bytes:
    return bytes(OctetString.load(raw, strict=True).native)


def _certificate(record: ObjectRecord, quirks: Quirks) -> CertificateEntry:
    attestation = bool(quirks.attestation_label) and record.label.startswith(quirks.attestation_label)
    public_key, subject, problem = None, "", ""
    try:
        parsed = readable(record.value)
        key = parsed.public_key()
        subject = parsed.subject.rfc4514_string()
        if isinstance(key, rsa.RSAPublicKey | ec.EllipticCurvePublicKey):
            public_key = spki(key)
        else:
            problem = "the certificate's key is of a kind not handled here"
    except ValueError:
        problem = "the certificate cannot be read"
    return CertificateEntry(record.id, record.label, record.value, public_key, subject, attestation, problem)


def build_inventory(records: Sequence[ObjectRecord], quirks: Quirks) -> TokenInventory:
    """Join the objects of a token; damaged ones are reported and hide nothing else."""
    certificates = tuple(
        sorted(
            (_certificate(record, quirks) for record in records if record.kind == CKO_CERTIFICATE),
            key=lambda entry: (entry.id, entry.attestation, entry.der),
        )
    )
    problems = [f"certificate {entry.id.hex()}: {entry.problem}" for entry in certificates if entry.problem]
    private = {record.id: record for record in records if record.kind == CKO_PRIVATE_KEY}
    public = {record.id: record for record in records if record.kind == CKO_PUBLIC_KEY}
    for kind, found in ((CKO_PRIVATE_KEY, private), (CKO_PUBLIC_KEY, public)):
        if len(found) != sum(record.kind == kind for record in records):
            name = "private" if kind == CKO_PRIVATE_KEY else "public"
            problems.append(f"several {name} keys share an id")
    keys = []
    for identifier in sorted(private.keys() | public.keys()):
        entry = _key(identifier, private.get(identifier), public.get(identifier), certificates, quirks)
        keys.append(entry)
        beside = [other for other in certificates if other.id == identifier and not other.attestation]
        if entry.public_key and any(other.public_key not in (None, entry.public_key) for other in beside):
            problems.append(f"key {identifier.hex()}: a certificate with its id is for another key")
    return TokenInventory(tuple(keys), certificates, tuple(problems))


def _key(
    identifier: bytes,
    private: ObjectRecord | None,
    public: ObjectRecord | None,
    certificates: tuple[CertificateEntry, ...],
    quirks: Quirks,
) -> KeyEntry:
    key: PublicKey | None = None
    for record in (public, private):
        if key is None and record is not None:
            key = public_key_of(record)
    encoded = spki(key) if key is not None else None
    if encoded is None:
        beside = [entry for entry in certificates if entry.id == identifier and not entry.attestation]
        encoded = beside[0].public_key if len(beside) == 1 else None
    on_curve = private is not None and private.key_type == _CKK_EC
    shown = private or public
    assert shown is not None
    return KeyEntry(
        id=identifier,
        label=shown.label,
        private=private is not None,
        algorithm=None if encoded is None else algorithm_of(load_der_public_key(encoded)),
        public_key=encoded,
        sign=private is not None and private.sign,
        decrypt=private is not None and private.decrypt,
        derive=private is not None and (private.derive or (on_curve and quirks.unflagged_derive)),
        always_authenticate=private is not None and private.always_authenticate,
        extractable=private.extractable if private is not None else None,
        generated=private.local if private is not None else None,
        key_reference=key_reference_of(quirks, identifier),
        certificates=tuple(
            place for place, entry in enumerate(certificates) if encoded is not None and entry.public_key == encoded
        ),
        public=public is not None,
    )
