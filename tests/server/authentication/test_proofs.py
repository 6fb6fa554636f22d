"""Persons prove who they are: methods, lock-out, one use, and that strangers look like anybody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import pytest
from sqlalchemy import select

from cardwright_cardops.secret import Secret
from cardwright_server.authentication.answers import BadAnswer
from cardwright_server.authentication.authorize import Authorizer
from cardwright_server.authentication.enrolment import BadQuestion, EnrolmentService, QuestionsChanged
from cardwright_server.authentication.errors import (
    AccessDenied,
    MethodLocked,
    MethodNotOffered,
    NotYourOwn,
    ProofExpired,
    ProofRefused,
    ProofRequired,
)
from cardwright_server.authentication.hashing import Cost, Hasher
from cardwright_server.authentication.methods import (
    AnswersEvidence,
    Card,
    CardEvidence,
    DirectoryPassword,
    Evidence,
    GivenPassword,
    PasswordEvidence,
    SecurityAnswers,
    Verifier,
)
from cardwright_server.authentication.model import Assurance, Authentication, Method
from cardwright_server.authentication.principal import Principal, anyone
from cardwright_server.authentication.service import Attempt, AuthenticationService
from cardwright_server.authentication.store import StoredProofs
from cardwright_server.machine import IllegalTransition
from cardwright_server.people.directory import DirectoryEntry, DirectoryUnavailable
from cardwright_server.people.model import Person, PersonStatus, Role
from cardwright_server.people.service import PeopleService
from cardwright_server.people.standing import PeopleStandings
from cardwright_server.store.authentication_tables import attempt_counter, given_password, proof, security_answer
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock
from tests.support.people import EveryUnlockIsOpen, NoneRevoked, make_operator, make_person, make_proven

QUESTIONS = ("Name of your first school?", "Street you grew up in?")
ANSWERS = ("Hedge School", "Lindenstra\u00dfe 4")


class CountingHasher(Hasher):
    """Counts comparisons; cheap."""

    def __init__(self) -> None:
        super().__init__(Cost(memory=64, passes=1))
        self.compared = 0

    def _matches(self, text: str | None, value: bytes) -> bool:
        self.compared += 1
        return super()._matches(text, value)


@dataclass
class FakeDirectory:
    """A directory in memory that counts binds."""

    entries: dict[str, tuple[DirectoryEntry, bytes]] = field(default_factory=dict)
    away: bool = False
    asked: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        return "corp"

    def add(self, login: str, password: bytes, entry: str = "") -> None:
        dn = f"uid={login},dc=example"
        made = DirectoryEntry("corp", entry or f"id-{login}", dn, login, login.title(), "", {})
        self.entries[login] = (made, password)

    async def find(self, login: str) -> DirectoryEntry | None:
        found = self.entries.get(login)
        return found[0] if found is not None else None

    async def search(self, text: str, limit: int) -> list[DirectoryEntry]:
        return [entry for entry, _ in self.entries.values() if entry.login.startswith(text)][:limit]

    async def check_password(self, dn: str | None, password: Secret) -> bool:
        self.asked.append(dn or "nobody")
        if self.away:
            raise DirectoryUnavailable("away", timedelta(seconds=30))
        return any(entry.dn == dn and right == password.reveal() for entry, right in self.entries.values())


class Cards:
    """Cards that prove themselves by saying so."""

    def __init__(self) -> None:
        self.issued: dict[bytes, tuple[UUID, UUID]] = {}

    async def verify(self, org: UUID, evidence: bytes) -> tuple[UUID, UUID] | None:
        return self.issued.get(evidence)


@dataclass
class World:
    """Everything that proofs need, on one database."""

    database: Database
    org: UUID
    hasher: CountingHasher
    directory: FakeDirectory
    cards: Cards
    people: PeopleService
    service: AuthenticationService
    enrolment: EnrolmentService
    authorizer: Authorizer

    def beside(self, database: Database) -> AuthenticationService:
        """The service as another process has it."""
        return AuthenticationService(database, self.authorizer, self.people, self.verifiers())

    def verifiers(self) -> Mapping[Method, Verifier]:
        made: list[Verifier] = [
            DirectoryPassword({self.org: self.directory}),
            GivenPassword(Method.INITIAL_PASSWORD, self.hasher),
            GivenPassword(Method.EMERGENCY_PASSWORD, self.hasher),
            SecurityAnswers(self.hasher),
            Card(self.cards),
        ]
        return {one.method: one for one in made}

    async def prove(self, login: str, **evidence: Evidence) -> Authentication:
        caller = anyone(self.org, front="test", address="192.0.2.7")
        named = {Method(name.replace("_", "-")): value for name, value in evidence.items()}
        return await self.service.prove(caller, Attempt(login, named))

    async def with_answers(self, login: str) -> tuple[Person, dict[UUID, str]]:
        """A person who has set answers, after an initial password."""
        person = await make_person(self.database, self.org, login)
        admin = await make_operator(self.database, self.org, Role.ADMINISTRATOR)
        asked = await self.database.transact(lambda unit: self.enrolment.set_questions(unit, admin, QUESTIONS))
        texts = dict(zip((question.id for question in asked), ANSWERS, strict=True))
        prepared = await self.enrolment.prepare_answers(texts)
        caller = await self.person(person, Method.INITIAL_PASSWORD)
        await self.database.transact(lambda unit: self.enrolment.set_answers(unit, caller, person.id, prepared))
        return person, texts

    async def person(self, person: Person, *methods: Method) -> Principal:
        """A principal with a stored proof by these methods."""
        caller = anyone(self.org, front="test")

        async def work(unit: Unit) -> Principal:
            made = await self.service.put_proof(unit, caller, person.id, frozenset(methods))
            return await self.service.principal_of(unit, caller, made.id)

        return await self.database.transact(work)

    async def initial_password(self, person: Person) -> str:
        clerk = await make_operator(self.database, self.org, Role.ISSUANCE)
        handed = await self.enrolment.prepare_password()
        await self.database.transact(lambda unit: self.enrolment.set_initial_password(unit, clerk, person.id, handed))
        return handed.text


def password(text: str) -> PasswordEvidence:
    return PasswordEvidence(Secret(text.encode()))


@pytest.fixture
async def world(open_database: Callable[..., Database], clock: Clock) -> AsyncIterator[World]:
    database = open_database(clock=clock)
    hasher = CountingHasher()
    authorizer = Authorizer(PeopleStandings(), StoredProofs(), NoneRevoked())
    people = PeopleService(authorizer)
    made = World(
        database,
        uuid4(),
        hasher,
        FakeDirectory(),
        Cards(),
        people,
        None,  # type: ignore[arg-type]
        EnrolmentService(authorizer, people, hasher, EveryUnlockIsOpen()),
        authorizer,
    )
    made.service = made.beside(database)
    yield made
    hasher.close()


async def test_an_initial_password_counts_however_it_is_typed(world: World, clock: Clock) -> None:
    person = await make_person(world.database, world.org, "anna")
    text = await world.initial_password(person)
    made = await world.prove(" ANNA", initial_password=password(f" {text.lower().replace('-', ' ')} "))
    assert (made.subject, set(made.methods), made.assurance) == (
        person.id,
        {Method.INITIAL_PASSWORD},
        Assurance.HANDED_OVER,
    )
    assert (made.network, made.time, made.expires_at - made.time) == ("192.0.2.7", clock.now, timedelta(minutes=15))
    assert await world.database.read(lambda unit: StoredProofs().stands(unit, made.id))
    clock.advance(days=31)
    with pytest.raises(ProofRefused):
        await world.prove("anna", initial_password=password(text))


async def test_a_proof_ends_by_time_and_by_will(world: World, clock: Clock) -> None:
    person = await make_person(world.database, world.org, "bert")
    first = await world.person(person, Method.CARD)
    second = await world.person(person, Method.CARD)
    await world.database.read(lambda unit: world.people.get(unit, first, person.id))
    assert first.authentication is not None
    ended = first.authentication.id
    assert await world.database.transact(lambda unit: world.service.end(unit, first, ended)) == 1
    with pytest.raises(ProofExpired):
        await world.database.read(lambda unit: world.people.get(unit, first, person.id))
    await world.database.read(lambda unit: world.people.get(unit, second, person.id))
    clock.advance(minutes=15)
    with pytest.raises(ProofExpired):
        await world.database.read(lambda unit: world.people.get(unit, second, person.id))


async def test_answers_all_count_and_none_is_named(world: World) -> None:
    person, texts = await world.with_answers("carla")
    spelled = {question: f" {text.upper().replace(' ', '  ')}\t" for question, text in texts.items()}
    assert (await world.prove("carla", security_answers=AnswersEvidence(spelled))).subject == person.id
    first, second = texts
    seen = set()
    for wrong in ({first: texts[first], second: "no"}, {first: "no", second: texts[second]}):
        with pytest.raises(ProofRefused) as caught:
            await world.prove("carla", security_answers=AnswersEvidence(wrong))
        seen.add(caught.value.explain())
    with pytest.raises(MethodLocked):
        for wrong in ({first: texts[first]}, texts):
            with pytest.raises(ProofRefused):
                await world.prove("carla", security_answers=AnswersEvidence(wrong | {uuid4(): "more"}))
    assert len(seen) == 1
    rows = await world.database.read(lambda unit: unit.rows(select(security_answer.c.hash)))
    assert all(row.hash.startswith("$argon2id$") for row in rows)
    assert len({row.hash for row in rows}) == 2


async def test_a_locked_method_locks_no_other_and_is_reset_by_the_help_desk(world: World) -> None:
    person, texts = await world.with_answers("dora")
    initial = await world.initial_password(person)
    wrong = AnswersEvidence(dict.fromkeys(texts, "wrong"))
    for _ in range(3):
        with pytest.raises(ProofRefused):
            await world.prove("dora", security_answers=wrong)
    with pytest.raises(MethodLocked) as caught:
        await world.prove("dora", security_answers=AnswersEvidence(texts))
    assert caught.value.retry_after is None
    await world.prove("dora", initial_password=password(initial))
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    await world.database.transact(lambda unit: world.enrolment.reset_answers(unit, desk, person.id))
    with pytest.raises(ProofRefused):
        await world.prove("dora", security_answers=AnswersEvidence(texts))
    caller = await world.person(person, Method.INITIAL_PASSWORD)
    prepared = await world.enrolment.prepare_answers(texts)
    await world.database.transact(lambda unit: world.enrolment.set_answers(unit, caller, person.id, prepared))
    assert (await world.prove("dora", security_answers=AnswersEvidence(texts))).subject == person.id
    with pytest.raises(ProofRequired):
        await world.database.transact(lambda unit: world.enrolment.set_answers(unit, caller, person.id, prepared))
    answered = await world.person(person, Method.SECURITY_ANSWERS)
    await world.database.transact(lambda unit: world.enrolment.reset_answers(unit, desk, person.id))
    with pytest.raises(ProofRequired):
        await world.database.transact(lambda unit: world.enrolment.set_answers(unit, answered, person.id, prepared))


async def test_nobody_resets_their_own_answers_or_gives_themselves_a_password(world: World) -> None:
    desk = await make_operator(world.database, world.org, Role.HELP_DESK, Role.ISSUANCE)
    own = desk.person
    assert own is not None
    handed = await world.enrolment.prepare_password()
    for act in (
        lambda unit: world.enrolment.reset_answers(unit, desk, own),
        lambda unit: world.enrolment.set_initial_password(unit, desk, own, handed),
        lambda unit: world.enrolment.set_emergency_password(unit, desk, own, uuid4(), handed),
    ):
        with pytest.raises(NotYourOwn):
            await world.database.transact(act)


async def test_bad_answers_and_wrong_questions_change_nothing(world: World) -> None:
    person, texts = await world.with_answers("erik")
    caller = await world.person(person, Method.CARD)
    first, second = texts
    for bad in (
        {first: "ab", second: "fine thing"},
        {first: "same one", second: "Same  ONE"},
        {first: "ERIK", second: "fine thing"},
        {first: "street you grew up in", second: "fine thing"},
        {first: "example", second: "fine thing"},
    ):
        prepared = await world.enrolment.prepare_answers(bad)
        with pytest.raises(BadAnswer):
            await world.database.transact(
                partial(world.enrolment.set_answers, principal=caller, person=person.id, prepared=prepared)
            )
    short = await world.enrolment.prepare_answers({first: "only one"})
    with pytest.raises(QuestionsChanged):
        await world.database.transact(lambda unit: world.enrolment.set_answers(unit, caller, person.id, short))
    assert (await world.prove("erik", security_answers=AnswersEvidence(texts))).subject == person.id


async def test_an_emergency_password_is_for_one_use_one_request_and_ten_minutes(world: World, clock: Clock) -> None:
    person = await make_person(world.database, world.org, "fred")
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)

    async def give() -> tuple[str, UUID]:
        handed, request = await world.enrolment.prepare_password(groups=2), uuid4()
        await world.database.transact(
            lambda unit: world.enrolment.set_emergency_password(unit, desk, person.id, request, handed)
        )
        return handed.text, request

    text, request = await give()
    made = await world.prove("fred", emergency_password=password(text))
    assert made.request == request
    with pytest.raises(ProofRefused):
        await world.prove("fred", emergency_password=password(text))
    text, _ = await give()
    clock.advance(minutes=10)
    with pytest.raises(ProofRefused):
        await world.prove("fred", emergency_password=password(text))
    old, _ = await give()
    new, _ = await give()
    with pytest.raises(ProofRefused):
        await world.prove("fred", emergency_password=password(old))
    await world.prove("fred", emergency_password=password(new))
    rows = await world.database.read(lambda unit: unit.rows(select(given_password)))
    assert new not in str(rows)


async def test_one_use_is_one_use_on_two_processes(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    person = await make_person(world.database, world.org, "gina")
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    handed = await world.enrolment.prepare_password()
    await world.database.transact(
        lambda unit: world.enrolment.set_emergency_password(unit, desk, person.id, uuid4(), handed)
    )
    processes = [world.service, world.beside(open_database(clock=clock))]
    attempt = Attempt("gina", {Method.EMERGENCY_PASSWORD: password(handed.text)})
    caller = anyone(world.org, front="test")
    results = await asyncio.gather(*(process.prove(caller, attempt) for process in processes), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["Authentication", "ProofRefused"]


async def test_a_crowd_gets_no_more_attempts_than_one(
    world: World, open_database: Callable[..., Database], clock: Clock
) -> None:
    world.directory.add("hans", b"right")
    processes = [world.service, world.beside(open_database(clock=clock))]
    caller = anyone(world.org, front="test")
    results = await asyncio.gather(
        *(
            process.prove(caller, Attempt("hans", {Method.LDAP_PASSWORD: password(f"guess {number}")}))
            for number in range(6)
            for process in processes
        ),
        return_exceptions=True,
    )
    assert len(world.directory.asked) == 3
    assert sorted(type(result).__name__ for result in results) == ["MethodLocked"] * 9 + ["ProofRefused"] * 3
    with pytest.raises(MethodLocked) as caught:
        await world.prove("HANS", ldap_password=password("right"))
    assert caught.value.retry_after == timedelta(minutes=30)
    clock.advance(minutes=30)
    await world.prove("hans", ldap_password=password("right"))


async def test_a_success_begins_the_count_anew_and_an_outage_counts_nothing(world: World) -> None:
    world.directory.add("ida", b"right")
    for _ in range(4):
        for _ in range(2):
            with pytest.raises(ProofRefused):
                await world.prove("ida", ldap_password=password("wrong"))
        world.directory.away = True
        for _ in range(5):
            with pytest.raises(DirectoryUnavailable):
                await world.prove("ida", ldap_password=password("right"))
        world.directory.away = False
        await world.prove("ida", ldap_password=password("right"))


async def test_a_killed_process_gives_no_attempt_back(world: World) -> None:
    person = await make_person(world.database, world.org, "jan")
    text = await world.initial_password(person)

    class Killed(BaseException):
        pass

    async def die(*_: object) -> bool:
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(world.hasher, "matches", die)
        for _ in range(5):
            with pytest.raises(Killed):
                await world.prove("jan", initial_password=password("x"))
    with pytest.raises(MethodLocked):
        await world.prove("jan", initial_password=password(text))
    again = await world.initial_password(person)
    await world.prove("jan", initial_password=password(again))


async def test_a_stranger_costs_and_hears_the_same(world: World) -> None:
    known, texts = await world.with_answers("karl")
    assert known.login == "karl"
    await world.initial_password(known)
    heard: dict[str, list[tuple[str, int, int]]] = {}
    for login in ("karl", "nobody"):
        for number in range(5):
            for evidence in (
                {"security_answers": AnswersEvidence(dict.fromkeys(texts, "wrong"))},
                {"initial_password": password("wrong")},
                {"ldap_password": password("wrong")},
                {"emergency_password": password("wrong")},
            ):
                before, asked = world.hasher.compared, len(world.directory.asked)
                with pytest.raises((ProofRefused, MethodLocked)) as caught:
                    await world.prove(login, **evidence)
                work = (world.hasher.compared - before, len(world.directory.asked) - asked)
                heard.setdefault(login, []).append((f"{number} {caught.value.explain()}", *work))
    assert heard["karl"] == heard["nobody"]
    assert sum(compared for _, compared, _ in heard["karl"]) == 3 * 2 + 5 + 3


async def test_a_first_login_takes_the_person_over_and_later_ones_refresh(world: World) -> None:
    world.directory.add("lena", b"right")
    made = await world.prove("LENA", ldap_password=password("right"))
    person = await world.database.read(lambda unit: world.people.person(unit, world.org, made.subject))
    assert (person.login, person.source, person.entry) == ("lena", "corp", "id-lena")
    again = await world.prove("lena", ldap_password=password("right"))
    assert again.subject == person.id
    # Another entry now has the login: not the person that we know.
    world.directory.add("lena", b"right", entry="id-other")
    with pytest.raises(ProofRefused):
        await world.prove("lena", ldap_password=password("right"))


@pytest.mark.parametrize("typed", ["an\u00adna", "", "anna\x00", "a" * 5000])
async def test_what_is_no_login_reaches_no_directory_entry(world: World, typed: str) -> None:
    world.directory.add("anna", b"right")
    world.directory.entries[""] = world.directory.entries["anna"]
    with pytest.raises(ProofRefused):
        await world.prove(typed, ldap_password=password("right"))


@pytest.mark.parametrize("text", ["", "x" * 5000])
async def test_an_empty_password_is_never_tried(world: World, text: str) -> None:
    world.directory.add("mia", text.encode())
    with pytest.raises(ProofRefused):
        await world.prove("mia", ldap_password=password(text))


async def test_a_card_says_whose_it_is_and_several_methods_must_agree(world: World) -> None:
    person = await make_person(world.database, world.org, "nora")
    other = await make_person(world.database, world.org, "olaf")
    device = uuid4()
    world.cards.issued[b"signed"] = (person.id, device)
    made = await world.prove("", card=CardEvidence(b"signed"))
    assert (made.subject, made.device, made.assurance) == (person.id, device, Assurance.HARDWARE_KEY)
    with pytest.raises(ProofRefused):
        await world.prove("", card=CardEvidence(b"forged"))
    text = await world.initial_password(other)
    with pytest.raises(ProofRefused):
        await world.prove("olaf", card=CardEvidence(b"signed"), initial_password=password(text))
    mine = await world.initial_password(person)
    both = await world.prove("nora", card=CardEvidence(b"signed"), initial_password=password(mine))
    assert both.methods == {Method.CARD, Method.INITIAL_PASSWORD}


async def test_a_method_that_is_not_offered_and_evidence_of_another_kind(world: World) -> None:
    with pytest.raises(MethodNotOffered):
        await world.prove("x", client_key=CardEvidence(b""))
    with pytest.raises(MethodNotOffered):
        await world.prove("x")
    with pytest.raises(ProofRefused):
        await world.prove("x", ldap_password=CardEvidence(b""))


async def test_a_proof_of_another_organization_or_nobody_is_no_principal(world: World) -> None:
    person = await make_person(world.database, world.org, "paul")
    mine = await world.person(person, Method.CARD)
    assert mine.authentication is not None
    known = mine.authentication.id
    with pytest.raises(ProofRefused):
        await world.database.read(lambda unit: world.service.principal_of(unit, anyone(uuid4(), front="test"), known))
    forged = await make_proven(world.database, person, Method.CARD)
    with pytest.raises(ProofExpired):
        await world.database.read(lambda unit: world.people.get(unit, forged, person.id))
    rows = await world.database.read(lambda unit: unit.rows(select(proof.c.id)))
    assert [row.id for row in rows] == [known]


async def test_only_persons_without_proof_may_prove(world: World) -> None:
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    with pytest.raises(AccessDenied):
        await world.service.prove(desk, Attempt("x", {Method.LDAP_PASSWORD: password("x")}))


async def test_a_suspended_person_is_a_stranger(world: World) -> None:
    person = await make_person(world.database, world.org, "quin")
    text = await world.initial_password(person)
    card = await world.person(person, Method.CARD)
    boss = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    set_status = partial(world.people.set_status, principal=boss, identifier=person.id)
    await world.database.transact(partial(set_status, status=PersonStatus.SUSPENDED))
    with pytest.raises(ProofRefused):
        await world.prove("quin", initial_password=password(text))
    with pytest.raises(AccessDenied):
        await world.database.read(lambda unit: world.people.get(unit, card, person.id))
    await world.database.transact(partial(set_status, status=PersonStatus.ACTIVE))
    assert (await world.prove("quin", initial_password=password(text))).subject == person.id


async def test_the_help_desk_unlocks_a_directory_password_and_nothing_else(world: World) -> None:
    world.directory.add("rosa", b"right")
    made = await world.prove("rosa", ldap_password=password("right"))
    for _ in range(3):
        with pytest.raises(ProofRefused):
            await world.prove("rosa", ldap_password=password("wrong"))
    with pytest.raises(MethodLocked):
        await world.prove("rosa", ldap_password=password("right"))
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    unlock = partial(world.enrolment.unlock_method, principal=desk, person=made.subject)
    for method in (Method.SECURITY_ANSWERS, Method.INITIAL_PASSWORD, Method.CARD):
        with pytest.raises(MethodNotOffered):
            await world.database.transact(partial(unlock, method=method))
    await world.database.transact(partial(unlock, method=Method.LDAP_PASSWORD))
    assert (await world.prove("rosa", ldap_password=password("right"))).subject == made.subject
    with pytest.raises(IllegalTransition):
        await world.database.transact(partial(unlock, method=Method.LDAP_PASSWORD))


async def test_counters_of_strangers_are_purged_and_locks_of_persons_are_not(world: World, clock: Clock) -> None:
    person = await make_person(world.database, world.org, "sven")
    await world.initial_password(person)
    for login in ("sven", "nobody"):
        for _ in range(5):
            with pytest.raises(ProofRefused):
                await world.prove(login, initial_password=password("wrong"))
    kept = await world.database.read(
        lambda unit: unit.rows(select(attempt_counter).where(attempt_counter.c.idle_at.is_(None)))
    )
    assert [(row.subject, row.state) for row in kept] == [(person.id, "locked")]
    clock.advance(days=400)
    with pytest.raises(MethodLocked):
        await world.prove("sven", initial_password=password("wrong"))


async def test_what_is_kept_of_a_person_goes_with_them(world: World) -> None:
    person, _ = await world.with_answers("tina")
    await world.initial_password(person)
    await world.person(person, Method.CARD)
    desk = await make_operator(world.database, world.org, Role.HELP_DESK)
    await world.database.transact(lambda unit: world.service.forget(unit, desk, person.id))

    async def left(unit: Unit) -> int:
        tables = (
            (security_answer, security_answer.c.person),
            (given_password, given_password.c.person),
            (proof, proof.c.subject),
            (attempt_counter, attempt_counter.c.subject),
        )
        return sum([len(await unit.rows(select(table).where(column == person.id))) for table, column in tables])

    assert await world.database.read(left) == 0


async def test_questions_keep_their_answers_and_a_new_one_wants_all_again(world: World) -> None:
    person, texts = await world.with_answers("udo")
    admin = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    set_questions = partial(world.enrolment.set_questions, principal=admin)
    turned = await world.database.transact(partial(set_questions, texts=QUESTIONS[::-1]))
    assert [question.id for question in turned] == list(texts)[::-1]
    assert (await world.prove("udo", security_answers=AnswersEvidence(texts))).subject == person.id
    more = await world.database.transact(partial(set_questions, texts=(*QUESTIONS, "First pet of yours?")))
    with pytest.raises(ProofRefused):
        await world.prove("udo", security_answers=AnswersEvidence(texts))
    everything = texts | {more[2].id: "Bello the dog"}
    prepared = await world.enrolment.prepare_answers(everything)
    caller = await world.person(person, Method.LDAP_PASSWORD)
    await world.database.transact(lambda unit: world.enrolment.set_answers(unit, caller, person.id, prepared))
    assert (await world.prove("udo", security_answers=AnswersEvidence(everything))).subject == person.id
    for bad in (("ab",), ("same one", "SAME ONE"), tuple(f"question {number}" for number in range(11)), ("x" * 301,)):
        with pytest.raises(BadQuestion):
            await world.database.transact(partial(set_questions, texts=bad))
