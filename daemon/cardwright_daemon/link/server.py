"""``ServerLink`` over gRPC with mutual TLS: one connection, kept by one task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final
from uuid import UUID

import grpc
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf.timestamp_pb2 import Timestamp

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.rpc_status import RemoteError
from cardwright_cardops.secret import Secret
from cardwright_cardops.wire_reading import WireMalformed
from cardwright_proto.cms.v1 import (
    authentication_pb2,
    authentication_pb2_grpc,
    devices_pb2,
    devices_pb2_grpc,
    escrow_pb2,
    escrow_pb2_grpc,
    requests_pb2,
    requests_pb2_grpc,
    sessions_pb2,
    sessions_pb2_grpc,
    system_pb2,
    system_pb2_grpc,
    workstations_pb2,
    workstations_pb2_grpc,
)

from . import credentials
from .card_proof import StreamProof
from .credentials import Credentials, NotEnrolled
from .line import ask, meaning_of, open_channel
from .ports import (
    CardProving,
    CardSession,
    Due,
    DueItem,
    EscrowedKey,
    LinkState,
    Method,
    MethodKind,
    Opening,
    Pfx,
    Proof,
    Purpose,
    Push,
    ServerRefused,
    ServerUnreachable,
    SignInChallenge,
)
from .session import PROTOCOL, PURPOSES, StreamSession, begin, hello, say

_log = logging.getLogger(__name__)

CALL: Final = 15.0
"""Seconds for a call that a person waits for."""
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
MOST_WATCHED: Final = 16
MOST_KEYS: Final = 1000
_METHODS: Final = {
    authentication_pb2.METHOD_LDAP_PASSWORD: MethodKind.DIRECTORY_PASSWORD,
    authentication_pb2.METHOD_INITIAL_PASSWORD: MethodKind.INITIAL_PASSWORD,
    authentication_pb2.METHOD_SECURITY_ANSWERS: MethodKind.SECURITY_ANSWERS,
    authentication_pb2.METHOD_EMERGENCY_PASSWORD: MethodKind.EMERGENCY_PASSWORD,
    authentication_pb2.METHOD_CARD: MethodKind.CARD,
}
_NAMES: Final = {
    sessions_pb2.DUE_KIND_REVOKED: "revoked",
    sessions_pb2.DUE_KIND_LOCK: "lock",
    sessions_pb2.DUE_KIND_UNLOCK: "unlock",
    sessions_pb2.DUE_KIND_REPLACEMENT: "replacement",
    sessions_pb2.DUE_KIND_RECOVERED_KEYS: "recovered-keys",
    sessions_pb2.DUE_KIND_POLICY: "policy",
    sessions_pb2.DUE_KIND_RENEWAL: "renewal",
    sessions_pb2.DUE_KIND_SECRETS: "secrets",
    sessions_pb2.DUE_KIND_REQUEST: "request",
    sessions_pb2.DUE_KIND_ACTIVATION: "activation",
}
_PURPOSES: Final = {
    sessions_pb2.PURPOSE_ISSUE: Purpose.ISSUE,
    sessions_pb2.PURPOSE_UPDATE: Purpose.UPDATE,
    sessions_pb2.PURPOSE_REISSUE: Purpose.REISSUE,
    sessions_pb2.PURPOSE_UNLOCK: Purpose.UNLOCK,
    sessions_pb2.PURPOSE_UNLOCK_ASSISTED: Purpose.UNLOCK,
    sessions_pb2.PURPOSE_FORGOTTEN_PIN: Purpose.FORGOTTEN_PIN,
    sessions_pb2.PURPOSE_RECYCLE: Purpose.RECYCLE,
    sessions_pb2.PURPOSE_LOCK: Purpose.LOCK,
}
_UNKNOWN_CARD: Final = frozenset({"NO_SUCH_DEVICE"})


class SignInNotOffered(CardwrightError):
    """This server has no portal that a card could sign in to."""

    code = "SIGN_IN_NOT_OFFERED"
    default_effect = "Nothing was signed."
    default_advice = "Sign in to the portal in another way."


class GrpcLink:
    """The server at ``address`` (HOST:PORT), as the workstation whose credentials are in ``folder``.

    ``jitter`` makes a pause out of its longest: workstations that lost one server do not come back all at once.
    """

    def __init__(
        self,
        address: str,
        folder: Path | None = None,
        *,
        software: str = "cardwright",
        check_seconds: float = 5.0,
        jitter: Callable[[float], float] = lambda most: random.uniform(most / 2, most),
    ) -> None:
        self._address = address
        self._folder = folder or credentials.default_folder()
        self._software = software
        self._check_seconds = check_seconds
        self._jitter = jitter
        self._channel: grpc.aio.Channel | None = None
        self._credentials: Credentials | None = None
        self._task: asyncio.Task[None] | None = None
        self._state = LinkState.UNREACHABLE
        self._error: CardwrightError | None = None
        self._watched: tuple[Identity, ...] = ()
        self._cards_changed = asyncio.Event()
        self._ended: list[grpc.aio.Channel] = []

    @property
    def state(self) -> LinkState:
        """See ``ServerLink``."""
        return self._state

    @property
    def error(self) -> CardwrightError | None:
        """See ``ServerLink``."""
        return self._error

    async def start(self, pushed: Callable[[Push], None]) -> None:
        """See ``ServerLink``."""
        self._task = asyncio.create_task(self._keep(pushed), name="server-link")

    async def stop(self) -> None:
        """See ``ServerLink``."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for channel in (*self._ended, *((self._channel,) if self._channel is not None else ())):
            await channel.close()
        self._channel = None

    def watch(self, cards: Sequence[Identity]) -> None:
        """See ``ServerLink``."""
        known = tuple(card for card in cards if card.guid is not None or card.serial)[:MOST_WATCHED]
        if known != self._watched:
            self._watched = known
            self._cards_changed.set()

    # -------------------------------------------------------------------------------------------------- the line

    async def _keep(self, pushed: Callable[[Push], None]) -> None:
        """Say hello, renew, listen; again after a pause when the line is lost."""
        pause = FIRST_PAUSE
        while True:
            try:
                await self._greet()
                await self._renew_if_due()
                pause = FIRST_PAUSE
                await self._listen(pushed)
            except CardwrightError as error:
                self._failed(error)
            await asyncio.sleep(self._jitter(pause))
            pause = min(pause * 2, LONGEST_PAUSE)

    async def _greet(self) -> None:
        request = system_pb2.HelloRequest(protocol=PROTOCOL, oldest=PROTOCOL, software=self._software)
        await ask(system_pb2_grpc.SystemServiceStub(self._line()).Hello, request, seconds=CALL)
        self._state, self._error = LinkState.CONNECTED, None

    async def _renew_if_due(self) -> None:
        """A new key and its certificate, from two thirds of the old one's life on."""
        mine = self._credentials
        if mine is None or datetime.now(UTC) < mine.renew_at:
            return
        key = ec.generate_private_key(ec.SECP256R1())
        request = workstations_pb2.RenewRequest(request=credentials.request_of(key))
        made = await ask(workstations_pb2_grpc.WorkstationServiceStub(self._line()).Renew, request, seconds=CALL)
        try:
            await asyncio.to_thread(credentials.save, self._folder, key, made.certificate, mine.root)
        except OSError as error:
            _log.warning("the new certificate cannot be kept: %s", error.strerror)
            return
        # Sessions that are under way keep the line that they began on.
        if self._channel is not None:
            self._ended.append(self._channel)
        self._channel = None

    async def _listen(self, pushed: Callable[[Push], None]) -> None:
        """Until the line is lost, or a certificate has to be renewed. Raises what went wrong."""
        while True:
            self._cards_changed.clear()
            waiting = [asyncio.create_task(self._cards_changed.wait()), asyncio.create_task(self._until_renewal())]
            if self._watched:
                waiting.append(asyncio.create_task(self._watch(self._watched, pushed)))
            try:
                done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in waiting:
                    task.cancel()
                await asyncio.wait(waiting)
            for task in done:
                task.result()
            if waiting[1] in done:
                return

    async def _watch(self, cards: Sequence[Identity], pushed: Callable[[Push], None]) -> None:
        watch: Any = sessions_pb2_grpc.SessionServiceStub(self._line()).Watch
        request = sessions_pb2.WatchRequest(protocol=PROTOCOL, cards=[_name(card) for card in cards])
        call = watch(request)
        try:
            async for message in call:
                with contextlib.suppress(ValueError):
                    pushed(Push(UUID(message.card.guid) if message.card.guid else None))
        except grpc.aio.AioRpcError as error:
            raise meaning_of(error) from None
        finally:
            call.cancel()
        raise ServerUnreachable("The server ended the line.")

    async def _until_renewal(self) -> None:
        assert self._credentials is not None
        wait = (self._credentials.renew_at - datetime.now(UTC)).total_seconds()
        await asyncio.sleep(max(wait, LONGEST_PAUSE))

    def _line(self) -> grpc.aio.Channel:
        if self._channel is None:
            self._credentials = credentials.load(self._folder)
            self._channel = open_channel(self._address, self._credentials)
        return self._channel

    def _failed(self, error: CardwrightError) -> None:
        known = self._error is not None and self._error.code == error.code
        self._error = error
        refused = isinstance(error, ServerRefused | NotEnrolled)
        self._state = LinkState.REFUSED if refused else LinkState.UNREACHABLE
        if refused and self._channel is not None:
            # Another certificate may lie in the folder by the next attempt.
            self._ended.append(self._channel)
            self._channel = None
        if not known:
            _log.info("the server cannot be used: %s", error.code)

    async def _ask(self, method: Any, request: Any, proof: Proof | None = None, seconds: float = CALL) -> Any:
        try:
            answer = await ask(method, request, proof=proof, seconds=seconds)
        except (ServerUnreachable, ServerRefused) as error:
            self._failed(error)
            raise
        self._state, self._error = LinkState.CONNECTED, None
        return answer

    # --------------------------------------------------------------------------------------------------- the calls

    async def due(self, card: Identity, proof: bytes = b"") -> Due:
        """See ``ServerLink``."""
        answer = await self._due(card, proof)
        if answer is None and card.guid is not None and card.serial:
            # Where its issuance broke off, the server knows the card by its maker's number until that is done.
            card = replace(card, guid=None)
            answer = await self._due(card, b"")
        return Due() if answer is None else due_of(answer, card)

    async def _due(self, card: Identity, proof: bytes) -> Any:
        """The server's answer, None for a card that it does not know."""
        request = sessions_pb2.DueRequest(protocol=PROTOCOL, card=_name(card), proof=proof)
        stub = sessions_pb2_grpc.SessionServiceStub(self._line())
        try:
            return await self._ask(stub.Due, request, seconds=self._check_seconds)
        except CardwrightError as error:
            if error.code in _UNKNOWN_CARD:
                return None
            raise

    async def methods(self, card: Identity, purpose: Purpose | None, account: str) -> tuple[Method, ...]:
        """See ``ServerLink``."""
        stub = authentication_pb2_grpc.AuthenticationServiceStub(self._line())
        wanted = sessions_pb2.PURPOSE_UNSPECIFIED if purpose is None else PURPOSES[purpose]
        answer = await self._ask(stub.Methods, authentication_pb2.MethodsRequest(purpose=wanted))
        questions = tuple((one.id, one.text) for one in answer.questions)
        kinds = [_METHODS[one] for one in answer.methods if one in _METHODS]
        return tuple(Method(kind, questions if kind is MethodKind.SECURITY_ANSWERS else ()) for kind in kinds)

    async def prove(
        self, card: Identity, purpose: Purpose, account: str, kind: MethodKind, values: Mapping[str, Secret]
    ) -> Proof:
        """See ``ServerLink``."""
        evidence = authentication_pb2.Evidence(method=_number(kind))
        if kind is MethodKind.SECURITY_ANSWERS:
            for question, value in values.items():
                evidence.answers.answers.add(question=question, text=value.reveal().decode("utf-8", "replace"))
        elif kind is MethodKind.CARD:
            evidence.card = values[""].reveal()
        else:
            evidence.password = values[""].reveal().decode("utf-8", "replace")
        stub = authentication_pb2_grpc.AuthenticationServiceStub(self._line())
        answer = await self._ask(stub.Prove, authentication_pb2.ProveRequest(login=account, evidence=[evidence]))
        return Proof(Secret(answer.session.encode("ascii", "replace")), _moment(answer.expires_at))

    async def prove_by_card(self, opening: Opening) -> CardProving:
        """See ``ServerLink``."""
        proof = StreamProof(await self._begun(opening))
        try:
            await proof.begin()
        except BaseException:
            await proof.close()
            raise
        return proof

    async def open(self, opening: Opening) -> CardSession:
        """See ``ServerLink``."""
        return StreamSession(await self._begun(opening))

    async def _begun(self, opening: Opening) -> Any:
        """A stream on which the hello was said."""
        # A request that the person was told of is the help desk's; without one the holder asks, by what they proved.
        assisted = opening.purpose is Purpose.UNLOCK and opening.request is not None
        if opening.purpose in (Purpose.UNLOCK, Purpose.FORGOTTEN_PIN) and opening.request is None:
            opening = replace(opening, request=await self._asked_for(opening))
        call = begin(sessions_pb2_grpc.SessionServiceStub(self._line()), opening)
        await say(call, hello(opening, assisted=assisted))
        return call

    async def _asked_for(self, opening: Opening) -> UUID | None:
        """A request to unlock that the holder makes; None where the server knows no such card of theirs."""
        card, devices = opening.card.identity, devices_pb2_grpc.DeviceServiceStub(self._line())
        try:
            found = await self._ask(devices.Find, devices_pb2.FindDevicesRequest(page_size=200), opening.proof)
        except RemoteError as error:
            error.methods = frozenset()  # what is enough to see one's devices need not be enough for this
            raise
        mine = [row.id for row in found.devices if row.guid and row.guid == str(card.guid)]
        if not mine:
            return None
        requests = requests_pb2_grpc.RequestServiceStub(self._line())
        made = await self._ask(requests.CreateUnlock, requests_pb2.CreateUnlockRequest(device=mine[0]), opening.proof)
        return _uuid(made.request.id)

    async def escrowed(self, card: Identity, proof: Proof | None) -> tuple[EscrowedKey, ...]:
        """See ``ServerLink``."""
        return tuple(
            EscrowedKey(
                row.fingerprint,
                row.algorithm,
                _moment(row.certified_at) if row.HasField("certified_at") else None,
                downloadable=bool(row.certificate),
            )
            for row in await self._keys(proof)
        )

    async def pfx(self, card: Identity, key: str, proof: Proof | None) -> Pfx:
        """See ``ServerLink``."""
        found = next((row.id for row in await self._keys(proof) if row.fingerprint == key), None)
        if found is None:
            raise NoSuchKey("The server keeps no such key for the holder of this card.")
        stub = escrow_pb2_grpc.EscrowServiceStub(self._line())
        offer = await self._ask(stub.OfferPfx, escrow_pb2.OfferPfxRequest(key=found), proof)
        claim = escrow_pb2.ClaimPfxRequest(offer=offer.offer, password=offer.password)
        file = await self._ask(stub.ClaimPfx, claim, proof)
        return Pfx(file.file, Secret(offer.password.encode()))

    async def sign_in_challenge(self, link: str) -> SignInChallenge:
        """See ``ServerLink``: no server offers it yet."""
        raise SignInNotOffered("This server has no portal to sign in to.")

    async def sign_in(self, link: str, token: bytes) -> str:
        """See ``ServerLink``: no server offers it yet."""
        raise SignInNotOffered("This server has no portal to sign in to.")

    async def _keys(self, proof: Proof | None) -> list[Any]:
        find = partial(self._ask, escrow_pb2_grpc.EscrowServiceStub(self._line()).Find)
        found, page = list[Any](), ""
        while len(found) < MOST_KEYS:
            answer = await find(escrow_pb2.FindEscrowedKeysRequest(page_size=200, page_token=page), proof)
            found += answer.keys
            page = answer.next_page_token
            if not page:
                break
        return found


