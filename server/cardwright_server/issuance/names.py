"""What a certificate says of its holder: subject, alternative names, and the SID extension of Windows."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from asn1crypto import core
from cryptography import x509
from cryptography.x509.oid import NameOID

from cardwright_cardops.piv.objects.fascn import SIZE as FASCN_SIZE

from ..vault.profiles import FASCN_NAME, MICROSOFT_SID, PKINIT_NAME, UPN
from .errors import CertificateRefused, NameMissing
from .profiles import Profile

_SID_VALUE: Final = x509.ObjectIdentifier("1.3.6.1.4.1.311.25.2.1")
_NT_PRINCIPAL: Final = 1
COMMON_NAME: Final = "common-name"
"""Of the subject; the other kinds of names are those of ``NameKind``."""
LONGEST: Final = 256
MOST: Final = 20


@dataclass(frozen=True, slots=True)
class HolderNames:
    """Everything that may be said; a profile takes of it what it wants. "" and None: not known.

    ``fascn`` has 25 octets. ``card_uuid`` is the card's GUID, ``holder_uuid`` the person's. ``principal`` is a Kerberos
    name, ``user@REALM`` or ``host/name@REALM``. ``sid`` is as in ``S-1-5-21-...``.
    """

    common_name: str = ""
    given_name: str = ""
    surname: str = ""
    serial_number: str = ""
    user_id: str = ""
    organizational_units: tuple[str, ...] = ()
    email: str = ""
    upn: str = ""
    sid: str = ""
    principal: str = ""
    fascn: bytes | None = None
    card_uuid: UUID | None = None
    holder_uuid: UUID | None = None
    dns: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    uris: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Plain values, the same for the same names."""
        values = {name: getattr(self, name) for name in self.__slots__}
        values["fascn"] = self.fascn.hex() if self.fascn is not None else None
        return {name: value for name, value in values.items() if value}


