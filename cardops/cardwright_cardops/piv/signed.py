"""The CMS SignedData of PIV: made and verified (SP 800-73-5 part 1 sections 3.1.2, 3.1.4, 3.1.7; RFC 5652).

CHUID and biometric records are signed without their content inside (detached), the Security Object with
it (attached). PIV adds signed attributes: pivSigner-DN, and for biometrics pivFASC-N and entryUUID.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias
from uuid import UUID

from asn1crypto import algos, cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from .. import asn1
from ..errors import CardwrightError
from .objects.certificate import readable

CHUID_CONTENT = "2.16.840.1.101.3.6.1"
BIOMETRIC_CONTENT = "2.16.840.1.101.3.6.2"
LDS_CONTENT = "1.3.27.1.1.1"
SIGNER_DN = "2.16.840.1.101.3.6.5"
FASCN = "2.16.840.1.101.3.6.6"
ENTRY_UUID = "1.3.6.1.1.16.4"
_CONTENT_TYPE, _MESSAGE_DIGEST = "1.2.840.113549.1.9.3", "1.2.840.113549.1.9.4"
_SIGNED_DATA = "1.2.840.113549.1.7.2"

SigningKey: TypeAlias = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey

_DIGESTS: dict[str, hashes.HashAlgorithm] = {
    "sha1": hashes.SHA1(),
    "sha224": hashes.SHA224(),
    "sha256": hashes.SHA256(),
    "sha384": hashes.SHA384(),
    "sha512": hashes.SHA512(),
}


class SignatureRefused(CardwrightError):
    """A signed object that does not hold.

    ``reason`` is one of: content-type, signers, content, attributes, digest, signer, signature.
    """

    code = "SIGNED_OBJECT_REFUSED"
    default_effect = "What that object says cannot be trusted."
    default_advice = "Run 'cardwright card check' for the whole picture; whoever wrote it has to write it anew."

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signs: certificate, key (any private key object of ``cryptography``'s shape), PSS instead of PKCS#1 v1.5."""

    certificate: x509.Certificate
    key: SigningKey = field(repr=False)
    pss: bool = False

    @property
    def digest(self) -> str:
        """SHA-384 for P-384 keys, else SHA-256 (SP 800-78-5 table 3)."""
        large = isinstance(self.key, ec.EllipticCurvePrivateKey) and self.key.curve.key_size == 384
        return "sha384" if large else "sha256"


def sign_detached(
    content: bytes,
    content_type: str,
    signer: Signer,
    *,
    fascn: bytes | None = None,
    uuid: UUID | None = None,
    include_certificate: bool = True,
) -> bytes:
    """The DER of a SignedData over ``content`` that does not hold it. ``content_type`` is an OID in dots."""
    return _sign(content, content_type, signer, fascn, uuid, include_certificate, attach=False)


def sign_attached(content: bytes, content_type: str, signer: Signer, *, include_certificate: bool = False) -> bytes:
    """The DER of a SignedData that holds ``content``; without certificate, as the Security Object wants it."""
    return _sign(content, content_type, signer, None, None, include_certificate, attach=True)


