"""Calls from outside are authorized first; jobs run."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest

from cardwright_server.authentication.authorize import Permission
from cardwright_server.authentication.errors import AuthorizationError
from cardwright_server.authentication.principal import anyone, server
from cardwright_server.issuance.errors import NoSuchCertificate
from cardwright_server.issuance.jobs import jobs
from cardwright_server.issuance.model import CertificateState, RevocationReason
from cardwright_server.issuance.status import CertificateService
from cardwright_server.store.unit import Unit
from tests.support.issuance import ON_SQLITE, World, new_key
from tests.support.people import allow, authorizer


async def everyone(unit: Unit, permission: Permission) -> Any:
    return None


@ON_SQLITE
async def test_nobody_without_proof_reads_or_revokes(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    service = CertificateService(authorizer(), everyone)
    stranger = anyone(world.org, front="portal")
    reason = RevocationReason.KEY_COMPROMISE
    for call in (
        lambda unit: service.get(unit, stranger, issued.id),
        lambda unit: service.find(unit, stranger),
        lambda unit: service.authorities(unit, stranger),
        lambda unit: service.revoke(unit, stranger, issued.id, reason),
    ):
        with pytest.raises(AuthorizationError):
            await world.do(call)


async def test_another_organization_sees_nothing(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    service = CertificateService(allow, everyone)
    other = server(uuid4())
    with pytest.raises(NoSuchCertificate):
        await world.do(lambda unit: service.get(unit, other, issued.id))
    with pytest.raises(NoSuchCertificate):
        await world.do(
            lambda unit: service.revoke(unit, other, issued.id, RevocationReason.UNSPECIFIED)
        )
    assert await world.do(lambda unit: service.find(unit, other)) == []
    assert await world.do(lambda unit: service.authorities(unit, other)) == []


async def test_find_revoke_and_authorities(world: World) -> None:
    issued = await world.issue(world.request(new_key()))
    service = CertificateService(allow, everyone)
    us = server(world.org)
    found = await world.do(lambda unit: service.find(unit, us, serial=issued.serial.upper()))
    assert [one.id for one in found] == [issued.id]
    first = await world.do(lambda unit: service.find(unit, us, limit=3))
    rest = await world.do(lambda unit: service.find(unit, us, after=first[-1].id))
    assert len(first) == 3 and not {one.id for one in first} & {one.id for one in rest}
    gone = await world.do(
        lambda unit: service.revoke(unit, us, issued.id, RevocationReason.SUPERSEDED)
    )
    assert gone.state is CertificateState.REVOKED
    again = await world.do(
        lambda unit: service.revoke(unit, us, issued.id, RevocationReason.KEY_COMPROMISE)
    )
    assert again.reason is RevocationReason.SUPERSEDED
    assert len(await world.do(lambda unit: service.authorities(unit, us))) == 4


@ON_SQLITE
async def test_every_job_runs(world: World) -> None:
    made = jobs(world.database, world.service, world.own, world.publisher)
    assert [one.name for one in made] == ["publish-crl", "repair-certificates", "renew-own-certificates"]
    for one in made:
        await one.work()
