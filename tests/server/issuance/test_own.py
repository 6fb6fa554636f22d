"""The server's own certificates: renewed in time, measured, alarmed about; never one authority's for another's."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography import x509
from prometheus_client import CollectorRegistry

from cardwright_cardops.piv import signed
from cardwright_cardops.piv.objects.chuid import Chuid, signature_input
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.errors import AuthorizationError
from cardwright_server.authentication.principal import anyone, server
from cardwright_server.issuance import content, status, store
from cardwright_server.issuance.authorities import Plan, establish, make_content_signer, verify_role
from cardwright_server.issuance.errors import NoSuchAuthority, WrongRole
from cardwright_server.issuance.model import Certificate, Holder, HolderKind, Purpose, RevocationReason
from cardwright_server.issuance.names import HolderNames
from cardwright_server.issuance.own import Alarm, OwnCertificates, alarm
from cardwright_server.machine import Actor
from cardwright_server.tls import TlsFiles
from cardwright_server.vault.model import SigningAlgorithm
from tests.support.issuance import BASE, FASCN, NAMES, ON_SQLITE, World, csr, make_world, new_key, openssl, pem
from tests.support.people import authorizer


@pytest.fixture
async def aging(open_database: Any, clock: Any, tmp_path: Path) -> Any:
    """A world and its clock."""
    world = await make_world(open_database(clock=clock), tmp_path, now=lambda: clock().timestamp())
    yield world, clock
    world.core.close()


async def own(world: World, kind: HolderKind, purpose: Purpose = Purpose.CARDS) -> list[Certificate]:
    authority = world.authorities[purpose].id
    return await world.database.read(lambda unit: store.certificates_of_holder(unit, world.org, kind, authority))


async def test_establish_makes_everything_once(world: World) -> None:
    before = await world.database.read(store.authorities)
    again = await establish(
        world.database, world.vault, world.admin, world.own, SERVER, world.org, Plan(BASE, NAMES)
    )
    assert [one.certificate for one in again] == [one.certificate for one in before]
    assert [one.purpose for one in again] == ["root", "cards", "workstations", "servers"]
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    for purpose in (Purpose.CARDS, Purpose.WORKSTATIONS, Purpose.SERVERS):
        path = pem(world.folder, purpose, world.authorities[purpose].certificate)
        assert "OK" in openssl("verify", "-x509_strict", "-CAfile", root, path)
    text = openssl("x509", "-in", root, "-noout", "-text")
    assert "CA:TRUE" in text and "ASN1 OID: secp384r1" in text


async def test_responders_are_renewed_at_two_thirds_and_by_one_of_several(aging: tuple[World, Any]) -> None:
    world, clock = aging
    assert await world.own.renew(world.database, SERVER) == 0
    clock.advance(days=9)
    assert await world.own.renew(world.database, SERVER) == 0
    clock.advance(hours=12)
    made = await asyncio.gather(*(world.own.renew(world.database, SERVER) for _ in range(3)))
    responders = await own(world, HolderKind.OCSP_RESPONDER)
    assert len(responders) == 2 and max(made) <= 3
    newest = responders[0].x509
    assert newest.extensions.get_extension_for_class(x509.OCSPNoCheck)
    assert newest.public_key() == responders[1].x509.public_key()


@ON_SQLITE
async def test_authorities_are_renewed_with_their_key_and_old_certificates_still_verify(
    aging: tuple[World, Any],
) -> None:
    world, clock = aging
    before = world.ca(Purpose.CARDS)
    issued = await world.issue(world.request(new_key()))
    clock.advance(days=2440)
    await world.own.renew(world.database, SERVER)
    await world.refresh()
    after = world.ca(Purpose.CARDS)
    assert after.serial_number != before.serial_number and after.not_valid_after_utc > before.not_valid_after_utc
    issued.x509.verify_directly_issued_by(after)


@ON_SQLITE
async def test_alarms_rise_when_nothing_is_renewed(aging: tuple[World, Any]) -> None:
    world, clock = aging
    registry = CollectorRegistry()
    watcher = OwnCertificates(world.service, world.vault, registry=registry)
    place = (HolderKind.OCSP_RESPONDER, "cards-1-ocsp")
    assert (await watcher.watch(world.database))[place] is Alarm.NONE
    clock.advance(days=11, hours=12)
    assert (await watcher.watch(world.database))[place] is Alarm.WARNING
    clock.advance(days=2)
    alarms = await watcher.watch(world.database)
    assert alarms[place] is Alarm.CRITICAL
    assert alarms[HolderKind.AUTHORITY, "cards-1"] is Alarm.NONE
    labels = {"kind": "ocsp-responder", "name": "cards-1-ocsp"}
    assert registry.get_sample_value("cardwright_own_certificate_alarm", labels) == 2
    end = registry.get_sample_value("cardwright_own_certificate_not_after_seconds", labels)
    assert end == (await own(world, HolderKind.OCSP_RESPONDER))[0].not_after.timestamp()


def test_alarm_thresholds() -> None:
    begin = datetime(2026, 1, 1, tzinfo=UTC)
    end = begin + timedelta(days=100)
    found = [alarm(begin, end, begin + timedelta(days=day)) for day in (0, 79, 80, 94, 95, 101)]
    assert found == [Alarm.NONE, Alarm.NONE, Alarm.WARNING, Alarm.WARNING, Alarm.CRITICAL, Alarm.CRITICAL]


class Tls:
    """A TLS server's key, as whoever runs it keeps it."""

    def __init__(self) -> None:
        self.holder = Holder(HolderKind.SERVER, uuid4())
        self.names = HolderNames(common_name="cms.example.test", dns=("cms.example.test",))
        self.installed: list[bytes] = []
        self._next = csr(new_key())

    async def request(self) -> bytes:
        return self._next

    async def holds(self, certificate: bytes) -> bool:
        return certificate in self.installed or public_key_in(certificate) == public_key_in(self._next)

    async def install(self, certificate: bytes, chain: Any) -> None:
        if certificate not in self.installed:
            self.installed.append(certificate)
            self._next = csr(new_key())


