"""Whole card sessions with the archive: a message to an old key opens on the next card, and after a renewal."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from asn1crypto import cms
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.x963kdf import X963KDF
from cryptography.hazmat.primitives.keywrap import aes_key_unwrap
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key
from sqlalchemy import func, select

from cardwright_cardops.piv import commands
from cardwright_cardops.piv.algorithms import Algorithm, PublicKey
from cardwright_cardops.piv.commands import TAG_RESPONSE
from cardwright_cardops.piv.references import PinReference, Slot
from cardwright_cardops.piv.responses import dynamic_authentication
from cardwright_cardops.plan.authority import Issued, Refused
from cardwright_cardops.plan.observe import EVERYTHING, observe
from cardwright_cardops.plan.planner import RECOVERED
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.authentication.principal import Principal
from cardwright_server.escrow.archive import EscrowArchive
from cardwright_server.escrow.certificates import ArchivedCertificates
from cardwright_server.escrow.model import Archived
from cardwright_server.policies.document import read
from cardwright_server.policies.model import Origin, Policy
from cardwright_server.sessions.model import Greeting
from cardwright_server.sessions.ports import CertificateOrder, Task
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.escrow_tables import escrow_release, escrowed_key
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card import VirtualCard
from tests.support.escrow import task_of
from tests.support.lifecycles import RecordedCredentials, wired
from tests.support.pcscd import Pcscd
from tests.support.people import allow
from tests.support.sessions import PIN, POLICY, Office, Station, fresh_card, make_office, reader, serving, spki
from tests.support.strangers import Tools
from tests.support.vault import openssl

MESSAGE = b"to the old key"
ONE = pytest.mark.parametrize("engine_name", ["sqlite"])
"""What cards and files hold is the same on every engine; the archive's own tests run on both."""


def policy(algorithm: Algorithm, renew: int = 30) -> Policy:
    text = POLICY.format(clear="any", least="unproven", renew=renew)
    return read(text.replace('algorithm = "p256"\nkey = "escrow"', f'algorithm = "{algorithm.label}"\nkey = "escrow"'))


@dataclass
class Holder(Office):
    """One device of a person: what the archive has for it belongs into its retired slots."""

    database: Database | None = None
    person: UUID = field(default_factory=uuid4)
    replaced: frozenset[str] = frozenset()

    @property
    def keeper(self) -> EscrowArchive:
        assert self.database is not None
        return EscrowArchive(self.database, self.vault, wired(allow, RecordedCredentials()).requests)

    async def task(self, unit: Unit, principal: Principal, greeting: Greeting) -> Task:
        task = replace(await super().task(unit, principal, greeting), person=self.person)
        keys = await self.keeper.recoverable(unit, task, self.replaced)
        card = replace(self.policy.card, recovered=tuple(one.recovered for one in keys))
        return replace(task, policy=replace(self.policy, card=card))

    async def history(self) -> tuple[Archived, ...]:
        assert self.database is not None
        return await self.database.read(lambda unit: self.keeper.history(unit, self.org, self.person))

    async def session(
        self, card: VirtualCard, purpose: Any = sessions_pb2.PURPOSE_ISSUE, cut: int | None = None
    ) -> Any:
        """One session, by a workstation with a guard."""
        assert self.database is not None
        certificates = ArchivedCertificates(self, self.keeper)
        card.power_off()
        async with serving(self.database, self, certificates=certificates, escrow=self.keeper) as socket:
            return await Station(card, look=EVERYTHING).run(socket, purpose, cut=cut)

    async def issue(self, card: VirtualCard, purpose: Any = sessions_pb2.PURPOSE_ISSUE) -> None:
        """Sessions until the goal is reached; one that was cut holds the card until the server has noticed."""
        while (trip := await self.session(card, purpose)).error == "CARD_IN_SESSION":
            await asyncio.sleep(0)
        assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)

    def next_card(self) -> Holder:
        """Another device of the same person."""
        return replace(self, device=uuid4(), guid=uuid4(), issued=False, states={}, certificates={}, orders=[])


@pytest.fixture
def holder(open_database: Callable[..., Database], tmp_path: Path) -> Holder:
    office = make_office(tmp_path)
    return Holder(office.vault, office.now, policy(Algorithm.P256), database=open_database())


def encrypted(key: Archived, folder: Path) -> bytes:
    """A CMS message (DER) that openssl encrypted to a key's certificate."""
    path = folder / f"{key.fingerprint}.pem"
    path.write_bytes(x509.load_der_x509_certificate(key.certificate).public_bytes(Encoding.PEM))
    options = ("-keyopt", "ecdh_kdf_md:sha256") if key.algorithm is Algorithm.P256 else ()
    return openssl("cms", "-encrypt", "-aes256", "-outform", "DER", "-recip", str(path), *options, data=MESSAGE)


