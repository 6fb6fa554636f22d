"""A relayed session as a server would drive it, a card to drive it on, and what that card itself says happened.

The server's programs below are the honest ones. Tests change what they ask and look at the card's own log.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from asn1crypto.x509 import Certificate
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from cardwright_cardops.guard import Entry, GuardedExecutor, Identity, Permit, State, begin
from cardwright_cardops.guard import operations as o
from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.iso7816.tlv import MalformedTlv, encode, parse_one, parse_unique
from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import ManagementKey, answer_witness
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.piv.responses import parse_public_key
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.program.items import (
    Answers,
    AnyBatch,
    Apdu,
    Batch,
    Group,
    Item,
    Prove,
    SetPuk,
    SignRequest,
    VerifyPin,
    Want,
)
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.log import KeyUse, ManagementAuthentication, ProtectedRead, Selected, Verify, Write
from cardwright_simulators.card.state import CardState

PIN = b"314159"
NEW_PIN = b"271828"
PUK = b"27182818"
NEW_PUK = b"16180339"
MANAGEMENT = bytes(range(24))
NEW_MANAGEMENT = bytes(range(24, 48))
GUID = bytes.fromhex("0f0e0d0c0b0a49888706050403020100")
NEW_GUID = bytes.fromhex("00112233445546778899aabbccddeeff")
HOLDER = b"Canary Person of the Printed Information"
NAME = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Holder")])
SERVER_KEY = ec.generate_private_key(ec.SECP256R1())
MANAGER = ManagementKey(ManagementAlgorithm.AES192, Secret(MANAGEMENT))
NEW_MANAGER = ManagementKey(ManagementAlgorithm.AES192, Secret(NEW_MANAGEMENT))
STAGE = "write"
OK = frozenset((0x9000,))

Steps = Generator[Batch, Answers, None]


def chuid(guid: bytes) -> bytes:
    """The content of a CHUID with this card UUID."""
    head = encode(0x30, bytes(25)) + encode(0x34, guid)
    return head + encode(0x35, b"20401231") + encode(0x3E, b"") + encode(0xFE, b"")


def printed(name: bytes) -> bytes:
    """The content of a Printed Information object."""
    return encode(0x01, name) + encode(0xFE, b"")


def certificate(public: Any, issuer: ec.EllipticCurvePrivateKey = SERVER_KEY) -> bytes:
    """A DER certificate for ``public``."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    built = x509.CertificateBuilder(NAME, NAME, public, 7, now, now + timedelta(days=900))
    return built.sign(issuer, hashes.SHA256()).public_bytes(Encoding.DER)


def container(der: bytes) -> bytes:
    """The content of a certificate container."""
    return encode(0x70, der) + encode(0x71, b"\x00") + encode(0xFE, b"")


def spki(public: Any) -> bytes:
    """DER SubjectPublicKeyInfo."""
    der: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return der


def fingerprint(public: Any) -> bytes:
    """SHA-256 of the SubjectPublicKeyInfo."""
    return hashlib.sha256(spki(public)).digest()


