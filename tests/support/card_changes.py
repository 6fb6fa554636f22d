"""Ways to change a good card in one respect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.piv import containers, signed
from cardwright_cardops.piv.objects import CertificateObject, KeyHistory, PinUsagePolicy, SecurityObject, SmSigner
from cardwright_cardops.piv.objects.security_object import HashTable
from tests.support.piv_card import FASCN, GUID, PivCard, key

CHUID, FINGER, FACE, SECURITY, PRINTED = 0x5FC102, 0x5FC103, 0x5FC108, 0x5FC106, 0x5FC109


def late(card: PivCard, tag: int, change: Callable[[bytes], bytes]) -> PivCard:
    def edit(built: dict[int, bytes | None]) -> None:
        built[tag] = containers.wrap(tag, change(containers.unwrap(tag, built[tag] or b"")))

    card.late = edit
    return card


def early(tag: int, change: Callable[[bytes], bytes]) -> PivCard:
    """Changed before the Security Object hashes it."""

    def edit(built: dict[int, bytes]) -> None:
        built[tag] = change(built[tag])

    return PivCard(before_hashing=edit)


def answers(**changes: bytes | None) -> PivCard:
    """GET DATA answers replaced (tags as T5FC102=...)."""

    def edit(built: dict[int, bytes | None]) -> None:
        built.update({int(tag[1:], 16): answer for tag, answer in changes.items()})

    return PivCard(late=edit)


def without(*tags: int) -> PivCard:
    def edit(built: dict[int, bytes]) -> None:
        for tag in tags:
            built.pop(tag, None)

    return PivCard(before_hashing=edit)


def profile(name: str, **changes: Any) -> PivCard:
    card = PivCard()
    card.profiles[name] = replace(card.profiles[name], **changes)
    return card


def chuid(**changes: Any) -> PivCard:
    card = PivCard()
    card.chuid = replace(card.chuid, **changes)
    return card


def everywhere(fascn: bytes = FASCN, guid: UUID = GUID) -> PivCard:
    """The whole card with another FASC-N or GUID."""
    card = chuid(fascn=fascn, guid=guid)
    for slot in ("9A", "9E"):
        card.profiles[slot] = replace(card.profiles[slot], fascn=fascn, uuids=(guid,))
    for tag in (FINGER, FACE):
        card.headers[tag] = {"fascn": fascn}
        card.attributes[tag] = {"fascn": fascn, "uuid": guid}
    return card


def header(**changes: Any) -> PivCard:
    return PivCard(headers={FINGER: changes})


def swap(tag: int, old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(value: bytes) -> bytes:
        assert old in value, tag
        return value.replace(old, new)

    return change


def resigned_security_object(
    *, digest: str = "sha256", extra: tuple[int, int] | None = None, drop: bool = False, content: bytes | None = None
) -> PivCard:
    """The Security Object signed anew over other content."""
    card = PivCard()

    def edit(built: dict[int, bytes | None]) -> None:
        seen = SecurityObject.decode(containers.unwrap(SECURITY, built[SECURITY] or b""))
        groups = list(seen.groups)
        parts = {
            number: containers.hashed_content(row.tag, built[row.tag] or b"")
            for number, row in ((number, containers.CONTAINERS_BY_ID[owner]) for number, owner in groups)
        }
        if extra:
            groups.append(extra)
            parts[extra[0]] = b""
        table = HashTable.over(parts, digest)
        if drop:
            table = replace(table, hashes=table.hashes[:-1])
        signer = signed.Signer(card.issued["signer"], key("Content Signer"))
        der = signed.sign_attached(table.encode() if content is None else content, signed.LDS_CONTENT, signer)
        built[SECURITY] = containers.wrap(SECURITY, SecurityObject(tuple(groups), der).encode())

    card.late = edit
    return card


def retired(count: int, history: KeyHistory | None) -> PivCard:
    def edit(built: dict[int, bytes]) -> None:
        for number in range(count):
            built[0x5FC10D + number] = built[0x5FC10B]
        if history is not None:
            built[0x5FC10C] = history.encode()

    card = PivCard(before_hashing=edit)
    if history is not None:
        card.hashed = (*card.hashed, 0x5FC10C)
    return card


def chuid_signed(**arguments: Any) -> PivCard:
    """The CHUID's signature made another way; the Security Object is made after that."""
    card = PivCard()

    def edit(built: dict[int, bytes]) -> None:
        items = {item.tag: item.value for item in tlv.parse_all(built[CHUID])}
        content = b"".join(tlv.encode(tag, value) for tag, value in items.items() if tag != 0x3E)
        signer = signed.Signer(card.issued["signer"], key("Content Signer"))
        items[0x3E] = arguments.get("raw") or signed.sign_detached(
            content, arguments.get("content_type", signed.CHUID_CONTENT), signer,
            include_certificate=arguments.get("include_certificate", True),
        )  # fmt: skip
        built[CHUID] = b"".join(tlv.encode(tag, value) for tag, value in items.items())

    card.before_hashing = edit
    return card


