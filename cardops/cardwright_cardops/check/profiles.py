"""What certificates must say at each level, as data: policies, key usages, extended key usages, key kinds.

Federal PKI Common Policy SSP profiles 2.2; SP 800-78-5 table 1; test policies are those of the ICAM and
NIST test cards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from .model import Level

_PRODUCTION = "2.16.840.1.101.3.2.1.3."
_TEST = "2.16.840.1.101.3.2.1.48."

CONTENT_SIGNING = "2.16.840.1.101.3.6.7"
CONTENT_SIGNING_PIV_I = "2.16.840.1.101.3.8.7"
CARD_AUTHENTICATION = "2.16.840.1.101.3.6.8"
EMAIL_PROTECTION = "1.3.6.1.5.5.7.3.4"
ANY_EXTENDED = "2.5.29.37.0"
NACI = "2.16.840.1.101.3.6.9.1"

BROAD_FOR_AUTHENTICATION = frozenset({ANY_EXTENDED, "1.3.6.1.5.5.7.3.3", EMAIL_PROTECTION, "1.3.6.1.5.5.7.3.8"})
"""anyExtendedKeyUsage, code signing, e-mail, time stamping: not for 9A."""

MAX_DAYS = 1096
MAX_CARD_YEARS = 6


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy OIDs that each use may assert; one of them is enough. ``test`` ones count, with a remark."""

    authentication: frozenset[str]
    card_authentication: frozenset[str]
    signature: frozenset[str]
    key_management: frozenset[str]
    content_signing: frozenset[str]
    test: frozenset[str] = frozenset()

    def for_slot(self, slot: int) -> frozenset[str]:
        """The policies of a key reference; retired keys are key management keys."""
        match slot:
            case 0x9A:
                return self.authentication
            case 0x9E:
                return self.card_authentication
            case 0x9C:
                return self.signature
            case _:
                return self.key_management


def _oids(production: tuple[int, ...], test: tuple[int, ...]) -> frozenset[str]:
    return frozenset({f"{_PRODUCTION}{each}" for each in production} | {f"{_TEST}{each}" for each in test})


def _family(
    authentication: tuple[tuple[int, ...], tuple[int, ...]],
    card_authentication: tuple[tuple[int, ...], tuple[int, ...]],
    signature: tuple[tuple[int, ...], tuple[int, ...]],
    key_management: tuple[tuple[int, ...], tuple[int, ...]],
    content_signing: tuple[tuple[int, ...], tuple[int, ...]],
) -> Policies:
    everything = (authentication, card_authentication, signature, key_management, content_signing)
    uses = tuple(_oids(*use) for use in everything)
    test = frozenset(oid for use in uses for oid in use if oid.startswith(_TEST))
    return Policies(uses[0], uses[1], uses[2], uses[3], uses[4], test)


POLICIES: Mapping[Level, Policies] = MappingProxyType(
    {
        Level.PIV: _family(
            ((13,), (11,)), ((17,), (13,)), ((6, 7, 16), (8, 9, 12)), ((6, 7, 16), (8, 9, 12)), ((39,), (86,))
        ),
        Level.PIV_I: _family(
            ((45, 18), (248, 78, 71)),
            ((46, 19), (249, 79, 72)),
            ((6, 7, 16, 18), (251, 78, 71)),
            ((6, 7, 16, 18), (250, 78, 71)),
            ((47, 20), (252, 80)),
        ),
    }
)

SIGNING_ONLY = frozenset({"digital_signature"})
KEY_USAGES: Mapping[int, frozenset[str]] = MappingProxyType(
    {
        0x9A: SIGNING_ONLY,
        0x9E: SIGNING_ONLY,
        0x9C: frozenset({"digital_signature", "content_commitment"}),
    }
)
"""By key reference; key management keys depend on their kind."""

RSA_SIZES: Mapping[bool, frozenset[int]] = MappingProxyType(
    {False: frozenset({2048, 3072, 4096}), True: frozenset({1024, 2048, 3072, 4096})}
)
"""Modulus sizes, by whether the key is a retired one."""
CURVES = frozenset({"secp256r1", "secp384r1"})

SIGNATURE_HASHES = frozenset({"sha256", "sha384", "sha512"})
