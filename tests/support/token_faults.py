"""Faults in sessions on a PKCS#11 token: each call into its module and each message of the line, one at a time.

Token and books are files, so every case begins from the same ones. The judge is python-pkcs11 in a process of its own,
with the books.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from cardwright_cardops.pkcs11 import messages
from cardwright_cardops.pkcs11.errors import ModuleCrashed, error_of
from cardwright_cardops.pkcs11.module import Module
from cardwright_cardops.plan.records import Kind
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.issuance.model import CertificateState
from cardwright_server.sessions import store
from cardwright_server.store.second_medium import SecondMedium
from cardwright_server.store.unit import Database
from cardwright_server.vault.messages import Limit
from cardwright_server.vault.model import Authorization, PukPurpose, VaultCard
from tests.oracle.books import Books
from tests.support.session_world import SessionWorld, make_session_world
from tests.support.token_sessions import IDS, PIN, QUICK, SoftToken, TokenStation, all_of, bound

NEW_PIN = b"271828"
DONE = sessions_pb2.OUTCOME_DONE
NOTHING = sessions_pb2.OUTCOME_NOTHING_DUE
PLENTY = Limit(10_000_000, 10_000_000)
JOBS = {
    "issue": sessions_pb2.PURPOSE_ISSUE,
    "re-issue": sessions_pb2.PURPOSE_REISSUE,
    "unlock": sessions_pb2.PURPOSE_UNLOCK_ASSISTED,
}
WRITES = (
    messages.Login, messages.SetSoPin, messages.InitPin, messages.Generate, messages.ImportKey,
    messages.WriteCertificate, messages.Sign,
)  # fmt: skip
"""Calls that change something, or that a session waits for between such."""
MODES = ("not executed", "answer lost", "child killed", "token away")


@dataclass(frozen=True)
class Case:
    """``mode`` is one of MODES, of the call with this number, or "line cut" before the message with this number."""

    mode: str
    number: int

    def __str__(self) -> str:
        return f"{self.mode} {self.number}"


@dataclass
class Struck:
    """Strikes the ``number``-th call of a module that writes, counted from 1."""

    module: Module
    case: Case | None = None
    calls: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._ask = self.module.ask
        vars(self.module)["ask"] = self.ask

    def ask(self, request: Any, *rest: Any, **named: Any) -> Any:
        """In place of ``Module.ask``."""
        if not isinstance(request, WRITES):
            return self._ask(request, *rest, **named)
        self.calls.append(type(request).__name__)
        if self.case is None or self.case.mode not in MODES or len(self.calls) != self.case.number:
            return self._ask(request, *rest, **named)
        if self.case.mode == "child killed":
            assert self.module.pid is not None
            os.kill(self.module.pid, signal.SIGKILL)
            return self._ask(request, *rest, **named)
        if self.case.mode == "token away":
            self._ask(messages.Logout(request.token), type(None), 20.0)
            raise error_of("TOKEN_GONE")
        if self.case.mode == "answer lost":
            self._ask(request, *rest, **named)
        self.module.abort()
        raise ModuleCrashed("The module's process ended (signal 9).")


@dataclass
class TokenFaults:
    """One token and one organization at the beginning of a job."""

    job: str
    folder: Path
    world: SessionWorld
    database: Database
    device: UUID
    request: str
    old: dict[str, str]
    _medium: SecondMedium
    _cases: int = 0

    @asynccontextmanager
    async def beginning(self) -> AsyncIterator[tuple[SoftToken, str]]:
        """Token and books as they were before the job, and a server."""
        await self.database.engine.dispose()
        for end in ("-wal", "-shm"):
            (self.folder / f"store.db{end}").unlink(missing_ok=True)
        fresh = self.folder / "fresh.db"
        shutil.copyfile(self.folder / "before.db", fresh)
        os.replace(fresh, self.folder / "store.db")
        # What a server that just stopped still had open is of the file before.
        await self.database.engine.dispose()
        self._cases += 1
        await self._medium.close()
        self._medium = self.database._medium = SecondMedium(self.folder / f"second-medium-{self._cases}")
        soft = SoftToken.copied(self.folder / "before", self.folder / f"case-{self._cases}")
        who = self.world.world.helper if self.job == "unlock" else None
        async with self.world.serving(self.world.office(self.device), who) as socket:
            try:
                yield soft, socket
            finally:
                soft.close()
                shutil.rmtree(soft.folder)

    def station(self, soft: SoftToken) -> TokenStation:
        """The person's."""
        pin = PIN if self.job == "re-issue" else None
        return TokenStation(soft, pin, NEW_PIN if self.job == "unlock" else PIN)

    async def cases(self) -> list[Case]:
        """Every case, by an undisturbed run, which has to be faultless."""
        async with self.beginning() as (soft, socket):
            struck = Struck(soft.module)
            station = self.station(soft)
            trip = await station.run(socket, JOBS[self.job], request=self.request)
            assert (trip.error, trip.outcome) == ("", DONE)
            assert await self.wrong(soft) == []
            calls, said = len(struck.calls), trip.order.count("write")
        return [
            *(Case(mode, number) for mode in MODES for number in range(1, calls + 1)),
            *(Case("line cut", number) for number in range(1, said)),
        ]

    async def tried(self, case: Case) -> list[str]:
        """What is wrong after a session with this fault, and one more."""
        async with self.beginning() as (soft, socket):
            Struck(soft.module, case)
            cut = case.number if case.mode == "line cut" else None
            first = await self.station(soft).run(socket, JOBS[self.job], cut=cut, request=self.request)
            await self.released()
            if first.outcome == DONE:
                return await self.wrong(soft)
            # As the daemon does: with a preview of its own.
            again = await self.station(soft).run(socket, JOBS[self.job], request=self.request)
            if again.outcome not in (DONE, NOTHING):
                return [f"one more session ends with {again.error or again.status}"]
            return await self.wrong(soft)

    async def released(self) -> None:
        """Until the server noticed that the workstation hung up."""
        async with asyncio.timeout(30):
            while any(row["ended_at"] is None for row in Books.read(self.folder / "store.db").of("card_session")):
                await asyncio.sleep(0.01)

    async def wrong(self, soft: SoftToken) -> list[str]:
        """What another process and the books find."""
        soft.close()
        found, pin = [], NEW_PIN if self.job == "unlock" else PIN
        ids = (*(("82",) if self.job == "re-issue" else ()), *IDS)
        there = soft.dump(pin, await so_pin_of(self.world, self.device))
        if there.holds != all_of(*ids):
            return [f"the token holds {there.holds}"]
        keys = there.keys
        if there.certified != keys:
            found.append("a certificate is not for the key beside it")
        good = {one.key for one in await self.world.certificates_of(self.device) if one.state is CertificateState.GOOD}
        if good != {mark for one, mark in keys.items() if one != "82"}:
            found.append("certificates that count are not those of the keys on the token")
        kept = Books.read(self.folder / "store.db").of("escrowed_key")
        if keys["9d"] not in {row["fingerprint"] for row in kept}:
            found.append("the key of 9D is not in the archive")
        if self.job == "re-issue":
            if keys["82"] != self.old["9d"]:
                found.append("the key that was replaced is not in a retired id")
            if any(keys[one] == self.old[one] for one in IDS):
                found.append("a key was not made anew")
        if not there.so:
            found.append("the security officer's PIN is not the one on record")
        if there.low:
            found.append("a try of a PIN is lost")
        return found


