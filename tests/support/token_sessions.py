"""Sessions on PKCS#11 tokens in one process: a workstation with a guard and a SoftHSM2 token, a server as it is.

What is on a token afterwards is judged by pkcs11-tool, a process that shares no code with ours.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import UUID

import grpc
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops import wire, wire_tokens
from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.guard.permit import Permit
from cardwright_cardops.guard.preview import permit_for
from cardwright_cardops.guard.tokens import TokenGuard, begin_token
from cardwright_cardops.pkcs11 import Module, Token
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.steps import STEP_KINDS
from cardwright_cardops.plan.token_state import features_of, inventory_of
from cardwright_cardops.plan.token_steps import TokenExecutor
from cardwright_cardops.program.token_items import TOKEN_ITEMS
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2, sessions_pb2_grpc
from cardwright_server.devices.model import Derivation, Lot, SecretName, SecretSource
from cardwright_server.devices.stock import SecretSealer
from cardwright_server.people.model import Person
from cardwright_server.policies.model import DeviceKind
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from tests.support.session_streams import SEEN, round_trips
from tests.support.session_world import SessionWorld, make_session_world
from tests.support.sessions import Cut, Trip, reason_of
from tests.support.softhsm import SOFTHSM

SO_PIN = b"13579086"
PIN = b"739146"
IDS = ("9a", "9c", "9d", "9e")
"""CKA_ID of each key that the policy wants."""
QUICK = (('algorithm = "rsa2048"', 'algorithm = "p256"'),)
"""What the policy ``civ`` says in another way here: all its keys are quickly made."""


@dataclass(frozen=True)
class Dump:
    """What ``token_dump`` prints."""

    objects: list[dict[str, str]]
    so: bool
    low: bool

    @property
    def holds(self) -> list[tuple[str, str]]:
        """(class, CKA_ID) of every object, sorted."""
        names = {"private_key": "Private Key", "public_key": "Public Key", "certificate": "Certificate"}
        return sorted((names[row["class"]], row["id"]) for row in self.objects)

    @property
    def keys(self) -> dict[str, str]:
        """Fingerprints of the public keys, by CKA_ID."""
        found = {}
        for row in self.objects:
            if row["class"] == "public_key":
                point = bytes.fromhex(row["value"])[2:]
                public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
                found[row["id"]] = fingerprint_of(public)
        return found

    @property
    def certified(self) -> dict[str, str]:
        """Fingerprints of the keys in the certificates, by CKA_ID."""
        rows = (row for row in self.objects if row["class"] == "certificate")
        return {
            row["id"]: fingerprint_of(x509.load_der_x509_certificate(bytes.fromhex(row["value"])).public_key())
            for row in rows
        }


def all_of(*ids: str) -> list[tuple[str, str]]:
    """Key pairs with certificates, as ``holds`` tells them."""
    return sorted((kind, one) for kind in ("Private Key", "Public Key", "Certificate") for one in ids)


def fingerprint_of(public: Any) -> str:
    """Hexadecimal SHA-256 of the SubjectPublicKeyInfo."""
    return hashlib.sha256(public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


@dataclass
class SoftToken:
    """A SoftHSM2 token in a folder of its own. ``pin``: its user PIN, None for one that was never set.

    A context manager: afterwards the process of its module is gone.
    """

    folder: Path
    label: str = "Ada"
    pin: bytes | None = None
    so_pin: bytes = SO_PIN
    made: bool = False

    @classmethod
    def copied(cls, source: Path, folder: Path) -> SoftToken:
        """Another token with everything that the one in ``source`` has; nobody uses that one meanwhile."""
        shutil.copytree(source, folder)
        return cls(folder, made=True)

    def __post_init__(self) -> None:
        (self.folder / "tokens").mkdir(parents=True, exist_ok=True)
        self.configuration.write_text(
            f"directories.tokendir = {self.folder / 'tokens'}\nobjectstore.backend = file\nlog.level = ERROR\n"
        )
        if self.made:
            return
        self.tool("--init-token", "--slot-index", "0", "--label", self.label, "--so-pin", self.so_pin.decode())
        if self.pin is not None:
            so = ("--login", "--login-type", "so", "--so-pin", self.so_pin.decode())
            self.tool(*self.named, *so, "--init-pin", "--new-pin", self.pin.decode())

    def __enter__(self) -> SoftToken:
        return self

    def __exit__(self, *ended: object) -> None:
        self.close()

    @property
    def configuration(self) -> Path:
        """Of the module."""
        return self.folder / "softhsm2.conf"

    @property
    def environment(self) -> dict[str, str]:
        """Under which the module finds the token."""
        return {"SOFTHSM2_CONF": str(self.configuration)}

    @property
    def named(self) -> tuple[str, str]:
        """For pkcs11-tool."""
        return "--token-label", self.label

    @cached_property
    def module(self) -> Module:
        """In a process of its own."""
        return Module(SOFTHSM, environment=self.environment)

    @property
    def token(self) -> Token:
        """As our library sees it."""
        return self.module.token(label=self.label)

    def tool(self, *arguments: str, binary: bool = False) -> Any:
        """What pkcs11-tool prints. Raises CalledProcessError."""
        environment = {**os.environ, **self.environment}
        command = ["pkcs11-tool", "--module", str(SOFTHSM), *arguments]
        return subprocess.run(command, env=environment, check=True, capture_output=True, text=not binary).stdout

    def holds(self, pin: bytes = PIN) -> list[tuple[str, str]]:
        """(class, CKA_ID) of every object that the login shows, sorted, by pkcs11-tool."""
        listed = self.tool(*self.named, "--login", "--pin", pin.decode(), "--list-objects")
        found, kind = [], ""
        for line in listed.splitlines():
            if match := re.match(r"(Private Key|Public Key|Certificate) Object", line):
                kind = match[1]
            elif kind and (match := re.match(r"\s+ID:\s+([0-9a-f]+)", line)):
                found.append((kind, match[1]))
                kind = ""
        return sorted(found)

    def attributes(self, identifier: str, pin: bytes = PIN) -> str:
        """What pkcs11-tool says of a private key."""
        listed = self.tool(*self.named, "--login", "--pin", pin.decode(), "-O", "--type", "privkey", "--id", identifier)
        return str(listed)

    def certificate(self, identifier: str) -> x509.Certificate:
        """Read by pkcs11-tool, without a login."""
        der = self.tool(*self.named, "--read-object", "--type", "cert", "--id", identifier, binary=True)
        return x509.load_der_x509_certificate(der)

    def public_key(self, identifier: str) -> str:
        """Fingerprint of the SubjectPublicKeyInfo that pkcs11-tool reads."""
        der = self.tool(*self.named, "--read-object", "--type", "pubkey", "--id", identifier, binary=True)
        return hashlib.sha256(der).hexdigest()

    def certified_key(self, identifier: str) -> str:
        """Fingerprint of the key in a certificate that pkcs11-tool reads."""
        return fingerprint_of(self.certificate(identifier).public_key())

    def dump(self, pin: bytes, so_pin: bytes) -> Dump:
        """All at once, by python-pkcs11 in a process of its own. Of P-256 keys only. Raises CalledProcessError."""
        told = json.dumps({"pin": pin.decode(), "so_pin": so_pin.decode()})
        command = [sys.executable, str(Path(__file__).with_name("token_dump.py")), str(SOFTHSM), self.label]
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True, input=told)
        return Dump(**json.loads(done.stdout))

    def so_pin_opens(self, so_pin: bytes) -> bool:
        """Whether pkcs11-tool can log the security officer in."""
        told = ("--so-pin", so_pin.decode(), "--new-pin", so_pin.decode())
        try:
            self.tool(*self.named, "--login", "--login-type", "so", "--change-pin", *told)
        except subprocess.CalledProcessError:
            return False
        return True

    def close(self) -> None:
        """End the module's process; the next use begins another one."""
        if "module" in vars(self):
            self.module.close()


