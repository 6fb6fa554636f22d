"""Real processes on one PostgreSQL: killed at every stage of an issuance, and two asked for the same at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_proto.cms.v1 import (
    devices_pb2,
    escrow_pb2,
    escrow_pb2_grpc,
    operators_pb2,
    people_pb2,
    people_pb2_grpc,
    requests_pb2,
    sessions_pb2,
)
from cardwright_server.config import load
from cardwright_server.vault.client import VaultClient
from cardwright_server.vault.model import (
    ArchiveContext,
    Authorization,
    EscrowClass,
    MasterPurpose,
    PukPurpose,
    VaultCard,
    Wrapped,
)
from cardwright_simulators.card import VirtualCard
from tests.oracle.books import Books, SecretName, of_postgresql, remembered
from tests.oracle.server import Told, judge
from tests.support.databases import PostgreSql
from tests.support.front_desk import Desk
from tests.support.installation import (
    ON_FREE_PORTS,
    PATIENCE,
    Identity,
    Process,
    Site,
    a_folder,
    enrol_first,
    founded,
    refusal,
)
from tests.support.sessions import PIN, Station
from tests.support.vault import openssl
from tests.support.virtual import POOL

BEHALF = Authorization("oracle", "oracle")
MESSAGES = 6
"""What a workstation says in an issuance: hello, consent, and the answers to four batches."""
STAGES = ("observing", "observing", "executing", "executing", "executing")
"""What is recorded of the session when a message is on its way, from the second one on."""
ALL = os.environ.get("CARDWRIGHT_PROCESS_FAULTS") == "1"
KILLED = tuple(range(1, MESSAGES)) if ALL else (2, 4)
"""After so many messages the server is killed."""


@dataclass
class Pair:
    """Two servers; vault and second medium are the first one's."""

    postgresql: PostgreSql
    name: str
    site: Site
    second: Process
    desk: Desk
    station: Identity

    @property
    def first(self) -> Process:
        return self.site.process

    def sql(self, statement: str) -> str:
        return self.postgresql.sql(statement, self.name)

    def ready(self, login: str, serial: int) -> tuple[VirtualCard, UUID, str, str]:
        """A blank card, its device, the request to issue it, and the holder's proof."""
        person = self.desk.person(login)
        device, request = self.desk.issuance(person, str(serial))
        token = self.desk.proof(self.station, person, login)
        return VirtualCard("yubikey-5.7", serial=serial, key_pool=POOL), UUID(device), request, token

    def let_time_pass(self) -> None:
        """Until leases on cards ran out."""
        self.sql("UPDATE lease SET until = now() - interval '1 second' WHERE name LIKE 'card:%'")

    async def wrong(self, card: VirtualCard, device: UUID, request: str) -> list[str]:
        """What the judge finds, once everything is sealed."""
        async with asyncio.timeout(PATIENCE):
            while int(self.sql("SELECT count(*) FROM audit_entry LEFT JOIN audit_block ON block = number"
                               " WHERE signed IS NULL")):  # fmt: skip
                await asyncio.sleep(0.1)
        books = of_postgresql(self.sql)
        org = str(UUID(books.of("device", id=device.hex)[0]["org"]))
        known = remembered(self.first.data / "second-medium")
        async with aclosing(_Closing(load(self.first.data).vault_sockets)) as client:
            told = Told(
                device,
                PIN,
                datetime.now(UTC),
                UUID(request),
                secrets=await _secrets(client, org, device, books),
                archive=await _archive(client, org, books),
                remembered=known,
                audit=await _audit_keys(client, books),
            )
        return judge(card.snapshot(), books, told)


class _Closing(VaultClient):
    """A client for ``aclosing``."""

    async def aclose(self) -> None:
        await self.close()


async def _secrets(client: VaultClient, org: str, device: UUID, books: Books) -> dict[SecretName, bytes]:
    found = {}
    for name in books.secrets(device):
        one = VaultCard(org, str(device), name.generation, name.master)
        if name.kind == "puk":
            found[name] = (await client.puk(one, PukPurpose.SET, BEHALF)).reveal()
        else:
            algorithm = ManagementAlgorithm(name.algorithm or 0)
            found[name] = (await client.new_management_key(one, algorithm, BEHALF)).reveal()
    return found


