"""What a CA of the vault may certify: rules that only the passphrase holder can change.

They are the outer fence. The server's own certificate profiles say more (subjects, names, sources of values); whatever
they say, and whoever has taken the server over, nothing outside these rules is signed.
"""

from __future__ import annotations

from enum import Enum

import msgspec

from cardwright_cardops.check.model import Level
from cardwright_cardops.check.profiles import (
    CARD_AUTHENTICATION,
    CONTENT_SIGNING,
    CONTENT_SIGNING_PIV_I,
    EMAIL_PROTECTION,
    NACI,
    POLICIES,
)

CLIENT_AUTH = "1.3.6.1.5.5.7.3.2"
SERVER_AUTH = "1.3.6.1.5.5.7.3.1"
OCSP_SIGNING = "1.3.6.1.5.5.7.3.9"
SMARTCARD_LOGON = "1.3.6.1.4.1.311.20.2.2"
PKINIT_CLIENT = "1.3.6.1.5.2.3.4"

UPN = "other:1.3.6.1.4.1.311.20.2.3"
FASCN_NAME = "other:2.16.840.1.101.3.6.6"
PKINIT_NAME = "other:1.3.6.1.5.2.2"

AUTHORITY_KEY_ID = "2.5.29.35"
SUBJECT_KEY_ID = "2.5.29.14"
KEY_USAGE = "2.5.29.15"
BASIC_CONSTRAINTS = "2.5.29.19"
ALTERNATIVE_NAME = "2.5.29.17"
EXTENDED_KEY_USAGE = "2.5.29.37"
POLICY = "2.5.29.32"
NAME_CONSTRAINTS = "2.5.29.30"
POLICY_CONSTRAINTS = "2.5.29.36"
INHIBIT_ANY_POLICY = "2.5.29.54"
DISTRIBUTION_POINTS = "2.5.29.31"
AUTHORITY_INFORMATION = "1.3.6.1.5.5.7.1.1"
SUBJECT_INFORMATION = "1.3.6.1.5.5.7.1.11"
OCSP_NO_CHECK = "1.3.6.1.5.5.7.48.1.5"
MICROSOFT_SID = "1.3.6.1.4.1.311.25.2"

_ALWAYS = (AUTHORITY_KEY_ID, SUBJECT_KEY_ID, KEY_USAGE, DISTRIBUTION_POINTS, AUTHORITY_INFORMATION, POLICY)
_CARD_KEYS = ("rsa2048", "rsa3072", "rsa4096", "p256", "p384")


class Holder(Enum):
    """Whose key a certificate is for. All but ``OUTSIDE`` are keys of the vault itself, of the role named.

    A root is certified by itself; only a root certifies a CA.
    """

    OUTSIDE = "outside"
    ROOT = "root"
    CA = "ca"
    OCSP = "ocsp"
    CONTENT = "content"


class CertificateRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One profile. All lists are closed: what is not in them is refused.

    ``key_usage`` are sets, one of which the certificate has exactly. ``extended_required`` must all be there,
    ``extended_allowed`` may. ``policies`` may be asserted, and with ``policy_required`` one of them must.
    ``names`` are kinds of subjectAltName: email, dns, ip, uri, directory, or ``other:`` and an OID.
    """

    holder: Holder = Holder.OUTSIDE
    max_days: int
    public_keys: tuple[str, ...]
    key_usage: tuple[tuple[str, ...], ...]
    extended_required: tuple[str, ...] = ()
    extended_allowed: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    policy_required: bool = False
    extensions: tuple[str, ...] = _ALWAYS
    names: tuple[str, ...] = ()
    path_length: int | None = None


def _policies(use: str) -> tuple[str, ...]:
    return tuple(sorted(getattr(POLICIES[Level.PIV], use) | getattr(POLICIES[Level.PIV_I], use)))


_CARD_NAMES = (FASCN_NAME, UPN, PKINIT_NAME, "uri", "email")

DEFAULT_RULES: dict[str, CertificateRule] = {
    "root": CertificateRule(
        holder=Holder.ROOT,
        max_days=7320,
        public_keys=("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        key_usage=(("key_cert_sign", "crl_sign"), ("digital_signature", "key_cert_sign", "crl_sign")),
        extensions=(SUBJECT_KEY_ID, AUTHORITY_KEY_ID, KEY_USAGE, BASIC_CONSTRAINTS, SUBJECT_INFORMATION),
    ),
    "ca": CertificateRule(
        holder=Holder.CA,
        max_days=3660,
        public_keys=("rsa2048", "rsa3072", "rsa4096", "p256", "p384"),
        key_usage=(("key_cert_sign", "crl_sign"), ("digital_signature", "key_cert_sign", "crl_sign")),
        policies=tuple(
            sorted(
                {
                    oid
                    for use in (
                        "authentication",
                        "card_authentication",
                        "signature",
                        "key_management",
                        "content_signing",
                    )
                    for oid in _policies(use)
                }
            )
        ),
        extensions=(
            *_ALWAYS,
            BASIC_CONSTRAINTS,
            SUBJECT_INFORMATION,
            NAME_CONSTRAINTS,
            POLICY_CONSTRAINTS,
            INHIBIT_ANY_POLICY,
        ),
        path_length=0,
    ),
    "piv-authentication": CertificateRule(
        max_days=1096,
        public_keys=_CARD_KEYS,
        key_usage=(("digital_signature",),),
        extended_allowed=(CLIENT_AUTH, SMARTCARD_LOGON, PKINIT_CLIENT, "1.3.6.1.5.5.7.3.21"),
        policies=_policies("authentication"),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE, MICROSOFT_SID, NACI),
        names=_CARD_NAMES,
    ),
    "card-authentication": CertificateRule(
        max_days=1096,
        public_keys=_CARD_KEYS,
        key_usage=(("digital_signature",),),
        extended_required=(CARD_AUTHENTICATION,),
        policies=_policies("card_authentication"),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE, NACI),
        names=(FASCN_NAME, "uri"),
    ),
    "signature": CertificateRule(
        max_days=1096,
        public_keys=_CARD_KEYS,
        key_usage=(("digital_signature", "content_commitment"),),
        extended_allowed=(EMAIL_PROTECTION, "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.311.10.3.12", "1.2.840.113583.1.1.5"),
        policies=_policies("signature"),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE),
        names=("email", "uri", UPN),
    ),
    "key-management": CertificateRule(
        max_days=1096,
        public_keys=_CARD_KEYS,
        key_usage=(("key_encipherment",), ("key_agreement",)),
        extended_allowed=(EMAIL_PROTECTION, "1.3.6.1.4.1.311.10.3.4"),
        policies=_policies("key_management"),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE),
        names=("email", "uri", UPN),
    ),
    "workstation": CertificateRule(
        max_days=31,
        public_keys=("p256", "p384", "rsa2048", "rsa3072"),
        key_usage=(("digital_signature",),),
        extended_required=(CLIENT_AUTH,),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE),
        names=("uri", "dns"),
    ),
    "server": CertificateRule(
        max_days=93,
        public_keys=("p256", "p384", "rsa2048", "rsa3072"),
        key_usage=(("digital_signature",), ("digital_signature", "key_encipherment")),
        extended_required=(SERVER_AUTH,),
        extended_allowed=(CLIENT_AUTH,),
        extensions=(*_ALWAYS, ALTERNATIVE_NAME, EXTENDED_KEY_USAGE),
        names=("dns", "ip", "uri"),
    ),
    "ocsp": CertificateRule(
        holder=Holder.OCSP,
        max_days=45,
        public_keys=("p256", "p384", "rsa2048", "rsa3072"),
        key_usage=(("digital_signature",),),
        extended_required=(OCSP_SIGNING,),
        policies=tuple(sorted({*_policies("authentication"), *_policies("card_authentication")})),
        extensions=(*_ALWAYS, EXTENDED_KEY_USAGE, OCSP_NO_CHECK),
    ),
    "content-signing": CertificateRule(
        holder=Holder.CONTENT,
        max_days=3288,
        public_keys=("p256", "p384", "rsa2048", "rsa3072"),
        key_usage=(("digital_signature",),),
        extended_allowed=(CONTENT_SIGNING, CONTENT_SIGNING_PIV_I),
        policies=_policies("content_signing"),
        extensions=(*_ALWAYS, EXTENDED_KEY_USAGE),
    ),
}
"""The profiles a new vault has. ``root`` is for a CA's certificate by itself, ``ca`` for one by a root."""

ISSUING_PROFILES = (
    "piv-authentication",
    "card-authentication",
    "signature",
    "key-management",
    "ocsp",
    "content-signing",
)
"""What a CA for cards signs under, unless its maker says otherwise."""