class NoSuchKey(CardwrightError):
    """The server keeps no such key for this person."""

    code = "ESCROWED_KEY_NOT_KEPT"
    default_effect = "Nothing was claimed."
    default_advice = "List the escrowed keys again."


def due_of(answer: sessions_pb2.DueResponse, card: Identity) -> Due:
    """What the server's answer means for this card. Raises WireMalformed."""
    items = tuple(
        DueItem(
            _NAMES.get(row.kind, "update"),
            _moment(row.since),
            _moment(row.ends_at) if row.HasField("ends_at") else None,
        )
        for row in answer.items
    )
    if answer.due and not items:
        items = (DueItem("update", datetime.now(UTC)),)
    # A lock comes before everything, then what somebody asked for: the first names the session that does it.
    asked = sorted(answer.items, key=lambda row: (row.purpose != sessions_pb2.PURPOSE_LOCK, not row.request))
    purpose = Purpose.ISSUE if card.guid is None else Purpose.UPDATE
    mandatory = [_moment(row.mandatory_from) for row in answer.items if row.HasField("mandatory_from")]
    return Due(
        items,
        _moment(answer.until) if answer.HasField("until") and not answer.suspended else None,
        _PURPOSES.get(asked[0].purpose, purpose) if asked else purpose,
        _uuid(asked[0].request) if asked and asked[0].request else None,
        min(mandatory, default=None),
        answer.suspended,
    )


def _name(card: Identity) -> sessions_pb2.CardName:
    return sessions_pb2.CardName(guid="" if card.guid is None else str(card.guid), serial=card.serial or "")


def _number(kind: MethodKind) -> authentication_pb2.Method.ValueType:
    return next(number for number, known in _METHODS.items() if known is kind)


def _uuid(text: str) -> UUID:
    """Raises WireMalformed."""
    try:
        return UUID(text)
    except ValueError:
        raise WireMalformed("The server named a request that is none.") from None


def _moment(stamp: Timestamp) -> datetime:
    """Raises WireMalformed."""
    try:
        return stamp.ToDatetime(UTC)
    except (ValueError, OverflowError):
        raise WireMalformed("The server named a time that is none.") from None
