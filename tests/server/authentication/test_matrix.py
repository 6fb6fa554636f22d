"""Every call by every role, scope and organization, against a table that was written by hand."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from uuid import UUID, uuid4

import pytest

from cardwright_server.authentication.authorize import (
    AccountStanding,
    Authorizer,
    CallTarget,
    Permission,
    PersonStanding,
)
from cardwright_server.authentication.errors import (
    AccessDenied,
    AuthorizationError,
    NotYourOwn,
    PartsSeparated,
    ProofExpired,
    ProofRequired,
    UnlistedCall,
)
from cardwright_server.authentication.matrix import RULES, Call, Part
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import LOCAL_FRONT, Principal, PrincipalKind, anyone, server
from cardwright_server.authentication.services import PIV, Service, accepts, refusal
from cardwright_server.people.model import EVERYWHERE, AccountKind, Grant, Reach, Role, Scope
from cardwright_server.people.operators import OperatorService
from cardwright_server.people.standing import PeopleStandings
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock, statements_of
from tests.support.people import (
    AllProofsStand,
    NoneRevoked,
    allow,
    authorizer,
    key_of,
    make_group,
    make_operator,
    make_person,
    make_proven,
)
from tests.support.tree import python_files

# Columns: issuance, help desk, security officer, administrator, auditor; then person, workstation, server, anyone.
# For operators: E only with a grant for everywhere, S also with one whose scope holds the target, h as S, and what
# belongs to someone who is missing is open to a grant for everywhere, s as h, and what belongs to nobody is open to
# every grant, * with any grant whatever it covers. - never. ! not on their own.
# For the others: + yes, - no; L only at the host's own socket.
EXPECTED = """
PersonService.Create                       E  -  -  E  -   - - - -
PersonService.Import                       S  -  -  S  -   - - + -
PersonService.Import/look                  *  -  -  *  -   - - + -
PersonService.ImportAll                    *  -  -  *  -   - - - -
PersonService.Update                       S! -  -  S! -   - - - -
PersonService.SetStatus                    -  S! -  S! -   - - + -
PersonService.Get                          S  S  S  S  S   + - - -
PersonService.Find                         *  *  *  *  *   - - - -
PersonService.Erase                        -  -  S! -  -   - - - -
GroupService.Create                        -  -  -  E  -   - - - -
GroupService.AddMember                     -  -  -  E! -   - - - -
GroupService.RemoveMember                  -  -  -  E! -   - - - -
GroupService.Find                          *  *  *  *  *   - - - -
OperatorService.Create                     -  -  -  E  -   - - - -
OperatorService.AddKey                     -  -  -  E! -   - - - -
OperatorService.RemoveKey                  -  -  E  E  -   - - - -
OperatorService.Grant                      -  -  E! -  -   - - - -
OperatorService.Withdraw                   -  -  E  E  -   - - - -
OperatorService.SetActive                  -  -  E! E! -   - - - -
OperatorService.Find                       -  -  E  E  E   - - - -
AuthenticationService.Methods              -  -  -  -  -   - + - +
AuthenticationService.Prove                -  -  -  -  -   - + - +
AuthenticationService.End                  -  -  -  -  -   + - - -
AuthenticationService.SetQuestions         -  -  -  E  -   - - - -
AuthenticationService.ListQuestions        -  *  -  *  -   + - - -
AuthenticationService.SetAnswers           -  -  -  -  -   + - - -
AuthenticationService.SetAnswers/first     -  -  -  -  -   + - - -
AuthenticationService.ResetAnswers         -  S! -  -  -   - - - -
AuthenticationService.UnlockMethod         -  S! -  -  -   - - - -
AuthenticationService.SetInitialPassword   S! -  -  -  -   - - - -
AuthenticationService.SetEmergencyPassword -  S! -  -  -   - - - -
DeviceService.Register                     s  -  -  -  -   - - - -
DeviceService.RegisterLot                  E  -  -  -  -   - - - -
DeviceService.FindLots                     *  -  -  *  *   - - - -
DeviceService.Get                          s  s  s  s  s   + - - -
DeviceService.Find                         *  *  *  *  *   + - - -
DeviceService.Bind                         S! -  -  -  -   - - - -
DeviceService.Bind/own                     -  -  -  -  -   + - - -
DeviceService.Unbind                       h! -  -  -  -   - - - -
DeviceService.Activate                     -  -  -  -  -   + - - -
DeviceService.Suspend                      h! h! -  -  -   - - + -
DeviceService.Resume                       S! S! -  -  -   - - - -
DeviceService.ReportIncident               h  h  -  -  -   + - - -
DeviceService.Terminate                    -  h! -  -  -   - - + -
DeviceService.Recycle                      s! -  -  -  -   - - - -
DeviceService.Dispose                      s! -  -  -  -   - - - -
DeviceService.ReleasePuk                   -  S! -  -  -   - - - -
RequestService.CreateIssuance              S! -  -  -  -   - - - -
RequestService.CreateReplacement           S! S! -  -  -   + - + -
RequestService.CreateUnlock                -  S! -  -  -   + - - -
RequestService.CreateUpdate                S! S! -  -  -   - - + -
RequestService.CreateReissue               S! S! -  -  -   - - + -
RequestService.CreateRecycle               s! -  -  -  -   - - + -
RequestService.CreateTermination           -  h! -  -  -   - - - -
RequestService.CreateRecovery              S! -  S! -  -   - - - -
RequestService.Approve                     h! -  h! -  -   - - - -
RequestService.Deny                        h! -  h! -  -   - - - -
RequestService.Cancel                      h! h! -  -  -   - - + -
RequestService.Cancel/own                  -  -  -  -  -   + - - -
RequestService.Get                         h  h  h  -  h   + - - -
RequestService.Find                        *  *  *  -  *   + - - -
PolicyService.Draft                        -  -  -  E  -   - - - -
PolicyService.Publish                      -  -  E  -  -   - - - -
PolicyService.Assign                       -  -  -  E  -   - - - -
PolicyService.Get                          *  *  *  *  *   - - - -
PolicyService.Find                         *  *  *  *  *   - - - -
SessionService.Run                         *  *  -  -  -   - + - -
SessionService.Due                         -  -  -  -  -   - + - -
SessionService.Watch                       -  -  -  -  -   - + - -
SessionService.Run/issue                   S! -  -  -  -   + - - -
SessionService.Run/update                  S! S! -  -  -   + - - -
SessionService.Run/re-issue                S! S! -  -  -   + - - -
SessionService.Run/unlock                  -  S! -  -  -   + - - -
SessionService.Run/unlock-assisted         -  S! -  -  -   + - - -
SessionService.Run/forgotten-pin           -  S! -  -  -   + - - -
SessionService.Run/recycle                 s! -  -  -  -   - + - -
SessionService.Run/lock                    h! h! -  -  -   - + - -
SessionService.Run/prove                   -  -  -  -  -   - + - +
CertificateService.Get                     h  h  h  -  h   + - - -
CertificateService.Find                    *  *  *  -  *   - - - -
CertificateService.Revoke                  -  h! h! -  -   - - + -
CertificateService.Authorities             *  *  *  *  *   - - - -
CertificateService.RotateSigner            -  -  E  -  -   - - + -
EscrowService.Find                         -  -  *  -  *   + - - -
EscrowService.Recover                      -  -  S! -  -   - - - -
EscrowService.OfferPfx                     -  -  -  -  -   + - - -
EscrowService.ClaimPfx                     -  -  -  -  -   + - - -
AuditService.Find                          -  -  E  -  E   - - - -
AuditService.Verify                        -  -  E  -  E   - - - -
AuditService.Anchor                        -  -  E  -  E   - - - -
NotifyService.SetTemplate                  -  -  -  E  -   - - - -
NotifyService.Find                         -  -  -  E  E   - - - -
WorkstationService.CreateToken             -  -  -  E  -   - - - -
WorkstationService.Enrol                   -  -  -  -  -   - - - +
WorkstationService.Renew                   -  -  -  -  -   - + - -
WorkstationService.Revoke                  -  E  E  E  -   - - - -
WorkstationService.Find                    -  E  E  E  E   - - - -
SystemService.Hello                        -  -  -  -  -   - + - +
SystemService.Status                       -  -  E  E  E   - - - -
SystemService.Backup                       -  -  -  E  -   - - - -
SystemService.DestroyMaster                -  -  E  -  -   - - - -
SystemService.RotateMaster                 -  -  E  -  -   - - - -
SystemService.EnrolFirstOperator           -  -  -  -  -   - - - L
"""
ROLES = (Role.ISSUANCE, Role.HELP_DESK, Role.SECURITY_OFFICER, Role.ADMINISTRATOR, Role.AUDITOR)
TABLE = {line.split()[0]: line.split()[1:] for line in EXPECTED.strip().splitlines()}


@dataclass(frozen=True)
class Stage:
    """Two organizations with a group each, someone in the group and someone outside."""

    org: UUID
    group: UUID
    inside: UUID
    outside: UUID


class Remembered(PeopleStandings):
    """Reads each account and person once."""

    def __init__(self) -> None:
        self._accounts: dict[UUID, AccountStanding | None] = {}
        self._persons: dict[UUID, PersonStanding | None] = {}

    async def account(self, unit: Unit, operator: UUID, key: bytes, known_version: int) -> AccountStanding | None:
        if operator not in self._accounts:
            self._accounts[operator] = await super().account(unit, operator, key, known_version)
        return self._accounts[operator]

    async def person(self, unit: Unit, person: UUID) -> PersonStanding | None:
        if person not in self._persons:
            self._persons[person] = await super().person(unit, person)
        return self._persons[person]


async def _stage(database: Database) -> Stage:
    org = uuid4()
    group = (await make_group(database, org, "Group")).id
    inside = await make_person(database, org, "inside", (group,))
    return Stage(org, group, inside.id, (await make_person(database, org, "outside")).id)


async def _ask(database: Database, who: Principal, call: str, target: CallTarget) -> str:
    """ "yes", or the code of the refusal."""
    decide = authorizer()
    try:
        await database.read(lambda unit: decide(unit, who, Call(call), target))
    except AuthorizationError as refused:
        return refused.code
    return "yes"


def test_the_hand_written_table_lists_exactly_the_calls() -> None:
    assert sorted(TABLE) == sorted(RULES)
    assert all(len(cells) == 9 for cells in TABLE.values())


def test_every_call_that_a_service_asks_about_is_listed() -> None:
    """Names that are written out; those that are composed fail when they are first asked about."""
    asked = {
        name
        for path in python_files("server")
        for name in re.findall(r'Call\("([^"]+)"', path.read_text(encoding="utf-8"))
    }
    assert len(asked) > 30
    assert asked - RULES.keys() == set()


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_every_role_and_call_and_scope_and_organization(open_database: Callable[..., Database]) -> None:
    """Every call x five roles x grants for everywhere, a group, a branch x seven targets. Decisions are those of the
    real tables, read once for each account and person, since they do not change meanwhile."""
    database = open_database()
    stage, foreign = await _stage(database), await _stage(database)
    scopes = {
        "everywhere": EVERYWHERE,
        "group": Scope(Reach.GROUP, stage.group),
        "branch": Scope(Reach.BRANCH, branch="ou=none,dc=example"),
    }
    staff = {
        (role, name): await make_operator(database, stage.org, role, scope=scope)
        for role, (name, scope) in product(ROLES, scopes.items())
    }
    decide = Authorizer(Remembered(), AllProofsStand(), NoneRevoked())
    wrong = []
    count = 0
    for (role, scope), who in staff.items():
        targets = {
            "inside": CallTarget(stage.org, stage.inside),
            "outside": CallTarget(stage.org, stage.outside),
            "nobody": CallTarget(stage.org),
            "self": CallTarget(stage.org, who.person),
            "foreign": CallTarget(foreign.org, foreign.inside),
            "smuggled": CallTarget(stage.org, foreign.inside),
            "missing": CallTarget(stage.org, uuid4()),
        }

        for (call, name), answer in (await _decisions(database, decide, who, targets)).items():
            count += 1
            expected = _expected(TABLE[call][ROLES.index(role)], scope, name)
            if answer != expected:
                wrong.append((call, role, scope, name, answer, expected))
    assert wrong == []
    assert count == len(RULES) * 5 * 3 * 7


async def _decisions(
    database: Database, decide: Authorizer, who: Principal, targets: dict[str, CallTarget]
) -> dict[tuple[str, str], str]:
    async def work(unit: Unit) -> dict[tuple[str, str], str]:
        found = {}
        for call, (name, target) in product(RULES, targets.items()):
            try:
                await decide(unit, who, Call(call), target)
                found[call, name] = "yes"
            except AuthorizationError as refused:
                found[call, name] = refused.code
        return found

    return await database.read(work)


def _expected(cell: str, scope: str, target: str) -> str:
    kind, own = cell[0], cell.endswith("!")
    if kind == "-" or target == "foreign":
        return "ACCESS_DENIED"
    everywhere = scope == "everywhere"
    known, missing = everywhere and target not in ("smuggled", "missing"), everywhere and target == "missing"
    covered = {
        "E": everywhere,
        "S": known or (scope == "group" and target == "inside"),
        "h": known or missing or (scope == "group" and target == "inside"),
        "s": known or missing or (scope == "group" and target == "inside") or target == "nobody",
        "*": known or (scope == "group" and target == "inside") or target == "nobody",
    }[kind]
    if not covered:
        return "ACCESS_DENIED"
    return "OWN_TARGET_REFUSED" if own and target == "self" else "yes"


@pytest.mark.parametrize("engine_name", ["sqlite"])
async def test_everyone_who_is_no_operator(database: Database) -> None:
    stage, foreign = await _stage(database), await _stage(database)
    person = await make_person(database, stage.org, "someone")
    strong = await make_proven(database, person, *Method)
    station = Principal(PrincipalKind.WORKSTATION, uuid4(), stage.org, front="daemon")
    callers = {
        "person": (strong, CallTarget(stage.org, person.id)),
        "workstation": (station, CallTarget(stage.org, workstation=station.id)),
        "server": (server(stage.org), CallTarget(stage.org, stage.inside)),
        "anyone": (anyone(stage.org, front="portal"), CallTarget(stage.org)),
    }
    wrong = []
    for call, (index, (who, target)) in product(RULES, enumerate(callers.values(), start=5)):
        expected = "yes" if TABLE[call][index] == "+" else "ACCESS_DENIED"
        if who is station and expected != "yes" and TABLE[call][5] == "+":
            expected = "PROOF_REQUIRED"  # the person at it may, once they proved who they are
        answers = {
            "own": (await _ask(database, who, call, target), expected),
            "foreign": (await _ask(database, who, call, replace(target, org=foreign.org)), "ACCESS_DENIED"),
        }
        if who is strong:
            other = await _ask(database, who, call, CallTarget(stage.org, stage.inside))
            answers["other"] = (other, "ACCESS_DENIED")
        if who is station:
            elsewhere = await _ask(database, who, call, CallTarget(stage.org, workstation=uuid4()))
            answers["elsewhere"] = (elsewhere, "ACCESS_DENIED")
        wrong += [(call, who.kind, name, *pair) for name, pair in answers.items() if pair[0] != pair[1]]
    assert wrong == []
    local = anyone(stage.org, front=LOCAL_FRONT)
    allowed = [call for call in RULES if await _ask(database, local, call, CallTarget(stage.org)) == "yes"]
    assert sorted(allowed) == sorted(call for call, cells in TABLE.items() if cells[8] in "+L")


async def test_an_unlisted_call_fails_for_everyone(database: Database) -> None:
    boss = await make_operator(database, uuid4(), *Role)
    for who in (boss, server(boss.org), anyone(boss.org, front=LOCAL_FRONT)):
        with pytest.raises(UnlistedCall):
            await database.read(
                partial(authorizer(), principal=who, call=Call("DeviceService.Invented"), target=CallTarget(boss.org))
            )


async def test_roles_that_are_taken_away_are_gone_for_the_next_call(database: Database) -> None:
    org = uuid4()
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    stream = await make_operator(database, org, Role.HELP_DESK)
    operators = OperatorService(authorizer())
    call, target = "PersonService.Find", CallTarget(org)
    assert await _ask(database, stream, call, target) == "yes"
    await database.transact(lambda unit: operators.withdraw(unit, officer, stream.id, Grant(Role.HELP_DESK)))
    assert await _ask(database, stream, call, target) == "ACCESS_DENIED"
    await database.transact(lambda unit: operators.grant(unit, officer, stream.id, Grant(Role.AUDITOR)))
    assert await _ask(database, stream, call, target) == "yes"
    assert await _ask(database, stream, "AuditService.Find", target) == "yes"
    await database.transact(lambda unit: operators.remove_key(unit, officer, stream.id, stream.key))
    assert await _ask(database, stream, call, target) == "ACCESS_DENIED"
    await database.transact(lambda unit: operators.put_key(unit, officer, stream.id, stream.key))
    await database.transact(lambda unit: operators.set_active(unit, officer, stream.id, False))
    assert await _ask(database, stream, call, target) == "ACCESS_DENIED"


async def test_a_decision_is_one_statement_while_nothing_changed(database: Database) -> None:
    org = uuid4()
    desk = await make_operator(database, org, Role.HELP_DESK)
    station = Principal(PrincipalKind.WORKSTATION, uuid4(), org)
    person = await make_person(database, org, "someone")
    proven = await make_proven(database, person, Method.CARD)
    for who, target, call, expected in (
        (desk, CallTarget(org), "PersonService.Find", 1),
        (desk, CallTarget(org, person.id), "PersonService.Get", 2),
        (station, CallTarget(org, workstation=station.id), "SessionService.Due", 0),
        (proven, CallTarget(org, person.id), "PersonService.Get", 1),
    ):
        decide = partial(authorizer(), principal=who, call=Call(call), target=target)
        with statements_of(database) as seen:
            await database.read(decide, timed=True)
        assert len([one for one in seen if "FROM" in one]) == expected, seen


async def test_nobody_approves_what_they_asked_for_under_another_account(database: Database) -> None:
    org = uuid4()
    holder = await make_person(database, org, "holder")
    human = await make_person(database, org, "two.accounts")
    first = await make_operator(database, org, Role.ISSUANCE, person=human.id)
    second = await make_operator(database, org, Role.ISSUANCE, person=human.id)
    other = await make_operator(database, org, Role.ISSUANCE)
    target = CallTarget(org, holder.id, requested_by=first.actor)
    assert await _ask(database, second, "RequestService.Approve", target) == NotYourOwn.code
    assert await _ask(database, other, "RequestService.Approve", target) == "yes"
    service = await make_operator(database, org, Role.ISSUANCE, kind=AccountKind.SERVICE)
    made = CallTarget(org, holder.id, requested_by=service.actor)
    assert await _ask(database, service, "RequestService.Approve", made) == NotYourOwn.code


async def test_a_strict_policy_separates_parts_and_wants_a_card(database: Database) -> None:
    org = uuid4()
    holder = await make_person(database, org, "holder")
    clerk = await make_operator(database, org, Role.ISSUANCE)
    soft = await make_operator(database, org, Role.ISSUANCE, hardware=False)
    parts = {Part.REQUEST: frozenset({clerk.actor}), Part.ISSUE: frozenset({uuid4()})}
    loose = CallTarget(org, holder.id, parts=parts)
    strict = replace(loose, strict=True)
    assert await _ask(database, clerk, "SessionService.Run/issue", loose) == "yes"
    assert await _ask(database, clerk, "SessionService.Run/issue", strict) == PartsSeparated.code
    assert await _ask(database, clerk, "RequestService.CreateIssuance", strict) == "yes"
    assert await _ask(database, clerk, "DeviceService.Resume", strict) == "yes"
    assert await _ask(database, soft, "SessionService.Run/issue", strict) == ProofRequired.code
    assert await _ask(database, soft, "SessionService.Run/issue", loose) == "yes"


async def test_proofs_that_are_old_missing_or_of_someone_else(
    open_database: Callable[..., Database], clock: Clock
) -> None:
    database = open_database(clock=clock)
    org = uuid4()
    person = await make_person(database, org, "someone")
    other = await make_person(database, org, "other")
    target, call = CallTarget(org, person.id), "DeviceService.ReportIncident"
    proven = await make_proven(database, person, Method.LDAP_PASSWORD)
    theirs = await make_proven(database, other, Method.LDAP_PASSWORD)
    assert await _ask(database, proven, call, target) == "yes"
    assert await _ask(database, replace(proven, authentication=None), call, target) == ProofRequired.code
    borrowed = replace(proven, authentication=theirs.authentication)
    assert await _ask(database, borrowed, call, target) == AccessDenied.code
    weak = await make_proven(database, person, Method.INITIAL_PASSWORD)
    assert await _ask(database, weak, call, target) == ProofRequired.code
    desk = await make_operator(database, org, Role.HELP_DESK)
    clock.advance(minutes=15)
    assert await _ask(database, proven, call, target) == ProofExpired.code
    assert await _ask(database, desk, call, target) == "yes"
    clock.advance(hours=8)
    assert await _ask(database, desk, call, target) == ProofExpired.code
    clock.advance(hours=-9)
    assert await _ask(database, desk, call, target) == "yes"


async def test_the_refusal_names_the_methods_that_would_do(database: Database) -> None:
    org = uuid4()
    person = await make_person(database, org, "someone")
    weak = await make_proven(database, person, Method.INITIAL_PASSWORD)
    for strict, methods, words in (
        (False, {Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS}, "another proof"),
        (True, set(), "FIPS 201-3 section 2.9.3"),
    ):
        target = CallTarget(org, person.id, strict=strict)
        call = Call("SessionService.Run/unlock")
        with pytest.raises(ProofRequired, match=words) as caught:
            await database.read(partial(authorizer(), principal=weak, call=call, target=target))
        assert set(caught.value.methods) == methods


async def test_an_emergency_password_opens_its_one_request(database: Database) -> None:
    org, request = uuid4(), uuid4()
    person = await make_person(database, org, "someone")
    caller = await make_proven(database, person, Method.EMERGENCY_PASSWORD, request=request)
    target, call = CallTarget(org, person.id, request=request), "SessionService.Run/unlock-assisted"
    assert await _ask(database, caller, call, target) == "yes"
    assert await _ask(database, caller, call, replace(target, request=uuid4())) == ProofRequired.code
    assert await _ask(database, caller, call, replace(target, request=None)) == ProofRequired.code
    assert await _ask(database, caller, "SessionService.Run/unlock", target) == ProofRequired.code


async def test_a_revoked_workstation_takes_its_persons_along(database: Database) -> None:
    org = uuid4()
    person = await make_person(database, org, "someone")
    station = Principal(PrincipalKind.WORKSTATION, uuid4(), org)
    on_it = replace(await make_proven(database, person, Method.CARD), workstation=station.id)
    revoked = NoneRevoked()
    decide = authorizer(revoked)
    asked = (
        (station, Call("SessionService.Due"), CallTarget(org, workstation=station.id)),
        (on_it, Call("PersonService.Get"), CallTarget(org, person.id)),
    )

    async def answers() -> list[Permission | BaseException]:
        return [
            await database.read(partial(decide, principal=who, call=call, target=target)) for who, call, target in asked
        ]

    assert len(await answers()) == 2
    revoked.revoked.add(station.id)
    for who, call, target in asked:
        with pytest.raises(AccessDenied):
            await database.read(partial(decide, principal=who, call=call, target=target))


async def test_a_key_is_one_account_whatever_the_name(database: Database) -> None:
    org = uuid4()
    desk = await make_operator(database, org, Role.HELP_DESK)
    operators = OperatorService(allow)

    async def recognized(spki: bytes) -> Principal | None:
        assert desk.authentication is not None
        ends = desk.authentication.expires_at
        return await database.read(
            partial(operators.recognize, spki=spki, expires_at=ends, front="test", address="192.0.2.1")
        )

    found = await recognized(desk.key)
    assert found is not None
    assert (found.id, found.grants, found.kind) == (desk.id, desk.grants, PrincipalKind.OPERATOR)
    assert await recognized(key_of("nobody's")) is None


# cms-behaviour 2.0: method initials L directory, I initial, A answers, E emergency, C card; then what PIV leaves.
SERVICES = {
    Service.ISSUANCE: ("ILA", ""),
    Service.REPLACEMENT_ISSUANCE: ("ILA", ""),
    Service.UNLOCK_SELF: ("LA", ""),
    Service.UNLOCK_ASSISTED: ("ELA", ""),
    Service.FORGOTTEN_PIN: ("LAI", ""),
    Service.INCIDENT: ("LA", "LA"),
    Service.CANCEL_REPLACEMENT: ("LAC", "LAC"),
    Service.FIRST_ANSWERS: ("ILC", "ILC"),
    Service.CHANGE_ANSWERS: ("C", "C"),
    Service.CHANGE_PIN: ("C", "C"),
    Service.UPDATE: ("C", "C"),
    Service.REISSUE: ("C", "C"),
    Service.ESCROW_DOWNLOAD: ("C", "C"),
    Service.MOBILE: ("C", "C"),
    Service.OVERVIEW: ("CLAI", "CLAI"),
}
INITIALS = {
    "L": Method.LDAP_PASSWORD,
    "I": Method.INITIAL_PASSWORD,
    "A": Method.SECURITY_ANSWERS,
    "E": Method.EMERGENCY_PASSWORD,
    "C": Method.CARD,
    "K": Method.CLIENT_KEY,
}


def test_every_service_by_every_method() -> None:
    assert SERVICES.keys() == set(Service)
    for service, cells in SERVICES.items():
        for piv, letters in enumerate(cells):
            found = {one for one, method in INITIALS.items() if accepts(service, {method}, piv=bool(piv))}
            assert found == set(letters), (service, piv)
            assert not accepts(service, set(), piv=bool(piv))
        assert bool(refusal(service, piv=True)) == (cells[1] == "")
        assert refusal(service) == ""
    assert all(restriction.reason.startswith("FIPS 201-3") for restriction in PIV.values())
