"""Status of certificates as relying parties see it: openssl reads the lists and asks the running responder."""

from __future__ import annotations

import asyncio
import base64
import http.client
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit
from uuid import uuid4

import pytest
from asn1crypto import ocsp as asn1_ocsp
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp as crypto_ocsp

from cardwright_server.audit.model import SERVER
from cardwright_server.issuance import status, store
from cardwright_server.issuance.journal import numbers_of, raise_floors
from cardwright_server.issuance.model import Certificate, Purpose, RevocationReason
from cardwright_server.issuance.ocsp import MAX_REQUEST, OcspResponder, Status
from cardwright_server.machine import Actor
from cardwright_server.store.unit import Unit
from tests.support.issuance import ON_SQLITE, World, aside, new_key, openssl, pem, serving


@dataclass
class Judge:
    """openssl with the files of a world, and the responder's address."""

    world: World
    base: str
    responder: OcspResponder

    @property
    def root(self) -> Path:
        return pem(self.world.folder, "root", self.world.authorities[Purpose.ROOT].certificate)

    @property
    def cards(self) -> Path:
        return pem(self.world.folder, "cards", self.world.authorities[Purpose.CARDS].certificate)

    async def ocsp(self, serial: str, *options: str) -> str:
        """What openssl's client says of a serial number; it verifies the answer up to the root."""
        arguments = ("ocsp", "-issuer", self.cards, "-serial", f"0x{serial}", "-url", f"{self.base}/ocsp")
        text = await aside(openssl, *arguments, "-CAfile", self.root, *options)
        assert "Response verify OK" in text
        return text

    async def fetch(self, path: str, body: bytes | None = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """One request over HTTP."""

        def go() -> tuple[int, dict[str, str], bytes]:
            connection = http.client.HTTPConnection(urlsplit(self.base).netloc, timeout=20)
            try:
                connection.request("GET" if body is None else "POST", path, body, headers)
                answer = connection.getresponse()
                return answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read()
            finally:
                connection.close()

        return await aside(go)

    async def crl(self) -> Path:
        """The list that is published, as PEM."""
        code, _, body = await self.fetch("/crl/cards-1.crl")
        assert code == 200
        path = self.world.folder / "crl.pem"
        path.write_bytes(x509.load_der_x509_crl(body).public_bytes(Encoding.PEM))
        return path

    async def verify(self, certificate: Certificate, *, ok: bool = True) -> str:
        """openssl's path validation with the list of now."""
        await self.world.publisher.publish_due(self.world.database)
        leaf = pem(self.world.folder, "leaf", certificate.certificate)
        arguments = ("verify", "-crl_check", "-CAfile", self.root, "-untrusted", self.cards)
        return openssl(*arguments, "-CRLfile", await self.crl(), leaf, ok=ok)


@asynccontextmanager
async def judged(world: World) -> AsyncIterator[Judge]:
    responder = OcspResponder(world.database, world.vault)
    async with serving(world.database, responder) as base:
        yield Judge(world, base, responder)


async def move(world: World, act: Any, *arguments: Any) -> None:
    async def work(unit: Unit) -> None:
        await act(unit, SERVER, *arguments)

    await world.do(work)


async def again(world: World, certificate: Certificate) -> Certificate:
    found = await world.database.read(lambda unit: store.certificate_by_id(unit, world.org, certificate.id))
    assert found is not None
    return found


async def test_a_certificate_through_its_life_as_openssl_sees_it(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    async with judged(world) as judge:
        assert "certificate revoked" in await judge.verify(issued, ok=False)
        assert ": revoked" in (text := await judge.ocsp(issued.serial))
        assert "certificateHold" in text

        await move(world, status.release, world.org, issued.session)
        assert "OK" in await judge.verify(issued)
        assert ": good" in await judge.ocsp(issued.serial)

        held = await again(world, issued)
        await move(world, status.hold, Actor.HELP_DESK, [held], "forgotten")
        await move(world, status.hold, Actor.SERVER, [await again(world, issued)], "person-suspended")
        await move(world, status.resume, Actor.HELP_DESK, [await again(world, issued)], "forgotten")
        assert "certificate revoked" in await judge.verify(issued, ok=False)
        await move(world, status.resume, Actor.SERVER, [await again(world, issued)], "person-suspended")
        assert "OK" in await judge.verify(issued)

        reason = RevocationReason.KEY_COMPROMISE
        await move(world, status.revoke, Actor.HELP_DESK, [await again(world, issued)], reason)
        assert "certificate revoked" in await judge.verify(issued, ok=False)
        assert "keyCompromise" in await judge.ocsp(issued.serial)
        listed = openssl("crl", "-in", await judge.crl(), "-noout", "-text", "-CAfile", judge.cards, "-verify")
        assert "Key Compromise" in listed
        assert issued.serial.upper() in listed


async def test_lists_are_numbered_without_gaps_verified_and_published_only_on_change(world: World) -> None:
    first = await world.publisher.publish_due(world.database)
    assert sorted(first) == ["cards-1", "root-1", "servers-1", "workstations-1"]
    assert await world.publisher.publish_due(world.database) == []
    issued = await world.issue(world.request(new_key()))
    assert await world.publisher.publish_due(world.database) == ["cards-1"]
    assert await world.publisher.publish_due(world.database) == []
    await move(world, status.release, world.org, issued.session)
    assert await world.publisher.publish_due(world.database) == ["cards-1"]
    async with judged(world) as judge:
        path = await judge.crl()
        text = openssl("crl", "-in", path, "-noout", "-text", "-CAfile", judge.cards, "-verify")
        assert "verify OK" in text and "No Revoked Certificates" in text
        crl = x509.load_pem_x509_crl(path.read_bytes())
        assert crl.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number == 3
        text = openssl("crl", "-in", path, "-noout", "-crlnumber")
        assert "crlNumber=0x03" in text.replace("0x3", "0x03")


async def test_two_publishers_never_give_one_number_twice(world: World, open_database: Any) -> None:
    await world.issue(world.request(new_key()))
    databases = [open_database() for _ in range(3)]
    await asyncio.gather(*(world.publisher.publish_due(one, force=True) for one in databases))
    authority = world.authorities[Purpose.CARDS]
    newest = await world.database.read(lambda unit: store.published(unit, authority.id))
    assert newest is not None
    # The vault signed the highest number, and what is shown is what it signed last.
    assert (await numbers_of(world.vault))["cards-1"] == newest.number


@ON_SQLITE
async def test_ocsp_never_says_good_of_a_serial_that_was_not_issued(world: World) -> None:
    async with judged(world) as judge:
        text = await judge.ocsp(f"{uuid4().int:x}")
        assert ": unknown" in text and ": good" not in text


async def test_a_certificate_that_is_only_prepared_is_held(world: World) -> None:
    request = world.request(new_key())
    prepared = await world.do(lambda unit: world.service.prepare(unit, SERVER, request))
    assert not isinstance(prepared, tuple)
    async with judged(world) as judge:
        assert "certificateHold" in await judge.ocsp(prepared.certificate.serial)  # type: ignore[union-attr]


async def test_answers_with_a_nonce_are_live_and_those_without_are_kept_until_the_status_changes(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    await move(world, status.release, world.org, issued.session)
    async with judged(world) as judge:
        for _ in range(2):
            assert "WARNING: no nonce" not in await judge.ocsp(issued.serial)
        assert judge.responder.signed == 2
        for _ in range(3):
            assert ": good" in await judge.ocsp(issued.serial, "-no_nonce")
        assert judge.responder.signed == 3
        await move(world, status.hold, Actor.SERVER, [await again(world, issued)], "lost")
        assert ": revoked" in await judge.ocsp(issued.serial, "-no_nonce")
        assert judge.responder.signed == 4


def ocsp_request(world: World, certificate: Certificate, issuer: Purpose = Purpose.CARDS) -> bytes:
    builder = crypto_ocsp.OCSPRequestBuilder().add_certificate(certificate.x509, world.ca(issuer), hashes.SHA256())
    return builder.build().public_bytes(Encoding.DER)


@ON_SQLITE
async def test_get_is_cached_and_post_is_not(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    request = ocsp_request(world, issued)
    async with judged(world) as judge:
        path = "/ocsp/" + quote(base64.b64encode(request).decode(), safe="")
        code, headers, body = await judge.fetch(path)
        assert code == 200 and headers["content-type"] == "application/ocsp-response"
        assert "max-age=300" in headers["cache-control"] and headers["expires"] and headers["etag"]
        assert crypto_ocsp.load_der_ocsp_response(body).response_status is crypto_ocsp.OCSPResponseStatus.SUCCESSFUL
        code, _, _ = await judge.fetch(path, None, **{"If-None-Match": headers["etag"]})
        assert code == 304
        kind = {"Content-Type": "application/ocsp-request"}
        code, headers, _ = await judge.fetch("/ocsp", request, **kind)
        assert code == 200 and headers["cache-control"] == "no-store"
        assert (await judge.fetch("/ocsp", request, **{"Content-Type": "text/plain"}))[0] == 415
        assert (await judge.fetch("/ocsp", bytes(MAX_REQUEST + 1), **kind))[0] == 413
        assert (await judge.fetch("/ocsp/" + "A" * 1100))[0] == 414
        assert (await judge.fetch("/crl/nobody.crl"))[0] == 404


@ON_SQLITE
async def test_bad_questions_get_unsigned_failures(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    responder = OcspResponder(world.database, world.vault)
    assert (await responder.answer(b"")).status is Status.MALFORMED_REQUEST
    assert (await responder.answer(bytes(MAX_REQUEST + 1))).status is Status.MALFORMED_REQUEST
    good = ocsp_request(world, issued)
    assert (await responder.answer(good + b"\0")).status is Status.MALFORMED_REQUEST
    parsed = asn1_ocsp.OCSPRequest.load(good)
    parsed["tbs_request"]["request_list"][0]["req_cert"]["issuer_key_hash"] = bytes(32)
    foreign = parsed.dump(force=True)
    answer = await responder.answer(foreign)
    assert answer.status is Status.UNAUTHORIZED
    assert crypto_ocsp.load_der_ocsp_response(answer.body).response_status.name == "UNAUTHORIZED"
    # The root has no responder; nobody answers for it.
    assert (await responder.answer(ocsp_request(world, issued, Purpose.ROOT))).status is Status.UNAUTHORIZED


@ON_SQLITE
async def test_every_mutation_of_a_request_gets_some_answer(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    responder = OcspResponder(world.database, world.vault)
    good = ocsp_request(world, issued)
    seen = set()
    for place in range(len(good)):
        answer = await responder.answer(good[:place] + bytes((good[place] ^ 0x41,)) + good[place + 1 :])
        crypto_ocsp.load_der_ocsp_response(answer.body)
        seen.add(answer.status)
    assert {Status.MALFORMED_REQUEST, Status.UNAUTHORIZED, Status.SUCCESSFUL} >= seen
    assert Status.MALFORMED_REQUEST in seen


async def test_after_a_restore_ocsp_waits_for_a_list_beyond_the_last_one(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    for _ in range(3):
        await world.publisher.publish_due(world.database, force=True)
    numbers = await numbers_of(world.vault)
    # The database is an hour old; the vault is not.
    await world.do(lambda unit: raise_floors(unit, {**numbers, "cards-1": numbers["cards-1"] + 5}))
    request = ocsp_request(world, issued)
    assert (await OcspResponder(world.database, world.vault).answer(request)).status is Status.TRY_LATER
    assert "cards-1" in await world.publisher.publish_due(world.database)
    assert (await OcspResponder(world.database, world.vault).answer(request)).status is Status.SUCCESSFUL
    newest = await world.database.read(lambda unit: store.published(unit, world.authorities[Purpose.CARDS].id))
    assert newest is not None and newest.number == numbers["cards-1"] + 6


async def test_what_a_failed_session_made_is_revoked_and_what_it_released_is_not(world: World) -> None:
    session = uuid4()
    first = await world.issue(world.request(new_key(), session=session))
    await move(world, status.release, world.org, session)
    second = await world.issue(world.request(new_key(), session=session))
    await move(world, status.abandon, world.org, session)
    assert (await again(world, first)).state == "good"
    assert (await again(world, second)).state == "revoked"


async def test_many_at_once_lose_no_reason_and_a_revocation_is_final(world: World, open_database: Any) -> None:
    issued = await world.issue(world.request(new_key()))
    await move(world, status.release, world.org, issued.session)
    reasons = [f"reason-{letter}" for letter in "abcdef"]
    databases = [open_database() for _ in range(3)]

    async def act(place: int, what: Any, argument: Any) -> None:
        async def work(unit: Unit) -> None:
            present = await store.certificate_by_id(unit, world.org, issued.id)
            assert present is not None
            await what(unit, SERVER, Actor.SERVER, [present], argument)

        await databases[place % 3].transact(work)

    await asyncio.gather(*(act(place, status.hold, one) for place, one in enumerate(reasons)))
    assert (await again(world, issued)).holds == set(reasons)
    resumed = [act(place, status.resume, one) for place, one in enumerate(reasons[:4])]
    await asyncio.gather(*resumed)
    present = await again(world, issued)
    assert present.state == "held" and present.holds == set(reasons[4:])
    ends = [act(place, status.resume, one) for place, one in enumerate(reasons[4:])]
    await asyncio.gather(*ends, act(2, status.revoke, RevocationReason.KEY_COMPROMISE))
    present = await again(world, issued)
    assert (present.state, present.holds, present.reason) == ("revoked", frozenset(), "key-compromise")


@ON_SQLITE
async def test_the_first_hold_is_ended_by_release_only(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    with pytest.raises(ValueError):
        await move(world, status.resume, Actor.SERVER, [issued], "unreleased")


@ON_SQLITE
async def test_authorities_are_served_with_their_certificates(world: World) -> None:
    async with judged(world) as judge:
        code, headers, body = await judge.fetch("/ca/cards-1.cer")
        assert code == 200 and headers["content-type"] == "application/pkix-cert"
        assert body == world.authorities[Purpose.CARDS].certificate
        code, _, body = await judge.fetch("/ca/root-1.p7c")
        path = world.folder / "bundle.p7c"
        path.write_bytes(body)
        text = openssl("pkcs7", "-inform", "DER", "-in", path, "-print_certs", "-noout")
        assert text.count("subject=") == 4


async def test_the_next_list_comes_in_time_without_any_change(open_database: Any, clock: Any, tmp_path: Path) -> None:
    from tests.support.issuance import make_world

    database = open_database(clock=clock)
    world = await make_world(database, tmp_path, now=lambda: clock().timestamp())
    await world.publisher.publish_due(database)
    clock.advance(hours=5, minutes=59)
    assert await world.publisher.publish_due(database) == []
    clock.advance(minutes=2)
    assert len(await world.publisher.publish_due(database)) == 4
    # The first lists came right after the certificates of this world; here nothing changed since the last ones.
    clock.advance(hours=6)
    assert len(await world.publisher.publish_due(database)) == 4
    authority = world.authorities[Purpose.CARDS]
    newest = await database.read(lambda unit: store.published(unit, authority.id))
    assert newest is not None and newest.next_update - newest.this_update == timedelta(hours=24)
    world.core.close()