async def _archive(client: VaultClient, org: str, books: Books) -> dict[str, bytes]:
    found = {}
    for row in books.tables["escrowed_key"]:
        kind = EscrowClass(row["escrow_class"])
        context = ArchiveContext(org, row["owner"], row["public_key"], row["certificate"] or b"", kind)
        sealed = Wrapped(MasterPurpose.ARCHIVE, row["master"], row["wrapped"])
        key = load_der_private_key((await client.unwrap_for_card(sealed, context, BEHALF)).reveal(), None)
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        found[row["fingerprint"]] = public
    return found


async def _audit_keys(client: VaultClient, books: Books) -> dict[str, ec.EllipticCurvePublicKey]:
    found = {}
    for name in {json.loads(row["signed"])["key"] for row in books.of("audit_block") if row["signed"]}:
        key = load_der_public_key((await client.public_key(name)).public_key)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        found[name] = key
    return found


@contextmanager
def running_pair(postgresql: PostgreSql) -> Iterator[Pair]:
    name = postgresql.create()
    configuration = f'{ON_FREE_PORTS}\n[database]\nurl = "{postgresql.url(name)}"\n'
    with a_folder() as data, a_folder() as other:
        credential = founded(data, configuration)
        first, second = Process(data).start(), Process(other)
        try:
            for role, login in (("administrator", "ann"), ("security-officer", "sam")):
                assert enrol_first(data, credential, role, login).code == 0
            other.mkdir(mode=0o700)
            shared = f'second_medium = "{data / "second-medium"}"\n\n[vault]\nsockets = "{data / "run" / "vault"}"\n'
            (other / "server.toml").write_text(configuration + shared)
            second.start()
            site = Site.of(first, credential)
            _, station = site.enrolled()
            yield Pair(postgresql, name, site, second, Desk(site), station)
        finally:
            second.stop()
            first.stop()


@pytest.fixture(scope="module")
def pair(postgresql: PostgreSql) -> Iterator[Pair]:
    with running_pair(postgresql) as made:
        yield made


async def test_a_server_killed_at_every_stage_is_followed_by_another(
    pair: Pair, record_property: Callable[[str, object], None]
) -> None:
    text = f"server killed: {len(KILLED)} of {MESSAGES - 1} cases (CARDWRIGHT_PROCESS_FAULTS=1 for all)"
    record_property("share", text)
    stages = []
    for message in KILLED:
        card, device, request, token = pair.ready(f"killed{message}", 1000 + message)
        sent = 0

        async def kill(said: sessions_pb2.RunRequest, message: int = message, device: UUID = device) -> None:
            nonlocal sent
            sent += 1
            if sent > message:
                await asyncio.to_thread(pair.second.kill)
                stages.append(pair.sql(f"SELECT state FROM card_session WHERE device = '{device}'"))

        metadata = [("cardwright-session", token)]
        async with pair.second.tunnel(pair.station) as socket:
            # What gRPC says to whoever writes to a server that is gone.
            with contextlib.suppress(asyncio.InvalidStateError):
                await Station(card, before=kill, metadata=metadata).run(socket, request=request)
        card.power_off()
        async with pair.first.tunnel(pair.station) as socket:
            held = await Station(card, metadata=metadata).run(socket, request=request)
            assert held.error == "CARD_IN_SESSION"
            pair.let_time_pass()
            trip = await Station(card, metadata=metadata).run(socket, request=request)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        assert await pair.wrong(card, device, request) == []
        # In this thread: the process ends with the one that began it.
        pair.second.start()
    assert stages == [STAGES[message - 1] for message in KILLED]


async def test_two_servers_are_asked_for_one_card_and_one_does_it(pair: Pair) -> None:
    card, device, request, token = pair.ready("twice", 2000)
    copy = VirtualCard.restore(card.snapshot(), key_pool=POOL)
    metadata = [("cardwright-session", token)]
    refused = []

    async def meanwhile(said: sessions_pb2.RunRequest) -> None:
        if said.WhichOneof("kind") == "answers":
            async with pair.second.tunnel(pair.station) as other:
                trip = await Station(copy, metadata=metadata).run(other, request=request)
            refused.append((trip.status, trip.error))

    async with pair.first.tunnel(pair.station) as socket:
        trip = await Station(card, before=meanwhile, metadata=metadata).run(socket, request=request)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    assert refused == [("ABORTED", "CARD_IN_SESSION")] * 4
    assert await pair.wrong(card, device, request) == []


