"""The containers of the PIV data model: tags, identifiers, capacities, access rules.

SP 800-73-5 part 1 tables 2 and 3 and appendix A, part 2 section 3.1.2. Capacities are what a card must
be able to hold, in octets of the container's content; they are no upper limit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from types import MappingProxyType

from ..iso7816 import tlv

OID_ARC = "2.16.840.1.101.3.7."
DATA_TEMPLATE = 0x53


class Access(Enum):
    """What has to be true before a container can be read (SP 800-73-5 part 1 table 2)."""

    ALWAYS = "Always"
    PIN = "PIN"
    PIN_OR_OCC = "PIN or OCC"
    VCI = "VCI"
    VCI_AND_PIN = "VCI and PIN"
    VCI_AND_PIN_OR_OCC = "VCI and (PIN or OCC)"

    @property
    def needs_person(self) -> bool:
        """Whether the cardholder has to verify first (PIN or on-card comparison)."""
        return self not in (Access.ALWAYS, Access.VCI)


class Presence(Enum):
    """Whether a PIV card has to have the container."""

    MANDATORY = "mandatory"
    CONDITIONAL = "conditional"
    OPTIONAL = "optional"
    VENDOR = "vendor"


@dataclass(frozen=True, slots=True)
class Container:
    """One container. ``container_id`` and ``oid`` are None and "" for containers outside the standard.

    ``slot`` is the key reference whose certificate it holds. ``bare`` containers come and go without the
    template 53: their own tag is the outermost one.
    """

    tag: int
    container_id: int | None
    name: str
    oid: str
    min_capacity: int
    contact: Access
    contactless: Access
    presence: Presence
    slot: int | None = None

    @property
    def bare(self) -> bool:
        """Discovery (7E) and the BIT group template (7F61) have no template 53 around them."""
        return self.tag in (0x7E, 0x7F61)

    @property
    def tag_text(self) -> str:
        """The tag in upper-case hexadecimal, as findings and listings show it: 5FC102, 7E."""
        return f"{self.tag:X}"


_A, _V = Access.ALWAYS, Access.VCI
_M, _C, _O = Presence.MANDATORY, Presence.CONDITIONAL, Presence.OPTIONAL


def _piv(
    tag: int, container_id: int, name: str, oid: str, capacity: int,
    contact: Access, contactless: Access, presence: Presence, slot: int | None = None,
) -> Container:  # fmt: skip
    return Container(tag, container_id, name, OID_ARC + oid, capacity, contact, contactless, presence, slot)


_PIN, _VPIN = Access.PIN, Access.VCI_AND_PIN
_OCC, _VOCC = Access.PIN_OR_OCC, Access.VCI_AND_PIN_OR_OCC

CCC = _piv(0x5FC107, 0xDB00, "Card Capability Container", "1.219.0", 170, _A, _V, _M)
CHUID = _piv(0x5FC102, 0x3000, "Card Holder Unique Identifier", "2.48.0", 2881, _A, _A, _M)
CERT_9A = _piv(0x5FC105, 0x0101, "X.509 Certificate for PIV Authentication", "2.1.1", 1857, _A, _V, _M, 0x9A)
FINGERPRINTS = _piv(0x5FC103, 0x6010, "Cardholder Fingerprints", "2.96.16", 4006, _PIN, _VPIN, _M)
SECURITY_OBJECT = _piv(0x5FC106, 0x9000, "Security Object", "2.144.0", 1336, _A, _V, _M)
FACIAL_IMAGE = _piv(0x5FC108, 0x6030, "Cardholder Facial Image", "2.96.48", 12710, _PIN, _VPIN, _M)
CERT_9E = _piv(0x5FC101, 0x0500, "X.509 Certificate for Card Authentication", "2.5.0", 1857, _A, _A, _M, 0x9E)
CERT_9C = _piv(0x5FC10A, 0x0100, "X.509 Certificate for Digital Signature", "2.1.0", 1857, _A, _V, _C, 0x9C)
CERT_9D = _piv(0x5FC10B, 0x0102, "X.509 Certificate for Key Management", "2.1.2", 1857, _A, _V, _C, 0x9D)
PRINTED = _piv(0x5FC109, 0x3001, "Printed Information", "2.48.1", 245, _OCC, _VOCC, _O)
DISCOVERY = _piv(0x7E, 0x6050, "Discovery Object", "2.96.80", 19, _A, _A, _O)
KEY_HISTORY = _piv(0x5FC10C, 0x6060, "Key History Object", "2.96.96", 128, _A, _V, _C)
RETIRED = tuple(
    _piv(tag, 0x1000 + number, f"Retired X.509 Certificate {number}", f"2.16.{number}", 1895, _A, _V, _O, slot)
    for number, tag, slot in zip(range(1, 21), range(0x5FC10D, 0x5FC121), range(0x82, 0x96), strict=True)
)
IRIS = _piv(0x5FC121, 0x1015, "Cardholder Iris Images", "2.16.21", 7106, _PIN, _VPIN, _O)
BITGT = _piv(0x7F61, 0x1016, "Biometric Information Templates Group Template", "2.16.22", 65, _A, _A, _O)
SM_SIGNER = _piv(0x5FC122, 0x1017, "Secure Messaging Certificate Signer", "2.16.23", 2471, _A, _A, _C)
PAIRING_CODE = _piv(0x5FC123, 0x1018, "Pairing Code Reference Data Container", "2.16.24", 12, _OCC, _VOCC, _C)
YUBICO_ADMIN_DATA = Container(0x5FFF00, None, "Yubico admin data", "", 0, _A, _A, Presence.VENDOR)
YUBICO_ATTESTATION = Container(0x5FFF01, None, "Yubico attestation certificate", "", 0, _A, _A, Presence.VENDOR, 0xF9)

PIV_CONTAINERS = (
    CCC, CHUID, CERT_9A, FINGERPRINTS, SECURITY_OBJECT, FACIAL_IMAGE, CERT_9E, CERT_9C, CERT_9D, PRINTED,
    DISCOVERY, KEY_HISTORY, *RETIRED, IRIS, BITGT, SM_SIGNER, PAIRING_CODE,
)  # fmt: skip
"""The 36 containers of the standard, in its order."""

ALL_CONTAINERS = (*PIV_CONTAINERS, YUBICO_ADMIN_DATA, YUBICO_ATTESTATION)
CONTAINERS: Mapping[int, Container] = MappingProxyType({row.tag: row for row in ALL_CONTAINERS})
"""By tag, vendors' containers included."""

