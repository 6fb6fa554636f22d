"""Servers that leave out one record that has to be committed before something happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest

from cardwright_cardops.plan.authority import Issued
from cardwright_cardops.plan.records import Kind
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.principal import Principal
from cardwright_server.escrow import archive
from cardwright_server.escrow.archive import EscrowArchive
from cardwright_server.issuance.service import Prepared
from cardwright_server.requests.service import RequestService
from cardwright_server.sessions import store
from cardwright_server.sessions.desk import Desk
from cardwright_server.sessions.issuing import IssuedCertificates
from cardwright_server.sessions.ledger import Ledger
from cardwright_server.sessions.model import Greeting
from cardwright_server.sessions.ports import Task
from cardwright_server.store.second_medium import JournalEvent, JournalKind
from cardwright_server.store.unit import Unit

Change = Callable[[pytest.MonkeyPatch], None]


@dataclass(frozen=True)
class Mutant:
    """``job`` and ``cases`` are where it has to be noticed: parts of the names of cases, the last of each is tried.

    Without cases already the session that nothing disturbs ends badly. ``always``: the card's former sessions left the
    record out as well.
    """

    name: str
    change: Change
    job: str
    cases: tuple[str, ...] = ()
    profile: str = "yubikey-5.7"
    always: bool = False


def without(kind: Kind) -> Change:
    """A journal that is not told of one kind of entries."""

    def change(patch: pytest.MonkeyPatch) -> None:
        note = Ledger.note

        async def other(self: Ledger, entries: Any) -> None:
            await note(self, tuple([one for one in entries if one.kind is not kind]))

        patch.setattr(Ledger, "note", other)

    return change


def nothing(owner: Any, name: str) -> Change:
    """A function that does nothing."""

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, lambda *_, **__: None)

    return change


def nothing_awaited(owner: Any, name: str, result: object = None) -> Change:
    """The same for one that is awaited."""

    async def idle(*_: object, **__: object) -> object:
        return result

    def change(patch: pytest.MonkeyPatch) -> None:
        patch.setattr(owner, name, idle)

    return change


def unremembered(kind: JournalKind, field: str) -> Change:
    """Events of one kind that say something in a field are not written to the second medium."""

    def change(patch: pytest.MonkeyPatch) -> None:
        beforehand = Unit.beforehand

        def other(self: Unit, event: JournalEvent) -> None:
            if event.kind is not kind or event.data.get(field) is None:
                beforehand(self, event)

        patch.setattr(Unit, "beforehand", other)

    return change


def signed_first(patch: pytest.MonkeyPatch) -> None:
    """Certificates are recorded only together with their signatures."""

    async def certify(self: IssuedCertificates, orders: Any, also: Any = None) -> Any:
        requests = [await self._request(order) for order in orders]

        async def at_once(unit: Unit) -> list[Any]:
            found = []
            for request in requests:
                one = await self._service.prepare(unit, SERVER, request)
                if isinstance(one, Prepared):
                    found.append(await self._service.record(unit, SERVER, one, await self._service.sign(one)))
                else:
                    found.append(one)
            return found

        return tuple([Issued(one.certificate.certificate) for one in await self._database.transact(at_once)])

    patch.setattr(IssuedCertificates, "certify", certify)


def unfinished_unknown(patch: pytest.MonkeyPatch) -> None:
    """That a plan was shown is not kept, so nobody knows that it may have been carried out in part; and the list of
    what is due, which also leads to another look, is not asked.
    """
    move, found = store.move, Desk.task

    async def unaware(self: Desk, unit: Unit, principal: Principal, greeting: Greeting) -> Task:
        return replace(await found(self, unit, principal, greeting), is_due=False)

    async def other(unit: Unit, session: Any, event: Any, actor: Any, values: Any) -> Any:
        kept = {name: value for name, value in values.items() if name != "steps"}
        return await move(unit, session, event, actor, kept)

    patch.setattr(store, "move", other)
    patch.setattr(Desk, "task", unaware)


def unarchived(patch: pytest.MonkeyPatch) -> None:
    """A key leaves the vault before it is archived."""
    made = EscrowArchive._archived

    async def other(self: EscrowArchive, unit: Unit, *values: Any) -> Any:
        point = await unit.connection.begin_nested()
        found = await made(self, unit, *values)
        await point.rollback()
        return found

    patch.setattr(EscrowArchive, "_archived", other)


MUTANTS = (
    Mutant("PUK that is about to be set", without(Kind.PUK), "issue"),
    Mutant("management key that is about to be set", without(Kind.MANAGEMENT_KEY), "issue"),
    Mutant("journal before the batch", nothing_awaited(Ledger, "commit"), "issue", ("dead", "00ffffff")),
    Mutant("content of objects", nothing(Ledger, "put"), "issue"),
    Mutant("where a key came from", nothing(Ledger, "key"), "issue"),
    Mutant("serial number and content before the signature", signed_first, "issue", ("dead", "after a signature")),
    Mutant("escrowed key in the archive", unarchived, "issue"),
    Mutant("key that leaves the archive", nothing_awaited(archive, "leave", False), "issue"),
    Mutant("certificate on the second medium", unremembered(JournalKind.ISSUE, "tbs"), "issue"),
    Mutant("signature on the second medium", unremembered(JournalKind.ISSUE, "certificate"), "issue"),
    Mutant("escrowed key on the second medium", unremembered(JournalKind.ESCROW, "wrapped"), "issue"),
    Mutant("secrets on the second medium", unremembered(JournalKind.GENERATION, "reference"), "issue"),
    Mutant("PUK that unlocking is about to set", without(Kind.PUK), "unlock"),
    Mutant("key that is about to be imported", without(Kind.KEY), "update", always=True),
    Mutant("plan that was shown", unfinished_unknown, "update", ("dead", "db3fff")),
    Mutant("card UUID that the card gets", without(Kind.CARD), "issue again", always=True),
    Mutant("key that goes by a GENERATE", without(Kind.GENERATING), "update after a re-issue", (), "tdes-only", True),
    Mutant("certificate that came late", without(Kind.CERTIFICATE), "issue, late"),
    Mutant("late certificate on the second medium", unremembered(JournalKind.ISSUE, "tbs"), "issue, late"),
    Mutant("key of the card on the second medium", unremembered(JournalKind.GENERATION, "public_key"), "issue"),
    Mutant("release on the second medium", unremembered(JournalKind.REVOKE, "hold"), "issue"),
    Mutant("escrowed key's certificate on the second medium", unremembered(JournalKind.ESCROW, "certificate"), "issue"),
    Mutant("request that is carried out", nothing_awaited(RequestService, "start"), "issue"),
    Mutant("audit", nothing(Unit, "audit"), "issue"),
    Mutant("PUK that a workstation is about to see", nothing_awaited(Desk, "exposed"), "issue"),
    Mutant("revocation on the second medium", unremembered(JournalKind.REVOKE, "reason"), "update"),
)
