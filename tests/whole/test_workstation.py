"""A workstation and a server that are strangers at first: enrolment, issuance from the alert, what comes after."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from cardwright_cardops.plan.token_state import name_of
from cardwright_cardops.rpc_status import RemoteError
from cardwright_daemon.config import Pkcs11Module
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
from tests.support.softhsm import SOFTHSM
from tests.support.token_sessions import SO_PIN, SoftToken
from tests.support.virtual import POOL
from tests.support.whole_place import token_for

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
async def at_work(
    here: Site, folder: Path, *cards: VirtualCard, person: Person | None = None, pkcs11: tuple[Pkcs11Module, ...] = ()
) -> AsyncIterator[Run]:
    """A daemon that knows the server, with cards in its readers and modules in its configuration."""
    await enrolled(here, folder)
    async with running(*cards, person=person, link=link_of(here, folder), pkcs11=pkcs11) as run:
        yield run


async def done(run: Run, operation: pb.Operation) -> pb.Operation:
    """The operation at its end."""
    answer = await run.client.operations.WaitOperation(pb.WaitOperationRequest(operation=operation.id))
    return answer.operation  # type: ignore[no-any-return]


async def test_a_card_is_issued_at_a_workstation_that_was_enrolled_by_a_token(
    here: Site, desk: Desk, tmp_path: Path
) -> None:
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
    with pytest.raises(RemoteError, match="used") as refused:
        await enrol(tmp_path / "c", entry, token, host)
    assert refused.value.code == "TOKEN_USED"


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


async def test_a_pkcs11_token_is_issued_at_a_workstation(here: Site, desk: Desk, tmp_path: Path) -> None:
    """Server, vault and database are processes of their own; the token is SoftHSM2's, and pkcs11-tool judges it."""
    with SoftToken(tmp_path / "soft", label=f"Ada {uuid4().hex[:8]}") as soft:
        login, number = f"p{uuid4().hex[:8]}", name_of(soft.token.info).number
    person = await asyncio.to_thread(desk.person, login)
    await asyncio.to_thread(token_for, desk, person, number)
    given = await asyncio.to_thread(
        desk.ask, desk.issuer, "AuthenticationService", "SetInitialPassword",
        proofs.SetInitialPasswordRequest(person=person),
    )  # fmt: skip
    somebody = Person(given.password.encode(), PIN, PIN)
    module = Pkcs11Module(str(SOFTHSM), soft.environment, look_seconds=0)
    async with at_work(here, tmp_path / "station", person=somebody, pkcs11=(module,)) as run:
        (card,) = (await run.client.cards.ListCards(pb.ListCardsRequest(tokens=True))).cards
        assert (card.kind, card.identity.serial) == (pb.CARD_KIND_PKCS11, number)
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=card.id))).due
        assert due.items and due.purpose == pb.PURPOSE_ISSUE
        await run.client.updates.Prove(
            pb.ProveRequest(
                card=card.id, purpose=pb.PURPOSE_ISSUE, method=pb.METHOD_KIND_INITIAL_PASSWORD, account=login
            )
        )
        preview = await run.client.updates.PreviewUpdate(
            pb.PreviewUpdateRequest(card=card.id, purpose=pb.PURPOSE_ISSUE)
        )
        begun = await run.client.updates.StartUpdate(pb.StartUpdateRequest(card=card.id, digest=preview.digest))
        operation = await done(run, begun.operation)
        assert (operation.error.code, operation.outcome) == ("", pb.OUTCOME_DONE)
        due = (await run.client.updates.GetDue(pb.GetDueRequest(card=card.id, refresh=True))).due
        assert not due.items
        # Its key in 9A says who its holder is, and so what is archived for them.
        somebody.answers += [PIN]
        await run.client.updates.Prove(
            pb.ProveRequest(card=card.id, purpose=pb.PURPOSE_RECOVER, method=pb.METHOD_KIND_CARD)
        )
        kept = (await run.client.escrow.ListEscrowedKeys(pb.ListEscrowedKeysRequest(card=card.id))).keys
    assert [key.on_card for key in kept] == [True]
    assert kept[0].fingerprint == soft.public_key("9d")
    assert soft.holds(PIN) == sorted(
        (kind, one) for kind in ("Private Key", "Public Key", "Certificate") for one in ("9a", "9c", "9d", "9e")
    )
    assert not soft.so_pin_opens(SO_PIN)