async def test_two_operators_approve_at_once_on_two_servers(pair: Pair) -> None:
    card, device, issuance, token = pair.ready("ended", 4000)
    async with pair.first.tunnel(pair.station) as socket:
        issued = await Station(card, metadata=[("cardwright-session", token)]).run(socket, request=issuance)
        assert (issued.error, issued.outcome) == ("", sessions_pb2.OUTCOME_DONE)
    helper = pair.desk.operator("hal", operators_pb2.ROLE_HELP_DESK)
    others = [pair.desk.operator(login, operators_pb2.ROLE_ISSUANCE) for login in ("ivy", "ira")]
    asked = requests_pb2.CreateTerminationRequest(device=str(device), reason=devices_pb2.DEVICE_REASON_COMPROMISED)
    made = pair.desk.ask(helper, "RequestService", "CreateTermination", asked).request
    assert made.state == requests_pb2.REQUEST_STATE_PENDING

    def approve(process: Process, who: Identity) -> Any:
        request = requests_pb2.ApproveRequestRequest(id=made.id)
        try:
            return Desk.ask(_Served(process), who, "RequestService", "Approve", request).state  # type: ignore[arg-type]
        except grpc.RpcError as error:
            return refusal(error)

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(approve, (pair.first, pair.second), others))
    assert requests_pb2.REQUEST_STATE_READY in said
    steps = pair.sql(f"SELECT event, who FROM device_request_transition WHERE subject = '{made.id}' ORDER BY number")
    assert [row.split("|")[0] for row in steps.splitlines()].count("approve") == 1


async def test_one_file_is_claimed_on_two_servers_and_comes_out_of_one(pair: Pair, tmp_path: Path) -> None:
    card, device, request, token = pair.ready("claims", 3000)
    async with pair.first.tunnel(pair.station) as socket:
        metadata = [("cardwright-session", token)]
        issued = await Station(card, metadata=metadata).run(socket, request=request)
        assert (issued.error, issued.outcome) == ("", sessions_pb2.OUTCOME_DONE)
        proven = await Station(card, guarded=False).run(socket, sessions_pb2.PURPOSE_PROVE)
    assert proven.error == ""
    key = pair.sql(f"SELECT id FROM escrowed_key WHERE device = '{device}'")
    claims = _Claims(pair, key, proven.authentication, tmp_path)
    orders = [(pair.first, pair.second), (pair.second, pair.first)]
    for order in orders:
        offer = claims.offered()
        said = await asyncio.to_thread(claims.in_order, offer, *order)
        assert said[1] == ("FAILED_PRECONDITION", "PFX_OFFER_CLAIMED")
        claims.require_one(offer, said)
    # And as it comes.
    offer = claims.offered()
    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(lambda process: claims.claim(process, offer), orders[0]))
    claims.require_one(offer, said)


