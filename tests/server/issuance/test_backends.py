"""An authority elsewhere that answers late: pending, collected, and judged before it is believed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_server.audit.model import SERVER
from cardwright_server.issuance.authorities import add_foreign
from cardwright_server.issuance.model import CertificateState, Issued, Pending, Purpose, Refused
from cardwright_server.store.unit import Database
from tests.support.foreign_authority import Slow
from tests.support.issuance import ON_SQLITE, World, make_world, new_key


@pytest.fixture
def slow() -> Slow:
    return Slow()


@pytest.fixture
async def far(database: Database, tmp_path: Path, slow: Slow) -> AsyncIterator[World]:
    routes = {"smartcard-logon": "elsewhere"}
    world = await make_world(database, tmp_path, backends=(slow,), routes=routes)
    await world.do(lambda unit: add_foreign(unit, world.org, "elsewhere", Purpose.CARDS, slow.certificate()))
    yield world
    world.core.close()


async def test_a_late_answer_is_collected_later(far: World, slow: Slow) -> None:
    request = far.request(new_key(), "smartcard-logon")
    assert isinstance(await far.service.certify(far.database, SERVER, request), Pending)
    assert isinstance(await far.service.certify(far.database, SERVER, request), Pending)
    assert (slow.submitted, slow.collected) == (1, 1)
    slow.ready = True
    [answer] = await far.service.collect(far.database, SERVER)
    assert isinstance(answer, Issued)
    assert answer.certificate.state is CertificateState.HELD and answer.certificate.holds == {"unreleased"}
    assert await far.service.collect(far.database, SERVER) == []
    again = await far.service.certify(far.database, SERVER, request)
    assert isinstance(again, Issued) and again.certificate.certificate == answer.certificate.certificate
    # Its own lists are its affair, ours do not name it.
    assert "elsewhere" not in await far.publisher.publish_due(far.database)


@ON_SQLITE
async def test_other_profiles_stay_at_home(far: World, slow: Slow) -> None:
    issued = await far.issue(far.request(new_key()))
    assert issued.authority == far.authorities[Purpose.CARDS].id and slow.submitted == 0


@ON_SQLITE
async def test_an_answer_for_another_key_is_refused(far: World, slow: Slow) -> None:
    slow.ready = slow.wrong_key = True
    answer = await far.service.certify(far.database, SERVER, far.request(new_key(), "smartcard-logon"))
    assert isinstance(answer, Refused) and answer.reason == "key"


@ON_SQLITE
async def test_an_answer_by_another_issuer_is_refused(far: World, slow: Slow) -> None:
    slow.ready, slow.key = True, ec.generate_private_key(ec.SECP256R1())
    answer = await far.service.certify(far.database, SERVER, far.request(new_key(), "smartcard-logon"))
    assert isinstance(answer, Refused) and answer.reason == "issuer"


async def test_a_refusal_is_final(far: World, slow: Slow) -> None:
    request = far.request(new_key(), "smartcard-logon")
    await far.service.certify(far.database, SERVER, request)
    slow.declines = True
    [answer] = await far.service.collect(far.database, SERVER)
    assert isinstance(answer, Refused) and answer.reason == "not-today"
    slow.ready, slow.declines = True, False
    assert isinstance(await far.service.certify(far.database, SERVER, request), Refused)
