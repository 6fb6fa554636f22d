"""The vault's process and its sockets, against clients of every kind."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import socket
import stat
import struct
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.secret import Secret
from cardwright_server.vault import messages as m
from cardwright_server.vault.client import AdminClient, VaultClient
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import (
    VaultLocked,
    VaultQuota,
    VaultRefused,
    VaultUnavailable,
    VaultUnlockRefused,
)
from cardwright_server.vault.hardening import harden
from cardwright_server.vault.launch import VaultProcess
from cardwright_server.vault.model import (
    Authorization,
    CommitPurpose,
    DataContext,
    KeyRole,
    LockState,
    MasterPurpose,
    PukPurpose,
    SigningAlgorithm,
    VaultCard,
    Wrapped,
)
from cardwright_server.vault.service import VaultService
from cardwright_server.vault.wire import ADMIN_SOCKET, SOCKET, frame
from tests.support.vault import CARD, PASSPHRASE, WRONG, Clock, make_core, run

T = TypeVar("T")
ACTOR = Authorization("operator-1", "request-1")


def puk(card: str = "card-1") -> m.Puk:
    return m.Puk(VaultCard("org-1", card, 1, 1), PukPurpose.SET, ACTOR)


@asynccontextmanager
async def serving(core: VaultCore, folder: Path, **options: Any) -> AsyncIterator[VaultService]:
    service = VaultService(core, **options)
    await service.start(folder)
    try:
        yield service
    finally:
        await service.close()


def served(core: VaultCore, folder: Path, work: Callable[[], Awaitable[T]]) -> T:
    async def whole() -> T:
        async with serving(core, folder):
            return await work()

    return run(whole())


class Raw:
    """A client that may send anything."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def open(cls, path: Path) -> Raw:
        return cls(*await asyncio.open_unix_connection(path))

    async def send(self, content: bytes) -> None:
        self.writer.write(content)
        await self.writer.drain()

    async def ask(self, body: bytes, number: int = 7) -> m.Reply:
        await self.send(frame(msgspec.msgpack.encode(m.Envelope(number, msgspec.Raw(body)))))
        return await self.receive()

    async def receive(self) -> m.Reply:
        size = int.from_bytes(await self.reader.readexactly(4), "big")
        return msgspec.msgpack.decode(await self.reader.readexactly(size), type=m.Reply)

    async def ended(self) -> bool:
        try:
            return await self.reader.read() == b""
        except ConnectionError:
            return True


# ------------------------------------------------------------------------------------------- a hostile client


def test_unknown_and_malformed_requests_are_refused_and_the_line_goes_on(core: VaultCore, tmp_path: Path) -> None:
    good = msgspec.msgpack.encode(puk())
    fields = msgspec.msgpack.decode(good)
    long = "x" * 129
    bad = [
        {"type": "Derive", "purpose": "puk", "context": b"x"},
        {"type": "Sign", "name": "root", "data": b"x"},
        {**fields, "more": 1},
        {**fields, "card": {**fields["card"], "more": 1}},
        {**fields, "purpose": "anything"},
        {**fields, "card": {**fields["card"], "generation": -1}},
        {**fields, "card": {**fields["card"], "generation": 1 << 32}},
        {**fields, "card": {**fields["card"], "master": 0}},
        {**fields, "card": {**fields["card"], "card": ""}},
        {**fields, "card": {**fields["card"], "card": long}},
        {**fields, "card": {**fields["card"], "card": "a b"}},
        {**fields, "card": {**fields["card"], "card": "é"}},
        {**fields, "card": {**fields["card"], "card": "a\n"}},
        {key: value for key, value in fields.items() if key != "authorization"},
        {**fields, "card": 5},
        {},
        [],
        None,
        5,
        msgspec.msgpack.decode(msgspec.msgpack.encode(m.Unlock(PASSPHRASE.reveal()))),
        msgspec.msgpack.decode(msgspec.msgpack.encode(m.Backup(PASSPHRASE.reveal(), b"mine"))),
    ]

    async def work() -> None:
        raw = await Raw.open(tmp_path / "s" / SOCKET)
        for content in bad:
            reply = await raw.ask(msgspec.msgpack.encode(content))
            assert reply.fault is not None and (reply.fault.code, reply.fault.reason) == ("VAULT_REFUSED", "request")
        reply = await raw.ask(good, 99)
        assert (reply.id, reply.fault) == (99, None)
        admin = await Raw.open(tmp_path / "s" / ADMIN_SOCKET)
        reply = await admin.ask(good)
        assert reply.fault is not None and reply.fault.reason == "request"

    served(core, tmp_path / "s", work)


