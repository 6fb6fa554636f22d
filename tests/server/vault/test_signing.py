"""Card content and audit blocks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from uuid import UUID

import msgspec
import pytest
from asn1crypto import cms, core
from asn1crypto import x509 as asn1_x509
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import signed
from cardwright_cardops.piv.content_signing import sign_chuid, sign_security_object
from cardwright_cardops.piv.objects.chuid import Chuid, signature_input
from cardwright_cardops.piv.objects.fascn import Fascn
from cardwright_server.vault.calls import LocalVault
from cardwright_server.vault.content import check_content
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultRefused
from cardwright_server.vault.model import AuditBlock, ContentKind, KeyRole, SigningAlgorithm
from cardwright_server.vault.operations.signatures import BlockStatement
from cardwright_server.vault.signing import VaultECKey, VaultKey, VaultRSAKey, build_content
from tests.support.vault import PASSPHRASE, Clock, Pki, leaf, policies, public_of, reopen, run, subject, tbs_of

UUID_ = UUID("6a5b1a5e-0000-4000-8000-000000000001")


async def content_certificate(pki: Pki, name: str = "content") -> x509.Certificate:
    key = public_of(await pki.vault.public_key(name))
    extensions = ((policies("2.16.840.1.101.3.2.1.3.39"), False),)
    content = leaf(pki, key, subject=subject(name), days=1000, extensions=extensions)
    return await pki.certify("cards", "content-signing", tbs_of(content.builder(), await pki.vault.public_key("cards")))


@pytest.mark.parametrize("algorithm", [SigningAlgorithm.RSA2048, SigningAlgorithm.P256, SigningAlgorithm.P384])
def test_objects_of_a_card_signed_by_the_vault_verify(pki: Pki, algorithm: SigningAlgorithm) -> None:
    run(pki.key("signer", KeyRole.CONTENT, algorithm))
    certificate = run(content_certificate(pki, "signer"))
    chuid = Chuid(Fascn("9999", "9999", "999999").encode(), UUID_, date(2030, 1, 1))

    def with_key(key: VaultKey) -> Chuid:
        return sign_chuid(chuid, signed.Signer(certificate, key))

    made = run(build_content(pki.vault, "signer", ContentKind.CHUID, with_key))
    assert made.signature is not None
    signed.verify(made.signature, signed.CHUID_CONTENT, content=signature_input(made.encode()))

    def table(key: VaultKey) -> bytes:
        return sign_security_object({0x5FC102: encode(0x53, made.encode())}, signed.Signer(certificate, key)).signed

    security = run(build_content(pki.vault, "signer", ContentKind.SECURITY_OBJECT, table))
    signed.verify(security, signed.LDS_CONTENT, certificates=[certificate])
    with pytest.raises(VaultRefused) as caught:
        run(build_content(pki.vault, "signer", ContentKind.SECURITY_OBJECT, with_key))
    assert caught.value.reason == "content-type"
    with pytest.raises(VaultRefused) as caught:
        run(build_content(pki.vault, "content", ContentKind.CHUID, with_key))
    assert caught.value.reason in {"signer", "digest"}


def attributes(*pairs: tuple[str, core.Asn1Value]) -> bytes:
    return bytes(cms.CMSAttributes([cms.CMSAttribute({"type": oid, "values": [value]}) for oid, value in pairs]).dump())


def good_attributes() -> list[tuple[str, core.Asn1Value]]:
    return [
        ("1.2.840.113549.1.9.3", cms.ContentType(signed.BIOMETRIC_CONTENT)),
        ("1.2.840.113549.1.9.4", core.OctetString(bytes(32))),
        (signed.SIGNER_DN, asn1_x509.Name.load(subject("content").public_bytes())),
        (signed.FASCN, core.OctetString(bytes(25))),
        (signed.ENTRY_UUID, core.OctetString(bytes(16))),
    ]


def test_signed_attributes_are_just_those_of_their_kind(pki: Pki) -> None:
    def reason(content: bytes, kind: ContentKind = ContentKind.BIOMETRIC) -> str:
        with pytest.raises(VaultRefused) as caught:
            run(pki.vault.sign_content("content", kind, content))
        return caught.value.reason

    good = good_attributes()
    run(pki.vault.sign_content("content", ContentKind.BIOMETRIC, attributes(*good)))
    assert reason(attributes(*good), ContentKind.CHUID) == "attribute"
    for place in range(3):
        assert reason(attributes(*good[:place], *good[place + 1 :])) == "attribute"
    time = ("1.2.840.113549.1.9.5", cms.Time({"utc_time": core.UTCTime(datetime(2026, 1, 1, tzinfo=UTC))}))
    assert reason(attributes(*good, time)) == "attribute"
    assert reason(attributes(*good, good[1])) == "structure"
    for place, value, expected in (
        (0, cms.ContentType("data"), "content-type"),
        (1, core.OctetString(bytes(20)), "digest"),
        (3, core.OctetString(bytes(24)), "attribute"),
        (4, core.OctetString(bytes(15)), "attribute"),
    ):
        changed = [*good[:place], (good[place][0], value), *good[place + 1 :]]
        assert reason(attributes(*changed)) == expected
    for broken in (b"", b"anything at all, 32 octets long..", attributes(*good)[:-1], bytes(9000)):
        assert reason(broken) in {"structure", "size"}
    assert reason(attributes(*good)[:2] + b"\0", ContentKind.BIOMETRIC) == "structure"
    with pytest.raises(VaultRefused):
        run(pki.vault.sign_content("cards", ContentKind.BIOMETRIC, attributes(*good)))


def test_every_flipped_bit_of_signed_attributes(pki: Pki) -> None:
    good = attributes(*good_attributes())
    info = run(pki.vault.public_key("content"))
    kept = set()
    for position in range(len(good) * 8):
        changed = bytearray(good)
        changed[position // 8] ^= 1 << position % 8
        try:
            check_content(bytes(changed), ContentKind.BIOMETRIC, info)
        except VaultRefused:
            continue
        kept.add(position // 8)
    # Digest, FASC-N and UUID are free.
    starts = {value: good.index(bytes((4, value)) + bytes(value)) + 2 for value in (32, 25, 16)}
    assert kept == {place for size, start in starts.items() for place in range(start, start + size)}


def test_keys_of_the_vault_do_nothing_else() -> None:
    rsa_key = VaultRSAKey(rsa.generate_private_key(65537, 2048).public_key(), lambda data: b"")
    ec_key = VaultECKey(ec.generate_private_key(ec.SECP384R1()).public_key(), lambda data: b"")
    acts: tuple[Callable[[], object], ...] = (
        lambda: rsa_key.sign(b"", padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()),
        lambda: rsa_key.sign(b"", padding.PKCS1v15(), hashes.SHA384()),
        lambda: rsa_key.decrypt(b"", padding.PKCS1v15()),
        lambda: ec_key.sign(b"", ec.ECDSA(hashes.SHA256())),
        lambda: ec_key.exchange(ec.ECDH(), None),
        rsa_key.private_numbers,
        ec_key.private_numbers,
        lambda: ec_key.private_bytes(None, None, None),
    )
    for act in acts:
        with pytest.raises(UnsupportedAlgorithm):
            act()
    assert ec_key.sign(b"", ec.ECDSA(hashes.SHA384())) == b""


# ---------------------------------------------------------------------------------------------- audit blocks


@pytest.fixture
def vault(core: VaultCore) -> LocalVault:
    vault = LocalVault(core)
    run(vault.admin(PASSPHRASE).create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256))
    return vault


FIRST = AuditBlock("main", 1, 1, bytes(32), b"\x01" * 32, 3)


def test_a_chain_of_blocks(vault: LocalVault, core: VaultCore) -> None:
    public = load_der_public_key(run(vault.public_key("audit")).public_key)
    assert isinstance(public, ec.EllipticCurvePublicKey)
    previous = bytes(32)
    for number in range(1, 5):
        head = core.log.head
        block = AuditBlock("main", 1, number, previous, bytes((number,)) * 32, number)
        made = run(vault.sign_audit_block(block))
        public.verify(made.signature, made.signed, ec.ECDSA(hashes.SHA256()))
        says = msgspec.json.decode(made.signed, type=BlockStatement)
        assert (says.sequence, says.root, says.previous) == (number, block.root.hex(), previous.hex())
        assert (says.vault_head, says.vault_entries) == (head, core.log.entries - 1)
        previous = hashlib.sha256(made.signed).digest()


def test_the_last_block_again_is_the_same_and_a_fork_is_refused(
    vault: LocalVault, core: VaultCore, clock: Clock
) -> None:
    made = run(vault.sign_audit_block(FIRST))
    second = AuditBlock("main", 1, 2, hashlib.sha256(made.signed).digest(), b"\x02" * 32, 1)

    def reason(block: AuditBlock) -> str:
        with pytest.raises(VaultRefused) as caught:
            run(vault.sign_audit_block(block))
        return caught.value.reason

    assert run(vault.sign_audit_block(FIRST)).signed == made.signed
    for change in ({"root": bytes(32)}, {"entries": 4}, {"sequence": 3}):
        assert reason(msgspec.structs.replace(FIRST, **change)) == "chain"
    assert reason(msgspec.structs.replace(second, previous=bytes(32))) == "chain"
    assert reason(msgspec.structs.replace(second, epoch=2)) == "epoch"
    assert reason(msgspec.structs.replace(FIRST, chain="other", sequence=2)) == "chain"
    run(vault.sign_audit_block(second))
    assert reason(FIRST) == "chain"
    # The end of the chain is remembered over a restart.
    again = reopen(core, clock)
    local = LocalVault(again)
    run(local.admin(PASSPHRASE).unlock())
    with pytest.raises(VaultRefused):
        run(local.sign_audit_block(FIRST))
    # A restored server may go on from an older block only after the passphrase holder began a new epoch.
    assert run(local.admin(PASSPHRASE).new_epoch()) == 2
    run(local.sign_audit_block(msgspec.structs.replace(second, epoch=2, root=b"\x09" * 32)))
    with pytest.raises(VaultRefused):
        run(local.sign_audit_block(second))
    again.close()


def test_without_an_audit_key(core: VaultCore) -> None:
    with pytest.raises(VaultRefused) as caught:
        run(LocalVault(core).sign_audit_block(FIRST))
    assert caught.value.reason == "key"
