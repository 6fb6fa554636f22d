"""Sessions on PKCS#11 tokens: keys, certificates and PINs of a SoftHSM2 token; pkcs11-tool and openssl judge."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.store.unit import Database
from tests.support.issuance import openssl, pem
from tests.support.token_sessions import PIN, SoftToken, TokenStation, bound, issue, token_world, update

pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"])


@pytest.fixture
def soft(tmp_path: Path) -> Iterator[SoftToken]:
    made = SoftToken(tmp_path / "soft")
    yield made
    made.close()


async def test_a_token_is_issued(database: Database, soft: SoftToken, tmp_path: Path) -> None:
    world = await token_world(database, tmp_path)
    device = await bound(world, soft)
    trip = await issue(world, soft, device)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    ids = ("9a", "9c", "9d", "9e")
    assert soft.holds() == sorted((kind, one) for kind in ("Private Key", "Public Key", "Certificate") for one in ids)
    world.issuing.core.close()
