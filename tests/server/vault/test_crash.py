"""Killed with SIGKILL at every durable step, the vault opens again with everything that it had answered."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cardwright_server.vault import messages as m
from cardwright_server.vault.administration import administer, restore
from cardwright_server.vault.audit_log import verify
from cardwright_server.vault.core import VaultCore
from cardwright_server.vault.errors import VaultUnlockRefused
from cardwright_server.vault.model import Authorization, KeyRole, MasterPurpose, PukPurpose, SigningAlgorithm
from cardwright_server.vault.software import SoftwareBackend
from tests.support.dying import deaths
from tests.support.vault import CARD, PASSPHRASE, QUICK, Clock, make_core, subject

SECRET = PASSPHRASE.reveal()
NEW = b"another long passphrase"
ACTOR = Authorization("operator-1", "request-1")
PUK = m.Puk(CARD, PukPurpose.UNLOCK, ACTOR)

Say = Callable[[str], None]


def opened(directory: Path, clock: Clock, passphrase: bytes = SECRET) -> VaultCore:
    core = VaultCore(directory, SoftwareBackend(QUICK), clock)
    try:
        administer(core, m.Unlock(passphrase))
    except BaseException:
        core.close()
        raise
    return core


def puk(core: VaultCore) -> str:
    [answer] = core.perform([PUK])
    assert isinstance(answer, bytes), answer
    return answer.decode()


def test_creation_finishes_or_begins_again(tmp_path: Path, clock: Clock) -> None:
    turns = 0

    def create(say: Say) -> None:
        make_core(tmp_path / "vault", clock).close()
        say("created")

    for said in deaths(create):
        turns += 1
        if not (tmp_path / "vault" / "vault.keys").exists():
            assert said == []
            make_core(tmp_path / "vault", clock).close()
        opened(tmp_path / "vault", clock).close()
        shutil.rmtree(tmp_path / "vault")
    assert turns > 20


def test_changes_are_there_or_not_and_what_was_answered_stays(tmp_path: Path, clock: Clock) -> None:
    origin, directory = tmp_path / "origin", tmp_path / "vault"
    core = make_core(origin, clock)
    first = puk(core)
    core.close()

    def work(say: Say) -> None:
        core = opened(directory, clock)
        say(f"puk {puk(core)}")
        name = subject("ca").public_bytes()
        administer(core, m.CreateKey(SECRET, "ca", KeyRole.ISSUING, SigningAlgorithm.P256, name, ("signature",)))
        say("key")
        administer(core, m.RotateMaster(SECRET, MasterPurpose.PUK))
        say("rotated")
        say(f"puk {puk(core)}")
        core.close()

    shutil.copytree(origin, directory)
    turns = 0
    for said in deaths(work):
        turns += 1
        core = opened(directory, clock)
        assert verify(directory / "audit") == (core.log.entries, core.log.head)
        status = core.status()
        if said is None or "key" in said:
            assert status.keys == ("ca",)
        if said is None or "rotated" in said:
            assert status.masters[MasterPurpose.PUK] == 2
        assert puk(core) == first
        answered = sum(one.startswith("puk") for one in said or [])
        text = "".join(path.read_text() for path in (directory / "audit").iterdir())
        assert text.count('"act":"puk"') >= answered + 1
        assert {one for one in said or [] if one.startswith("puk")} <= {f"puk {first}"}
        # It goes on as if nothing had been.
        administer(core, m.RotateMaster(SECRET, MasterPurpose.ARCHIVE))
        core.close()
        opened(directory, clock).close()
        shutil.rmtree(directory)
        shutil.copytree(origin, directory)
    assert turns > 40


def test_one_of_two_passphrases_always_opens(tmp_path: Path, clock: Clock) -> None:
    origin, directory = tmp_path / "origin", tmp_path / "vault"
    make_core(origin, clock).close()

    def change(say: Say) -> None:
        core = opened(directory, clock)
        administer(core, m.ChangeCredential(SECRET, NEW))
        say("changed")
        core.close()

    shutil.copytree(origin, directory)
    seen = set()
    for said in deaths(change):
        try:
            opened(directory, clock).close()
            which = "old"
        except VaultUnlockRefused:
            opened(directory, clock, NEW).close()
            which = "new"
        assert which == "new" or not said
        seen.add(which)
        shutil.rmtree(directory)
        shutil.copytree(origin, directory)
    assert seen == {"old", "new"}


def test_a_restore_that_did_not_finish_is_done_again(tmp_path: Path, clock: Clock) -> None:
    origin, directory = tmp_path / "origin", tmp_path / "vault"
    core = make_core(origin, clock)
    first = puk(core)
    backup = administer(core, m.Backup(SECRET, NEW))
    assert isinstance(backup, bytes)
    administer(core, m.RotateMaster(SECRET, MasterPurpose.PUK))
    core.close()

    def work(say: Say) -> None:
        restore(directory, backup, NEW, clock)
        say("restored")

    shutil.copytree(origin, directory)
    for said in deaths(work):
        epoch = restore(directory, backup, NEW, clock)
        core = opened(directory, clock, NEW)
        status = core.status()
        assert status.epoch == epoch >= (3 if said else 2)
        assert status.masters[MasterPurpose.PUK] == 1
        assert puk(core) == first
        assert verify(directory / "audit")[0] == core.log.entries
        core.close()
        shutil.rmtree(directory)
        shutil.copytree(origin, directory)


@pytest.mark.parametrize("batch", [1, 5])
def test_the_answers_of_a_batch_are_all_durable(tmp_path: Path, clock: Clock, batch: int) -> None:
    directory = tmp_path / "vault"
    make_core(directory, clock).close()

    def work(say: Say) -> None:
        core = opened(directory, clock)
        before = core.log.entries
        core.perform([PUK] * batch)
        say(str(core.log.entries - before))
        core.close()

    for said in deaths(work):
        if said:
            assert said == [str(batch)]
            text = "".join(path.read_text() for path in (directory / "audit").iterdir())
            assert text.count('"act":"puk"') >= batch
        opened(directory, clock).close()
