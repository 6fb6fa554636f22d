"""One codec per data object of the PIV data model.

Each codec is a frozen dataclass with ``decode(value)`` and ``encode()``. The value is what stands inside
tag 53, or the whole data object for Discovery (7E) and the BIT group template (7F61): containers.unwrap
and containers.wrap go between that and what GET DATA and PUT DATA carry. Damaged content raises
MalformedObject and nothing else; data objects with unknown tags are kept in ``unknown`` and written back;
tags that the standard has removed are kept in ``legacy`` and not written; ``order`` has the tags as read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TypeAlias

from .. import containers
from .biometric import BiometricObject
from .bitgt import BitGroup
from .ccc import Ccc
from .certificate import CertificateObject
from .chuid import Chuid
from .discovery import Discovery, PinUsagePolicy
from .fascn import Fascn, MalformedFascn
from .key_history import KeyHistory
from .layout import MalformedObject
from .pairing_code import PairingCode
from .printed import Printed
from .security_object import SecurityObject
from .sm_signer import SmSigner

AnyObject: TypeAlias = (
    Chuid
    | Ccc
    | CertificateObject
    | BiometricObject
    | SecurityObject
    | Printed
    | Discovery
    | KeyHistory
    | BitGroup
    | SmSigner
    | PairingCode
)

_CERTIFICATES = (
    containers.CERT_9A, containers.CERT_9C, containers.CERT_9D, containers.CERT_9E, *containers.RETIRED,
    containers.YUBICO_ATTESTATION,
)  # fmt: skip

CODECS: Mapping[int, type[AnyObject]] = MappingProxyType(
    {
        containers.CHUID.tag: Chuid,
        containers.CCC.tag: Ccc,
        containers.FINGERPRINTS.tag: BiometricObject,
        containers.FACIAL_IMAGE.tag: BiometricObject,
        containers.IRIS.tag: BiometricObject,
        containers.SECURITY_OBJECT.tag: SecurityObject,
        containers.PRINTED.tag: Printed,
        containers.DISCOVERY.tag: Discovery,
        containers.KEY_HISTORY.tag: KeyHistory,
        containers.BITGT.tag: BitGroup,
        containers.SM_SIGNER.tag: SmSigner,
        containers.PAIRING_CODE.tag: PairingCode,
    }
    | {row.tag: CertificateObject for row in _CERTIFICATES}
)
"""Codec by tag. Yubico's admin data (5FFF00) has none: it is opaque here."""


def decode(tag: int, value: bytes) -> AnyObject:
    """Read what containers.unwrap gave for ``tag``. Raises MalformedObject; KeyError for a tag without codec."""
    return CODECS[tag].decode(value, containers.CONTAINERS[tag])


__all__ = [
    "CODECS",
    "AnyObject",
    "BiometricObject",
    "BitGroup",
    "Ccc",
    "CertificateObject",
    "Chuid",
    "Discovery",
    "Fascn",
    "KeyHistory",
    "MalformedFascn",
    "MalformedObject",
    "PairingCode",
    "PinUsagePolicy",
    "Printed",
    "SecurityObject",
    "SmSigner",
    "decode",
]