@dataclass(frozen=True, slots=True)
class SignedObject:
    """One SignedData as read: facts for a check. ``verify`` and the two methods judge it.

    ``signers`` counts the SignerInfos; the fields after it are those of the first one. ``signer_id`` is
    (issuer as DER, serial number) or None when it is a key identifier. ``signer_dn``, ``fascn``, ``uuid``
    are the signed attributes of PIV, None when absent. ``attributes`` has the OIDs of all signed
    attributes in order; it is empty when there are none.
    """

    version: int
    content_type: str
    content: bytes | None = field(repr=False)
    digest_algorithms: tuple[str, ...]
    certificates: tuple[bytes, ...] = field(repr=False)
    has_crls: bool
    signers: int
    signer_id: tuple[bytes, int] | None = field(repr=False)
    signer_key_id: bytes | None
    digest: str
    signature_algorithm: str
    pss: tuple[str, str, int] | None
    attributes: tuple[str, ...]
    attribute_content_type: str | None
    message_digest: bytes | None
    signer_dn: bytes | None = field(repr=False)
    fascn: bytes | None
    uuid: bytes | None
    signature: bytes = field(repr=False)
    signed_attributes: bytes = field(repr=False)

    def digest_matches(self, content: bytes) -> bool:
        """Whether messageDigest is the digest of ``content``. True without signed attributes: nothing to compare."""
        if not self.attributes:
            return True
        return self.digest in _DIGESTS and hashlib.new(self.digest, content).digest() == self.message_digest

    def names_signer(self, certificate: x509.Certificate) -> bool:
        """Whether the signer identifier means ``certificate``."""
        if self.signer_id is not None:
            return self.signer_id == (certificate.issuer.public_bytes(), certificate.serial_number)
        try:
            found = certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier)
        except x509.ExtensionNotFound:
            return False
        return found.value.digest == self.signer_key_id

    def signature_verifies(self, certificate: x509.Certificate, content: bytes) -> bool:
        """Whether the signature value holds under the certificate's key, whatever messageDigest says.

        Without signed attributes it is over ``content`` itself (RFC 5652 section 5.4).
        """
        signed = self.signed_attributes or content
        key = certificate.public_key()
        digest = _DIGESTS.get(self.digest)
        try:
            if digest is None:
                return False
            if isinstance(key, rsa.RSAPublicKey):
                if self.signature_algorithm == "rsassa_pss":
                    if self.pss is None or not {self.pss[0], self.pss[1]} <= _DIGESTS.keys():
                        return False
                    scheme: padding.AsymmetricPadding = padding.PSS(padding.MGF1(_DIGESTS[self.pss[1]]), self.pss[2])
                    key.verify(self.signature, signed, scheme, _DIGESTS[self.pss[0]])
                elif self.signature_algorithm == "rsassa_pkcs1v15":
                    key.verify(self.signature, signed, padding.PKCS1v15(), digest)
                else:
                    return False
            elif isinstance(key, ec.EllipticCurvePublicKey) and self.signature_algorithm == "ecdsa":
                key.verify(self.signature, signed, ec.ECDSA(digest))
            else:
                return False
        except (InvalidSignature, UnsupportedAlgorithm, ValueError):
            return False
        return True


def read(der: bytes) -> SignedObject:
    """Read a SignedData strictly as DER. Raises MalformedAsn1, also when there is no SignerInfo."""
    info = asn1.load(cms.ContentInfo, der)
    if info["content_type"].dotted != _SIGNED_DATA:
        raise asn1.MalformedAsn1("no CMS SignedData")
    try:
        return _facts(info["content"])
    except (ValueError, TypeError, KeyError, IndexError, AttributeError) as cause:
        raise asn1.MalformedAsn1(f"no CMS SignedData as PIV has it: {type(cause).__name__}") from cause