def public_key_in(octets: bytes) -> Any:
    """Of a certificate or a request."""
    try:
        return x509.load_der_x509_certificate(octets).public_key()
    except ValueError:
        return x509.load_der_x509_csr(octets).public_key()


@ON_SQLITE
async def test_names_that_come_back_and_a_folder_that_is_lost_get_a_new_key(
    aging: tuple[World, Any], tmp_path: Path
) -> None:
    """The certificate of before is good for long, but its key was replaced by that of the other names, or is gone."""
    world, _ = aging
    folder = tmp_path / "tls"
    seen = set()
    for names in (("one.example",), ("two.example",), ("one.example",), ("two.example",), ("two.example",)):
        files = TlsFiles(folder, names, ())
        renewer = OwnCertificates(world.service, world.vault, [files])
        await renewer.renew(world.database, SERVER)
        leaf = x509.load_pem_x509_certificate(files.current.read_bytes())
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert tuple(found.get_values_for_type(x509.DNSName)) == names
        assert await renewer.renew(world.database, SERVER) == 0
        seen.add(leaf.serial_number)
        if len(seen) == 4:
            files.current.unlink()
    assert len(seen) == 5


@ON_SQLITE
async def test_tls_servers_get_new_keys_in_time(aging: tuple[World, Any]) -> None:
    world, clock = aging
    tls = Tls()
    renewer = OwnCertificates(world.service, world.vault, [tls])
    assert await renewer.renew(world.database, SERVER) == 1
    assert await renewer.renew(world.database, SERVER) == 0
    clock.advance(days=61)
    await renewer.renew(world.database, SERVER)
    first, second = (x509.load_der_x509_certificate(one) for one in tls.installed)
    assert first.public_key() != second.public_key()
    second.verify_directly_issued_by(world.ca(Purpose.SERVERS))