def opened(message: bytes, use: Callable[[bytes], bytes]) -> bytes:
    """The content of a CMS message. ``use``: what a card does with an encrypted key, or another's public point."""
    enveloped = cms.ContentInfo.load(message)["content"]
    (recipient,) = enveloped["recipient_infos"]
    if recipient.name == "ktri":
        padded = use(recipient.chosen["encrypted_key"].native)
        key = padded[padded.index(b"\0", 2) + 1 :]
    else:
        key = _agreed(recipient.chosen, use)
    content = enveloped["encrypted_content_info"]
    vector = content["content_encryption_algorithm"]["parameters"].native
    return openssl(
        *("enc", "-d", "-aes-256-cbc", "-K", key.hex(), "-iv", vector.hex()),
        data=content["encrypted_content"].native,
    )


def _agreed(recipient: Any, use: Callable[[bytes], bytes]) -> bytes:
    """RFC 5753 section 7.2: the wrapping key is derived from the shared secret and ECC-CMS-SharedInfo."""
    secret = use(recipient["originator"].chosen["public_key"].native)
    wrapping = recipient["key_encryption_algorithm"]["parameters"].dump()
    shared = _sequence(wrapping + b"\xa2\x06\x04\x04" + (256).to_bytes(4, "big"))
    key = X963KDF(SHA256(), 32, shared).derive(secret)
    (only,) = recipient["recipient_encrypted_keys"]
    return aes_key_unwrap(key, only["encrypted_key"].native)


def _sequence(content: bytes) -> bytes:
    assert len(content) < 128
    return bytes([0x30, len(content)]) + content


def user_of(card: VirtualCard, slot: Slot, algorithm: Algorithm) -> Callable[[bytes], bytes]:
    """A card's own use of a key, by bare commands."""
    executor = reader(card)

    def use(data: bytes) -> bytes:
        executor.plain.send(commands.select())
        executor.plain.send(commands.verify(PinReference.PIN, Secret(PIN)))
        command = commands.use_key(algorithm, slot, data, agree=algorithm is Algorithm.P256)
        answer = executor.plain.send(command)
        assert answer.sw == 0x9000
        return dynamic_authentication(answer.data, TAG_RESPONSE)

    return use


def slot_of(card: VirtualCard, key: Archived) -> Slot:
    """Where a card has a key with its certificate."""
    seen = run(observe(EVERYTHING), reader(card))
    (slot,) = [row.slot for row in seen.keys if row.fingerprint == key.fingerprint]
    held = seen.certificate(slot)
    assert held is not None and held.key == key.fingerprint
    return slot


@ONE
@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256])
async def test_a_message_to_the_lost_card_opens_with_the_next_one(
    holder: Holder, tmp_path: Path, algorithm: Algorithm
) -> None:
    holder.policy = policy(algorithm)
    await holder.issue(fresh_card())
    (old,) = await holder.history()
    message = encrypted(old, tmp_path)
    second, card = holder.next_card(), fresh_card()
    await second.issue(card)
    new, same = await holder.history()
    assert (same.id, same.certificate, same.current) == (old.id, old.certificate, True)
    assert (new.device, slot_of(card, new)) == (second.device, Slot.KEY_MANAGEMENT)
    assert slot_of(card, old) is Slot.RETIRED_1
    assert run(observe(EVERYTHING), reader(card)).retired_counts == (1, 0)
    assert opened(message, user_of(card, Slot.RETIRED_1, algorithm)) == MESSAGE
    assert holder.database is not None
    events = await holder.database.read(lambda unit: unit.rows(select(outbox)))
    told = [(one.person, one.data["purpose"]) for one in events if one.name == "escrow.released"]
    assert told == [(holder.person, "to a card of yours")]


@ONE
async def test_a_renewed_key_moves_to_a_retired_slot_of_its_card(holder: Holder, tmp_path: Path) -> None:
    holder.short, card = frozenset({"9D"}), fresh_card()
    await holder.issue(card)
    (old,) = await holder.history()
    message = encrypted(old, tmp_path)
    holder.policy = policy(Algorithm.P256, renew=60)
    holder.short, holder.replaced = frozenset(), frozenset({old.fingerprint})
    await holder.issue(card, sessions_pb2.PURPOSE_UPDATE)
    new, same = await holder.history()
    assert (new.current, same.current, new.device) == (True, False, old.device)
    assert (slot_of(card, new), slot_of(card, old)) == (Slot.KEY_MANAGEMENT, Slot.RETIRED_1)
    assert opened(message, user_of(card, Slot.RETIRED_1, Algorithm.P256)) == MESSAGE
    assert opened(encrypted(new, tmp_path), user_of(card, Slot.KEY_MANAGEMENT, Algorithm.P256)) == MESSAGE
    # Once it is there, nothing more is due, with or without the newest key's name.
    holder.replaced = frozenset()
    assert (await holder.session(card, sessions_pb2.PURPOSE_UPDATE)).outcome == sessions_pb2.OUTCOME_NOTHING_DUE