@dataclass
class _Claims:
    """Somebody with a proof by their card, who asks for files with one key."""

    pair: Pair
    key: str
    proof: str
    folder: Path
    told: int = 0
    _holder: subprocess.Popen[str] | None = None

    def offered(self) -> escrow_pb2.OfferPfxResponse:
        """A new offer, by the first server."""
        with self.pair.first.calls(self.pair.station) as channel:
            stub: Any = escrow_pb2_grpc.EscrowServiceStub(channel)
            metadata = (("cardwright-session", self.proof),)
            made: escrow_pb2.OfferPfxResponse = stub.OfferPfx(
                escrow_pb2.OfferPfxRequest(key=self.key), timeout=PATIENCE, metadata=metadata
            )
            return made

    def claim(self, process: Process, offer: escrow_pb2.OfferPfxResponse) -> bytes | tuple[str, str]:
        """The file, or what was said instead."""
        request = escrow_pb2.ClaimPfxRequest(offer=offer.offer, password=offer.password)
        with process.calls(self.pair.station) as channel:
            stub: Any = escrow_pb2_grpc.EscrowServiceStub(channel)
            try:
                said = stub.ClaimPfx(request, timeout=PATIENCE, metadata=(("cardwright-session", self.proof),))
            except grpc.RpcError as error:
                return refusal(error)
        return bytes(said.file)

    def in_order(self, offer: escrow_pb2.OfferPfxResponse, *order: Process) -> list[bytes | tuple[str, str]]:
        """What each server says, when all have found the offer open, and may then take it in this order."""
        with self._row_held(offer), ThreadPoolExecutor(len(order)) as pool:
            claims = []
            for number, process in enumerate(order, 1):
                claims.append(pool.submit(self.claim, process, offer))
                self._wait_until(number)
            self._let_go()
            return [one.result(PATIENCE) for one in claims]

    @contextmanager
    def _row_held(self, offer: escrow_pb2.OfferPfxResponse) -> Iterator[None]:
        command = ["psql", "-XAtq", "-h", str(self.pair.postgresql.folder), "-U", "cardwright", self.pair.name]
        holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._holder = holder
        try:
            assert holder.stdin is not None and holder.stdout is not None
            holder.stdin.write(f"BEGIN; SELECT id FROM pfx_offer WHERE id = '{offer.offer}' FOR UPDATE;\n")
            holder.stdin.flush()
            assert holder.stdout.readline().strip() == offer.offer
            yield
        finally:
            self._let_go()

    def _let_go(self) -> None:
        if self._holder is not None and self._holder.poll() is None:
            self._holder.communicate("COMMIT;\n", timeout=PATIENCE)

    def _wait_until(self, waiting: int) -> None:
        """Until so many claims wait for the row."""
        asked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'UPDATE pfx_offer%'"
        )
        deadline = time.monotonic() + PATIENCE
        while int(self.pair.sql(asked)) < waiting:
            assert time.monotonic() < deadline

    def require_one(self, offer: escrow_pb2.OfferPfxResponse, said: list[bytes | tuple[str, str]]) -> None:
        """One file, which its password opens, and one stable code; released, audited and told of once."""
        (file,) = [one for one in said if isinstance(one, bytes)]
        assert ("FAILED_PRECONDITION", "PFX_OFFER_CLAIMED") in said
        path = self.folder / f"{offer.offer}.pfx"
        path.write_bytes(file)
        opened = openssl("pkcs12", "-in", str(path), "-nodes", "-passin", "stdin", data=offer.password.encode() + b"\n")
        assert opened.count(b"BEGIN PRIVATE KEY") == 1
        sql = self.pair.sql
        assert sql(f"SELECT state FROM pfx_offer WHERE id = '{offer.offer}'") == "claimed"
        assert sql(f"SELECT count(*) FROM escrow_release WHERE offer = '{offer.offer}'") == "1"
        audited = "SELECT count(*) FROM audit_entry WHERE action = 'escrow.released' AND facts::json->>'offer' ="
        assert sql(f"{audited} '{offer.offer}'") == "1"
        self.told += 1
        news = f"SELECT count(*) FROM outbox WHERE name = 'escrow.released' AND subject = '{self.key}'"
        assert int(sql(f"{news} AND data::json->>'purpose' = 'to a file'")) == self.told


def test_a_database_that_is_gone_is_said_and_comes_back(pair: Pair) -> None:
    server, name = pair.postgresql, pair.name
    wanted = people_pb2.CreatePersonRequest(login="gone", display_name="Gone")
    with pair.first.calls(pair.site.administrator) as line:
        create: Any = people_pb2_grpc.PersonServiceStub(line).Create
        server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
        try:
            server.sql(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            for _ in range(2):
                with pytest.raises(grpc.RpcError) as error:
                    create(wanted, timeout=PATIENCE)
                assert refusal(error.value) == ("UNAVAILABLE", "DATABASE_UNAVAILABLE")
        finally:
            server.sql(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")
        assert pair.sql("SELECT count(*) FROM person WHERE login = 'gone'") == "0"
        assert create(wanted, timeout=PATIENCE).id == pair.sql("SELECT id FROM person WHERE login = 'gone'")


@dataclass
class _Served:
    """A desk at another process."""

    process: Process

    @property
    def here(self) -> _Served:
        return self
