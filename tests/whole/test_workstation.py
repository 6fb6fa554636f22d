"""A workstation and a server that are strangers at first: enrolment, issuance from the alert, what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from cardwright_daemon.link import credentials
from cardwright_daemon.link.credentials import Credentials, NotEnrolled
from cardwright_daemon.link.enrolment import (
    AddressMalformed,
    NotThatServer,
    Token,
    TokenMalformed,
    enrol,
)
from cardwright_daemon.link.ports import LinkState, ServerUnreachable
from cardwright_daemon.link.server import GrpcLink
from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import workstations_pb2, workstations_pb2_grpc
from cardwright_simulators.card import VirtualCard
from tests.support.daemons import Person, Run, failing, running
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.slapd import free_port
from tests.support.virtual import POOL

PIN = b"739146"


def token_of(here: Site, host: str) -> str:
    """A token for a new workstation."""
    made = here.process.call(
        here.administrator,
        lambda line: workstations_pb2_grpc.WorkstationServiceStub(line).CreateToken,
        workstations_pb2.CreateTokenRequest(host=host, station_class=workstations_pb2.STATION_CLASS_USER),
    )
    return str(made.token)


async def enrolled(here: Site, folder: Path) -> Credentials:
    """This machine, enrolled under another name."""
    host = f"desk-{uuid4().hex[:12]}"
    text = await asyncio.to_thread(token_of, here, host)
    return await enrol(folder, here.process.addresses["entry"], Token.parse(text), host)


def link_of(here: Site, folder: Path) -> GrpcLink:
    """The way to the server, with short pauses."""
    return GrpcLink(here.process.addresses["calls"], folder, check_seconds=30.0, jitter=lambda most: 0.05)


@asynccontextmanager
async def at_work(here: Site, folder: Path, *cards: VirtualCard, person: Person | None = None) -> AsyncIterator[Run]:
    """A daemon that knows the server, with cards in its readers."""
    await enrolled(here, folder)
    async with running(*cards, person=person, link=link_of(here, folder)) as run:
        yield run


async def done(run: Run, operation: pb.Operation) -> pb.Operation:
    """The operation at its end."""
    answer = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation.id))
    return answer.operation  # type: ignore[no-any-return]


async def test_a_card_is_issued_at_a_workstation_that_was_enrolled_by_a_token(here: Site, tmp_path: Path) -> None:
    desk = await asyncio.to_thread(Desk, here)
    login, serial = f"p{uuid4().hex[:8]}", str(uuid4().int % 10**8)
    person = await asyncio.to_thread(desk.person, login)
    device, request = await asyncio.to_thread(desk.issuance, person, serial)
    given = await asyncio.to_thread(
        desk.ask, desk.issuer, "AuthenticationService", "SetInitialPassword",
        proofs.SetInitialPasswordRequest(person=person),
    )  # fmt: skip
    card = VirtualCard("yubikey-5.7", serial=int(serial), key_pool=POOL)
    somebody = Person(given.password.encode(), PIN, PIN)
    async with at_work(here, tmp_path / "station", card, person=somebody) as run:
        shown_card = await run.client.card()
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=shown_card.id))).due
        assert due.items, "a blank card that is bound to somebody has an issuance due"
        asked = pb.PreviewUpdateRequest(card=shown_card.id, purpose=pb.PURPOSE_ISSUE, request=request)
        refused = await failing(run.client.updates.PreviewUpdate(asked))
        assert refused.code == "PROOF_REQUIRED"

        methods = (
            await run.client.updates.ListMethods(pb.ListMethodsRequest(card=shown_card.id, purpose=pb.PURPOSE_ISSUE))
        ).methods
        assert pb.METHOD_KIND_INITIAL_PASSWORD in [one.kind for one in methods]
        await run.client.updates.Prove(
            pb.ProveRequest(
                card=shown_card.id, purpose=pb.PURPOSE_ISSUE, method=pb.METHOD_KIND_INITIAL_PASSWORD, account=login
            )
        )
        preview = await run.client.updates.PreviewUpdate(asked)
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=shown_card.id, digest=preview.digest))
        operation = await done(run, begun.operation)
        assert operation.phase == pb.OPERATION_PHASE_DONE, operation.error
        assert operation.outcome == pb.OUTCOME_DONE
        listed = (await run.client.cards.ListCards(pb.ListCardsRequest())).cards
        assert listed[0].identity.guid
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=shown_card.id, refresh=True))).due
        assert not due.items
    found = await asyncio.to_thread(desk.ask, desk.issuer, "DeviceService", "Get", devices.GetDeviceRequest(id=device))
    assert found.device.state == devices.DEVICE_STATE_ISSUED


async def test_token_is_good_for_one_key_and_answers_it_again(here: Site, tmp_path: Path) -> None:
    host, entry = f"desk-{uuid4().hex[:12]}", here.process.addresses["entry"]
    token = Token.parse(await asyncio.to_thread(token_of, here, host))
    key = credentials.pending_key(tmp_path / "a")
    first = await enrol(tmp_path / "a", entry, token, host)
    assert first.certificate.public_key() == key.public_key()
    assert not (tmp_path / "a" / credentials.PENDING).exists()
    assert (tmp_path / "a" / credentials.FILE).stat().st_mode & 0o777 == 0o600
    # The answer was lost: the key is there still, and the same token works for it, and for no other.
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / credentials.PENDING).write_bytes(first.key)
    again = await enrol(tmp_path / "b", entry, token, host)
    assert again.certificate == first.certificate
    with pytest.raises(Exception, match="used") as refused:
        await enrol(tmp_path / "c", entry, token, host)
    assert getattr(refused.value, "code", "") == "TOKEN_USED"


async def test_server_with_another_root_gets_no_token(here: Site, tmp_path: Path) -> None:
    text = await asyncio.to_thread(token_of, here, "desk-x")
    other = text[:-64] + "00" * 32
    with pytest.raises(NotThatServer):
        await enrol(tmp_path, here.process.addresses["entry"], Token.parse(other), "desk-x")
    assert not (tmp_path / credentials.FILE).exists()
    with pytest.raises(ServerUnreachable):
        await enrol(tmp_path, f"127.0.0.1:{free_port()}", Token.parse(text), "desk-x")


@pytest.mark.parametrize("text", ["", "cw1.x", "cw2." + "0" * 32 + "." + "0" * 32 + "." + "0" * 64, "c" * 1000])
def test_what_is_no_token_is_refused_here(text: str) -> None:
    with pytest.raises(TokenMalformed):
        Token.parse(text)


@pytest.mark.parametrize("address", ["", "host", "host:0", "host:65536", "http://host:1", "a b:1", "[::1", "::1:80"])
async def test_what_is_no_address_is_refused_here(address: str, tmp_path: Path) -> None:
    token = Token("cw1", bytes(32))
    with pytest.raises(AddressMalformed):
        await enrol(tmp_path, address, token)


def test_folder_without_credentials_says_so(tmp_path: Path) -> None:
    with pytest.raises(NotEnrolled):
        credentials.load(tmp_path)
    path = tmp_path / credentials.FILE
    path.write_text("nonsense")
    path.chmod(0o600)
    with pytest.raises(NotEnrolled):
        credentials.load(tmp_path)
    path.chmod(0o644)
    with pytest.raises(NotEnrolled, match="others"):
        credentials.load(tmp_path)


async def until(link: GrpcLink, state: LinkState) -> None:
    """Wait for the state."""
    async with asyncio.timeout(30):
        while link.state is not state:
            await asyncio.sleep(0.01)


async def test_link_says_how_it_is(here: Site, tmp_path: Path) -> None:
    nobody = link_of(here, tmp_path / "nobody")
    await nobody.start(lambda push: None)
    await until(nobody, LinkState.REFUSED)
    assert nobody.error is not None and nobody.error.code == "NOT_ENROLLED"
    # Enrolled while it runs: the next attempt finds the certificate.
    await enrolled(here, tmp_path / "nobody")
    await until(nobody, LinkState.CONNECTED)
    await nobody.stop()


async def test_certificate_is_renewed_under_way(here: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await enrolled(here, tmp_path)
    monkeypatch.setattr(Credentials, "renew_at", property(lambda self: before.certificate.not_valid_before_utc))
    link = link_of(here, tmp_path)
    await link.start(lambda push: None)
    async with asyncio.timeout(30):
        while (said := link.error) is None:
            await asyncio.sleep(0.01)
    # The server decides when: what it says of a renewal that is too early reaches us, and the old one stays good.
    assert said.code == "RENEWAL_TOO_EARLY"
    assert credentials.load(tmp_path).certificate == before.certificate
    await link.stop()