CONTAINERS_BY_ID: Mapping[int, Container] = MappingProxyType(
    {row.container_id: row for row in ALL_CONTAINERS if row.container_id is not None}
)
CONTAINERS_BY_SLOT: Mapping[int, Container] = MappingProxyType(
    {row.slot: row for row in ALL_CONTAINERS if row.slot is not None}
)
"""The certificate container of a key reference: 9A, 9C, 9D, 9E, 82-95 and Yubico's F9."""


def unwrap(tag: int, answer: bytes) -> bytes:
    """What the codec of ``tag`` decodes, from a GET DATA answer: the value inside 53, or the whole 7E or 7F61.

    Empty when the container is empty (``53 00``, which some cards send instead of 6A82).
    Raises MalformedTlv when the answer is anything but that one data object.
    """
    row = CONTAINERS.get(tag)
    if row is not None and row.bare:
        return answer if tlv.parse_one(answer, tag).value else b""
    return tlv.parse_one(answer, DATA_TEMPLATE).value


def wrap(tag: int, encoded: bytes) -> bytes:
    """The GET DATA answer that holds ``encoded`` (what the codec of ``tag`` encoded); inverse of unwrap."""
    row = CONTAINERS.get(tag)
    return encoded if row is not None and row.bare else tlv.encode(DATA_TEMPLATE, encoded)


def hashed_content(tag: int, answer: bytes) -> bytes:
    """What the Security Object hashes: the value inside the outermost tag, 53, 7E or 7F61 alike.

    Raises MalformedTlv as unwrap does.
    """
    row = CONTAINERS.get(tag)
    return tlv.parse_one(answer, tag if row is not None and row.bare else DATA_TEMPLATE).value