async def test_signed_objects_verify_and_a_new_signer_takes_over(world: World) -> None:
    chuid = Chuid(FASCN, uuid4(), datetime(2030, 1, 1, tzinfo=UTC).date())
    signer = await world.database.read(lambda unit: content.current_signer(unit, world.org))
    first = await content.ContentSigner(world.vault, signer).chuid(chuid)
    assert first.signature is not None
    seen, certificate = signed.verify(
        first.signature, signed.CHUID_CONTENT, content=signature_input(chuid.encode())
    )
    assert certificate == signer.x509 and seen.digest == "sha256"

    name = x509.Name.from_rfc4514_string("CN=Second Signer,O=Cardwright Test,C=US").public_bytes()
    await make_content_signer(world.vault, world.admin, "cards-1-content-2", name, SigningAlgorithm.P384)
    with pytest.raises(AuthorizationError):
        await world.own.rotate_signer(world.database, authorizer(), anyone(world.org, front="portal"))
    rotated = await world.own.rotate_signer(world.database, authorizer(), server(world.org))
    assert rotated.holder.part == "cards-1-content-2"

    async def retire(unit: Any) -> None:
        await status.revoke(unit, SERVER, Actor.SERVER, [signer], RevocationReason.SUPERSEDED)

    await world.do(retire)
    # What was revoked is not certified again by itself.
    assert await world.own.renew(world.database, SERVER) == 0
    after = await world.database.read(lambda unit: content.current_signer(unit, world.org))
    assert after.holder.part == "cards-1-content-2"
    second = await content.ContentSigner(world.vault, after).chuid(chuid)
    assert second.signature is not None
    seen, _ = signed.verify(second.signature, signed.CHUID_CONTENT, content=signature_input(chuid.encode()))
    assert seen.digest == "sha384"
    table = await content.ContentSigner(world.vault, after).security_object({0x5FC102: b"\x53\x03\x3e\x01\x00"})
    signed.verify(table.signed, signed.LDS_CONTENT, certificates=[after.x509])
    end = after.not_after + timedelta(seconds=1)
    with pytest.raises(NoSuchAuthority):
        await world.database.read(lambda unit: content.current_signer(unit, world.org, outlives=end))


async def test_a_certificate_of_one_authority_is_refused_in_anothers_place(world: World) -> None:
    names = HolderNames(common_name="desk-7", dns=("desk-7.example.test",), uris=("urn:uuid:" + str(uuid4()),))
    made = {}
    for profile, kind in (("workstation", HolderKind.WORKSTATION), ("server", HolderKind.SERVER)):
        request = world.request(new_key(), profile, names=names, holder=Holder(kind, uuid4()), evidence=None)
        made[kind] = await world.issue(request)
    card = await world.issue(world.request(new_key()))

    async def role(certificate: Certificate, purpose: Purpose, kind: HolderKind) -> Certificate:
        return await world.database.read(lambda unit: verify_role(unit, certificate.x509, purpose, kind))

    desk, server = made[HolderKind.WORKSTATION], made[HolderKind.SERVER]
    assert (await role(desk, Purpose.WORKSTATIONS, HolderKind.WORKSTATION)).id == desk.id
    assert (await role(server, Purpose.SERVERS, HolderKind.SERVER)).id == server.id
    for certificate, purpose, kind, reason in (
        (desk, Purpose.SERVERS, HolderKind.SERVER, "issuer"),
        (server, Purpose.WORKSTATIONS, HolderKind.WORKSTATION, "issuer"),
        (card, Purpose.WORKSTATIONS, HolderKind.WORKSTATION, "issuer"),
        (desk, Purpose.CARDS, HolderKind.OPERATOR, "issuer"),
        (card, Purpose.CARDS, HolderKind.DEVICE_SLOT, "status"),
        (desk, Purpose.WORKSTATIONS, HolderKind.SERVER, "usage"),
    ):
        with pytest.raises(WrongRole) as refused:
            await role(certificate, purpose, kind)
        assert refused.value.reason == reason

    async def revoke(unit: Any) -> None:
        await status.revoke(unit, SERVER, Actor.SERVER, [desk], RevocationReason.KEY_COMPROMISE)

    await world.do(revoke)
    with pytest.raises(WrongRole):
        await role(desk, Purpose.WORKSTATIONS, HolderKind.WORKSTATION)


@ON_SQLITE
@pytest.mark.parametrize("algorithm", [SigningAlgorithm.RSA2048, SigningAlgorithm.P384])
async def test_other_kinds_of_authority_keys(open_database: Any, tmp_path: Path, algorithm: SigningAlgorithm) -> None:
    world = await make_world(open_database(), tmp_path, issuing=algorithm, root=algorithm)
    issued = await world.issue(world.request(new_key()))
    root = pem(world.folder, "root", world.authorities[Purpose.ROOT].certificate)
    cards = pem(world.folder, "cards", world.authorities[Purpose.CARDS].certificate)
    leaf = pem(world.folder, "leaf", issued.certificate)
    assert "OK" in openssl("verify", "-x509_strict", "-CAfile", root, "-untrusted", cards, leaf)
    assert len(await world.publisher.publish_due(world.database)) == 4
    world.core.close()