def flipped_signature(value: bytes) -> bytes:
    return value[:-3] + bytes((value[-3] ^ 1,)) + value[-2:]


def no_dn(value: bytes) -> bytes:
    """pivSigner-DN made an attribute of another name: the signature fails with it."""
    return swap(FINGER, bytes.fromhex("060860864801650306 05".replace(" ", "")), bytes.fromhex("06086086480165030604"))(
        value
    )


def another_key(slot: str, kind: str) -> PivCard:
    """The certificate for a key of another kind, made and put in by hand."""

    card = PivCard()
    card.proofs.pop(slot)

    def edit(built: dict[int, bytes]) -> None:
        made = card.issued[slot]
        makers: dict[str, Callable[[], Any]] = {
            "rsa1024": lambda: rsa.generate_private_key(65537, 1024),
            "rsa2048": lambda: rsa.generate_private_key(65537, 2048),
            "p521": lambda: ec.generate_private_key(ec.SECP521R1()),
            "ed25519": ed25519.Ed25519PrivateKey.generate,
        }
        public = makers[kind]().public_key()
        builder = x509.CertificateBuilder(made.issuer, made.subject, public, made.serial_number)
        end = made.not_valid_after_utc + (timedelta(days=800) if kind == "rsa2048" else timedelta())
        builder = builder.not_valid_before(made.not_valid_before_utc).not_valid_after(end)
        for extension in made.extensions:
            if isinstance(extension.value, x509.SubjectKeyIdentifier):
                if kind == "p521":
                    continue
                builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(public), False)
            elif isinstance(extension.value, x509.KeyUsage) and kind == "rsa2048":
                usage = x509.KeyUsage(False, False, True, False, False, False, False, False, False)
                builder = builder.add_extension(usage, False)
            else:
                builder = builder.add_extension(extension.value, extension.critical)
        certificate = builder.sign(key("CA"), hashes.SHA256())
        tag = {"9A": 0x5FC105, "9D": 0x5FC10B}[slot]
        built[tag] = CertificateObject(certificate.public_bytes(Encoding.DER)).encode()

    card.before_hashing = edit
    return card


def sm_signer(name: str) -> PivCard:

    card = PivCard(policy=PinUsagePolicy(0x4C, 0))
    card.profiles["sm"] = replace(card.profiles["signer"], subject=name, public=name)
    card.before_hashing = lambda built: built.update(
        {0x5FC122: SmSigner(card.issued["sm"].public_bytes(Encoding.DER)).encode()}
    )
    return card


def replace_policy(card: PivCard, first: int) -> PivCard:
    card.policy = PinUsagePolicy(first, 0)
    return card


def unsign(value: bytes) -> bytes:
    record = tlv.parse_all(value)[0].value
    size = int.from_bytes(record[6:8], "big")
    return tlv.encode(0xBC, record[:6] + b"\0\0" + record[8:-size]) + b"\xfe\x00"
