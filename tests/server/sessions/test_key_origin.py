"""Where keys come from (S1): what a card states about them is verified before anything is signed that depends on it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor import yubico
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.issuance.model import CertificateState
from cardwright_server.people.model import Role
from cardwright_server.policies.document import SHIPPED
from cardwright_server.policies.model import Origin
from cardwright_server.sessions import store
from cardwright_server.store.unit import Database
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.card.attestation import root
from cardwright_simulators.reader.around import Around
from tests.support.issuance import ON_SQLITE
from tests.support.people import make_operator
from tests.support.session_world import SessionWorld, blank, make_session_world
from tests.support.sessions import Station

ATTESTED = (
    *(
        (f'profile = "{name}"', f'profile = "{name}"\nleast_origin = "attested"')
        for name in ("piv-authentication", "signature", "card-authentication")
    ),
    ('algorithm = "rsa2048"', 'algorithm = "p256"'),
)
INS_ATTEST = 0xF9


async def made(
    open_database: Callable[..., Database], folder: Path, known: tuple[x509.Certificate, ...]
) -> SessionWorld:
    return await make_session_world(open_database(), folder, "civ", ATTESTED, known)


async def origins(world: SessionWorld, device: UUID) -> dict[Slot, Origin]:
    """What is recorded of the keys."""
    keys = await world.database.read(lambda unit: store.keys(unit, world.org, device))
    return {row.slot: row.origin for row in keys}


@dataclass(eq=False)
class Relay(Around[VirtualCard]):
    """A relay before a card, which answers ATTEST with what another token stated."""

    stated: dict[int, bytes] = field(default_factory=dict)

    def transmit(self, command: bytes) -> bytes:
        if command[1] == INS_ATTEST and command[2] in self.stated:
            return self.stated[command[2]] + b"\x90\x00"
        return self.inside.transmit(command)


async def test_attested_keys_are_certified_in_as_many_round_trips(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await made(open_database, tmp_path, (root(),)), blank()
    device = await world.bound(card)
    trip = await world.issue(card, device)
    assert (trip.error, trip.outcome, trip.trips) == ("", sessions_pb2.OUTCOME_DONE, 5)
    found = await origins(world, device)
    assert found.pop(Slot.KEY_MANAGEMENT) is Origin.UNPROVEN
    assert found == dict.fromkeys((Slot.AUTHENTICATION, Slot.SIGNATURE, Slot.CARD_AUTHENTICATION), Origin.ATTESTED)
    certified = {one.holder.part: one.origin for one in await world.certificates_of(device)}
    assert certified == {"9a": "attested", "9c": "attested", "9d": "unproven", "9e": "attested"}
    world.issuing.core.close()


@ON_SQLITE
async def test_a_software_card_of_an_unknown_maker_gets_nothing_that_wants_proof(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world, card = await made(open_database, tmp_path, ()), blank()
    device = await world.bound(card)
    trip = await world.issue(card, device, Station(card, guarded=False))
    assert trip.error == "AUTHORITY_REFUSED"
    assert [one for one in await world.certificates_of(device) if one.state is CertificateState.GOOD] == []
    assert {one.holder.part for one in await world.certificates_of(device)} <= {"9d"}
    assert set(await origins(world, device)) <= {Slot.KEY_MANAGEMENT}
    world.issuing.core.close()


@ON_SQLITE
async def test_a_true_statement_about_another_key_proves_nothing(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    """The relay has a token of the known maker, with a key of its own in the same slot and the same serial number."""
    world, card, token = await made(open_database, tmp_path, (root(),)), blank(), blank()
    stated = _statement(token, Slot.AUTHENTICATION)
    device = await world.bound(card)
    relay = Relay(card, {0x9A: stated})
    request = await world.world.issuance(device)
    async with world.serving(world.office(device)) as socket:
        trip = await Station(relay, guarded=False).run(socket, request=str(request.id))
    assert trip.error == "AUTHORITY_REFUSED"
    assert "9a" not in {one.holder.part for one in await world.certificates_of(device)}
    world.issuing.core.close()


@ON_SQLITE
async def test_a_card_that_cannot_state_anything_is_refused_before_the_first_write(
    open_database: Callable[..., Database], tmp_path: Path
) -> None:
    world = await make_session_world(open_database(), tmp_path, "smartcard-logon", _only_9a())
    card = blank("sp800-73-5")
    device = await world.bound(card)
    before = card.snapshot()
    trip = await world.issue(card, device)
    assert trip.error in ("ORIGIN_TOO_WEAK", "CAPABILITY_MISSING")
    assert card.snapshot() == before
    world.issuing.core.close()


@ON_SQLITE
@pytest.mark.parametrize("policy", SHIPPED)
async def test_a_lying_relay_gets_only_what_unproven_allows(
    open_database: Callable[..., Database], tmp_path: Path, policy: str
) -> None:
    """Software keys, valid requests and a consistent read-back, under every shipped policy."""
    world, card = await make_session_world(open_database(), tmp_path, policy), blank()
    device = await world.bound(card)
    request = await world.world.issuance(device)
    caller = await make_operator(world.database, world.org, Role.ISSUANCE)
    async with world.serving(world.office(device), caller) as socket:
        trip = await Station(card, guarded=False).run(socket, request=str(request.id))
    made = await world.certificates_of(device)
    if policy in ("piv", "piv-i"):
        assert (trip.error, made) == ("SEALED_SESSION_NEEDED", [])
    else:
        assert trip.error == ""
        assert {one.origin for one in made} == {Origin.UNPROVEN}
        hardware = {oid for one in world.issuing.service.profiles for oid in one.hardware}
        assert hardware
        for one in made:
            assert not hardware & _policies(one.x509)
    world.issuing.core.close()


def _only_9a() -> tuple[tuple[str, str], ...]:
    return (('profile = "piv-authentication"', 'profile = "piv-authentication"\nleast_origin = "attested"'),)


def _statement(token: VirtualCard, slot: Slot) -> bytes:
    """What a token states of a key that it made."""
    from tests.support.raw_card import RawCard

    host = RawCard.around(token)
    host.select()
    host.admin()
    host.generate(f"{int(slot):02X}")
    command: CommandAPDU = yubico.attest(slot)
    data, sw = host.send(bytes((command.cla, command.ins, command.p1, command.p2)).hex())
    assert sw == 0x9000
    certificate = x509.load_der_x509_certificate(bytes.fromhex(data))
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    return bytes.fromhex(data)


def _policies(certificate: x509.Certificate) -> set[str]:
    try:
        found = certificate.extensions.get_extension_for_class(x509.CertificatePolicies).value
    except x509.ExtensionNotFound:
        return set()
    return {one.policy_identifier.dotted_string for one in found}
