"""A passphrase is tried once for each administrator's connection and minute; every request carries it all the same."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from cardwright_cardops.secret import Secret
from cardwright_server.config import load
from cardwright_server.opening import make_folders, make_vault, open_vault
from cardwright_server.vault.client import AdminClient
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultLocked, VaultQuota, VaultUnlockRefused
from cardwright_server.vault.model import KeyRole, SigningAlgorithm
from cardwright_server.vault.proofs import LASTS, Peer, Proofs
from cardwright_server.vault.service import VaultService
from tests.support.vault import PASSPHRASE, WRONG, Clock, run

NEW = Secret(b"another long passphrase")
Connect = Callable[[Secret], AdminClient]


@pytest.fixture
def tries(core: VaultCore, monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Credentials that were tried the costly way."""
    tried: list[bytes] = []
    knows = core.backend.knows

    def counted(credential: bytes) -> bool:
        tried.append(credential)
        return knows(credential)

    monkeypatch.setattr(core.backend, "knows", counted)
    return tried


def served(core: VaultCore, folder: Path, work: Callable[[Connect], Awaitable[None]]) -> None:
    """Do ``work`` with the administrator's connections to a vault that is served."""

    async def whole() -> None:
        service = VaultService(core)
        await service.start(folder)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(service.close)

            def connect(credential: Secret) -> AdminClient:
                client = AdminClient(folder, credential)
                stack.push_async_callback(client.close)
                return client

            await work(connect)

    run(whole())


async def act(client: AdminClient) -> None:
    await client.new_epoch()


def test_a_connection_proves_it_once(core: VaultCore, tmp_path: Path, tries: list[bytes]) -> None:
    async def work(connect: Connect) -> None:
        one, other = connect(PASSPHRASE), connect(PASSPHRASE)
        for _ in range(5):
            await act(one)
        await one.create_key("audit", KeyRole.AUDIT, SigningAlgorithm.P256)
        await one.unlock()
        assert len(tries) == 1
        await act(other)
        await act(other)
        assert len(tries) == 2

    served(core, tmp_path, work)


def test_a_request_with_another_passphrase_is_refused_on_a_connection_that_proved_it(
    core: VaultCore, tmp_path: Path, tries: list[bytes]
) -> None:
    async def work(connect: Connect) -> None:
        client = connect(PASSPHRASE)
        await act(client)
        client._credential = WRONG
        for number in range(20):
            with pytest.raises(VaultUnlockRefused):
                await act(client)
            assert len(tries) == 2 + number, "a wrong one costs as much as ever"
        # Guesses are counted for all: who knows the passphrase has to wait as well.
        client._credential = PASSPHRASE
        with pytest.raises(VaultQuota):
            await act(client)

    served(core, tmp_path, work)


def test_it_ends_with_the_lock_and_with_the_passphrase(core: VaultCore, tmp_path: Path, tries: list[bytes]) -> None:
    async def work(connect: Connect) -> None:
        one, other = connect(PASSPHRASE), connect(PASSPHRASE)
        await act(one)
        await act(other)
        await one.change_credential(NEW)
        tries.clear()
        with pytest.raises(VaultUnlockRefused):
            await act(other)
        await act(one)
        assert tries == [PASSPHRASE.reveal(), NEW.reveal()]
        await one.lock()
        with pytest.raises(VaultLocked):
            await act(one)
        with pytest.raises(VaultUnlockRefused):
            await other.unlock()
        await one.unlock()
        tries.clear()
        await act(one)
        assert tries == [], "the unlock was the proof"

    served(core, tmp_path, work)


def test_it_goes_with_its_connection(core: VaultCore, tmp_path: Path, tries: list[bytes]) -> None:
    async def work(connect: Connect) -> None:
        client = connect(PASSPHRASE)
        await act(client)
        assert len(core.proofs) == 1
        await client.close()
        await act(client)  # it connects again
        assert len(tries) == 2
        gc.collect()
        assert len(core.proofs) == 1, "that of the connection that is gone is gone"

    served(core, tmp_path, work)


def test_it_lasts_a_minute_from_the_proof() -> None:
    clock, peer = Clock(1000.0), Peer()
    proofs = Proofs(clock)
    assert not proofs.hold(peer, b"pass")
    proofs.note(peer, b"pass")
    clock.now += LASTS - 1
    assert proofs.hold(peer, b"pass")
    assert not proofs.hold(peer, b"pasS")
    assert not proofs.hold(Peer(), b"pass")
    assert not proofs.hold(None, b"pass")
    clock.now += 1
    assert not proofs.hold(peer, b"pass")
    clock.now -= 1
    assert not proofs.hold(peer, b"pass"), "it was dropped, not only passed over"
    proofs.note(None, b"pass")
    assert not proofs.hold(None, b"pass")


def test_a_process_that_only_uses_the_vault_does_not_keep_its_passphrase(tmp_path: Path) -> None:
    here = load(tmp_path, None)
    given = Secret(PASSPHRASE.reveal())

    async def work() -> None:
        make_folders(here)
        await make_vault(here, PASSPHRASE, 1024)
        async with open_vault(here, given, administer=False) as vault:
            assert vault.admin is None
            assert len(given) == 0
            assert (await vault.client.status()).epoch == 1

    run(work())