def test_who_breaks_the_protocol_loses_only_their_own_line(core: VaultCore, tmp_path: Path) -> None:
    nested = b"\x91" * 200_000 + b"\xc0"
    broken = [
        b"\xff\xff\xff\xff",
        b"\0\0\0\0",
        (m.MAX_FRAME + 1).to_bytes(4, "big"),
        frame(b"rubbish"),
        frame(b"\xc1"),
        frame(msgspec.msgpack.encode({"id": -1, "body": None})),
        frame(msgspec.msgpack.encode({"id": 1, "body": None, "more": 2})),
        frame(nested),
        frame(msgspec.msgpack.encode({"id": 1})),
    ]

    async def work() -> None:
        client = VaultClient(tmp_path / "s")
        idle = await Raw.open(tmp_path / "s" / SOCKET)
        await idle.send(b"\0\0")
        for content in broken:
            raw = await Raw.open(tmp_path / "s" / SOCKET)
            await raw.send(content)
            assert await raw.ended()
        deep = await Raw.open(tmp_path / "s" / SOCKET)
        await deep.send(frame(b"\x82\xa2id\x01\xa4body" + nested))
        assert await deep.ended()
        assert (await client.status()).state is LockState.UNLOCKED
        await client.close()

    served(core, tmp_path / "s", work)


REQUESTS = tuple(m.AnyRequest.__args__)


def hostile() -> st.SearchStrategy[bytes]:
    """Well-formed requests of any kind with any content, and damaged ones."""
    ids = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=8)
    texts = st.one_of(ids, st.sampled_from(["cards", "root", "ocsp", "content", "signature", "puk", "archive"]))
    leaves = st.one_of(texts, st.binary(max_size=64), st.integers(-2, 20), st.none(), st.booleans())
    card = st.fixed_dictionaries(
        {"organization": texts, "card": texts, "generation": st.integers(0, 3), "master": st.integers(0, 3)}
    )
    names = [name for request in REQUESTS for name in request.__struct_fields__]
    values = {
        "card": card,
        "authorization": st.fixed_dictionaries({"actor": texts, "request": texts}),
        "algorithm": st.sampled_from([3, 8, 10, 12, "rsa2048", "p256"]),
        "purpose": st.sampled_from(["set", "unlock", "lookup", "token"]),
        "kind": st.sampled_from(["chuid", "biometric", "initial-secret"]),
        "data": st.one_of(st.lists(st.binary(max_size=20), max_size=3), st.binary(max_size=80)),
        "tbs": st.one_of(st.lists(st.binary(max_size=20), max_size=3), st.binary(max_size=80)),
        "wrapped": st.fixed_dictionaries({"key": texts, "version": st.integers(0, 3), "data": st.binary(max_size=100)}),
    }
    kinds = [one.__name__ for one in REQUESTS] + ["Derive", "Sign", "Unlock", "Backup"]
    fields = st.fixed_dictionaries(
        {"type": st.sampled_from(kinds)}, optional={name: values.get(name, leaves) for name in names}
    )
    shaped = st.sampled_from(REQUESTS).flatmap(
        lambda kind: st.fixed_dictionaries(
            {"type": st.just(kind.__name__), **{name: values.get(name, leaves) for name in kind.__struct_fields__}}
        )
    )
    return st.one_of(shaped, fields).map(msgspec.msgpack.encode)