async def make_token_faults(job: str, folder: Path, template: Path) -> TokenFaults:
    """Everything before the job. Close ``world.issuing.core`` in the end."""
    shutil.copyfile(template, folder / "store.db")
    medium = SecondMedium(folder / "second-medium")
    database = Database(f"sqlite:///{folder / 'store.db'}", second_medium=medium)
    world = await make_session_world(database, folder, "civ", QUICK)
    core = world.issuing.core
    assert core.document is not None
    core.document.limits.update(dict.fromkeys(core.document.limits, PLENTY))
    soft = SoftToken(folder / "before")
    device = await bound(world, soft)
    request = str((await world.world.issuance(device)).id)
    old: dict[str, str] = {}
    if job != "issue":
        async with world.serving(world.office(device)) as socket:
            assert (await TokenStation(soft).run(socket, request=request)).outcome == DONE
        old = {one: soft.public_key(one) for one in IDS}
        requests, ask = world.world.services.requests, world.world.issuer if job == "re-issue" else world.world.helper
        create = requests.create_reissue if job == "re-issue" else requests.create_unlock
        request = str((await database.transact(lambda unit: create(unit, ask, device))).request.id)
    soft.close()
    await database.engine.dispose()
    shutil.copyfile(folder / "store.db", folder / "before.db")
    return TokenFaults(job, folder, world, database, device, request, old, medium)


async def failures(faults: TokenFaults, cases: Sequence[Case]) -> dict[str, list[str]]:
    """By case what is wrong after it."""
    found = {str(case): await faults.tried(case) for case in cases}
    return {name: wrong for name, wrong in found.items() if wrong}


async def so_pin_of(world: SessionWorld, device: UUID) -> bytes:
    """The security officer's PIN that the vault made last for the token, by what is recorded."""
    entries = (await world.database.read(lambda unit: store.records(unit, world.org, device))).entries
    names = [row.reference for row in entries if row.kind is Kind.PUK and "." in row.reference]
    generation, master = names[-1].split(".")
    card = VaultCard(str(world.org), str(device), int(generation), int(master))
    return (await world.issuing.vault.puk(card, PukPurpose.SET, Authorization("test", "test"))).reveal()