def verify(
    der: bytes,
    content_type: str,
    *,
    content: bytes | None = None,
    certificates: Sequence[x509.Certificate] = (),
    fascn: bytes | None = None,
    uuid: UUID | None = None,
) -> tuple[SignedObject, x509.Certificate]:
    """Check one signed object of a card; what was read and its signer's certificate.

    ``content`` is given for detached signatures and left out for attached ones. The signer is found among
    the certificates inside and ``certificates``; whether it may sign is not judged here. ``fascn`` and
    ``uuid``, when given, must be in the signed attributes. Raises MalformedAsn1 and SignatureRefused.
    """
    seen = read(der)
    if seen.content_type != content_type:
        raise SignatureRefused("content-type", f"the content type is {seen.content_type}, not {content_type}")
    if seen.signers != 1:
        raise SignatureRefused("signers", f"there are {seen.signers} signers instead of one")
    if (content is None) == (seen.content is None):
        raise SignatureRefused("content", "the content is inside where it should not be, or missing")
    covered = seen.content if content is None else content
    assert covered is not None
    if seen.attribute_content_type != content_type or seen.signer_dn is None:
        raise SignatureRefused("attributes", "contentType or pivSigner-DN is missing or wrong")
    if not seen.digest_matches(covered):
        raise SignatureRefused("digest", "the content has been changed after signing")
    signer = find_signer(seen, certificates)
    if signer is None:
        raise SignatureRefused("signer", "the signer's certificate is not there")
    if seen.signer_dn != signer.subject.public_bytes():
        raise SignatureRefused("attributes", "pivSigner-DN is not the subject of the signer's certificate")
    if not seen.signature_verifies(signer, covered):
        raise SignatureRefused("signature", "the signature value is wrong")
    if fascn is not None and seen.fascn != fascn:
        raise SignatureRefused("attributes", "pivFASC-N is missing or another card's")
    if uuid is not None and seen.uuid != uuid.bytes:
        raise SignatureRefused("attributes", "entryUUID is missing or another card's")
    return seen, signer


def find_signer(seen: SignedObject, certificates: Iterable[x509.Certificate] = ()) -> x509.Certificate | None:
    """The certificate that the signer identifier means, from inside the object or from ``certificates``.

    A certificate inside that cannot be read whole is no signer's.
    """
    for der in seen.certificates:
        try:
            inside = readable(der)
        except ValueError:
            continue
        if seen.names_signer(inside):
            return inside
    return next((each for each in certificates if seen.names_signer(each)), None)


def _sign(
    content: bytes,
    content_type: str,
    signer: Signer,
    fascn: bytes | None,
    uuid: UUID | None,
    include_certificate: bool,
    *,
    attach: bool,
) -> bytes:
    digest = signer.digest
    certificate = asn1_x509.Certificate.load(signer.certificate.public_bytes(Encoding.DER))
    values: list[tuple[str, core.Asn1Value]] = [
        (_CONTENT_TYPE, cms.ContentType(content_type)),
        (_MESSAGE_DIGEST, core.OctetString(hashlib.new(digest, content).digest())),
        (SIGNER_DN, certificate.subject),
    ]
    if fascn is not None:
        values.append((FASCN, core.OctetString(fascn)))
    if uuid is not None:
        values.append((ENTRY_UUID, core.OctetString(uuid.bytes)))
    attributes = cms.CMSAttributes([cms.CMSAttribute({"type": oid, "values": [value]}) for oid, value in values])
    to_sign = bytes(attributes.dump())
    encapsulated: dict[str, Any] = {"content_type": content_type}
    if attach:
        encapsulated["content"] = core.ParsableOctetString(content)
    data: dict[str, Any] = {
        "version": "v3",
        "digest_algorithms": [{"algorithm": digest}],
        "encap_content_info": encapsulated,
        "signer_infos": [
            {
                "version": "v1",
                "sid": cms.SignerIdentifier(
                    {
                        "issuer_and_serial_number": cms.IssuerAndSerialNumber(
                            {"issuer": certificate.issuer, "serial_number": certificate.serial_number}
                        )
                    }
                ),
                "digest_algorithm": {"algorithm": digest},
                "signed_attrs": attributes,
                "signature_algorithm": _algorithm(signer),
                "signature": _signature(signer, to_sign),
            }
        ],
    }
    if include_certificate:
        data["certificates"] = [cms.CertificateChoices({"certificate": certificate})]
    info = cms.ContentInfo({"content_type": "signed_data", "content": cms.SignedData(data)})
    return bytes(info.dump())