@settings(max_examples=40)
@given(st.lists(hostile(), max_size=25))
def test_any_sequence_of_requests(tmp_path_factory: pytest.TempPathFactory, requests: list[bytes]) -> None:
    """Whatever is sent, every answer is of its request's type or a documented error, and no quota is exceeded."""
    folder = tmp_path_factory.mktemp("v")
    limits = {name: m.Limit(2, None) for name in ("puk.set", "puk.unlock", "management-key.write", "certificate")}
    core = make_core(folder / "vault", Clock(), limits)
    given_out = {"Puk": 0, "NewManagementKey": 0, "SignCertificate": 0, "SignCrl": 0, "SignContent": 0}

    async def work() -> None:
        raw = await Raw.open(folder / "s" / SOCKET)
        for content in requests:
            reply = await raw.ask(content)
            kind = msgspec.msgpack.decode(content)["type"]
            if reply.fault is not None:
                assert reply.fault.code in {"VAULT_REFUSED", "VAULT_QUOTA"}
                continue
            request = next(one for one in REQUESTS if one.__name__ == kind)
            msgspec.msgpack.decode(reply.body, type=request.answer)
            if kind in given_out:
                given_out[kind] += 1

    served(core, folder / "s", work)
    assert given_out["Puk"] <= 4 and given_out["NewManagementKey"] <= 2
    assert given_out["SignCertificate"] == given_out["SignCrl"] == given_out["SignContent"] == 0


# ---------------------------------------------------------------------------------------------------- clients


def test_two_clients_at_once_share_one_quota(tmp_path: Path, clock: Clock) -> None:
    core = make_core(tmp_path / "vault", clock, {"puk.set": m.Limit(50, None)})

    async def work() -> tuple[int, int]:
        clients = [VaultClient(tmp_path / "s") for _ in range(2)]

        async def one(client: VaultClient, number: int) -> bool:
            try:
                value = await client.puk(VaultCard("o", f"c{number % 40}", 1, 1), PukPurpose.SET, ACTOR)
            except VaultQuota:
                return False
            values.setdefault(number % 40, set()).add(value.reveal())
            return True

        values: dict[int, set[bytes]] = {}
        outcomes = await asyncio.gather(*(one(clients[number % 2], number) for number in range(80)))
        for client in clients:
            await client.close()
        assert all(len(found) == 1 for found in values.values())
        return sum(outcomes), len(outcomes)

    assert served(core, tmp_path / "s", work) == (50, 80)


def test_errors_cross_the_line_with_what_they_carry(core: VaultCore, tmp_path: Path) -> None:
    async def work() -> None:
        client = VaultClient(tmp_path / "s")
        admin = AdminClient(tmp_path / "s", PASSPHRASE)
        with pytest.raises(VaultRefused) as refused:
            await client.public_key("none")
        assert refused.value.reason == "key"
        await admin.set_limit("puk.set", m.Limit(0, None))
        with pytest.raises(VaultQuota) as quota:
            await client.puk(CARD, PukPurpose.SET, ACTOR)
        assert (quota.value.limit, quota.value.retry_after > 0) == ("puk.set", True)
        stranger = AdminClient(tmp_path / "s", WRONG)
        with pytest.raises(VaultUnlockRefused):
            await stranger.lock()
        await stranger.close()
        info = await admin.create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256)
        assert await client.public_key("audit") == info
        assert await admin.rotate_master(MasterPurpose.PUK) == 2
        await admin.lock()
        with pytest.raises(VaultLocked):
            await client.hmac_commit(CommitPurpose.TOKEN, [b"x"])
        await admin.unlock()
        assert len(await client.hmac_commit(CommitPurpose.TOKEN, [b"x"])) == 1
        with pytest.raises(VaultRefused):
            await client.hmac_commit(CommitPurpose.TOKEN, [bytes(65_000)] * 200)
        await client.close()
        await admin.close()

    served(core, tmp_path / "s", work)


def test_a_line_that_breaks_is_opened_again_and_deadlines_hold(tmp_path: Path) -> None:
    async def work() -> None:
        client = VaultClient(tmp_path, seconds=0.3)
        with pytest.raises(VaultUnavailable):
            await client.status()
        silent = await asyncio.start_unix_server(lambda reader, writer: None, tmp_path / SOCKET)
        with pytest.raises(VaultUnavailable, match="within"):
            await client.status()
        silent.close()
        await client.close()
        (tmp_path / SOCKET).unlink()
        closing = await asyncio.start_unix_server(lambda reader, writer: writer.close(), tmp_path / SOCKET)
        with pytest.raises(VaultUnavailable):
            await VaultClient(tmp_path).status()
        closing.close()
        (tmp_path / SOCKET).unlink()
        client = VaultClient(tmp_path)
        for round_ in range(2):
            core = make_core(tmp_path / f"vault{round_}", Clock())
            async with serving(core, tmp_path):
                assert (await client.status()).state is LockState.UNLOCKED
        await client.close()

    run(work())


