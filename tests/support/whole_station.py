"""A workstation of processes on a running server: daemon, pcscd, cards that can be stopped, people, judge."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

import grpc

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_simulators.card import VirtualCard
from tests.support.daemon_process import DaemonProcess
from tests.support.daemons import Client, client_of, told
from tests.support.front_desk import Desk
from tests.support.installation import PATIENCE, Identity, Site
from tests.support.pcscd import Pcscd
from tests.support.raw_card import RawCard
from tests.support.staged import Moment, Recorded, StagedCard, recorded
from tests.support.virtual import POOL
from tests.support.whole_judge import wrong_with

ISSUE, REISSUE, UNLOCK = pb.PURPOSE_ISSUE, pb.PURPOSE_REISSUE, pb.PURPOSE_UNLOCK
PURPOSES = {"issue": ISSUE, "update": REISSUE, "unlock": UNLOCK}
SESSIONS = {"issue": "issue", "update": "re-issue", "unlock": "unlock-assisted"}
"""The purposes as the books call them."""
METHODS = {
    ISSUE: pb.METHOD_KIND_INITIAL_PASSWORD,
    REISSUE: pb.METHOD_KIND_CARD,
    UNLOCK: pb.METHOD_KIND_EMERGENCY_PASSWORD,
}
_WANTED = "PROOF_REQUIRED"
GENERATE = 0x47
"""The instruction that makes a new key."""
PIN = b"739146"
MOST_JOBS = 2
"""On one card: the vault gives out its secrets so many times in an hour, and each job that broke off asks again."""
_SERIALS = itertools.count(40_000_000)
_PINS = itertools.count(580_317, 1_357)


@dataclass
class Held:
    """A card of somebody.

    ``pin``: the one that it has, or will have. ``request``: what is asked for it.
    """

    card: StagedCard
    login: str
    person: str
    device: str
    request: str
    pin: bytes = PIN
    jobs: int = 0
    """How many were done on it."""
    proofs: int = 0
    """How often the holder proved who they are, for what is asked now."""

    @property
    def profile(self) -> str:
        """What kind of card it is."""
        return self.card.inside.profile.name


@dataclass
class Station:
    """``daemon`` runs on ``pcscd``; ``client`` is a program that uses it now."""

    here: Site
    desk: Desk
    daemon: DaemonProcess
    pcscd: Pcscd
    client: Client | None = None
    cards_in: dict[int, str] = field(default_factory=dict)
    """Where a card is, by its serial number."""
    bystander: StagedCard = field(default_factory=lambda: StagedCard(VirtualCard(serial=1, key_pool=POOL)))
    """A blank card of which nobody wants anything."""
    _issued: list[Held] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Remember what the blank card is like; nobody is at the help desk yet."""
        self._factory = self.bystander.inside.snapshot()
        self.helper = self.desk.issuer

    # --------------------------------------------------------------------------------------------------- operators

    async def ask(self, service: str, method: str, request: Any, who: Identity | None = None) -> Any:
        """A call of the operator who issues, or of ``who``."""
        return await asyncio.to_thread(self.desk.ask, who or self.desk.issuer, service, method, request)

    async def blank(self, profile: str = "yubikey-5.7") -> Held:
        """A blank card for a new person, with a ready request to issue it."""
        serial, login = str(next(_SERIALS)), f"p{uuid4().hex[:8]}"
        person = await asyncio.to_thread(self.desk.person, login)
        device, request = await asyncio.to_thread(self.desk.issuance, person, serial)
        card = StagedCard(VirtualCard(profile, serial=int(serial), key_pool=POOL))
        held = Held(card, login, person, device, request)
        self.daemon.typing.types(current=PIN, new=PIN)
        await self.password(held)
        return held

    async def password(self, held: Held) -> None:
        """The holder has another password for the first card, and types it."""
        asked = proofs.SetInitialPasswordRequest(person=held.person)
        given = await self.ask("AuthenticationService", "SetInitialPassword", asked)
        self.daemon.typing.types(password=given.password.encode())

    async def to_update(self, held: Held) -> None:
        """Ask for new keys."""
        self.daemon.typing.types(current=held.pin)
        held.proofs = 0
        asked = requests.CreateReissueRequest(device=held.device)
        held.request = (await self.ask("RequestService", "CreateReissue", asked)).request.id

    async def to_unlock(self, held: Held) -> None:
        """Block the PIN of a card that is in no reader, and have the help desk allow another one."""
        await self.helper_anew()
        block(held.card.inside)
        asked = requests.CreateUnlockRequest(device=held.device)
        held.request = (await self.ask("RequestService", "CreateUnlock", asked, self.helper)).request.id
        held.pin = str(next(_PINS)).encode()
        self.daemon.typing.types(new=held.pin)
        held.proofs = 0

    async def _emergency(self, held: Held) -> None:
        """The help desk reads out a password; it is good for one proof."""
        told = proofs.SetEmergencyPasswordRequest(person=held.person, request=held.request)
        given = await self.ask("AuthenticationService", "SetEmergencyPassword", told, self.helper)
        self.daemon.typing.types(password=given.password.encode())

    def recorded(self, held: Held) -> Recorded | None:
        """What the books say of the last session of the card."""
        return recorded(self.here.data / "store.db", held.device)

    async def wrong(self, held: Held) -> list[str]:
        """What the oracle finds."""
        found = await wrong_with(self.here, held.card.inside, held.device, held.request, held.pin)
        asked = await self.ask("DeviceService", "Get", devices.GetDeviceRequest(id=held.device))
        found += [f"a PIN command was refused with {sw:04X}" for sw in held.card.refused]
        if asked.device.state != devices.DEVICE_STATE_ISSUED:
            found.append(f"the device is in state {asked.device.state}")
        return found

    async def ready(self, job: str, profile: str = "yubikey-5.7") -> Held:
        """A card in a reader for which the job is wanted."""
        if job == "issue":
            held = await self.blank(profile)
            await self.insert(held)
            return held
        held = await self.issued(profile)
        await (self.to_update if job == "update" else self.to_unlock)(held)
        await self.insert(held)
        return held

    async def issued(self, profile: str = "yubikey-5.7") -> Held:
        """A card in use, in no reader. One that was issued is taken for one job after another."""
        fitting = [one for one in self._issued if one.profile == profile]
        if not fitting:
            held = await self.blank(profile)
            await self.insert(held)
            async with self.open():
                await self.finish(held, ISSUE)
            await self.settle(held)
            await self.remove(held)
            fitting = [held]
        self._issued.remove(fitting[-1])
        return fitting[-1]

    async def helper_anew(self) -> Identity:
        """Somebody else at the help desk: the vault limits what each of them opens in an hour."""
        self.helper = await asyncio.to_thread(self.desk.operator, f"h{uuid4().hex[:8]}", operators.ROLE_HELP_DESK)
        return self.helper

    async def settle(self, held: Held) -> None:
        """Judge the end; the card may be used for something else then."""
        found = await self.wrong(held)
        assert found == [], found
        held.card.count_anew()
        held.jobs += 1
        if held.jobs < MOST_JOBS:
            self._issued.append(held)

    # ---------------------------------------------------------------------------------------------- the workstation

    @property
    def _client(self) -> Client:
        assert self.client is not None
        return self.client

    def nothing_in(self) -> None:
        """All cards are out."""
        self.cards_in.clear()

    async def insert_bystander(self) -> None:
        """Put the card in that nobody wants anything of."""
        await asyncio.to_thread(self.pcscd.insert, self.bystander, self.pcscd.readers[-1])

    def require_bystander_untouched(self) -> None:
        """Nothing was written to it, and no PIN was sent to it."""
        assert self.bystander.pin_commands == 0
        assert self.bystander.inside.snapshot() == self._factory

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Client]:
        """A program of the user, for as long as the daemon runs."""
        before = self.client
        async with client_of(self.daemon.socket) as client:
            self.client = client
            try:
                yield client
            finally:
                self.client = before

    async def insert(self, held: Held, reader: str | None = None) -> str:
        """Put the card into a reader, by default any."""
        name = await asyncio.to_thread(self.pcscd.insert, held.card, reader)
        self.cards_in[held.card.serial] = name
        return name

    async def remove(self, held: Held) -> None:
        """Take it out."""
        await asyncio.to_thread(self.pcscd.remove, self.cards_in.pop(held.card.serial))

    async def known(self, reader: str) -> pb.Card:
        """The card in ``reader``, once it is known or cannot be."""
        event = await self._client.until(
            lambda event: event.HasField("card")
            and event.card.present
            and event.card.card.reader == reader
            and event.card.card.state != pb.CARD_STATE_READING
        )
        return event.card.card

    async def prove(self, held: Held, purpose: pb.Purpose.ValueType, card: str) -> None:
        """The holder proves who they are. A password that the help desk read out is good once."""
        if purpose == UNLOCK:
            await self._emergency(held)
        held.proofs += 1
        asked = pb.ProveRequest(card=card, purpose=purpose, method=METHODS[purpose], account=held.login)
        await self._client.updates.Prove(asked)

    async def preview(self, held: Held, purpose: pb.Purpose.ValueType) -> tuple[str, bytes]:
        """What would be done: the card's id in the daemon, and the plan's digest; b"" for nothing.

        As every program does, it asks for a proof when the server wants one.
        """
        card = (await self.known(self.cards_in[held.card.serial])).id
        asked = pb.PreviewUpdateRequest(card=card, purpose=purpose, request=held.request)
        try:
            shown = await self._client.updates.PreviewUpdate(asked)
        except grpc.aio.AioRpcError as error:
            if told(error).code != _WANTED:
                raise
            await self.prove(held, purpose, card)
            shown = await self._client.updates.PreviewUpdate(asked)
        return card, b"" if shown.nothing_due else shown.digest

    async def begin(self, held: Held, purpose: pb.Purpose.ValueType) -> pb.Operation:
        """Preview and start, or unlock. Where nothing was left to do: an operation that is over, without an id."""
        updates = self._client.updates
        if purpose == UNLOCK:
            card = (await self.known(self.cards_in[held.card.serial])).id
            wanted = pb.UnlockRequest(card=card, request=held.request)
            begun: pb.Operation = (await updates.Unlock(wanted)).operation
            if (await self.over(begun)).error.code == _WANTED:
                await self.prove(held, purpose, card)
                begun = (await updates.Unlock(wanted)).operation
            return begun
        card, digest = await self.preview(held, purpose)
        if not digest:
            return pb.Operation(outcome=pb.OUTCOME_NOTHING_DUE)
        return (await updates.StartUpdate(pb.StartUpdateRequest(card=card, digest=digest))).operation  # type: ignore[no-any-return]

    async def over(self, operation: pb.Operation) -> pb.Operation:
        """The operation at its end."""
        if not operation.id:
            return operation
        asked = pb.WaitOperationRequest(operation=operation.id)
        return (await self._client.operations.WaitOperation(asked, timeout=PATIENCE)).operation  # type: ignore[no-any-return]

    async def through(self, held: Held, purpose: pb.Purpose.ValueType) -> pb.Operation:
        """All of it."""
        return await self.over(await self.begin(held, purpose))

    async def failure(self, held: Held, purpose: pb.Purpose.ValueType) -> str:
        """The code of the error that all of it ends with, "" where it ended well."""
        try:
            return str((await self.through(held, purpose)).error.code)
        except grpc.aio.AioRpcError as error:
            return told(error).code

    async def finish(self, held: Held, purpose: pb.Purpose.ValueType) -> list[str]:
        """What the daemon goes on with by itself, and then what somebody does once who sees that something is due.

        Gives the codes that what was started ended with, "" for well. More than once only where a slow machine ended a
        stage: a card is kept for three seconds between two batches.
        """
        starts = list[str]()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not await self._is_done(held):
                    card = (await self.known(self.cards_in[held.card.serial])).id
                    due = (await self._client.updates.GetDue(pb.GetDueRequest(card=card, refresh=True))).due
                    if due.continues:
                        await asyncio.sleep(0.05)  # when it begins, the daemon does not say
                        continue
                    assert due.items, "the request is open, and nothing is due"
                    assert set(starts) <= {"STAGE_ENDED"}, f"started before: {starts}; {self.daemon.complaint[-2000:]}"
                    starts.append(await self.failure(held, purpose))
                return starts
        listed = await self._client.operations.ListOperations(pb.ListOperationsRequest())
        raise AssertionError(f"stuck: {starts} {listed} {self.daemon.complaint[-2000:]}")

    async def _is_done(self, held: Held) -> bool:
        """Whether the request is done, once no operation runs."""
        await self.quiet()
        found = await self.ask("RequestService", "Get", requests.GetRequestRequest(id=held.request))
        return bool(found.request.state == requests.REQUEST_STATE_DONE)

    async def quiet(self) -> None:
        """Until no operation runs."""
        async with asyncio.timeout(PATIENCE):
            while True:
                listed = await self._client.operations.ListOperations(pb.ListOperationsRequest())
                at_work = [one for one in listed.operations if not one.HasField("ended_at")]
                if not at_work:
                    return
                await self.over(at_work[0])


