"""Due-checks that come at the same time: the answers of one by one, and nobody harms another."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import grpc
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, check_nonce, prepare, token
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.rpc_status import error_of
from cardwright_server.api.calling import Calls
from cardwright_server.authentication.principal import Principal
from cardwright_server.devices.due import DueList, What
from cardwright_server.limits import Limits, Rate, Scope
from cardwright_server.sessions.due import CardName, DueAnswer, DueChecks
from cardwright_server.store.devices_tables import device, device_due
from cardwright_server.store.ids import new_id
from cardwright_server.store.session_tables import card_key
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import PostgreSql, statements_logged
from tests.support.lifecycles import RecordedCredentials, wired
from tests.support.people import allow
from tests.support.session_streams import NoStations
from tests.support.sessions import a_workstation


@dataclass(frozen=True, slots=True)
class Card:
    """A card in use."""

    guid: UUID = field(default_factory=uuid4)
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def proof(self, guid: UUID | None = None, ago: timedelta = timedelta(0)) -> bytes:
        """As its 9E signs it."""
        nonce = check_nonce(guid or self.guid, datetime.now(UTC) - ago)
        made = prepare(PROOF_AUDIENCE, nonce, bytes(32))
        return token(made, Algorithm.P256, self.key.sign(made.message, ec.ECDSA(hashes.SHA256())))


def checks_of(database: Database) -> DueChecks:
    return DueChecks(database, allow, DueList(), wired(allow, RecordedCredentials()).requests, NoStations())


async def put(database: Database, org: UUID, card: Card, **due_in: float) -> UUID:
    """The card, whose slot 9E had another key before; ``due_in``: days until something is due, by its word."""

    async def work(unit: Unit) -> UUID:
        identifier = await unit.insert(
            device,
            {
                "org": org, "kind": "smart-card", "serial": str(new_id()), "state": "issued", "reason": "", "life": 1,
                "person": new_id(), "policy_number": 3, "temporary": False, "guid": card.guid, "card_locked": False,
                "disposition": "",
            },
        )  # fmt: skip
        for key in (ec.generate_private_key(ec.SECP256R1()), card.key):
            public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
            row = {"session": new_id(), "device": identifier, "slot": int(Slot.CARD_AUTHENTICATION), "life": 1}
            shown = {"fingerprint": new_id().hex * 2, "public_key": public, "origin": "unproven"}
            await unit.insert(card_key, {"org": org, **row, **shown})
        for what, days in due_in.items():
            due_at = unit.now + timedelta(days=days)
            row = {"org": org, "device": identifier, "what": what, "due_at": due_at, "detail": {"n": 1}}
            await unit.insert(device_due, row)
        return identifier

    return await database.transact(work)


async def outcome(checks: DueChecks, principal: Principal, card: CardName, proof: bytes) -> DueAnswer | str:
    try:
        return await checks.check(principal, card, proof)
    except CardwrightError as error:
        return error.code
    except ValueError:
        return "unreadable"


async def test_answers_are_those_of_asking_one_by_one(open_database: Callable[..., Database]) -> None:
    database, org, other = open_database(), uuid4(), uuid4()
    idle, pressed, later, foreign, broken = Card(), Card(), Card(), Card(), Card()
    await put(database, org, idle)
    await put(database, org, pressed, renewal=-1, lock=-2)
    await put(database, org, later, renewal=20)
    await put(database, other, foreign, renewal=-1)
    await put(database, org, broken, nonsense=-1)
    asked = [
        (org, idle, b""), (org, idle, idle.proof()), (org, idle, idle.proof(ago=timedelta(minutes=5))),
        (org, pressed, b""), (org, pressed, pressed.proof()), (org, pressed, idle.proof(pressed.guid)),
        (org, later, later.proof()), (org, later, later.proof(idle.guid)), (org, later, b"nonsense"),
        (org, foreign, foreign.proof()), (other, foreign, foreign.proof()), (other, idle, idle.proof()),
        (org, Card(), b""), (org, broken, b""), (org, pressed, pressed.proof()),
    ]  # fmt: skip
    stations = {one: a_workstation(one) for one in (org, other)}
    alone = [
        await outcome(checks_of(database), stations[whose], CardName(card.guid), proof) for whose, card, proof in asked
    ]
    together = checks_of(database)
    found = await asyncio.gather(
        *(outcome(together, stations[whose], CardName(card.guid), proof) for whose, card, proof in asked)
    )
    assert found == alone
    nothing = DueAnswer(False)
    assert found[0] == found[2] == nothing
    assert isinstance(found[4], DueAnswer) and [one.what for one in found[4].things] == [What.LOCK, What.RENEWAL]
    assert (found[4].proven, found[4].policy_number) == (True, 3)
    assert (found[5], found[7], found[8]) == (DueAnswer(True), nothing, nothing)
    assert isinstance(found[6], DueAnswer) and found[6].proven and found[6].until is not None
    assert [found[place] for place in (9, 11, 12, 13)] == ["NO_SUCH_DEVICE"] * 3 + ["unreadable"]
    assert isinstance(found[10], DueAnswer) and found[10].proven


async def test_a_workstation_that_gives_up_harms_no_other(open_database: Callable[..., Database]) -> None:
    database, org = open_database(), uuid4()
    cards = [Card() for _ in range(6)]
    for card in cards:
        await put(database, org, card)
    checks, station = checks_of(database), a_workstation(org)
    tasks = [asyncio.create_task(checks.check(station, CardName(card.guid), card.proof())) for card in cards]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(one, DueAnswer) and one.proven for one in found] == [False, True] * 3
    assert all(isinstance(one, asyncio.CancelledError) for one in found[::2])


class Ended(Exception):
    """A call was ended with a status."""


class OneCall:
    """As much of a gRPC context as a call needs that ends or is answered."""

    def time_remaining(self) -> None:
        return None

    async def abort(self, code: grpc.StatusCode, message: str, metadata: Any) -> None:
        told = error_of(metadata[0][1])
        assert told is not None
        raise Ended(f"{code.name} {told.code}")


async def test_what_one_workstation_may_ask_is_not_shared(open_database: Callable[..., Database]) -> None:
    database, org = open_database(), uuid4()
    cards = [Card() for _ in range(4)]
    for card in cards:
        await put(database, org, card)
    checks, stations = checks_of(database), [a_workstation(org), a_workstation(org)]
    limits = Limits({Scope.WORKSTATION: Rate(3, 0.001)})

    def asking(station: Principal) -> Calls:
        async def identify(context: object) -> Principal:
            return station

        return Calls(database, identify, limits)

    async def one(station: Principal, card: Card) -> bool:
        name = CardName(card.guid)
        return (await asking(station).act(OneCall(), lambda caller: checks.check(caller, name, card.proof()))).proven

    found = await asyncio.gather(
        *(one(station, card) for station in stations for card in cards), return_exceptions=True
    )
    assert [str(one) for one in found] == (["True"] * 3 + ["RESOURCE_EXHAUSTED LIMIT_EXCEEDED"]) * 2


async def test_many_at_once_are_few_statements_and_survive_a_lost_connection(
    postgresql: PostgreSql, postgresql_template: str
) -> None:
    name = postgresql.create(postgresql_template)
    setup, org = Database(postgresql.url(name)), uuid4()
    cards = [Card() for _ in range(40)]
    for card in cards:
        await put(setup, org, card)
    await setup.close()
    with statements_logged(postgresql, name) as logged:
        database = Database(postgresql.url(name), pool=2)
        checks, station = checks_of(database), a_workstation(org)

        async def all_of_them() -> list[bool]:
            answers = (checks.check(station, CardName(card.guid), card.proof()) for card in cards)
            return [one.proven for one in await asyncio.gather(*answers)]

        assert await all_of_them() == [True] * 40
        ending = f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{name}'"
        ended = f"{ending} AND application_name = 'cardwright'"
        assert int(await asyncio.to_thread(postgresql.sql, ended)) >= 1
        assert await all_of_them() == [True] * 40
        assert database.retries >= 1
    asked = [one for one in logged if one.startswith("SELECT") and "device_due" in one]
    assert 2 <= len(asked) <= 6
    postgresql.drop(name)
    found = await asyncio.gather(
        *(outcome(checks, station, CardName(card.guid), b"") for card in cards), return_exceptions=True
    )
    assert found == ["DATABASE_UNAVAILABLE"] * 40
    await database.close()


@pytest.mark.parametrize("many", [1, 5])
async def test_the_database_asks_again_after_tables_were_changed(
    postgresql: PostgreSql, postgresql_template: str, many: int
) -> None:
    """The driver keeps what it prepared; a migration beside a running process must not make it fail."""
    name = postgresql.create(postgresql_template)
    database, org, card = Database(postgresql.url(name)), uuid4(), Card()
    await put(database, org, card)
    checks, station = checks_of(database), a_workstation(org)
    for _ in range(many):
        assert (await checks.check(station, CardName(card.guid), card.proof())).proven
    await asyncio.to_thread(
        postgresql.sql, "ALTER TABLE device ALTER COLUMN state TYPE text, ADD COLUMN extra text", name
    )
    assert (await checks.check(station, CardName(card.guid), card.proof())).proven
    await database.close()
    postgresql.drop(name)