def test_who_floods_the_vault_is_told_so_and_others_go_on(tmp_path: Path, clock: Clock) -> None:
    core = make_core(tmp_path / "vault", clock)
    large = msgspec.msgpack.encode(m.SignCrl("none", bytes(8 * 1024 * 1024)))

    async def work() -> None:
        raw, client = await Raw.open(tmp_path / "s" / SOCKET), VaultClient(tmp_path / "s")
        held = core.perform

        def slow(requests: Sequence[m.Message]) -> list[object]:
            if any(isinstance(one, m.SignCrl) for one in requests):
                assert going_on.wait(20)
            return held(requests)

        going_on = threading.Event()
        core.perform = slow  # type: ignore[method-assign]
        count = 12
        for number in range(count):
            await raw.send(frame(msgspec.msgpack.encode(m.Envelope(number, msgspec.Raw(large)))))
        told = [(await raw.receive()).fault for _ in range(count - 7)]
        assert [fault and fault.code for fault in told] == ["VAULT_UNAVAILABLE"] * (count - 7)
        going_on.set()
        told = [(await raw.receive()).fault for _ in range(7)]
        assert [fault and fault.code for fault in told] == ["VAULT_REFUSED"] * 7
        assert len(await client.puk(CARD, PukPurpose.SET, ACTOR)) == 8
        lines = [await Raw.open(tmp_path / "s" / SOCKET) for _ in range(31)]
        assert await lines[-1].ended()
        for line in (raw, *lines):
            line.writer.close()
        await client.close()

    served(core, tmp_path / "s", work)


# ---------------------------------------------------------------------------------------------- who may enter


def test_modes_of_the_sockets(core: VaultCore, tmp_path: Path) -> None:
    async def work() -> None:
        folder = tmp_path / "s"
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        for name in (SOCKET, ADMIN_SOCKET):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600

    served(core, tmp_path / "s", work)


