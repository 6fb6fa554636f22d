"""What the issuer signs on a card: shipped policies issued to virtual cards by the real domains, judged by others."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check import Level, Severity
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.observe import Look, observe
from cardwright_cardops.program.runner import run
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.model import DeviceState
from cardwright_server.issuance.model import CertificateState
from cardwright_server.people.model import Role
from cardwright_server.requests.model import RequestState
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from tests.support.issuance import ON_SQLITE, openssl, pem
from tests.support.pcscd import Pcscd
from tests.support.people import make_operator
from tests.support.session_world import blank, make_session_world
from tests.support.sessions import Station, reader
from tests.support.strangers import Seat, Tools

LEVELS = {"smartcard-logon": Level.BASIC, "developer": Level.BASIC}
ENROLMENT = {("OBJECT_ABSENT", "5FC103"), ("OBJECT_ABSENT", "5FC108")}
"""Fingerprints and face come from an enrolment; the policy ``civ`` does not ask for them."""
CHUID, SECURITY_OBJECT, CCC = "5FC102", "5FC106", "5FC107"


async def test_a_full_civ_card_is_issued_by_the_real_domains(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path)
    card = blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    office = world.office(device)
    async with world.serving(office) as socket:
        trip = await Station(card).run(socket, request=str(request.id))
    assert (trip.error, trip.outcome, trip.trips) == ("", sessions_pb2.OUTCOME_DONE, 5)
    report = await world.judged(card, Level.CIV)
    assert {(one.code, one.object) for one in report.of(Severity.ERROR)} == ENROLMENT
    assert (await world.judged(card, Level.BASIC)).good
    issued = await world.world.device(device)
    assert (issued.state, issued.guid) == (DeviceState.ISSUED, run(observe(), reader(card)).identity.guid)
    assert (await world.world.request(request.id)).state is RequestState.DONE
    made = await world.certificates_of(device)
    assert {one.state for one in made} == {CertificateState.GOOD}
    assert {one.holder.part for one in made} == {"9a", "9c", "9d", "9e"}
    assert {one.holder.person for one in made} == {issued.person}
    async with world.serving(office) as socket:
        before = card.snapshot()
        again = await Station(card).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (again.outcome, again.trips) == (sessions_pb2.OUTCOME_NOTHING_DUE, 1)
    assert card.snapshot() == before
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize("policy", LEVELS)
async def test_other_shipped_policies_are_issued(
    open_database: Callable[..., Database], tmp_path: Path, policy: str
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, policy), blank()
    trip = await world.issue(card, await world.bound(card))
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    report = await world.judged(card, LEVELS[policy])
    assert report.good, report.of(Severity.ERROR)
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize("policy", ["piv", "piv-i"])
async def test_federal_policies_are_refused_over_an_open_line(
    open_database: Callable[..., Database], tmp_path: Path, policy: str
) -> None:
    world, card = await make_session_world(open_database(), tmp_path, policy), blank()
    world.stations.every = True
    device = await world.bound(card)
    request = await world.world.issuance(device)
    before = card.snapshot()
    third = await make_operator(world.database, world.org, Role.ISSUANCE)
    async with world.serving(world.office(device), third) as socket:
        trip = await Station(card).run(socket, request=str(request.id))
    assert trip.error == "SEALED_SESSION_NEEDED"
    assert "preview" not in trip.messages
    assert card.snapshot() == before
    assert await world.certificates_of(device) == []
    world.issuing.core.close()


@ON_SQLITE
async def test_openssl_accepts_what_is_signed(open_database: Callable[..., Database], tmp_path: Path) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    trip = await world.issue(card, await world.bound(card))
    assert trip.error == ""
    ca = pem(tmp_path, "cas", *[one.public_bytes(Encoding.DER) for one in world.cas])
    signer = pem(tmp_path, "signer", (await world.signers())[0].public_bytes(Encoding.DER))
    chuid, signature = _chuid(card)
    common = ("-inform", "DER", "-CAfile", ca, "-purpose", "any", "-binary", "-out", tmp_path / "content")
    signed = _write(tmp_path / "chuid.cms", signature)
    openssl("cms", "-verify", "-in", signed, "-content", _write(tmp_path / "chuid", chuid), *common)
    openssl("cms", "-verify", "-in", signed, "-content", _write(tmp_path / "c", chuid[:-1] + b"1"), *common, ok=False)
    closing = dict(fields_of(_object(card, SECURITY_OBJECT)))[0xBB]
    lds = _write(tmp_path / "security.cms", closing)
    openssl("cms", "-verify", "-in", lds, "-certfile", signer, *common)
    world.issuing.core.close()


@ON_SQLITE
async def test_what_a_workstation_did_not_read_is_read_before_planning(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        await Station(card).run(socket, request=str(request.id))
        trip = await Station(card, look=Look()).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert (trip.outcome, trip.messages) == (
        sessions_pb2.OUTCOME_NOTHING_DUE,
        ["hello", "batch", "end_stage", "finished"],
    )
    world.issuing.core.close()


@ON_SQLITE
async def test_a_changed_object_is_written_anew_together_with_the_security_object(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device = await world.bound(card)
    office = world.office(device)
    request = await world.world.issuance(device)
    async with world.serving(office) as socket:
        await Station(card).run(socket, request=str(request.id))
        whole = _object(card, CCC)
        changed = _with(card, CCC, whole.replace(b"\xf5\x01\x10", b"\xf5\x01\x11"))
        assert _object(changed, CCC) != whole
        trip = await Station(changed).run(socket, sessions_pb2.PURPOSE_UPDATE)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        assert trip.preview is not None
        assert [row.tag for row in trip.preview.contents] == [CCC, SECURITY_OBJECT]
        assert _object(changed, CCC) == whole
        report = await world.judged(changed, Level.CIV)
        assert {(one.code, one.object) for one in report.of(Severity.ERROR)} == ENROLMENT
        again = await Station(changed).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert again.outcome == sessions_pb2.OUTCOME_NOTHING_DUE
    world.issuing.core.close()


@ON_SQLITE
async def test_nothing_is_signed_over_what_a_workstation_says_of_an_object(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """It says that another CCC is on the card: that is written anew, with the content that the server knows."""
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device = await world.bound(card)
    office = world.office(device)
    request = await world.world.issuance(device)

    def lies(seen: Inventory) -> Inventory:
        return seen.with_object(replace(seen.object(int(CCC, 16)), digest="ab" * 32))

    async with world.serving(office) as socket:
        await Station(card).run(socket, request=str(request.id))
        before = _object(card, SECURITY_OBJECT)
        trip = await Station(card, inventory=lies).run(socket, sessions_pb2.PURPOSE_UPDATE)
    assert trip.error == "PLAN_CHANGED"
    assert _object(card, SECURITY_OBJECT) == before
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.pcscd
async def test_opensc_and_yubico_s_tool_read_an_issued_card(
    open_database: Callable[..., Database], tmp_path: Path, pcscd: Pcscd
) -> None:
    world, card = await make_session_world(open_database(), tmp_path), blank()
    device = await world.bound(card)
    trip = await world.issue(card, device)
    assert trip.error == ""
    folder = tmp_path / "tools"
    folder.mkdir()
    tools, seat = Tools(folder), Seat(card)
    name = pcscd.insert(seat)
    said = tools.run("yubico-piv-tool", "-r", name, "-a", "status")
    assert _object(card, CHUID)[4:].hex() in said
    for part in ("9a", "9c", "9d", "9e"):
        text = tools.run("yubico-piv-tool", "-r", name, "-a", "read-certificate", "-s", part)
        (made,) = [one for one in await world.certificates_of(device) if one.holder.part == part]
        assert text.strip() == made.x509.public_bytes(Encoding.PEM).decode().strip()
    listed = tools.run("pkcs15-tool", "--reader", name, "--list-certificates")
    assert listed.count("X.509 Certificate [") == 4
    world.issuing.core.close()


def _with(card: VirtualCard, tag: str, content: bytes) -> VirtualCard:
    memory = json.loads(card.snapshot())
    memory["objects"][tag] = content.hex().upper()
    return VirtualCard.restore(json.dumps(memory).encode())


def fields_of(raw: bytes) -> list[tuple[int, bytes]]:
    """The data objects inside template 53, one-octet tags, read without anything of the program under test."""

    def split(data: bytes) -> list[tuple[int, bytes]]:
        found = []
        while data:
            tag, size, data = data[0], data[1], data[2:]
            if size > 0x80:
                octets = size - 0x80
                size, data = int.from_bytes(data[:octets], "big"), data[octets:]
            found.append((tag, data[:size]))
            data = data[size:]
        return found

    ((outer, inner),) = split(raw)
    assert outer == 0x53
    return split(inner)


def _object(card: VirtualCard, tag: str) -> bytes:
    return bytes.fromhex(json.loads(card.snapshot())["objects"][tag])


def _chuid(card: VirtualCard) -> tuple[bytes, bytes]:
    """What is signed of the CHUID, and its signature (SP 800-73-5 part 1 section 3.1.2)."""
    fields = fields_of(_object(card, CHUID))
    signed = b"".join(bytes((tag, len(value))) + value for tag, value in fields if tag != 0x3E)
    return signed, dict(fields)[0x3E]


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path
