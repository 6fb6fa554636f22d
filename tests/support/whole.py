"""The whole server behind its API, with two organizations, and something of every kind in each scope.

``Whole.ids`` names, for each kind of thing that a request can name by a UUID, the one in the caller's scope, the one
in another scope of the same organization, and the one in another organization.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_server import servicers
from cardwright_server.app import Domains, wire
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.authorize import Authorize
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal, PrincipalKind, anyone
from cardwright_server.config import Installation, load
from cardwright_server.devices.model import Derivation, Lot, Reason, SecretSource
from cardwright_server.issuance.authorities import Plan, establish
from cardwright_server.issuance.model import Holder, HolderKind
from cardwright_server.people.model import Reach, Role, Scope
from cardwright_server.policies.document import shipped
from cardwright_server.policies.model import DeviceKind
from cardwright_server.store.devices_tables import device
from cardwright_server.store.unit import Database, Unit
from cardwright_server.system import SystemService, Watched
from cardwright_server.workstations.model import StationClass, StationState
from cardwright_server.workstations.store import insert_workstation
from tests.support import issuance, lifecycles
from tests.support.api import Api, serving_what
from tests.support.escrow import Keep
from tests.support.lifecycles import World, allow_every_part
from tests.support.people import make_group, make_operator, make_proven

Ids = dict[str, UUID]


@dataclass(frozen=True)
class Whole:
    """``callers`` are of the home organization: ``everywhere`` and ``scoped`` hold every role, ``holder`` is the person
    whose things are in scope."""

    api: Api
    domains: Domains
    home: World
    callers: dict[str, Principal]
    mine: Ids
    beside: Ids
    foreign: Ids


@asynccontextmanager
async def whole(database: Database, folder: Path, authorize: Authorize | None = None) -> AsyncIterator[Whole]:
    """Everything as ``app.wire`` wires it. ``authorize`` takes the place of the real decision."""
    ca = await issuance.make_world(database, folder)
    home = await lifecycles.make_world(database, org=ca.org)
    away = await lifecycles.make_world(database)
    plan = Plan(x509.Name.from_rfc4514_string("O=Elsewhere"), issuance.NAMES, generation=2)
    await establish(database, ca.vault, ca.admin, ca.own, SERVER, away.org, plan)
    installation = load(folder / "data")
    domains = wire(installation, database, ca.vault, ca.org, authorize=authorize)
    free = wire(installation, database, ca.vault, ca.org, authorize=allow_every_part)
    try:
        await domains.watch.refresh()
        mine, holder = await _things(database, free, home, ca)
        beside, _ = await _things(database, free, await _second_group(home), ca)
        foreign, _ = await _things(database, free, away, ca)
        roles = tuple(Role)
        callers = {
            "everywhere": await make_operator(database, ca.org, *roles),
            "scoped": await make_operator(database, ca.org, *roles, scope=Scope(Reach.GROUP, home.group)),
            "holder": await make_proven(database, holder, *Method),
            "workstation": Principal(
                PrincipalKind.WORKSTATION, mine["workstation"], ca.org, front="test", workstation=mine["workstation"]
            ),
            "anyone": anyone(ca.org, front="test"),
        }
        callers["holder"] = await _stored(database, domains, callers["holder"])
        system = system_of(domains, installation)
        async with serving_what(
            database, lambda server, calls: servicers.register(server, calls, domains, system, lambda: (0, 0))
        ) as api:
            yield Whole(api, domains, home, callers, mine, beside, foreign)
    finally:
        domains.close()
        free.close()
        ca.core.close()


async def _second_group(home: World) -> World:
    """The same organization, with another group that the policy applies to."""
    group = await make_group(home.database, home.org, "others")
    author = await make_operator(home.database, home.org, Role.ADMINISTRATOR)
    await home.database.transact(lambda unit: home.services.policies.assign(unit, author, "civ", group.id))
    return replace(home, group=group.id)


async def _things(database: Database, free: Domains, world: World, ca: issuance.World) -> tuple[Ids, Any]:
    """One thing of every kind that belongs to a person of a world's group, and the person."""
    org, by = world.org, await make_operator(database, world.org, *Role)
    person = await world.person()
    issued, guid = await world.issued(person), uuid4()
    await database.transact(lambda unit: unit.update(device, issued.id, issued.version, {"guid": guid}))
    bound = await world.bound(person)
    pending = await database.transact(lambda unit: world.services.requests.create_issuance(unit, world.issuer, bound))
    unlock = await database.transact(lambda unit: world.services.requests.create_unlock(unit, world.helper, issued.id))
    recovery = await database.transact(
        lambda unit: world.services.requests.create_recovery(unit, world.issuer, issued.id)
    )
    termination = await database.transact(
        lambda unit: world.services.requests.create_termination(unit, world.helper, issued.id, Reason.NOT_NEEDED)
    )
    draft = await database.transact(lambda unit: free.policies.draft(unit, by, shipped("developer")))
    operator = await make_operator(database, org, Role.AUDITOR, person=person.id)
    lot = Lot(uuid4(), org, f"lot {uuid4()}", DeviceKind.SMART_CARD, SecretSource.FACTORY, Derivation.NONE)
    await database.transact(lambda unit: free.stock.register_lot(unit, by, lot))
    station = await database.transact(
        lambda unit: insert_workstation(unit, org, "host.example.org", StationClass.MANAGED, StationState.ACTIVE)
    )
    certificate = await ca.issue(
        ca.request(
            ec.generate_private_key(ec.SECP256R1()),
            org=org,
            holder=Holder(HolderKind.DEVICE_SLOT, issued.id, "9a", person.id),
        )
    )
    keep = Keep(database, ca.vault, org, person.id)
    key = await keep.new()
    owner = await _stored(database, free, await make_proven(database, person, Method.CARD))
    offered = await free.escrow.offer_pfx(owner, key.id)
    questions = await database.transact(
        lambda unit: free.enrolment.set_questions(unit, by, ["Name of your first school?"])
    )
    return {
        "person": person.id,
        "group": world.group,
        "device": issued.id,
        "guid": guid,
        "request": pending.request.id,
        "unlock": unlock.request.id,
        "recovery": recovery.request.id,
        "termination": termination.request.id,
        "policy": draft.id,
        "operator": operator.id,
        "lot": lot.id,
        "workstation": station,
        "certificate": certificate.id,
        "key": key.id,
        "offer": offered.offer,
        "question": questions[0].id,
    }, person


async def _stored(database: Database, domains: Domains, principal: Principal) -> Principal:
    """The person with a proof that is in the table."""
    assert principal.person is not None and principal.authentication is not None
    person, methods = principal.person, principal.authentication.methods

    async def work(unit: Unit) -> Principal:
        proof = await domains.authentication.put_proof(unit, principal, person, methods)
        return replace(principal, authentication=proof)

    return await database.transact(work)


def system_of(domains: Domains, installation: Installation) -> SystemService:
    """Its own service, without timers to tell of."""
    quiet: Any = SimpleNamespace(states={}, failures=0, error=None)
    watched = Watched(domains.database, domains.vault, quiet, quiet, quiet, None, (), datetime.now(UTC))
    operators = domains.operator_certificates
    return SystemService(domains.authorize, domains.first, operators, watched, installation, domains.masters)
