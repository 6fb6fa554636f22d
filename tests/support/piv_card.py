"""A PIV card that is good at level piv, made here with a PKI of its own, and every part of it changeable."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any
from uuid import UUID

from asn1crypto import core
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import AuthorityInformationAccessOID, NameOID

from cardwright_cardops.check import CardData, same_key
from cardwright_cardops.piv import containers, signed
from cardwright_cardops.piv.content_signing import sign_biometric, sign_chuid, sign_security_object
from cardwright_cardops.piv.objects import (
    Ccc,
    CertificateObject,
    Chuid,
    Discovery,
    Fascn,
    PinUsagePolicy,
    Printed,
)
from cardwright_cardops.piv.objects.biometric import Cbeff, date_octets

AT = datetime(2027, 5, 1, 12, tzinfo=UTC)
START = datetime(2027, 1, 1, tzinfo=UTC)
CARD_ENDS = date(2030, 1, 1)
GUID = UUID("6f7d9a2e-6e0b-4d3c-9c55-0a1b2c3d4e5f")
FASCN = Fascn("4700", "0256", "001337", "1", "1", "1234567890", "1", "4700", "1").encode()
POLICY = "2.16.840.1.101.3.2.1.3."
HASHED = (0x5FC107, 0x5FC102, 0x5FC103, 0x5FC108, 0x5FC109, 0x7E)

Key = ec.EllipticCurvePrivateKey


@cache
def key(name: str) -> Key:
    """One key per name and process, on P-256 unless the name begins with P-521."""
    return ec.generate_private_key(ec.SECP521R1() if name.startswith("P-521") else ec.SECP256R1())


def name_of(common: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.COUNTRY_NAME, "US"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "U.S. Government"),
            x509.NameAttribute(NameOID.COMMON_NAME, common),
        ]
    )


@dataclass
class Profile:
    """What goes into one certificate; None leaves an extension out."""

    subject: str
    public: str
    issuer: str = "CA"
    not_before: datetime = START
    not_after: datetime = datetime(2029, 12, 1, tzinfo=UTC)
    usages: tuple[str, ...] = ("digital_signature",)
    extended: tuple[str, ...] = ()
    extended_critical: bool = False
    policies: tuple[str, ...] = ()
    fascn: bytes | None = None
    uuids: tuple[UUID, ...] = ()
    more_names: tuple[x509.GeneralName, ...] = ()
    key_identifier: bytes | None = None
    addresses: str | None = "http"
    authority: bool = True
    is_ca: bool = False
    serial: int = 0
    more: tuple[x509.ExtensionType, ...] = ()

    def make(self) -> x509.Certificate:
        used, issuer = key(self.public), key(self.issuer)
        identifier = x509.SubjectKeyIdentifier.from_public_key(used.public_key())
        if self.key_identifier is not None:
            identifier = x509.SubjectKeyIdentifier(self.key_identifier)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name_of(self.subject))
            .issuer_name(name_of(self.issuer))
            .public_key(used.public_key())
            .serial_number(self.serial or x509.random_serial_number())
            .not_valid_before(self.not_before)
            .not_valid_after(self.not_after)
            .add_extension(identifier, False)
            .add_extension(x509.BasicConstraints(self.is_ca, None), True)
        )
        all_usages = (
            "digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement",
            "key_cert_sign", "crl_sign", "encipher_only", "decipher_only",
        )  # fmt: skip
        builder = builder.add_extension(x509.KeyUsage(**{each: each in self.usages for each in all_usages}), True)
        if self.authority:
            builder = builder.add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key()), False
            )
        if self.extended:
            oids = [x509.ObjectIdentifier(each) for each in self.extended]
            builder = builder.add_extension(x509.ExtendedKeyUsage(oids), self.extended_critical)
        if self.policies:
            rows = [x509.PolicyInformation(x509.ObjectIdentifier(each), None) for each in self.policies]
            builder = builder.add_extension(x509.CertificatePolicies(rows), False)
        names: list[x509.GeneralName] = list(self.more_names)
        if self.fascn is not None:
            names.append(x509.OtherName(x509.ObjectIdentifier(signed.FASCN), core.OctetString(self.fascn).dump()))
        names.extend(x509.UniformResourceIdentifier(each.urn) for each in self.uuids)
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
        for extension in self.more:
            builder = builder.add_extension(extension, False)
        if self.addresses:
            builder = self._addresses(builder)
        return builder.sign(issuer, hashes.SHA256())

    def _addresses(self, builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
        def url(path: str) -> x509.UniformResourceIdentifier:
            return x509.UniformResourceIdentifier(f"{self.addresses}://pki.example/{path}")

        access = x509.AuthorityInformationAccess(
            [
                x509.AccessDescription(AuthorityInformationAccessOID.CA_ISSUERS, url("ca.p7c")),
                x509.AccessDescription(AuthorityInformationAccessOID.OCSP, url("ocsp")),
            ]
        )
        points = x509.CRLDistributionPoints([x509.DistributionPoint([url("ca.crl")], None, None, None)])
        return builder.add_extension(access, False).add_extension(points, False)


def _profiles() -> dict[str, Profile]:
    far = datetime(2035, 1, 1, tzinfo=UTC)
    early = datetime(2026, 1, 1, tzinfo=UTC)
    ca = ("key_cert_sign", "crl_sign")
    policy = {each: POLICY + each for each in ("13", "17", "7", "39")}
    everything = tuple(policy.values())
    return {
        "root": Profile("Root", "Root", "Root", early, far, ca, is_ca=True, addresses=None),
        "ca": Profile("CA", "CA", "Root", early, far, ca, policies=everything, is_ca=True),
        "signer": Profile(
            "Content Signer", "Content Signer", not_after=datetime(2031, 1, 1, tzinfo=UTC),
            extended=("2.16.840.1.101.3.6.7",), extended_critical=True, policies=(policy["39"],),
        ),
        "9A": Profile(
            "Ada", "9A", extended=("1.3.6.1.5.5.7.3.2", "1.3.6.1.4.1.311.20.2.2"), policies=(policy["13"],),
            fascn=FASCN, uuids=(GUID,),
        ),
        "9C": Profile(
            "Ada", "9C", usages=("digital_signature", "content_commitment"), extended=("1.3.6.1.5.5.7.3.4",),
            policies=(policy["7"],),
        ),
        "9D": Profile(
            "Ada", "9D", usages=("key_agreement",), extended=("1.3.6.1.5.5.7.3.4",), policies=(policy["7"],)
        ),
        "9E": Profile(
            "card", "9E", extended=("2.16.840.1.101.3.6.8",), extended_critical=True, policies=(policy["17"],),
            fascn=FASCN, uuids=(GUID,),
        ),
    }  # fmt: skip


SLOTS = {"9A": 0x5FC105, "9C": 0x5FC10A, "9D": 0x5FC10B, "9E": 0x5FC101}


def fingers() -> bytes:
    """A minutiae record of two fingers with one minutia each."""
    view = bytes((1, 0, 80, 1)) + bytes.fromhex("401400142D50") + b"\0\0"
    body = bytes.fromhex("00330001800101F401F400C500C50200") + view + view
    return b"FMR\0 20\0" + (10 + len(body)).to_bytes(2, "big") + body


def face() -> bytes:
    """A face record with one empty picture."""
    feature = bytes.fromhex("0000000C000000000000000000000000000000000000")[:20]
    picture = bytes.fromhex("0100014001F0010200000000")
    body = b"\0\1" + feature + picture
    return b"FAC\x00010\0" + (12 + len(body)).to_bytes(4, "big") + body


@dataclass
class PivCard:
    """The recipe. Change any part, then ``data()`` builds and signs the card; ``late`` edits what was built."""

    chuid: Chuid = field(default_factory=lambda: Chuid(FASCN, GUID, CARD_ENDS))
    profiles: dict[str, Profile] = field(default_factory=_profiles)
    ccc: Ccc = field(default_factory=Ccc)
    policy: PinUsagePolicy = field(default_factory=lambda: PinUsagePolicy(0x40, 0))
    printed: Printed = field(
        default_factory=lambda: Printed("Ada Lovelace", "Employee", CARD_ENDS, "0000000001", "USA470000000001")
    )
    headers: dict[int, dict[str, Any]] = field(default_factory=dict)
    records: dict[int, bytes] = field(default_factory=lambda: {0x5FC103: fingers(), 0x5FC108: face()})
    attributes: dict[int, dict[str, Any]] = field(default_factory=dict)
    hashed: tuple[int, ...] = HASHED
    before_hashing: Callable[[dict[int, bytes]], None] = lambda built: None
    late: Callable[[dict[int, bytes | None]], None] = lambda built: None
    proofs: dict[str, str] = field(default_factory=lambda: {slot: slot for slot in SLOTS})

    def __post_init__(self) -> None:
        self.issued: dict[str, x509.Certificate] = {}

    def data(self) -> CardData:
        """The card."""
        self.issued = {name: profile.make() for name, profile in self.profiles.items()}
        signer = signed.Signer(self.issued["signer"], key(self.profiles["signer"].public))
        built = {tag: CertificateObject(self.issued[slot].public_bytes(Encoding.DER)).encode()
                 for slot, tag in SLOTS.items()}  # fmt: skip
        built[0x5FC107] = self.ccc.encode()
        built[0x7E] = Discovery(policy=self.policy).encode()
        built[0x5FC109] = self.printed.encode()
        built[0x5FC102] = sign_chuid(self.chuid, signer).encode()
        for tag in self.records:
            built[tag] = self._biometric(tag, signer)
        self.before_hashing(built)
        answers: dict[int, bytes | None] = {tag: containers.wrap(tag, value) for tag, value in built.items()}
        covered = {tag: answers[tag] or b"" for tag in self.hashed if tag in built}
        answers[0x5FC106] = containers.wrap(0x5FC106, sign_security_object(covered, signer).encode())
        self.late(answers)
        proofs = {int(slot, 16): same_key(key(name).public_key()) for slot, name in self.proofs.items()}
        return CardData(answers, proofs)

    @property
    def trust(self) -> list[x509.Certificate]:
        """Root and CA of the card just built."""
        return [self.issued["root"], self.issued["ca"]]

    def _biometric(self, tag: int, signer: signed.Signer) -> bytes:
        finger = tag == 0x5FC103
        values: dict[str, Any] = {
            "creation": date_octets(START),
            "not_before": date_octets(START),
            "not_after": date_octets(datetime(2030, 1, 1, 23, tzinfo=UTC)),
            "fascn": FASCN,
            "format_owner": 0x1B,
            "format_type": 0x201 if finger else 0x501,
            "biometric_type": 8 if finger else 2,
            "data_type": 0x80 if finger else 0x20,
            "quality": 80,
            "creator": b"tests".ljust(18, b"\0"),
        }
        header = Cbeff(**values | self.headers.get(tag, {}))
        data = self.records[tag]
        attributes: dict[str, Any] = {"fascn": FASCN, "uuid": GUID} | self.attributes.get(tag, {})
        return sign_biometric(header, data, signer, **attributes).encode()


def crl(
    issuer: str, revoked: tuple[int, ...] = (), *, age: timedelta = timedelta(days=1),
    reason: x509.ReasonFlags | None = None,
) -> bytes:  # fmt: skip
    """A CRL of ``issuer`` (a name of key()), made ``age`` before AT."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(name_of(issuer))
        .last_update(AT - age)
        .next_update(AT - age + timedelta(days=30))
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key(issuer).public_key()), False)
        .add_extension(x509.CRLNumber(1), False)
    )
    for serial in revoked:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(AT - age)
        if reason is not None:
            entry = entry.add_extension(x509.CRLReason(reason), False)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(key(issuer), hashes.SHA256()).public_bytes(Encoding.DER)
