"""Requests become certificates that strangers verify, or are refused for a stated reason."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from sqlalchemy import func, select

from cardwright_cardops.piv.references import Slot
from cardwright_server.audit.model import SERVER
from cardwright_server.issuance.errors import RequestReused
from cardwright_server.issuance.model import CertificateState, HolderKind, Issued, Purpose, Refused
from cardwright_server.issuance.names import HolderNames
from cardwright_server.issuance.origin import Expected, MadeHere, Sealed, Station
from cardwright_server.policies.model import Origin
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.issuance_tables import certificate_order, issued_certificate
from cardwright_server.store.unit import Unit
from tests.support.issuance import ON_SQLITE, World, csr, new_key, openssl, pem, spki


async def test_openssl_verifies_a_certificate_and_shows_what_the_profile_says(world: World) -> None:
    key = new_key()
    issued = await world.issue(world.request(key))
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
    leaf = pem(world.folder, "leaf", issued.certificate)
    arguments = ("verify", "-x509_strict", "-policy_check", "-explicit_policy", "-policy", "2.16.840.1.101.3.2.1.3.13")
    assert "OK" in openssl(*arguments, "-CAfile", root, "-untrusted", cards, leaf)
    text = openssl("x509", "-in", leaf, "-noout", "-text")
    for expected in (
        "Digital Signature\n",
        "TLS Web Client Authentication, Microsoft Smartcard Login",
        "2.16.840.1.101.3.2.1.3.13",
        "http://status.example.test/crl/cards-1.crl",
        "OCSP - URI:http://status.example.test/ocsp",
        "CA Issuers - URI:http://status.example.test/ca/cards-1.cer",
        "othername: UPN::ada@example.test",
        "1.3.6.1.4.1.311.25.2",
    ):
        assert expected in text
    assert issued.state is CertificateState.HELD
    assert issued.holds == {"unreleased"}
    assert len(issued.serial) == 40
    assert issued.origin is Origin.SEALED


@ON_SQLITE
async def test_openssl_reads_the_request_that_is_the_proof(world: World) -> None:
    path = world.folder / "request.der"
    path.write_bytes(csr(new_key()))
    assert "verify OK" in openssl("req", "-inform", "DER", "-in", path, "-verify", "-noout")


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("profile", {"profile": "nothing"}),
    ("holder", {"profile": "workstation"}),
    ("proof", {"proof": b"", "evidence": Station(trusted=True)}),
    ("proof", {"proof": b"0" * 100}),
    ("proof", {"proof": b"0" * 20000}),
    ("origin", {"evidence": None}),
    ("origin", {"evidence": Station(trusted=True)}),
    ("origin", {"least_origin": Origin.ATTESTED}),
    ("names", {"names": HolderNames(common_name="Ada", card_uuid=uuid4())}),
    ("names", {"names": HolderNames(fascn=bytes(25), card_uuid=uuid4())}),
    ("names", {"names": HolderNames(common_name="Ada", fascn=bytes(24), card_uuid=uuid4())}),
    ("validity", {"until": datetime.now(UTC)}),
]
"""What is wrong, and the reason that is stated."""


async def test_what_does_not_hold_is_refused_and_leaves_nothing_but_an_audit_entry(world: World) -> None:
    async def counts(unit: Unit) -> tuple[int, int, int]:
        tables = (issued_certificate, certificate_order, audit_entry)
        return tuple([await unit.value(select(func.count()).select_from(one)) for one in tables])

    certificates, orders, entries = await world.database.read(counts)
    for reason, changes in REFUSED:
        answer = await world.service.certify(world.database, SERVER, replace(world.request(new_key()), **changes))
        assert isinstance(answer, Refused)
        assert answer.reason == reason, changes
        assert answer.message.endswith(".")
    assert await world.database.read(counts) == (certificates, orders, entries + len(REFUSED))


@ON_SQLITE
async def test_a_request_for_another_key_than_the_slots_is_refused(world: World) -> None:
    slot, rogue = new_key(), new_key()
    request = world.request(slot, proof=csr(rogue))
    answer = await world.service.certify(world.database, SERVER, request)
    assert isinstance(answer, Refused) and answer.reason == "key"
    sealed = world.request(rogue, evidence=Sealed(spki(slot)))
    answer = await world.service.certify(world.database, SERVER, sealed)
    assert isinstance(answer, Refused) and answer.reason == "key"


@ON_SQLITE
async def test_a_request_signed_by_another_key_is_refused(world: World) -> None:
    key = new_key()
    good = csr(key)
    damaged = good[:-4] + bytes((good[-4] ^ 1,)) + good[-3:]
    answer = await world.service.certify(world.database, SERVER, world.request(key, proof=damaged))
    assert isinstance(answer, Refused) and answer.reason == "proof"


@ON_SQLITE
async def test_a_weak_hash_or_key_is_refused(world: World) -> None:
    small = new_key("rsa1024")
    answer = await world.service.certify(world.database, SERVER, world.request(small))
    assert isinstance(answer, Refused) and answer.reason == "algorithm"


async def test_a_key_has_one_holder_and_slot(world: World) -> None:
    key = new_key()
    first = world.request(key)
    await world.issue(first)
    other = await world.service.certify(world.database, SERVER, world.request(key))
    assert isinstance(other, Refused) and other.reason == "key-in-use"
    again = await world.issue(replace(first, id=uuid4()))
    assert again.holder == first.holder


async def test_the_same_request_gives_the_same_certificate_and_other_content_is_an_error(world: World) -> None:
    key = new_key()
    request = world.request(key)
    first = await world.issue(request)
    # A new proof for the same key is no other request.
    again = await world.issue(replace(request, proof=csr(key, hashes.SHA384())))
    assert again.certificate == first.certificate
    with pytest.raises(RequestReused):
        await world.service.certify(world.database, SERVER, replace(request, profile="smartcard-logon"))


async def test_one_request_on_two_connections_gives_one_certificate(world: World, open_database: Any) -> None:
    request = world.request(new_key())
    databases = [open_database() for _ in range(4)]
    answers = await asyncio.gather(*(world.service.certify(one, SERVER, request) for one in databases))
    made = {one.certificate.certificate for one in answers if isinstance(one, Issued)}
    assert len(made) == 1 and len(answers) == 4


@ON_SQLITE
async def test_the_end_is_bounded_by_card_and_content_signer(world: World) -> None:
    until = (datetime.now(UTC) + timedelta(days=100)).replace(microsecond=0)
    issued = await world.issue(world.request(new_key(), until=until))
    assert issued.x509.not_valid_after_utc == until
    key = new_key()
    card = world.request(key, "card-authentication", expected=Expected(spki(key), Slot.CARD_AUTHENTICATION))
    issued = await world.issue(card)
    assert issued.x509.not_valid_after_utc <= datetime.now(UTC) + timedelta(days=1096)
    assert "Ada" not in issued.x509.subject.rfc4514_string()


@ON_SQLITE
@pytest.mark.parametrize("kind", ["rsa2048", "p384"])
async def test_every_profile_for_cards_is_issued_and_verified(world: World, kind: str) -> None:
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
    for profile in world.service.profiles:
        if profile.purpose is not Purpose.CARDS or profile.subject == "key":
            continue
        key = new_key(kind)
        request = world.request(key, profile.name)
        holder = replace(request.holder, kind=profile.holders[0])
        issued = await world.issue(replace(request, holder=holder))
        leaf = pem(world.folder, profile.name, issued.certificate)
        assert "OK" in openssl("verify", "-x509_strict", "-CAfile", root, "-untrusted", cards, leaf)
        assert issued.profile == profile.name


@ON_SQLITE
async def test_a_policy_that_claims_nothing_gets_the_civ_profile(world: World) -> None:
    request = world.request(new_key(), strict=False, evidence=None)
    issued = await world.issue(request)
    assert issued.profile == "civ-authentication" and issued.origin is Origin.UNPROVEN
    with pytest.raises(x509.ExtensionNotFound):
        issued.x509.extensions.get_extension_for_class(x509.CertificatePolicies)


@ON_SQLITE
async def test_a_key_made_by_the_vault_needs_no_proof_and_asserts_no_hardware(world: World) -> None:
    key = new_key("rsa2048")
    made = world.request(key, "key-management", proof=b"", evidence=MadeHere())
    issued = await world.issue(made)
    policies = issued.x509.extensions.get_extension_for_class(x509.CertificatePolicies).value
    assert [one.policy_identifier.dotted_string for one in policies] == ["2.16.840.1.101.3.2.1.3.6"]
    answer = await world.service.certify(
        world.database, SERVER, replace(world.request(key, "signature"), holder=made.holder, evidence=MadeHere())
    )
    assert isinstance(answer, Refused) and answer.reason == "origin"


@ON_SQLITE
async def test_machines_get_certificates_of_their_own_authorities(world: World) -> None:
    for profile, kind, purpose in (
        ("workstation", HolderKind.WORKSTATION, Purpose.WORKSTATIONS),
        ("server", HolderKind.SERVER, Purpose.SERVERS),
    ):
        request = world.request(new_key(), profile)
        names = HolderNames(common_name="desk-7", dns=("desk-7.example.test",), uris=("urn:uuid:" + str(uuid4()),))
        holder = replace(request.holder, kind=kind, part="")
        issued = await world.issue(replace(request, names=names, holder=holder, evidence=None))
        issued.x509.verify_directly_issued_by(world.ca(purpose))
        assert issued.state is CertificateState.GOOD