def subject(profile: Profile, names: HolderNames, base: x509.Name) -> x509.Name:
    """The subject under ``base``; for profiles of the vault's own keys the vault has it.

    Raises NameMissing, CertificateRefused.
    """
    if lacks := _missing_in_subject(profile, names):
        raise NameMissing(profile.name, lacks)
    match profile.subject:
        case "card":
            own = [(NameOID.SERIAL_NUMBER, str(names.card_uuid))]
        case "machine":
            own = [(NameOID.COMMON_NAME, names.common_name)]
        case _:
            own = [(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in names.organizational_units[:MOST]]
            optional = (
                (NameOID.USER_ID, names.user_id),
                (NameOID.SURNAME, names.surname),
                (NameOID.GIVEN_NAME, names.given_name),
                (NameOID.SERIAL_NUMBER, names.serial_number),
            )
            own += [(oid, value) for oid, value in optional if value]
            own.append((NameOID.COMMON_NAME, names.common_name))
    try:
        return x509.Name([*base.rdns, *(x509.RelativeDistinguishedName([_attribute(*one)]) for one in own)])
    except ValueError as cause:
        raise CertificateRefused("names", f"The subject cannot be written: {cause}.") from cause


def alternative_names(profile: Profile, names: HolderNames) -> x509.SubjectAlternativeName | None:
    """Names of the kinds that the profile has; None if there are none. Raises NameMissing, CertificateRefused."""
    made = {kind: _made(kind, names) for kind in (*profile.names_required, *profile.names_allowed)}
    if lacks := [kind for kind in profile.names_required if not made[kind]]:
        raise NameMissing(profile.name, lacks)
    found = [one for several in made.values() for one in several]
    return x509.SubjectAlternativeName(found) if found else None


def extensions(profile: Profile, names: HolderNames) -> Iterator[tuple[x509.ExtensionType, bool]]:
    """The extensions that say who the holder is, and whether they are critical. Raises NameMissing, CertificateRefused.
    """
    found = alternative_names(profile, names)
    if found is not None:
        yield found, False
    if profile.sid and names.sid:
        yield sid_extension(names.sid), False


def require_names(profile: Profile, names: HolderNames, base: x509.Name) -> None:
    """Refuse what a certificate of this profile could not say. Raises NameMissing, with everything; CertificateRefused.
    """
    lacks = [*_missing_in_subject(profile, names)]
    lacks += [kind for kind in profile.names_required if kind not in lacks and not _made(kind, names)]
    if lacks:
        raise NameMissing(profile.name, lacks)
    subject(profile, names, base)
    for _ in extensions(profile, names):
        pass


def sid_extension(sid: str) -> x509.UnrecognizedExtension:
    """NTDS_CA_SECURITY_EXT: an otherName with the SID as text in an OCTET STRING. Raises CertificateRefused."""
    parts = sid.split("-")
    digits = all(one.isascii() and one.isdigit() for one in parts[1:])
    if len(sid) > LONGEST or len(parts) < 4 or parts[0] != "S" or not digits:
        raise CertificateRefused("names", "The SID is not one.")
    value = x509.SubjectAlternativeName([_other(_SID_VALUE, core.OctetString(sid.encode()))])
    return x509.UnrecognizedExtension(x509.ObjectIdentifier(MICROSOFT_SID), value.public_bytes())


class _PrincipalName(core.Sequence):  # type: ignore[misc]
    """PrincipalName (RFC 4120 section 5.2.2)."""

    class _Parts(core.SequenceOf):  # type: ignore[misc]
        _child_spec = core.GeneralString

    _fields = [("name_type", core.Integer, {"explicit": 0}), ("name_string", _Parts, {"explicit": 1})]  # noqa: RUF012


class _Krb5PrincipalName(core.Sequence):  # type: ignore[misc]
    """KRB5PrincipalName (RFC 4556 section 3.2.2)."""

    _fields = [  # noqa: RUF012
        ("realm", core.GeneralString, {"explicit": 0}),
        ("principal_name", _PrincipalName, {"explicit": 1}),
    ]


def _principal(text: str) -> x509.OtherName:
    name, at, realm = text.rpartition("@")
    parts = name.split("/")
    if not at or not realm or not all(parts) or not text.isascii() or len(text) > LONGEST:
        raise ValueError("it is no Kerberos principal")
    value = _Krb5PrincipalName(
        {"realm": realm, "principal_name": {"name_type": _NT_PRINCIPAL, "name_string": parts}}
    )
    return _other(x509.ObjectIdentifier(PKINIT_NAME.removeprefix("other:")), value)


def _fascn(value: bytes) -> x509.OtherName:
    if len(value) != FASCN_SIZE:
        raise ValueError(f"a FASC-N has {FASCN_SIZE} octets")
    return _other(x509.ObjectIdentifier(FASCN_NAME.removeprefix("other:")), core.OctetString(value))


def _upn(value: str) -> x509.OtherName:
    if not 3 <= len(value) <= LONGEST or value.count("@") != 1 or any(one.isspace() for one in value):
        raise ValueError("it is no user principal name")
    return _other(x509.ObjectIdentifier(UPN.removeprefix("other:")), core.UTF8String(value))


def _email(value: str) -> x509.RFC822Name:
    if len(value) > LONGEST or value.count("@") != 1 or value.startswith("@") or value.endswith("@"):
        raise ValueError("it is no mail address")
    return x509.RFC822Name(value)


def _dns(value: str) -> x509.DNSName:
    labels = value.split(".")
    plain = all(one and len(one) < 64 and one.replace("-", "").isalnum() and one[0] != "-" for one in labels)
    if not (value.isascii() and len(value) <= 253 and plain):
        raise ValueError("it is no host name")
    return x509.DNSName(value)


def _uri(value: str) -> x509.UniformResourceIdentifier:
    if ":" not in value or len(value) > LONGEST or not value.isascii() or any(one.isspace() for one in value):
        raise ValueError("it is no URI")
    return x509.UniformResourceIdentifier(value)


def _each(values: tuple[str, ...], make: Callable[[str], x509.GeneralName]) -> list[x509.GeneralName]:
    if len(values) > MOST:
        raise ValueError(f"there are more than {MOST}")
    return [make(one) for one in values]


_MAKERS: Mapping[str, Callable[[HolderNames], list[x509.GeneralName]]] = {
    "fascn": lambda names: [_fascn(names.fascn)] if names.fascn is not None else [],
    "card-uuid": lambda names: [x509.UniformResourceIdentifier(names.card_uuid.urn)] if names.card_uuid else [],
    "holder-uuid": lambda names: [x509.UniformResourceIdentifier(names.holder_uuid.urn)] if names.holder_uuid else [],
    "upn": lambda names: [_upn(names.upn)] if names.upn else [],
    "email": lambda names: [_email(names.email)] if names.email else [],
    "principal": lambda names: [_principal(names.principal)] if names.principal else [],
    "dns": lambda names: _each(names.dns, _dns),
    "ip": lambda names: _each(names.addresses, lambda one: x509.IPAddress(ipaddress.ip_address(one))),
    "uri": lambda names: _each(names.uris, _uri),
}


def _other(oid: x509.ObjectIdentifier, value: core.Asn1Value) -> x509.OtherName:
    return x509.OtherName(oid, value.dump())


def _attribute(oid: x509.ObjectIdentifier, value: str) -> x509.NameAttribute[str]:
    return x509.NameAttribute(oid, value)


def _made(kind: str, names: HolderNames) -> list[x509.GeneralName]:
    try:
        return _MAKERS[kind](names)
    except ValueError as cause:
        raise CertificateRefused("names", f"The {kind} cannot be written: {cause}.") from cause


def _missing_in_subject(profile: Profile, names: HolderNames) -> tuple[str, ...]:
    match profile.subject:
        case "card":
            return ("card-uuid",) if names.card_uuid is None else ()
        case "person" | "machine":
            return (COMMON_NAME,) if not names.common_name.strip() else ()
    return ()