@dataclass
class Pins:
    """What a person would type."""

    current: bytes | None
    new: bytes = PIN
    asked: list[str] = field(default_factory=list)

    def current_pin(self) -> Secret:
        """See ``TokenPins``."""
        self.asked.append("current")
        return Secret(self.current or self.new)

    def new_pin(self) -> Secret:
        """See ``TokenPins``."""
        self.asked.append("new")
        return Secret(self.new)


def as_it_is(value: Any) -> Any:
    """What an honest workstation says."""
    return value


@dataclass
class TokenStation:
    """A workstation: reads the token, has its person agree, and lets the guard judge every step."""

    soft: SoftToken
    pin: bytes | None = None
    new: bytes = PIN
    agrees: bool = True
    confirms: bool = True
    items: Sequence[str] = tuple(TOKEN_ITEMS.values())
    change: Callable[[sessions_pb2.RunRequest], sessions_pb2.RunRequest] = as_it_is
    before: Callable[[sessions_pb2.RunRequest], Awaitable[None]] | None = None
    seen: list[Inventory] = field(default_factory=list)
    executed: list[str] = field(default_factory=list)

    async def run(
        self,
        socket: str,
        purpose: sessions_pb2.Purpose.ValueType = sessions_pb2.PURPOSE_ISSUE,
        *,
        cut: int | None = None,
        request: str = "",
    ) -> Trip:
        """One session. ``cut``: hang up before sending the message with this number (0 is the hello)."""
        trip, token = Trip(), self.soft.token
        seen = inventory_of(token, token.inventory())
        self.seen.append(seen)
        reading = begin_token(Permit(b""))
        assert isinstance(reading, TokenGuard)
        executor = TokenExecutor(token, Pins(self.pin, self.new), reading)
        hello = sessions_pb2.ClientHello(
            protocol=1, steps=list(STEP_KINDS), items=self.items, max_batch=1 << 20, software="test",
            reader="SoftHSM2", purpose=purpose, request=request, card=wire.inventory_to_wire(seen),
            token=wire_tokens.token_to_wire(features_of(token)),
        )  # fmt: skip
        sent = 0
        async with grpc.aio.insecure_channel(f"unix:{socket}") as channel:
            call: Any = sessions_pb2_grpc.SessionServiceStub(channel).Run()

            async def say(message: sessions_pb2.RunRequest) -> None:
                nonlocal sent
                if sent == cut:
                    raise Cut
                if self.before is not None:
                    await self.before(message)
                sent += 1
                trip.order.append("write")
                await call.write(self.change(message))

            try:
                await say(sessions_pb2.RunRequest(hello=hello))
                while (message := await call.read()) is not grpc.aio.EOF:
                    kind = message.WhichOneof("kind") or ""
                    trip.order.append("read")
                    trip.messages.append(kind)
                    match kind:
                        case "preview":
                            trip.preview = message.preview
                            plan = wire.plan_from_wire(message.preview.plan)
                            digest = bytes.fromhex(plan.digest)
                            permit = permit_for(plan.document(), seen.document())
                            permit = replace(permit, confirmed=permit.acts) if self.confirms else permit
                            state = begin_token(permit, plan=digest)
                            assert isinstance(state, TokenGuard)
                            executor.state = state
                            executor.logs_in = any(step.kind not in ("set-puk", "set-pin") for step in plan.steps)
                            executor.logs_in &= not any(step.kind == "set-pin" for step in plan.steps)
                            await say(sessions_pb2.RunRequest(
                                consent=sessions_pb2.Consent(plan=digest, refused=not self.agrees)
                            ))  # fmt: skip
                        case "steps" if trip.preview is None or self.agrees:
                            await say(sessions_pb2.RunRequest(step_answers=self._answers(executor, message.steps)))
                        case "progress":
                            trip.percentages.append(message.progress.percentage)
                        case "finished":
                            trip.outcome = message.finished.outcome
                        case "error":
                            trip.error = message.error.code
            except Cut:
                call.cancel()
            except grpc.aio.AioRpcError as error:
                trip.status = error.code().name
                trip.error = trip.error or reason_of(error)
            finally:
                executor.close()
        trip.trips = round_trips(trip.order, SEEN.get(socket, [])[-1:])
        return trip

    def _answers(self, executor: TokenExecutor, message: sessions_pb2.Steps) -> sessions_pb2.StepAnswers:
        batch = wire_tokens.steps_from_wire(message.batch)
        try:
            answers = executor.execute(batch)
        except CardwrightError as error:
            return sessions_pb2.StepAnswers(number=message.number, refused=wire.error_to_wire(error))
        pairs = zip(batch.items, answers, strict=True)
        self.executed += [TOKEN_ITEMS[type(item)] for item, answer in pairs if answer.outcome.name == "ANSWERED"]
        return sessions_pb2.StepAnswers(number=message.number, answers=wire_tokens.step_answers_to_wire(answers))


