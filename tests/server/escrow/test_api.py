"""The escrow over gRPC: what is said, what is refused, and with which status."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from cardwright_proto.cms.v1 import escrow_pb2 as pb
from cardwright_server.api.escrow import EscrowServicer
from cardwright_server.authentication.matrix import RULES
from cardwright_server.authentication.model import Method
from cardwright_server.people.model import Role
from cardwright_server.store.unit import Database
from tests.support.api import Api, procedures, serving
from tests.support.escrow import Counter, make_counter, make_keep, spki
from tests.support.people import make_operator

ONE = pytest.mark.parametrize("engine_name", ["sqlite"])


@pytest.fixture
async def counter(open_database: Callable[..., Database], tmp_path: Path) -> Counter:
    return await make_counter(make_keep(open_database(), tmp_path))


@pytest.fixture
async def api(counter: Counter) -> AsyncIterator[Api]:
    async with serving(counter.keep.database, lambda calls: [EscrowServicer(calls, counter.service())]) as served:
        yield served


def test_every_call_of_the_matrix_has_a_procedure() -> None:
    ours = {name for name in RULES if name.startswith("EscrowService.")}
    assert ours == {name for name in procedures() if name.startswith("EscrowService.")}


def test_secrets_are_marked_as_such() -> None:
    for message, name in (
        (pb.OfferPfxResponse, "password"),
        (pb.ClaimPfxRequest, "password"),
        (pb.ClaimPfxResponse, "file"),
    ):
        assert message.DESCRIPTOR.fields_by_name[name].GetOptions().debug_redact


@ONE
async def test_an_owner_lists_asks_and_claims(api: Api, counter: Counter) -> None:
    task = counter.keep.task()
    former, key = await counter.keep.new(task), await counter.keep.new(task)
    bare = await counter.keep.new(certified=False)
    owner = await counter.proven()
    first = await api.call("EscrowService.Find", pb.FindEscrowedKeysRequest(page_size=2), owner)
    again = pb.FindEscrowedKeysRequest(page_size=2, page_token=first.next_page_token)
    rest = await api.call("EscrowService.Find", again, owner)
    listed = [*first.keys, *rest.keys]
    assert [one.id for one in listed] == [str(one.id) for one in (former, key, bare)] and not rest.next_page_token
    assert [one.current for one in listed] == [False, True, False]
    assert [one.HasField("superseded_at") for one in listed] == [True, False, False]
    shown = listed[1]
    assert (shown.person, shown.device) == (str(counter.holder.id), str(task.device))
    assert (shown.slot, shown.algorithm, shown.fingerprint) == ("9D", "p256", key.fingerprint)
    assert (shown.certificate, shown.state) == (key.certificate, pb.ESCROWED_KEY_STATE_DELIVERED)
    assert shown.created_at.ToDatetime(tzinfo=UTC) == key.created_at
    offered = await api.call("EscrowService.OfferPfx", pb.OfferPfxRequest(key=shown.id), owner)
    assert len(offered.password) >= 20
    assert 0 < (offered.expires_at.ToDatetime(tzinfo=UTC) - datetime.now(UTC)).total_seconds() <= 300
    claim = pb.ClaimPfxRequest(offer=offered.offer, password=offered.password)
    file = (await api.call("EscrowService.ClaimPfx", claim, owner)).file
    inside = load_pkcs12(file, offered.password.encode())
    assert inside.key is not None and inside.cert is not None
    assert spki(inside.key) == key.public_key  # type: ignore[arg-type]
    assert await api.refused("EscrowService.ClaimPfx", claim, owner) == ("FAILED_PRECONDITION", "PFX_OFFER_CLAIMED")


@ONE
async def test_an_officer_approves(api: Api, counter: Counter) -> None:
    officer = await make_operator(counter.keep.database, counter.keep.org, Role.SECURITY_OFFICER)
    asked = pb.RecoverRequest(request=str(uuid4()))
    assert await api.refused("EscrowService.Recover", asked, officer) == ("NOT_FOUND", "NO_SUCH_REQUEST")


@ONE
async def test_statuses_of_refusals(api: Api, counter: Counter) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    weak = await counter.proven(None, Method.LDAP_PASSWORD)
    auditor = await make_operator(counter.keep.database, counter.keep.org, Role.AUDITOR)
    helper = await make_operator(counter.keep.database, counter.keep.org, Role.HELP_DESK)
    offer = pb.OfferPfxRequest(key=str(key.id))
    nobody = "UNAUTHENTICATED", "PROOF_REQUIRED"
    denied = "PERMISSION_DENIED", "ACCESS_DENIED"
    malformed = "INVALID_ARGUMENT", "REQUEST_MALFORMED"
    for name, request, who, refusal in (
        ("OfferPfx", offer, None, nobody),
        ("OfferPfx", offer, weak, nobody),
        ("OfferPfx", offer, auditor, denied),
        ("OfferPfx", pb.OfferPfxRequest(key=str(uuid4())), owner, denied),
        ("OfferPfx", pb.OfferPfxRequest(key=str(key.id).upper()), owner, malformed),
        ("OfferPfx", pb.OfferPfxRequest(), owner, malformed),
        ("Find", pb.FindEscrowedKeysRequest(), helper, denied),
        ("Find", pb.FindEscrowedKeysRequest(person="x"), auditor, malformed),
        ("Find", pb.FindEscrowedKeysRequest(page_size=201), auditor, malformed),
        ("Find", pb.FindEscrowedKeysRequest(page_token="x"), auditor, malformed),
        ("Recover", pb.RecoverRequest(request="1"), auditor, malformed),
        ("Recover", pb.RecoverRequest(request=str(uuid4()), keys=[str(key.id)] * 2), auditor, malformed),
        ("ClaimPfx", pb.ClaimPfxRequest(offer=str(uuid4()), password="x" * 101), owner, malformed),
        ("ClaimPfx", pb.ClaimPfxRequest(offer="x"), owner, malformed),
    ):
        assert await api.refused(f"EscrowService.{name}", request, who) == refusal, (name, request)
    unknown = pb.ClaimPfxRequest(offer=str(uuid4()), password="x")
    assert await api.refused("EscrowService.ClaimPfx", unknown, owner) == denied
    made = await api.call("EscrowService.OfferPfx", offer, owner)
    wrong = pb.ClaimPfxRequest(offer=made.offer, password="x")
    refused = await api.refused("EscrowService.ClaimPfx", wrong, owner)
    assert refused == ("FAILED_PRECONDITION", "PFX_OFFER_REFUSED")


@ONE
async def test_a_full_page_says_that_more_follows(api: Api, counter: Counter) -> None:
    keys = [await counter.keep.new(certified=False) for _ in range(3)]
    auditor = await make_operator(counter.keep.database, counter.keep.org, Role.AUDITOR)
    seen, token = [], ""
    for _ in keys:
        asked = pb.FindEscrowedKeysRequest(page_size=1, page_token=token, person=str(counter.holder.id))
        page = await api.call("EscrowService.Find", asked, auditor)
        seen += [one.id for one in page.keys]
        token = page.next_page_token
    assert seen == [str(one.id) for one in keys] and token == ""
