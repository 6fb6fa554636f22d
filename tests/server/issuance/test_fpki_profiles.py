"""What we issue keeps the Federal PKI's profiles, as far as our reading of their facts goes."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cardwright_server.issuance import store
from cardwright_server.issuance.model import HolderKind, Purpose
from cardwright_server.issuance.origin import MadeHere
from cardwright_server.store.unit import Database
from tests.support.fpki_reading import findings
from tests.support.issuance import ON_SQLITE, make_world, new_key


@pytest.fixture(scope="session")
def facts(shared_data: Path) -> dict[str, Any]:
    path = shared_data / "fpki-profiles.json"
    if not path.is_file():
        pytest.skip("the profile facts are not here")
    found: dict[str, Any] = json.loads(path.read_text())["profiles"]
    return found


@ON_SQLITE
@pytest.mark.parametrize("kind", ["rsa2048", "p256"])
async def test_certificates_keep_their_profiles(
    open_database: Any, tmp_path: Path, facts: dict[str, Any], kind: str
) -> None:
    database: Database = open_database()
    world = await make_world(database, tmp_path)
    for profile, section in (
        ("piv-authentication", "ssp-06-piv-auth"),
        ("card-authentication", "ssp-07-piv-card-auth"),
        ("signature", "ssp-08-ee-signature"),
        ("key-management", "ssp-09-key-management"),
        ("derived-authentication", "ssp-10-derived-piv-auth"),
    ):
        request = world.request(new_key(kind), profile)
        if profile == "key-management":
            request = replace(request, evidence=MadeHere(), proof=b"")
            facts[section]["key_usage"] = _for_kind(facts[section]["key_usage"], kind)
        issued = await world.issue(request)
        assert findings(issued.x509, facts[section]) == [], profile
    cards = world.authorities[Purpose.CARDS]
    for holder, section in (
        (HolderKind.CONTENT_SIGNER, "ssp-05-piv-content-signing"),
        (HolderKind.OCSP_RESPONDER, "ssp-13-delegated-ocsp"),
        (HolderKind.AUTHORITY, "ssp-04-intermediate-ca"),
    ):
        read = partial(store.certificates_of_holder, org=world.org, kind=holder, holder=cards.id)
        [own] = await database.read(read)
        assert findings(own.x509, facts[section]) == [], section
    world.core.close()


@ON_SQLITE
async def test_the_reading_notices_what_is_wrong(open_database: Any, tmp_path: Path, facts: dict[str, Any]) -> None:
    world = await make_world(open_database(), tmp_path)
    civ = (await world.issue(world.request(new_key(), strict=False))).x509
    found = findings(civ, facts["ssp-06-piv-auth"])
    assert {"cert_policies: not all", "san: lacks other_name_piv_fasc_n"} <= set(found)
    card = findings((await world.issue(world.request(new_key()))).x509, facts["ssp-07-piv-card-auth"])
    assert any(one.startswith("eku: lacks oid 2.16.840.1.101.3.6.8") for one in card)
    assert any(one.startswith("eku: has oid 1.3.6.1.5.5.7.3.2") for one in card)
    world.core.close()


def _for_kind(usage: dict[str, Any], kind: str) -> dict[str, Any]:
    """RSA keys encipher, EC keys agree; the facts say so of both at once."""
    mine, other = "key_encipherment", "key_agreement"
    if not kind.startswith("rsa"):
        mine, other = other, mine
    return {
        "required": ["present", "is_critical", mine],
        "forbidden": [*(one for one in usage.get("forbidden", []) if one != mine), other],
    }