@asynccontextmanager
async def token_world(
    database: Database, folder: Path, replacing: Sequence[tuple[str, str]] = ()
) -> AsyncIterator[SessionWorld]:
    """An organization whose policy is for tokens, too."""
    world = await make_session_world(database, folder, "civ", (*QUICK, *replacing))
    try:
        yield world
    finally:
        world.issuing.core.close()


async def bound(
    world: SessionWorld, soft: SoftToken, person: Person | None = None, *, so_pin: bytes | None = SO_PIN
) -> UUID:
    """The token in stock, in a lot that knows ``so_pin`` (None: nobody does), and bound to a person."""
    name, vault = features_of(soft.token).name, world.issuing.vault
    holder, kind, issuer = person or await world.person(), DeviceKind.PKCS11_TOKEN, world.world.issuer
    sealer, stock = SecretSealer(vault), world.world.free.stock
    secrets = {} if so_pin is None else {SecretName.PUK: Secret(so_pin)}
    one = await sealer.delivered(world.org, name.number, secrets)
    source = SecretSource.FACTORY if so_pin is None else SecretSource.PER_CARD
    lot = Lot(new_id(), world.org, f"tokens {name.serial}", kind, source, Derivation.NONE)

    async def work(unit: Any) -> None:
        await stock.register_lot(unit, issuer, lot)
        await stock.register(unit, issuer, kind, [one], lot.id)
        await world.world.services.devices.bind(unit, issuer, one.id, holder.id)

    await world.database.transact(work)
    return one.id


async def issue(world: SessionWorld, soft: SoftToken, device: UUID, station: TokenStation | None = None) -> Trip:
    """Issue a bound token by a request."""
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        return await (station or TokenStation(soft)).run(socket, request=str(request.id))


async def update(world: SessionWorld, soft: SoftToken, device: UUID, station: TokenStation | None = None) -> Trip:
    """A session for what is due."""
    async with world.serving(world.office(device)) as socket:
        return await (station or TokenStation(soft, PIN)).run(socket, sessions_pb2.PURPOSE_UPDATE)