def block(card: VirtualCard) -> None:
    """Enter wrong PINs until there is no try left."""
    raw = RawCard.around(card)
    card.power_on()
    raw.select()
    while raw.verify("303030303030FFFF") != 0x6983:
        continue
    card.power_off()


def _made_a_key(commands: list[int]) -> bool:
    """Whether GENERATE was among the commands that came to a card."""
    return GENERATE in commands


async def ending(work: Awaitable[pb.Operation]) -> str:
    """How what somebody asked for ended: a status of gRPC, the code of an error, or "" where it ended well."""
    try:
        return str((await work).error.code)
    except grpc.aio.AioRpcError as error:
        return str(error.code().name)


async def stopped_at(
    station: Station, job: str, moment: Moment | None = None, profile: str = "yubikey-5.7"
) -> tuple[Held, asyncio.Task[str]]:
    """A job under way whose card is held up at a moment, by default after it made its first new key; what ``ending``
    says of it afterwards.

    A slow machine ends a stage before its time: then it is another card's turn.
    """
    for _ in range(4):
        held = await station.ready(job, profile)
        held.card.count_anew()
        at: Callable[[], bool] = partial(_made_a_key, held.card.commands)
        if moment is not None:
            at = moment.of(partial(station.recorded, held), SESSIONS[job])
        reached = held.card.hold(at)
        work = asyncio.create_task(ending(station.through(held, PURPOSES[job])))
        waiting = asyncio.create_task(reached.wait())
        await asyncio.wait({waiting, work}, return_when=asyncio.FIRST_COMPLETED)
        waiting.cancel()
        if reached.is_set():
            return held, work
        held.card.release()
        assert await work == "STAGE_ENDED", f"it never came to that moment: {await work or 'the work ended well'}"
        await station.finish(held, PURPOSES[job])
        await station.settle(held)
    raise AssertionError("no session came to that moment")
