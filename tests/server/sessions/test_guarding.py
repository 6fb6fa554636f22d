"""What a session refuses: lying workstations, second sessions, callers without the right, ends that do not agree."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID
from google.protobuf.message import DecodeError
from sqlalchemy import text

from cardwright_cardops.plan.inventory import Inventory, fingerprint
from cardwright_cardops.program.items import Answers, AnyBatch, Apdu, Batch, SignRequest
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.api.sessions import StreamLine
from cardwright_server.authentication.authorize import CallTarget, Permission
from cardwright_server.authentication.errors import AccessDenied
from cardwright_server.authentication.matrix import Call
from cardwright_server.authentication.principal import Principal
from cardwright_server.policies.model import Origin
from cardwright_server.sessions.ledger import LEASE
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock
from tests.support.people import allow, authorizer
from tests.support.sessions import Station, faults_of, fresh_card, make_office, policy, reason_of, serving

GENERATE = 0x47
NINE_A = 0x9A


class Liar:
    """An executing end that answers for 9A with a key of its own, and signs its request with it.

    ``signer``: whose signature the request has, the same key's unless given.
    """

    def __init__(self, executor: Any, signer: ec.EllipticCurvePrivateKey | None = None) -> None:
        self.executor = executor
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.signer = signer or self.key

    def execute(self, batch: AnyBatch) -> Answers:
        assert isinstance(batch, Batch)
        answers = self.executor.execute(batch)
        told = []
        for group, answered in zip(batch.groups, answers, strict=True):
            told.append(tuple(map(self._told, group.items, answered)))
        return tuple(told)

    def end_stage(self) -> None:
        self.executor.end_stage()

    def _told(self, item: Any, answer: Any) -> Any:
        match item:
            case Apdu(command=command) if (command.ins, command.p2) == (GENERATE, NINE_A):
                point = self.key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
                return replace(answer, data=bytes.fromhex("7F49438641") + point)
            case SignRequest(slot=slot) if slot == NINE_A:
                name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Holder 9A")])
                made = x509.CertificateSigningRequestBuilder(name).sign(self.signer, hashes.SHA256())
                return replace(answer, data=made.public_bytes(Encoding.DER))
        return answer


async def origins(database: Database) -> set[str]:
    """Every origin that is recorded."""
    async with database.engine.connect() as connection:
        return {row[0] for row in await connection.execute(text("SELECT origin FROM card_key WHERE slot = 154"))}


async def test_a_software_key_gets_only_what_unproven_allows(database: Database, tmp_path: Path) -> None:
    office, liars = make_office(tmp_path), []

    def lie(executor: Any) -> Liar:
        liars.append(Liar(executor))
        return liars[-1]

    async with serving(database, office) as socket:
        await Station(fresh_card(), guarded=False, wrap=lie).run(socket)
    order = next(one for one in office.orders if one.slot.label == "9A")
    assert fingerprint(order.public_key) == fingerprint(liars[0].key.public_key())
    assert order.origin is Origin.UNPROVEN
    assert await origins(database) == {"unproven"}


async def test_where_the_policy_wants_more_nothing_is_certified(database: Database, tmp_path: Path) -> None:
    """The card could state where its key was made; what it states is about another key than the liar's."""
    office, card = make_office(tmp_path, policy=policy(least="trusted_station")), fresh_card()
    async with serving(database, office) as socket:
        trip = await Station(card, guarded=False, wrap=Liar).run(socket)
        assert trip.error == "AUTHORITY_REFUSED"
        assert "9A" not in {slot for slot, _ in office.certificates}
        office.trusted = True
        trip = await Station(card).run(socket)
    assert trip.outcome == sessions_pb2.OUTCOME_DONE
    assert await origins(database) == {"trusted_station"}


async def test_a_request_that_another_key_signed_is_refused(database: Database, tmp_path: Path) -> None:
    office = make_office(tmp_path)
    other = ec.generate_private_key(ec.SECP256R1())
    async with serving(database, office) as socket:
        station = Station(fresh_card(), guarded=False, wrap=lambda executor: Liar(executor, other))
        trip = await station.run(socket)
    assert trip.error == "AUTHORITY_REFUSED"
    assert "9A" not in {one.slot.label for one in office.orders}
    assert office.good == set()