def sha256(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


# ---------------------------------------------------------------------------------------------------- the card


def manage(card: VirtualCard, key: ManagementKey) -> None:
    """Authenticate with the management key, without anything of the program under test."""
    send(card, commands.select())
    witness = send(card, commands.management_witness(key.algorithm))
    command, _ = answer_witness(key, witness)
    send(card, command)


def send(card: VirtualCard, command: CommandAPDU) -> bytes:
    """One short command with chained data and whole answer; it must succeed."""
    data = command.data
    while len(data) > 255:
        block = CommandAPDU(command.cla | 0x10, command.ins, command.p1, command.p2, data[:255])
        assert card.transmit(block.encode()) == b"\x90\x00"
        data = data[255:]
    last = CommandAPDU(command.cla, command.ins, command.p1, command.p2, data, min(command.le, 256))
    answer = card.transmit(last.encode())
    body = answer[:-2]
    while answer[-2] == 0x61:
        answer = card.transmit(bytes((0x00, 0xC0, 0x00, 0x00, answer[-1])))
        body += answer[:-2]
    assert answer[-2:] == b"\x90\x00", answer[-2:].hex()
    return body


@dataclass(frozen=True)
class Issued:
    """A card in use: 9A and 9C and 9E with certificates, CHUID, personal data, secrets of its own."""

    snapshot: bytes
    keys: dict[int, Any]
    serial: int


def issue(profile: str = "yubikey-5.7", *, card_key: bool = True, guid: bytes | None = GUID) -> Issued:
    """A card as its person has had it for a year."""
    card = VirtualCard(profile, serial=12345678)
    factory = Secret(bytes.fromhex("0102030405060708") * 3)
    manage(card, ManagementKey(ManagementAlgorithm(card.profile.management_algorithm), factory))
    keys = {}
    for slot in (0x9A, 0x9C, 0x9E) if card_key else (0x9A, 0x9C):
        made = send(card, commands.generate(slot, Algorithm.P256))
        keys[slot] = parse_public_key(Algorithm.P256, made)
        send(card, commands.put_data(certificate_tag(slot), container(certificate(keys[slot]))))
    if guid is not None:
        send(card, commands.put_data(0x5FC102, chuid(guid)))
    send(card, commands.put_data(0x5FC109, printed(HOLDER)))
    send(card, yubico.set_management_key(MANAGER))
    send(card, commands.change_reference_data(0x80, Secret(b"123456"), Secret(PIN)))
    send(card, commands.change_reference_data(0x81, Secret(b"12345678"), Secret(PUK)))
    return Issued(card.snapshot(), keys, 12345678)


def certificate_tag(slot: int) -> int:
    """The certificate container of a slot."""
    return {0x9A: 0x5FC105, 0x9C: 0x5FC10A, 0x9D: 0x5FC10B, 0x9E: 0x5FC101}[slot]


class Socket:
    """A reader's slot: tests change the card in it. ``before`` is called with each command first."""

    def __init__(self, card: VirtualCard) -> None:
        self.card = card
        self.before: Callable[[bytes], None] = lambda command: None

    @property
    def atr(self) -> bytes:
        """Of the card that is in."""
        return self.card.atr

    def transmit(self, command: bytes) -> bytes:
        """To the card that is in."""
        self.before(command)
        return self.card.transmit(command)

    def reset(self) -> None:
        """Of the card that is in."""
        self.card.reset()


# ------------------------------------------------------------------------------------------------- the session


def permit(issued: Issued, imported: Any) -> Permit:
    """What the preview of ``session`` shows."""
    keys = {slot: fingerprint(public) for slot, public in issued.keys.items()}
    ranked: tuple[o.Operation, ...] = (
        o.MakeKey(0x9A, 0x11, replaces=keys[0x9A]),
        o.MakeKey(0x9C, 0x11, PinPolicy.ALWAYS, replaces=keys[0x9C]),
        o.ImportKey(0x9D, 0x11, key=fingerprint(imported.public_key())),
        o.PutObject(0x5FC102, sha256(chuid(NEW_GUID))),
        o.PutObject(0x5FC109, sha256(printed(b"New"))),
        o.PutCertificate(0x9A),
        o.PutCertificate(0x9C),
        o.PutCertificate(0x9D),
        o.ChangePuk(),
        o.SetManagementKey(0x0A),
    )
    free = (
        Entry(o.Manage(0x0A), None, 2),
        Entry(o.EnterPin(), None, 2),
        Entry(o.RequestCertificate(0x9A), None),
        Entry(o.RequestCertificate(0x9C), None),
    )
    entries = tuple(Entry(operation, rank) for rank, operation in enumerate(ranked))
    return Permit(sha256(b"the plan"), entries + free, keys)


def group(*items: Item) -> Group:
    """An essential group."""
    return Group(items, essential=True)


def session(imported: Any) -> Steps:
    """An honest server: new 9A and 9C, an escrowed 9D, new CHUID, name, PUK and management key; read back."""
    yield Batch((group(Apdu(commands.select())), Group((
        Apdu(commands.get_data(0x5FC102)),
        Apdu(yubico.get_serial()),
        Apdu(yubico.get_metadata(0x9A)),
        Prove(0x9E, 0x11, bytes(16)),
    ))))  # fmt: skip
    witness = Apdu(commands.management_witness(MANAGER.algorithm))
    answers = yield Batch((group(Apdu(commands.select()), witness),), STAGE)
    answer, _ = answer_witness(MANAGER, answers[0][1].data)
    answers = yield Batch((group(
        Apdu(answer),
        Apdu(commands.generate(0x9A, Algorithm.P256)),
        Apdu(commands.generate(0x9C, Algorithm.P256, pin_policy=PinPolicy.ALWAYS)),
    ),), STAGE)  # fmt: skip
    made = [parse_public_key(Algorithm.P256, one.data) for one in answers[0][1:]]
    name = NAME.public_bytes()
    yield Batch((group(VerifyPin(), SignRequest(0x9A, name), VerifyPin(), SignRequest(0x9C, name)),), STAGE)
    writes = [
        Apdu(yubico.import_key(0x9D, imported)),
        Apdu(commands.put_data(0x5FC102, chuid(NEW_GUID))),
        Apdu(commands.put_data(0x5FC109, printed(b"New"))),
        Apdu(commands.put_data(0x5FC105, container(certificate(made[0])))),
        Apdu(commands.put_data(0x5FC10A, container(certificate(made[1])))),
        Apdu(commands.put_data(0x5FC10B, container(certificate(imported.public_key())))),
    ]
    yield Batch((group(*writes),), STAGE)
    yield Batch((group(
        SetPuk(Secret(PUK), Secret(NEW_PUK)),
        Apdu(yubico.set_management_key(NEW_MANAGER)),
        Apdu(commands.get_data(0x5FC102), want=Want.DIGEST),
        Apdu(commands.get_data(0x5FC109), want=Want.DIGEST),
    ),), STAGE)  # fmt: skip


@dataclass
class Bench:
    """One card in a reader, the guarded executing end, and the card's own record since the preview."""

    issued: Issued
    imported: Any
    card: VirtualCard
    socket: Socket
    guarded: GuardedExecutor
    local: LocalExecutor
    leaked: list[bytes] = field(default_factory=list)

    def execute(self, batch: AnyBatch, *, guarded: bool = True) -> Answers:
        """Through the guard, or as a card without one would take it; what comes back to the server is kept."""
        answers = (self.guarded if guarded else self.local).execute(batch)
        self.leaked += [answer.data for one in answers for answer in one]
        return answers


def bench(issued: Issued, imported: Any, allowed: Permit | None = None, *, unbroken: bool = False) -> Bench:
    """A fresh copy of the card, at the moment after its preview."""
    card = VirtualCard.restore(issued.snapshot)
    socket = Socket(card)
    local = LocalExecutor(DirectConnection(socket), KeyItems(FixedPins(Secret(PIN), Secret(NEW_PIN)), local=True))
    allowed = permit(issued, imported) if allowed is None else allowed
    state = begin(allowed, identity(issued), plan=allowed.plan)
    assert isinstance(state, State)
    guarded = GuardedExecutor(local, state, unbroken=lambda: unbroken)
    card.log.clear()
    return Bench(issued, imported, card, socket, guarded, local)


def identity(issued: Issued) -> Identity:
    """Of the card at its preview."""
    stored = CardState.decode(issued.snapshot).objects.get(0x5FC102)
    guid = None if stored is None else parse_unique(parse_one(stored, 0x53).value)[0x34]
    key = issued.keys.get(0x9E)
    return Identity(guid, issued.serial, None if key is None else spki(key))


# ------------------------------------------------------------------------------------------------- the witness

# In the order of the plan.
PERMITTED_WRITES = Counter(
    {
        ("key generated", 0x9A): 1,
        ("key generated", 0x9C): 1,
        ("key imported", 0x9D): 1,
        ("object", 0x5FC102): 1,
        ("object", 0x5FC109): 1,
        ("object", 0x5FC105): 1,
        ("object", 0x5FC10A): 1,
        ("object", 0x5FC10B): 1,
        ("reference", 0x81): 1,
        ("management key", 0x9B): 1,
    }
)
PIV_AID = bytes.fromhex("a000000308000010000100")


def beyond(bench: Bench) -> list[str]:
    """What the card itself says was done beyond the permit of ``permit``; reads no answer of the guard."""
    card, wrong = bench.card, []
    before, after = CardState.decode(bench.issued.snapshot), CardState.decode(card.snapshot())
    writes = Counter((one.kind, one.number) for one in card.log if isinstance(one, Write))
    # A wrong try writes the counter; what matters of references is said by Verify and by the values themselves.
    writes.pop(("reference", 0x80), None)
    order = [(one.kind, one.number) for one in card.log if isinstance(one, Write)]
    turns = [list(PERMITTED_WRITES).index(one) for one in order if one in PERMITTED_WRITES]
    wrong += ["writes in another order"] if turns != sorted(turns) else []
    wrong += [f"{kind} {number:X}: {times} times" for (kind, number), times in (writes - PERMITTED_WRITES).items()]
    verified = Counter(one.reference for one in card.log if isinstance(one, Verify))
    wrong += [f"reference {ref:02X} {n} times" for ref, n in (verified - Counter({0x80: 2, 0x81: 1})).items()]
    wrong += [f"wrong value for {one.reference:02X}" for one in card.log if isinstance(one, Verify) and not one.ok
              and one.reference == 0x80]  # fmt: skip
    managed = sum(isinstance(one, ManagementAuthentication) for one in card.log)
    wrong += [f"management key {managed} times"] if managed > 2 else []
    uses = Counter(one.slot for one in card.log if isinstance(one, KeyUse) and one.slot != 0x9E)
    wrong += [f"key {slot:02X} used {n} times" for slot, n in (uses - Counter({0x9A: 1, 0x9C: 1})).items()]
    wrong += _other_applications(card)
    wrong += _keys_beyond(bench, before, after)
    wrong += _objects_beyond(bench, before, after)
    wrong += [f"protected object {one.tag:X} read before it was written" for one in _early_reads(card)]
    if any(HOLDER in data for data in bench.leaked):
        wrong.append("personal data left the workstation")
    if after.references[0x80].value != before.references[0x80].value:
        wrong.append("another PIN")
    if after.references[0x81].value.rstrip(b"\xff") == b"12345678" or len(after.references[0x81].value) != 8:
        wrong.append("a bad PUK")
    if after.management.algorithm != 0x0A or after.management.value == bytes.fromhex("0102030405060708") * 3:
        wrong.append("a bad management key")
    return wrong


def _other_applications(card: VirtualCard) -> list[str]:
    """Selections of other applications, except the one with which the executing end itself ends a transaction."""
    wrong = []
    for number, one in enumerate(card.log):
        if isinstance(one, Selected) and not PIV_AID.startswith(one.aid):
            following = card.log[number + 1 : number + 2]
            ends = not following or isinstance(following[0], Selected)
            if one.aid != commands.ISSUER_SECURITY_DOMAIN_AID or not ends:
                wrong.append(f"application {one.aid.hex()}")
    return wrong


def _early_reads(card: VirtualCard) -> list[ProtectedRead]:
    written, early = set(), []
    for one in card.log:
        if isinstance(one, Write) and one.kind == "object":
            written.add(one.number)
        if isinstance(one, ProtectedRead) and one.tag not in written:
            early.append(one)
    return early


def _keys_beyond(bench: Bench, before: CardState, after: CardState) -> list[str]:
    wrong = []
    for slot, key in after.keys.items():
        if before.keys.get(slot) == key:
            continue
        strong = {0x9A: 2, 0x9C: 3, 0x9D: 2}.get(slot)
        fits = strong is not None and key.algorithm == 0x11 and key.pin_policy >= strong
        if not fits or key.generated != (slot != 0x9D):
            wrong.append(f"key {slot:02X} is not as it was shown")
        if slot == 0x9D and public_of(after, slot) != spki(bench.imported.public_key()):
            wrong.append("another key was imported")
    return wrong + [f"key {slot:02X} is gone" for slot in before.keys.keys() - after.keys.keys()]


def _objects_beyond(bench: Bench, before: CardState, after: CardState) -> list[str]:
    wrong = []
    shown = {0x5FC102: chuid(NEW_GUID), 0x5FC109: printed(b"New")}
    slots = {0x5FC105: 0x9A, 0x5FC10A: 0x9C, 0x5FC10B: 0x9D}
    for tag, answer in after.objects.items():
        if before.objects.get(tag) == answer:
            continue
        content = parse_one(answer).value
        if tag in shown:
            fits = content == shown[tag]
        elif tag in slots:
            fits = slots[tag] in after.keys and _certified(content) == public_of(after, slots[tag])
        else:
            fits = False
        if not fits:
            wrong.append(f"object {tag:X} is not as it was shown")
    return wrong + [f"object {tag:X} is gone" for tag in before.objects.keys() - after.objects.keys()]


def _certified(content: bytes) -> bytes:
    """SubjectPublicKeyInfo in a certificate container, "" where there is no certificate."""
    try:
        der: bytes = Certificate.load(parse_unique(content)[0x70], strict=True).public_key.dump()
    except (MalformedTlv, KeyError, ValueError):
        return b""
    return der


def public_of(state: CardState, slot: int) -> bytes:
    """SubjectPublicKeyInfo of a P-256 key on the card, from its private half."""
    (scalar,) = state.keys[slot].private
    return spki(ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1()).public_key())
