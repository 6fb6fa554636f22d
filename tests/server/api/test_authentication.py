"""AuthenticationService over gRPC: what persons prove themselves with goes in, and never comes out again."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID, uuid4

import grpc
import pytest
from sqlalchemy import select

from cardwright_proto.cms.v1 import authentication_pb2 as pb
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.api.authentication import AuthenticationServicer
from cardwright_server.authentication.authorize import Authorizer
from cardwright_server.authentication.enrolment import EnrolmentService
from cardwright_server.authentication.handing import HandingService
from cardwright_server.authentication.hashing import Cost, Hasher
from cardwright_server.authentication.methods import Card, GivenPassword, SecurityAnswers, Verifier
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal, anyone
from cardwright_server.authentication.service import AuthenticationService
from cardwright_server.authentication.store import StoredProofs
from cardwright_server.joins.unlocks import UnlockRequests
from cardwright_server.people.model import Person, Role
from cardwright_server.people.service import PeopleService
from cardwright_server.people.standing import PeopleStandings
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.unit import Database
from tests.support.api import Api, serving
from tests.support.lifecycles import World as Devices
from tests.support.lifecycles import make_world
from tests.support.people import NoneRevoked, make_operator

MALFORMED = ("INVALID_ARGUMENT", "REQUEST_MALFORMED")
REFUSED = ("UNAUTHENTICATED", "PROOF_REFUSED")
CARD = b"a card that proves itself by saying so"


class CountingHasher(Hasher):
    """Cheap, and counts what is hashed."""

    def __init__(self) -> None:
        super().__init__(Cost(memory=64, passes=1))
        self.hashed = 0

    async def hash(self, value: object) -> str:
        self.hashed += 1
        return await super().hash(value)  # type: ignore[arg-type]


class Cards:
    """One card."""

    def __init__(self) -> None:
        self.holder: tuple[UUID, UUID] | None = None

    async def verify(self, org: UUID, evidence: bytes) -> tuple[UUID, UUID] | None:
        return self.holder if evidence == CARD else None


@dataclass
class World:
    """An organization behind the API."""

    devices: Devices
    api: Api
    service: AuthenticationService
    hasher: CountingHasher
    cards: Cards
    admin: Principal
    desk: Principal
    nobody: Principal

    @property
    def database(self) -> Database:
        return self.devices.database

    async def prove(self, login: str, *evidence: pb.Evidence) -> pb.ProveResponse:
        """A proof."""
        request = pb.ProveRequest(login=login, evidence=evidence)
        made: pb.ProveResponse = await self.api.call("AuthenticationService.Prove", request, self.nobody)
        return made

    async def refused(self, name: str, request: object, who: Principal) -> tuple[str, str]:
        """How a call is refused."""
        return await self.api.refused(f"AuthenticationService.{name}", request, who)  # type: ignore[arg-type]

    async def behind(self, proof: pb.ProveResponse) -> Principal:
        """Who a proof makes the caller."""
        return await self.database.read(
            lambda unit: self.service.principal_of(unit, self.nobody, UUID(proof.session)), timed=True
        )

    async def initial(self, person: Person) -> pb.GivenPassword:
        """A first password for someone."""
        request = pb.SetInitialPasswordRequest(person=str(person.id))
        made: pb.GivenPassword = await self.api.call(
            "AuthenticationService.SetInitialPassword", request, self.devices.issuer
        )
        return made


@pytest.fixture
async def world(database: Database) -> AsyncIterator[World]:
    devices = await make_world(database)
    hasher, cards = CountingHasher(), Cards()
    decide = Authorizer(PeopleStandings(), StoredProofs(), NoneRevoked())
    people = PeopleService(decide)
    methods: list[Verifier] = [
        GivenPassword(Method.INITIAL_PASSWORD, hasher),
        GivenPassword(Method.EMERGENCY_PASSWORD, hasher),
        SecurityAnswers(hasher),
        Card(cards),
    ]
    service = AuthenticationService(database, decide, people, {one.method: one for one in methods})
    enrolment = EnrolmentService(decide, people, hasher, UnlockRequests(devices.services.requests))
    async with serving(
        database,
        lambda calls: [AuthenticationServicer(calls, service, enrolment, HandingService(database, enrolment))],
    ) as api:
        yield World(
            devices,
            api,
            service,
            hasher,
            cards,
            await make_operator(database, devices.org, Role.ADMINISTRATOR),
            devices.helper,
            anyone(devices.org, front="portal"),
        )
    hasher.close()


def password(text: str, method: pb.Method.ValueType = pb.METHOD_INITIAL_PASSWORD) -> pb.Evidence:
    return pb.Evidence(method=method, password=text)


def card() -> pb.Evidence:
    return pb.Evidence(method=pb.METHOD_CARD, card=CARD)


async def test_from_a_first_password_to_answers_and_back(world: World) -> None:
    person = await world.devices.person("anna")
    asked = pb.SetQuestionsRequest(texts=["Name of your first school?", "Street you grew up in?"])
    questions = (await world.api.call("AuthenticationService.SetQuestions", asked, world.admin)).questions
    offered = await world.api.call("AuthenticationService.Methods", pb.MethodsRequest(), world.nobody)
    assert list(offered.questions) == list(questions)
    assert set(offered.methods) == {
        pb.METHOD_INITIAL_PASSWORD,
        pb.METHOD_EMERGENCY_PASSWORD,
        pb.METHOD_SECURITY_ANSWERS,
        pb.METHOD_CARD,
    }

    for purpose, wanted in (
        (sessions_pb2.PURPOSE_ISSUE, {pb.METHOD_INITIAL_PASSWORD, pb.METHOD_SECURITY_ANSWERS}),
        (sessions_pb2.PURPOSE_UNLOCK, {pb.METHOD_SECURITY_ANSWERS}),
        (sessions_pb2.PURPOSE_UNLOCK_ASSISTED, {pb.METHOD_EMERGENCY_PASSWORD, pb.METHOD_SECURITY_ANSWERS}),
        (sessions_pb2.PURPOSE_UPDATE, {pb.METHOD_CARD}),
        (sessions_pb2.PURPOSE_RECYCLE, set()),
    ):
        enough = await world.api.call("AuthenticationService.Methods", pb.MethodsRequest(purpose=purpose), world.nobody)
        assert set(enough.methods) == wanted

    given = await world.initial(person)
    proof = await world.prove("ANNA", password(given.password.lower()))
    assert (proof.person, list(proof.methods), proof.assurance) == (
        str(person.id),
        [pb.METHOD_INITIAL_PASSWORD],
        pb.ASSURANCE_HANDED_OVER,
    )
    caller = await world.behind(proof)
    texts = {question.id: text for question, text in zip(questions, ("Hedge School", "Elm Row 4"), strict=True)}
    answers = [pb.Answer(question=question, text=text) for question, text in texts.items()]
    await world.api.call("AuthenticationService.SetAnswers", pb.SetAnswersRequest(answers=answers), caller)
    mine = await world.api.call("AuthenticationService.ListQuestions", pb.ListQuestionsRequest(), caller)
    assert [(one.question, one.answered) for one in mine.questions] == [(one, True) for one in questions]
    again = pb.SetAnswersRequest(answers=answers)
    assert await world.refused("SetAnswers", again, caller) == ("UNAUTHENTICATED", "PROOF_REQUIRED")

    evidence = pb.Evidence(method=pb.METHOD_SECURITY_ANSWERS, answers=pb.Answers(answers=answers))
    by_answers = await world.prove("anna", evidence)
    assert by_answers.assurance == pb.ASSURANCE_HANDED_OVER
    reset = pb.ResetAnswersRequest(person=str(person.id))
    await world.api.call("AuthenticationService.ResetAnswers", reset, world.desk)
    theirs = pb.ListQuestionsRequest(person=str(person.id))
    seen = await world.api.call("AuthenticationService.ListQuestions", theirs, world.desk)
    assert [one.answered for one in seen.questions] == [False, False]
    assert await world.refused("Prove", pb.ProveRequest(login="anna", evidence=[evidence]), world.nobody) == REFUSED


async def test_a_proof_ends_alone_or_with_all_others(world: World) -> None:
    person = await world.devices.person("bert")
    given = await world.initial(person)
    one, two = [await world.prove("bert", password(given.password)) for _ in range(2)]
    caller, other = await world.behind(one), await world.behind(two)
    assert (await world.api.call("AuthenticationService.End", pb.EndRequest(), caller)).ended == 1
    assert await world.refused("End", pb.EndRequest(), caller) == ("UNAUTHENTICATED", "PROOF_EXPIRED")
    assert (await world.api.call("AuthenticationService.End", pb.EndRequest(all=True), other)).ended == 1


async def test_an_emergency_password_is_for_an_open_request_of_the_person(world: World) -> None:
    held = await world.devices.issued(await world.devices.person("carl"))
    requests, database = world.devices.services.requests, world.database
    opened = await database.transact(lambda unit: requests.create_unlock(unit, world.desk, held.id))
    request = pb.SetEmergencyPasswordRequest(person=str(held.person), request=str(opened.request.id))
    given = await world.api.call("AuthenticationService.SetEmergencyPassword", request, world.desk)
    proof = await world.prove("carl", password(given.password, pb.METHOD_EMERGENCY_PASSWORD))
    assert (await world.behind(proof)).authentication.request == opened.request.id  # type: ignore[union-attr]

    none = ("NOT_FOUND", "NO_OPEN_UNLOCK")
    stranger = await world.devices.person("dora")
    for person, asked in ((stranger.id, opened.request.id), (held.person, uuid4())):
        wrong = pb.SetEmergencyPasswordRequest(person=str(person), request=str(asked))
        assert await world.refused("SetEmergencyPassword", wrong, world.desk) == none
    await database.transact(lambda unit: requests.cancel(unit, world.desk, opened.request.id))
    assert await world.refused("SetEmergencyPassword", request, world.desk) == none


async def test_only_the_password_of_a_directory_is_unlocked(world: World) -> None:
    person = str((await world.devices.person("emil")).id)
    unlock = pb.UnlockMethodRequest(person=person, method=pb.METHOD_INITIAL_PASSWORD)
    assert await world.refused("UnlockMethod", unlock, world.desk) == ("INVALID_ARGUMENT", "METHOD_NOT_OFFERED")
    unlock.method = pb.METHOD_LDAP_PASSWORD
    refused = await world.refused("UnlockMethod", unlock, world.desk)
    assert refused == ("FAILED_PRECONDITION", "ILLEGAL_TRANSITION")


async def test_a_locked_method_is_told_apart_from_a_wrong_proof_only(world: World) -> None:
    wrong = pb.ProveRequest(login="nobody-at-all", evidence=[password("wrong")])
    seen = [await world.refused("Prove", wrong, world.nobody) for _ in range(12)]
    assert seen[0] == REFUSED
    assert seen[-1] == ("RESOURCE_EXHAUSTED", "METHOD_LOCKED")


async def test_nobody_has_anything_hashed_who_may_not_set_it(world: World) -> None:
    person = await world.devices.person("fred")
    before = world.hasher.hashed
    initial = pb.SetInitialPasswordRequest(person=str(person.id))
    denied = ("PERMISSION_DENIED", "ACCESS_DENIED")
    for caller in (world.nobody, world.admin, world.desk):
        assert await world.refused("SetInitialPassword", initial, caller) == denied
        answers = pb.SetAnswersRequest(answers=[pb.Answer(question=str(uuid4()), text="x")])
        assert await world.refused("SetAnswers", answers, caller) == denied
    assert world.hasher.hashed == before


async def test_what_is_typed_and_given_is_in_no_record_log_or_error(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)  # below, the database driver writes down every statement
    person = await world.devices.person("gina")
    given = await world.initial(person)
    proof = await world.prove("gina", password(given.password))
    typed = "canary-7361-typed"
    request = pb.ProveRequest(login="gina", evidence=[password(typed)])
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await world.api.call("AuthenticationService.Prove", request, world.nobody)
    rows = await world.database.read(lambda unit: unit.rows(select(audit_entry)))
    everything = f"{rows} {caplog.text} {refused.value}"
    for secret in (given.password, typed, proof.session, UUID(proof.session).hex):
        assert secret not in everything
    # Auditors recognize a proof, and cannot call with it.
    assert sha256(UUID(proof.session).bytes).hexdigest()[:32] in everything


async def test_malformed_requests_count_as_no_attempt(world: World) -> None:
    person = str((await world.devices.person("hans")).id)
    question = str(uuid4())
    answers = pb.Answers(answers=[pb.Answer(question=question), pb.Answer(question=question)])
    many = pb.Answers(answers=[pb.Answer(question=str(uuid4())) for _ in range(11)])
    for name, request, who in (
        ("Prove", pb.ProveRequest(login="hans", evidence=[pb.Evidence(password="x")]), world.nobody),
        ("Prove", pb.ProveRequest(login="hans", evidence=[password("x"), password("x")]), world.nobody),
        ("Prove", pb.ProveRequest(login="hans", evidence=[password("x", pb.METHOD_CARD)]), world.nobody),
        ("Prove", pb.ProveRequest(login="hans", evidence=[password("x" * 1001)]), world.nobody),
        ("Prove", pb.ProveRequest(login="h" * 1001, evidence=[password("x")]), world.nobody),
        (
            "Prove",
            pb.ProveRequest(login="hans", evidence=[pb.Evidence(method=pb.METHOD_INITIAL_PASSWORD)]),
            world.nobody,
        ),
        (
            "Prove",
            pb.ProveRequest(login="hans", evidence=[pb.Evidence(method=pb.METHOD_SECURITY_ANSWERS, answers=answers)]),
            world.nobody,
        ),
        (
            "Prove",
            pb.ProveRequest(login="hans", evidence=[pb.Evidence(method=pb.METHOD_SECURITY_ANSWERS, answers=many)]),
            world.nobody,
        ),
        ("UnlockMethod", pb.UnlockMethodRequest(person=person), world.desk),
        ("SetQuestions", pb.SetQuestionsRequest(texts=["a\nb"]), world.admin),
    ):
        assert await world.refused(name, request, who) == MALFORMED, request
    none = pb.ProveRequest(login="hans")
    assert await world.refused("Prove", none, world.nobody) == ("INVALID_ARGUMENT", "METHOD_NOT_OFFERED")
    alike = pb.SetQuestionsRequest(texts=["Your school?", "your  SCHOOL?"])
    assert await world.refused("SetQuestions", alike, world.admin) == ("INVALID_ARGUMENT", "BAD_QUESTION")