async def test_secrets_do_not_go_to_a_workstation_that_may_not_see_them(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path, policy=policy(clear="trusted_station")), fresh_card()
    before = card.snapshot()
    async with serving(database, office) as socket:
        trip = await Station(card).run(socket)
    assert (trip.error, card.snapshot()) == ("CLEAR_SECRETS_REFUSED", before)


# ------------------------------------------------------------------------------------------------- two at once


async def test_a_second_session_on_the_same_card_is_refused(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    shown, go_on = asyncio.Event(), asyncio.Event()

    async def wait(message: sessions_pb2.RunRequest) -> None:
        if message.HasField("consent"):
            shown.set()
            await go_on.wait()

    async with serving(database, office) as socket:
        first = asyncio.create_task(Station(card, before=wait).run(socket))
        await shown.wait()
        second = await Station(fresh_card()).run(socket)
        go_on.set()
        trip = await first
    assert (second.error, second.status, second.messages) == ("CARD_IN_SESSION", "ABORTED", [])
    assert trip.outcome == sessions_pb2.OUTCOME_DONE
    assert await faults_of(card, office, database) == []


async def test_of_many_at_once_one_gets_the_card(database: Database, tmp_path: Path) -> None:
    office = make_office(tmp_path)
    met = asyncio.Barrier(4)

    async def meet(message: sessions_pb2.RunRequest) -> None:
        if message.HasField("hello"):
            await met.wait()
        if message.HasField("consent"):
            await refused.wait()

    refused = asyncio.Event()

    async def one(socket: str) -> str:
        trip = await Station(fresh_card(), before=meet).run(socket)
        ends.append(trip.error)
        if len(ends) == 3:
            refused.set()
        return trip.error

    ends: list[str] = []
    async with serving(database, office) as socket:
        errors = await asyncio.gather(*(one(socket) for _ in range(4)))
    assert sorted(errors) == ["", *["CARD_IN_SESSION"] * 3]


async def test_a_session_whose_lease_ran_out_records_nothing_more(
    open_database: Callable[..., Database], clock: Clock, tmp_path: Path
) -> None:
    office, card = make_office(tmp_path), fresh_card()
    clock.now = office.now
    database = open_database(clock=clock)
    other = fresh_card()

    async def overtake(message: sessions_pb2.RunRequest) -> None:
        if message.HasField("answers") and message.answers.number == 2:
            clock.advance(seconds=LEASE.total_seconds() + 1)
            await Station(other, agrees=False).run(socket)

    async with serving(database, office) as socket:
        trip = await Station(card, before=overtake).run(socket)
    assert trip.error == "SESSION_LOST"
    assert office.good == set()
    async with database.engine.connect() as connection:
        states = {tuple(row) for row in await connection.execute(text("SELECT state, outcome FROM card_session"))}
    assert states == {("lost", "SESSION_LOST"), ("failed", "CONSENT_REFUSED")}


# ------------------------------------------------------------------------------------------------------- rights


async def test_a_caller_without_the_right_gets_no_session(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    before = card.snapshot()
    async with serving(database, office, authorizer()) as socket:
        trip = await Station(card).run(socket)
    # Nobody at the workstation said who they are.
    assert (trip.error, trip.status, trip.messages) == ("PROOF_REQUIRED", "UNAUTHENTICATED", [])
    assert card.snapshot() == before


async def test_a_right_that_is_taken_in_mid_stream_ends_the_session(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    asked: list[Call] = []

    async def until_taken(unit: Unit | None, principal: Principal, call: Call, target: CallTarget) -> Permission:
        asked.append(call)
        if len(asked) > 4:
            raise AccessDenied("taken away")
        return await allow(unit, principal, call, target)

    async with serving(database, office, until_taken) as socket:
        trip = await Station(card).run(socket)
    assert {call.name for call in asked} == {"SessionService.Run/issue"}
    assert trip.error == "ACCESS_DENIED"
    assert office.good == set()


# --------------------------------------------------------------------------------------------------- both ends


@pytest.mark.parametrize("octets", [b"\xff\xff\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x04\x12\x02\xff\xfe"])
async def test_octets_that_are_no_message_are_told_as_that(database: Database, tmp_path: Path, octets: bytes) -> None:
    async with (
        serving(database, make_office(tmp_path)) as socket,
        grpc.aio.insecure_channel(f"unix:{socket}") as channel,
    ):
        call: Any = channel.stream_stream("/cardwright.cms.v1.SessionService/Run")()
        await call.write(octets)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert (refused.value.code(), reason_of(refused.value)) == (grpc.StatusCode.INVALID_ARGUMENT, "WIRE_MALFORMED")


async def test_octets_that_are_no_message_end_a_session_that_has_begun(database: Database, tmp_path: Path) -> None:
    office = make_office(tmp_path)

    async def garble(message: sessions_pb2.RunRequest) -> None:
        if message.HasField("consent"):
            read.side_effect = DecodeError("damaged")

    with patch.object(StreamLine, "_read", autospec=True, side_effect=StreamLine._read) as read:
        async with serving(database, office) as socket:
            trip = await Station(fresh_card(), before=garble).run(socket)
    assert trip.error == "WIRE_MALFORMED"
    async with database.engine.connect() as connection:
        states = {tuple(row) for row in await connection.execute(text("SELECT state, outcome FROM card_session"))}
    assert states == {("failed", "WIRE_MALFORMED")}


async def test_without_consent_nothing_is_sent(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()
    before = card.snapshot()
    async with serving(database, office) as socket:
        trip = await Station(card, agrees=False).run(socket)
    assert (trip.error, card.snapshot()) == ("CONSENT_REFUSED", before)
    # The batch that came with the preview only reads, and is not carried out.
    assert trip.messages == ["hello", "preview", "batch", "end_stage", "error"]


def _consent_to_another(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("consent"):
        message.consent.plan = bytes(32)
    return message


def _another_number(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("answers"):
        message.answers.number += 1
    return message


def _cancel(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("consent"):
        return sessions_pb2.RunRequest(cancel=sessions_pb2.Cancel())
    return message


def _hello_again(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("consent"):
        return sessions_pb2.RunRequest(hello=sessions_pb2.ClientHello(protocol=1))
    return message


def _other_version(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("hello"):
        message.hello.protocol = 2
    return message


def _no_purpose(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("hello"):
        message.hello.purpose = sessions_pb2.PURPOSE_UNSPECIFIED
    return message


def _unknown_field(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    message.MergeFromString(b"\xfa\x3f\x01x")
    return message


def _small_batches(message: sessions_pb2.RunRequest) -> sessions_pb2.RunRequest:
    if message.HasField("hello"):
        message.hello.max_batch = 100
    return message


@pytest.mark.parametrize(
    ("change", "error", "status"),
    [
        (_consent_to_another, "CONSENT_REFUSED", ""),
        (_another_number, "SESSION_PROTOCOL", ""),
        (_cancel, "SESSION_CANCELLED", ""),
        (_hello_again, "SESSION_PROTOCOL", ""),
        (_small_batches, "PEER_TOO_OLD", ""),
        (_other_version, "PEER_TOO_OLD", "UNIMPLEMENTED"),
        (_no_purpose, "SESSION_PROTOCOL", "INVALID_ARGUMENT"),
        (_unknown_field, "WIRE_UNSUPPORTED", "UNIMPLEMENTED"),
    ],
)
@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_messages_that_do_not_belong_end_the_session(
    change: Any, error: str, status: str, database: Database, tmp_path: Path
) -> None:
    office, card = make_office(tmp_path), fresh_card()
    async with serving(database, office) as socket:
        trip = await Station(card, change=change).run(socket)
        assert (trip.error, trip.status) == (error, status)
        card.power_off()
        assert (await Station(card).run(socket)).outcome == sessions_pb2.OUTCOME_DONE


@pytest.mark.parametrize(
    "changes", [{"steps": ("set-pin",)}, {"items": ("apdu",)}], ids=["steps", "items"]
)
@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_what_a_workstation_does_not_know_is_not_sent(
    changes: dict[str, Any], database: Database, tmp_path: Path
) -> None:
    office = make_office(tmp_path)
    async with serving(database, office) as socket:
        trip = await Station(fresh_card(), **changes).run(socket)
    assert trip.error == "PEER_TOO_OLD"


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_another_card_than_the_device_s_is_refused(database: Database, tmp_path: Path) -> None:
    office, card = make_office(tmp_path), fresh_card()

    def other(seen: Inventory) -> Inventory:
        return replace(seen, identity=replace(seen.identity, serial="999"))

    async with serving(database, office) as socket:
        trip = await Station(card, inventory=other).run(socket)
    assert trip.error == "SESSION_OTHER_CARD"