def _algorithm(signer: Signer) -> algos.SignedDigestAlgorithm:
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return algos.SignedDigestAlgorithm({"algorithm": f"{signer.digest}_ecdsa"})
    if not signer.pss:
        return algos.SignedDigestAlgorithm({"algorithm": "rsassa_pkcs1v15", "parameters": core.Null()})
    return algos.SignedDigestAlgorithm(
        {
            "algorithm": "rsassa_pss",
            "parameters": {
                "hash_algorithm": {"algorithm": signer.digest},
                "mask_gen_algorithm": {"algorithm": "mgf1", "parameters": {"algorithm": signer.digest}},
                "salt_length": _DIGESTS[signer.digest].digest_size,
            },
        }
    )


def _signature(signer: Signer, to_sign: bytes) -> bytes:
    digest = _DIGESTS[signer.digest]
    if isinstance(signer.key, ec.EllipticCurvePrivateKey):
        return signer.key.sign(to_sign, ec.ECDSA(digest))
    if signer.pss:
        return signer.key.sign(to_sign, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
    return signer.key.sign(to_sign, padding.PKCS1v15(), digest)


def _facts(data: cms.SignedData) -> SignedObject:
    infos = data["signer_infos"]
    if not len(infos):
        raise asn1.MalformedAsn1("a SignedData without signer")
    info = infos[0]
    sid = info["sid"]
    attributes: dict[str, Any] = {}
    order: list[str] = []
    raw_attributes = b""
    if not isinstance(info["signed_attrs"], core.Void):
        for attribute in info["signed_attrs"]:
            oid = attribute["type"].dotted
            if oid in attributes or len(attribute["values"]) != 1:
                raise ValueError(f"signed attribute {oid} has not exactly one value")
            attributes[oid] = attribute["values"][0]
            order.append(oid)
        raw_attributes = bytes(info["signed_attrs"].untag().dump())
    by_issuer = sid.name == "issuer_and_serial_number"
    algorithm = info["signature_algorithm"]
    content = data["encap_content_info"]["content"]
    certificates = data["certificates"]
    return SignedObject(
        version=int(data["version"]),
        content_type=data["encap_content_info"]["content_type"].dotted,
        content=None if isinstance(content, core.Void) else _octets(content),
        digest_algorithms=tuple(each["algorithm"].native for each in data["digest_algorithms"]),
        certificates=tuple(each.chosen.dump() for each in certificates) if certificates else (),
        has_crls=bool(data["crls"]),
        signers=len(infos),
        signer_id=((sid.chosen["issuer"].dump(), sid.chosen["serial_number"].native) if by_issuer else None),
        signer_key_id=None if by_issuer else bytes(sid.chosen.native),
        digest=info["digest_algorithm"]["algorithm"].native,
        signature_algorithm=algorithm.signature_algo,
        pss=_pss(algorithm) if algorithm.signature_algo == "rsassa_pss" else None,
        attributes=tuple(order),
        attribute_content_type=attributes[_CONTENT_TYPE].dotted if _CONTENT_TYPE in attributes else None,
        message_digest=_octets(attributes.get(_MESSAGE_DIGEST)),
        signer_dn=_whole(attributes.get(SIGNER_DN)),
        fascn=_octets(attributes.get(FASCN)),
        uuid=_octets(attributes.get(ENTRY_UUID)),
        signature=info["signature"].native,
        signed_attributes=raw_attributes,
    )


def _pss(algorithm: algos.SignedDigestAlgorithm) -> tuple[str, str, int]:
    parameters = algorithm["parameters"]
    mask = parameters["mask_gen_algorithm"]["parameters"]["algorithm"].native
    return parameters["hash_algorithm"]["algorithm"].native, mask, parameters["salt_length"].native


def _octets(value: Any) -> bytes | None:
    """The content of an OCTET STRING, also where asn1crypto only knows that it is anything."""
    if value is None:
        return None
    if isinstance(value, core.Any):
        value = value.parse(spec=core.OctetString)
    return bytes(value.contents)


def _whole(value: Any) -> bytes | None:
    return None if value is None else bytes(value.dump())