CONNECT = """
import os, socket, sys
os.setgid(int(sys.argv[2])); os.setuid(int(sys.argv[2]))
line = socket.socket(socket.AF_UNIX)
try:
    line.connect(sys.argv[1])
    line.sendall(bytes.fromhex(sys.argv[3]))
    print("answer" if line.recv(4) else "closed")
except PermissionError:
    print("denied")
except ConnectionError:
    print("closed")
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="another user id is needed, which only root can take")
def test_another_user_is_turned_away_by_the_kernel_and_by_us(tmp_path: Path, clock: Clock) -> None:
    request = frame(msgspec.msgpack.encode(m.Envelope(1, msgspec.Raw(msgspec.msgpack.encode(m.Status())))))
    # A place that any user may pass through: pytest's own folders are closed.
    folder = Path("/tmp") / f"cw-vault-{os.getpid()}"

    async def attempt(uid: int, name: str) -> str:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-S", "-c", CONNECT, str(folder / name), str(uid), request.hex()),
            stdout=asyncio.subprocess.PIPE,
        )
        return (await process.communicate())[0].decode().strip()

    async def work() -> None:
        async with serving(make_core(tmp_path / "v1", clock), folder):
            assert await attempt(65_534, SOCKET) == "denied"
        async with serving(make_core(tmp_path / "v2", clock), folder, clients=[65_533]):
            assert await attempt(65_533, SOCKET) == "answer"
            assert await attempt(65_534, SOCKET) == "closed"
            assert await attempt(65_533, ADMIN_SOCKET) == "denied"
        folder.chmod(0o755)

    try:
        run(work())
    finally:
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()


# ------------------------------------------------------------------------------------------------ the process


@pytest.fixture
def closed(tmp_path: Path) -> Path:
    """The directory of a vault that no process has open."""
    core = make_core(tmp_path / "vault", Clock())
    core.close()
    return core.directory


@asynccontextmanager
async def running(
    directory: Path, sockets: Path, credential: Secret | None = PASSPHRASE
) -> AsyncIterator[VaultProcess]:
    process = await VaultProcess.start(directory, sockets, credential)
    try:
        yield process
    finally:
        await process.stop()


def test_the_process_serves_survives_sigkill_and_ends_with_its_parent(closed: Path, tmp_path: Path) -> None:
    async def work() -> None:
        async with running(closed, tmp_path / "s") as process:
            client = process.client()
            before = await client.puk(CARD, PukPurpose.SET, ACTOR)
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()
            with pytest.raises(VaultUnavailable):
                await client.puk(CARD, PukPurpose.SET, ACTOR)
            await client.close()
        async with running(closed, tmp_path / "s", None) as process:
            client = process.client()
            with pytest.raises(VaultLocked):
                await client.puk(CARD, PukPurpose.SET, ACTOR)
            admin = AdminClient(tmp_path / "s", PASSPHRASE)
            await admin.unlock()
            assert await client.puk(CARD, PukPurpose.SET, ACTOR) == before
            await client.close()
            await admin.close()
        assert await process.wait() == 0
        with pytest.raises(VaultUnavailable):
            await VaultProcess.start(closed, tmp_path / "s", WRONG)

    run(work())


def test_the_process_cannot_be_dumped_and_shows_no_secret(closed: Path, tmp_path: Path) -> None:
    async def work() -> list[bytes]:
        async with running(closed, tmp_path / "s") as process:
            client = process.client()
            secrets = [PASSPHRASE.reveal(), (await client.puk(CARD, PukPurpose.SET, ACTOR)).reveal()]
            key = await client.new_management_key(CARD, ManagementAlgorithm.AES256, ACTOR)
            secrets.append(key.reveal())
            proc = Path(f"/proc/{process.pid}")
            for name in ("cmdline", "environ"):
                content = (proc / name).read_bytes()
                assert not any(secret in content for secret in secrets)
            limits = (proc / "limits").read_text()
            assert [line.split()[4:6] for line in limits.splitlines() if "core" in line] == [["0", "0"]]
            # Files in /proc of a process that cannot be dumped belong to root; its own user cannot attach to it.
            assert (proc / "status").exists() and (proc / "mem").stat().st_uid == 0
            await client.close()
            return secrets

    secrets = run(work())
    for path in closed.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            for secret in secrets:
                assert secret not in content and secret.hex().encode() not in content, path


def reads_memory_of_its_parent(prepare: Callable[[], object]) -> bool:
    """Whether a process of an ordinary user, after ``prepare``, can be read by another one of the same user."""
    child = os.fork()
    if not child:
        os.setgid(65_533)
        os.setuid(65_533)
        prepare()
        grandchild = os.fork()
        if not grandchild:
            try:
                os.close(os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY))
            except PermissionError:
                os._exit(3)
            os._exit(4)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
    return {3: False, 4: True}[os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]


@pytest.mark.skipif(os.geteuid() != 0, reason="another user id is needed, which only root can take")
def test_a_process_of_the_same_user_cannot_read_its_memory() -> None:
    # A change of the user id alone already closes it, so it is opened on purpose first.
    def dumpable() -> None:
        ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)

    def hardened() -> None:
        dumpable()
        harden()

    assert reads_memory_of_its_parent(dumpable)
    assert not reads_memory_of_its_parent(hardened)


def test_a_core_file_made_on_purpose_is_not_made(closed: Path, tmp_path: Path) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)

    async def work() -> int:
        async with running(closed, tmp_path / "s") as process:
            os.kill(process.pid, signal.SIGABRT)
            return await process.wait()

    assert run(work()) == -signal.SIGABRT
    assert list(Path.cwd().glob("core*")) == [] and list(closed.rglob("core*")) == []


def test_peer_credentials_are_the_kernels() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX)
    with ours, theirs:
        raw = ours.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        assert struct.unpack("3i", raw)[1] == os.geteuid()


def test_no_repr_of_a_message_or_error_shows_a_secret() -> None:
    canary = b"canary-canary-12"
    shown = [
        repr(m.Unlock(canary)),
        repr(m.OpenData(Wrapped(MasterPurpose.BIOMETRIC, 1, canary), DataContext("o", "a", "n"), ACTOR)),
        repr(Wrapped(MasterPurpose.BIOMETRIC, 1, canary)),
        str(m.Backup(canary, canary)),
    ]
    assert not any("canary" in text for text in shown)