@ONE
@pytest.mark.parametrize("cut", [2, 3, 4, 5])
async def test_a_line_that_is_cut_leaves_no_key_on_a_card_that_is_not_archived(
    holder: Holder, tmp_path: Path, cut: int
) -> None:
    await holder.issue(fresh_card())
    (old,) = await holder.history()
    message = encrypted(old, tmp_path)
    second, card = holder.next_card(), fresh_card()
    assert (await second.session(card, cut=cut)).outcome == 0
    assert second.database is not None

    async def archived() -> set[str]:
        assert second.database is not None
        rows = await second.database.read(lambda unit: unit.rows(select(escrowed_key.c.fingerprint)))
        return {row.fingerprint for row in rows}

    def imported() -> set[str]:
        seen = run(observe(EVERYTHING), reader(card)).keys
        return {row.fingerprint for row in seen if row.slot is Slot.KEY_MANAGEMENT or row.slot.is_retired}

    assert imported() <= await archived()
    await second.issue(card)
    new = (await second.history())[0]
    assert imported() == {new.fingerprint, old.fingerprint} <= await archived()
    assert slot_of(card, new) is Slot.KEY_MANAGEMENT and slot_of(card, old).is_retired
    assert opened(message, user_of(card, slot_of(card, old), Algorithm.P256)) == MESSAGE
    # For each time that a key went, or was about to go, there is an entry of the audit.
    counts = [
        await second.database.read(lambda unit, table=table: unit.value(select(func.count()).select_from(table)))  # type: ignore[misc]
        for table in (escrow_release, escrowed_key)
    ]
    entries = await second.database.read(lambda unit: unit.rows(select(audit_entry.c.action)))
    actions = [row.action for row in entries]
    assert counts == [actions.count("escrow.archived") + actions.count("escrow.released"), len(await archived())]
    assert actions.count("escrow.archived") == counts[1]


@ONE
@pytest.mark.pcscd
async def test_opensc_finds_the_old_key_and_opens_the_message(holder: Holder, tmp_path: Path, pcscd: Pcscd) -> None:
    holder.policy = policy(Algorithm.RSA2048)
    await holder.issue(fresh_card())
    (old,) = await holder.history()
    enveloped = cms.ContentInfo.load(encrypted(old, tmp_path))["content"]
    second, card = holder.next_card(), fresh_card()
    await second.issue(card)
    tools, at = Tools(tmp_path), pcscd.insert(card)
    listed = tools.run("pkcs11-tool", "-L")
    place = re.search(rf"Slot \d+ \((0x[0-9a-f]+)\): {re.escape(at)}", listed)
    assert place is not None, listed
    there = ("pkcs11-tool", "--slot", place[1])
    tools.run(*there, "--read-object", "--type", "cert", "--id", "05", "-o", "old.der")
    assert (tmp_path / "old.der").read_bytes() == old.certificate
    (tmp_path / "sealed").write_bytes(enveloped["recipient_infos"][0].chosen["encrypted_key"].native)
    login = ("--login", "--pin", PIN.decode(), "--decrypt", "--mechanism", "RSA-PKCS", "--id", "05")
    tools.run(*there, *login, "--input-file", "sealed", "--output-file", "key")
    content = enveloped["encrypted_content_info"]
    vector = content["content_encryption_algorithm"]["parameters"].native
    key = (tmp_path / "key").read_bytes()
    told = ("enc", "-d", "-aes-256-cbc", "-K", key.hex(), "-iv", vector.hex())
    assert openssl(*told, data=content["encrypted_content"].native) == MESSAGE


@ONE
async def test_a_recovered_certificate_is_that_of_its_owners_key(holder: Holder) -> None:
    await holder.issue(fresh_card())
    (old,) = await holder.history()
    assert holder.database is not None
    task = task_of(holder.org, holder.person)
    certificates = ArchivedCertificates(holder, holder.keeper)

    async def asked(task: Task, public: bytes) -> Any:
        key = load_der_public_key(public)
        assert isinstance(key, PublicKey)
        order = CertificateOrder(task, uuid4(), Slot.RETIRED_1, old.algorithm, RECOVERED, key, Origin.UNPROVEN)
        return (await certificates.certify([order]))[0]

    assert await asked(task, old.public_key) == Issued(old.certificate)
    for other in (replace(task, person=uuid4()), replace(task, person=None), replace(task, org=uuid4())):
        assert isinstance(await asked(other, old.public_key), Refused)
    unknown = spki(ec.generate_private_key(ec.SECP256R1()).public_key())
    assert isinstance(await asked(task, unknown), Refused)
