"""Sessions on PKCS#11 tokens: keys, certificates and PINs of a SoftHSM2 token; pkcs11-tool and openssl judge."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from cardwright_cardops.piv.proofs import PROOF_AUDIENCE, check_nonce
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.token_state import name_of
from cardwright_cardops.plan.token_steps import prove
from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.devices.errors import NoSuchDevice
from cardwright_server.devices.model import DeviceState, HoldReason
from cardwright_server.issuance.model import CertificateState
from cardwright_server.policies.model import DeviceKind, Origin
from cardwright_server.sessions import store
from cardwright_server.sessions.due import CardName, DueAnswer, DueChecks
from cardwright_server.store.unit import Database
from tests.support.issuance import openssl, pem
from tests.support.people import authorizer
from tests.support.session_world import SessionWorld, blank
from tests.support.sessions import Station, a_workstation
from tests.support.token_faults import so_pin_of
from tests.support.token_sessions import (
    IDS,
    PIN,
    SO_PIN,
    SoftToken,
    TokenStation,
    all_of,
    bound,
    issue,
    token_world,
    update,
)

NEW_PIN = b"271828"
DONE, NOTHING = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE
RSA = (('algorithm = "p256"\nkey = "escrow"', 'algorithm = "rsa2048"\nkey = "escrow"'),)
pytestmark = pytest.mark.parametrize("engine_name", ["sqlite"])


@pytest.fixture
def soft(tmp_path: Path) -> Iterator[SoftToken]:
    """A token whose user PIN was never set."""
    with SoftToken(tmp_path / "soft") as made:
        yield made


@pytest.fixture
async def world(database: Database, tmp_path: Path) -> AsyncIterator[SessionWorld]:
    async with token_world(database, tmp_path) as made:
        yield made


def is_given(soft: SoftToken, identifier: str) -> bool:
    """Whether the token gives a private key away."""
    wanted = ("--read-object", "--type", "privkey", "--id", identifier)
    try:
        return bool(soft.tool(*soft.named, "--login", "--pin", PIN.decode(), *wanted, binary=True))
    except subprocess.CalledProcessError:
        return False


async def test_a_token_is_issued_and_strangers_read_it(world: SessionWorld, soft: SoftToken, tmp_path: Path) -> None:
    device = await bound(world, soft)
    trip = await issue(world, soft, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    said = [one for one in trip.messages if one != "progress"]
    assert said == ["hello", "preview", *["steps"] * 4, "finished"]
    assert (trip.trips, trip.percentages[-1]) == (5, 100)
    assert soft.holds() == all_of(*IDS)
    for one in IDS:
        assert "sensitive" in soft.attributes(one) and not is_given(soft, one)
        written = pem(tmp_path, one, soft.certificate(one).public_bytes(Encoding.DER))
        root, issuer = (pem(tmp_path, f"ca{at}", ca.public_bytes(Encoding.DER)) for at, ca in enumerate(world.cas))
        openssl("verify", "-CAfile", root, "-untrusted", issuer, written)
    states = {one.holder.part: (one.state, one.origin) for one in await world.certificates_of(device)}
    assert states == dict.fromkeys(IDS, (CertificateState.GOOD, "unproven"))
    keys = await world.database.read(lambda unit: store.keys(unit, world.org, device))
    assert {row.slot.label.lower(): row.fingerprint for row in keys} == {one: soft.public_key(one) for one in IDS}
    assert {row.origin for row in keys} == {Origin.UNPROVEN}
    found = await world.world.device(device)
    assert (found.state, found.kind) == (DeviceState.ISSUED, DeviceKind.PKCS11_TOKEN)
    assert found.guid is not None and found.fascn is not None
    assert not soft.so_pin_opens(SO_PIN) and soft.so_pin_opens(await so_pin_of(world, device))
    again = await update(world, soft, device)
    assert (again.error, again.outcome, again.messages) == ("", NOTHING, ["hello", "finished"])


async def test_the_security_officers_pin_stays_where_nobody_knows_it(world: SessionWorld, tmp_path: Path) -> None:
    with SoftToken(tmp_path / "own", pin=PIN) as soft:
        device = await bound(world, soft, so_pin=None)
        trip = await issue(world, soft, device, TokenStation(soft, PIN))
        assert (trip.error, trip.outcome) == ("", DONE)
        assert soft.holds() == all_of(*IDS)
        assert soft.so_pin_opens(SO_PIN)
        request = await ask_unlock(world, device)
        async with world.serving(world.office(device), world.world.helper) as socket:
            refused = await TokenStation(soft, new=NEW_PIN).run(
                socket, sessions_pb2.PURPOSE_UNLOCK_ASSISTED, request=request
            )
        assert (refused.error, refused.preview) == ("PUK_UNKNOWN", None)


async def ask_unlock(world: SessionWorld, device: UUID) -> str:
    """The help desk's request, approved."""
    made = await world.database.transact(
        lambda unit: world.world.services.requests.create_unlock(unit, world.world.helper, device)
    )
    return str(made.request.id)


async def test_a_forgotten_pin_is_set_anew_and_the_security_officers_rotated(
    world: SessionWorld, soft: SoftToken
) -> None:
    device = await bound(world, soft)
    assert (await issue(world, soft, device)).outcome == DONE
    old, before = await so_pin_of(world, device), soft.holds()
    async with world.serving(world.office(device), world.world.helper) as socket:
        station = TokenStation(soft, new=NEW_PIN)
        trip = await station.run(socket, sessions_pb2.PURPOSE_UNLOCK_ASSISTED, request=await ask_unlock(world, device))
    assert (trip.error, trip.outcome) == ("", DONE)
    assert station.executed == [
        "token_read", "token_prove", "token_set_so_pin", "token_init_pin", "token_read",
    ]  # fmt: skip
    assert soft.holds(NEW_PIN) == before
    assert not soft.so_pin_opens(old) and soft.so_pin_opens(await so_pin_of(world, device))


async def test_no_so_pin_leaves_for_a_device_on_hold(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    assert (await issue(world, soft, device)).outcome == DONE
    request = await ask_unlock(world, device)
    services, officer = world.world.services, world.world.issuer
    await world.database.transact(lambda unit: services.devices.suspend(unit, officer, device, HoldReason.OPERATOR))
    async with world.serving(world.office(device), world.world.helper) as socket:
        station = TokenStation(soft, new=NEW_PIN)
        trip = await station.run(socket, sessions_pb2.PURPOSE_UNLOCK_ASSISTED, request=request)
    assert trip.error and "token_set_so_pin" not in station.executed
    assert soft.holds(PIN) == all_of(*IDS)


async def test_a_token_with_another_key_in_9e_gets_no_so_pin(world: SessionWorld, soft: SoftToken) -> None:
    """Its number and its label are those of the token; the key by which it would prove itself is not."""
    device = await bound(world, soft)
    assert (await issue(world, soft, device)).outcome == DONE
    soft.tool(*soft.named, "--login", "--pin", PIN.decode(), "--delete-object", "--type", "privkey", "--id", "9e")
    soft.tool(*soft.named, "--login", "--pin", PIN.decode(), "--delete-object", "--type", "pubkey", "--id", "9e")
    soft.tool(*soft.named, "--login", "--pin", PIN.decode(), "-k", "--key-type", "EC:prime256v1", "--id", "9e")
    async with world.serving(world.office(device), world.world.helper) as socket:
        station = TokenStation(soft, new=NEW_PIN)
        trip = await station.run(socket, sessions_pb2.PURPOSE_UNLOCK_ASSISTED, request=await ask_unlock(world, device))
    assert trip.error == "CARD_NOT_PROVEN" and "token_set_so_pin" not in station.executed
    assert soft.holds(PIN) == all_of(*IDS)


async def test_an_archived_key_is_recovered_to_a_second_token_and_opens_the_old_message(
    database: Database, soft: SoftToken, tmp_path: Path
) -> None:
    with SoftToken(tmp_path / "second", label="Ada 2") as second:
        async with token_world(database, tmp_path, RSA) as world:
            ada = await world.person()
            device = await bound(world, soft, ada)
            assert (await issue(world, soft, device)).outcome == DONE
            message = encrypted(tmp_path, soft)
            other = await bound(world, second, ada)
            trip = await issue(world, second, other)
            assert (trip.error, trip.outcome) == ("", DONE)
            assert second.holds() == all_of("82", *IDS)
            assert second.public_key("82") == soft.public_key("9d") != second.public_key("9d")
            assert opened(second, "82", message) == b"for Ada"
            assert "sensitive" in second.attributes("82") and not is_given(second, "82")


async def test_a_renewed_key_stays_on_the_token_in_a_retired_id(
    world: SessionWorld, soft: SoftToken, tmp_path: Path
) -> None:
    device = await bound(world, soft)
    assert (await issue(world, soft, device)).outcome == DONE
    old = {one: soft.public_key(one) for one in IDS}
    agreed = agreed_with(tmp_path, soft)
    request = await world.database.transact(
        lambda unit: world.world.services.requests.create_reissue(unit, world.world.issuer, device)
    )
    async with world.serving(world.office(device)) as socket:
        trip = await TokenStation(soft, PIN).run(socket, sessions_pb2.PURPOSE_REISSUE, request=str(request.request.id))
    assert (trip.error, trip.outcome, trip.trips) == ("", DONE, 4)
    assert soft.holds() == all_of("82", *IDS)
    assert soft.public_key("82") == old["9d"]
    assert all(soft.public_key(one) != old[one] for one in IDS)
    out = tmp_path / "derived"
    soft.tool(*soft.named, "--login", "--pin", PIN.decode(), "--derive", "-m", "ECDH1-DERIVE", "--id", "82",
              "-i", str(tmp_path / "sender.pub"), "-o", str(out))  # fmt: skip
    assert out.read_bytes() == agreed
    states = [(one.holder.part, one.state) for one in await world.certificates_of(device)]
    assert sorted(part for part, state in states if state is CertificateState.GOOD) == sorted(IDS)


def agreed_with(folder: Path, soft: SoftToken) -> bytes:
    """The secret that a sender agrees on with the key of 9D, by openssl; ``sender.pub`` goes with the message."""
    sender, peer, secret = folder / "sender", folder / "peer.pub", folder / "agreed"
    public = soft.certificate("9d").public_key()
    peer.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", sender)
    openssl("ec", "-in", sender, "-pubout", "-outform", "DER", "-out", folder / "sender.pub")
    openssl("pkeyutl", "-derive", "-inkey", sender, "-peerkey", peer, "-out", secret)
    return secret.read_bytes()


def encrypted(folder: Path, soft: SoftToken) -> Path:
    """A message to the key of 9D, by openssl."""
    plain, secret, key = folder / "plain", folder / "secret", folder / "9d.pub"
    plain.write_bytes(b"for Ada")
    public = soft.certificate("9d").public_key()
    key.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    openssl("pkeyutl", "-encrypt", "-pubin", "-inkey", key, "-in", plain, "-out", secret)
    return secret


def opened(soft: SoftToken, identifier: str, message: Path, pin: bytes = PIN) -> bytes:
    """What pkcs11-tool decrypts of it."""
    out = message.with_suffix(".opened")
    soft.tool(*soft.named, "--login", "--pin", pin.decode(), "--decrypt", "-m", "RSA-PKCS", "--id", identifier,
              "-i", str(message), "-o", str(out))  # fmt: skip
    return out.read_bytes()


@pytest.mark.parametrize("least", ["attested", "sealed", "trusted_station"])
async def test_what_wants_proof_of_hardware_is_refused_before_the_first_write(
    database: Database, soft: SoftToken, tmp_path: Path, least: str
) -> None:
    """Also on a trusted station: what a module says of its keys is its own word."""
    wanted = (('profile = "piv-authentication"', f'profile = "piv-authentication"\nleast_origin = "{least}"'),)
    async with token_world(database, tmp_path, wanted) as world:
        world.stations.every = True
        device = await bound(world, soft)
        station = TokenStation(soft)
        trip = await issue(world, soft, device, station)
        assert (trip.error, trip.preview, station.executed) == ("ORIGIN_TOO_WEAK", None, [])


async def test_keys_from_outside_reach_only_workstations_that_may_see_them(
    database: Database, soft: SoftToken, tmp_path: Path
) -> None:
    trusted = (('clear_secrets = "any"', 'clear_secrets = "trusted_station"'),)
    async with token_world(database, tmp_path, trusted) as world:
        device = await bound(world, soft)
        refused = await issue(world, soft, device)
        assert (refused.error, refused.preview) == ("CLEAR_SECRETS_REFUSED", None)
        world.stations.every = True
        async with world.serving(world.office(device)) as socket:
            trip = await TokenStation(soft).run(socket)
        assert (trip.error, trip.outcome) == ("", DONE)


async def test_a_card_does_not_pass_for_a_token_nor_a_token_for_a_card(world: SessionWorld, soft: SoftToken) -> None:
    card = blank()
    token, plastic = await bound(world, soft), await world.bound(card, await world.person("bob"))
    for_token, for_card = await world.world.issuance(token), await world.world.issuance(plastic)
    async with world.serving(world.office(token)) as socket:
        one = await Station(card).run(socket, request=str(for_token.id))
        other = await TokenStation(soft).run(socket, request=str(for_card.id))
    assert (one.error, other.error) == ("SESSION_OTHER_CARD", "SESSION_OTHER_CARD")


async def test_another_token_is_not_taken_for_the_one_of_the_request(
    world: SessionWorld, soft: SoftToken, tmp_path: Path
) -> None:
    with SoftToken(tmp_path / "stranger", label="Ada") as stranger:
        request = await world.world.issuance(await bound(world, soft))
        async with world.serving(world.office(UUID(int=0))) as socket:
            trip = await TokenStation(stranger).run(socket, request=str(request.id))
        assert (trip.error, trip.preview) == ("SESSION_OTHER_CARD", None)


async def test_a_second_session_is_refused_while_one_runs(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    request = await world.world.issuance(device)
    errors: list[str] = []
    async with world.serving(world.office(device)) as socket:

        async def meanwhile(message: sessions_pb2.RunRequest) -> None:
            if message.HasField("consent"):
                second = await TokenStation(soft).run(socket, request=str(request.id))
                errors.append(second.error)

        trip = await TokenStation(soft, before=meanwhile).run(socket, request=str(request.id))
    assert (trip.error, trip.outcome, errors) == ("", DONE, ["CARD_IN_SESSION"])


async def test_a_refusal_changes_nothing(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    station = TokenStation(soft, agrees=False)
    trip = await issue(world, soft, device, station)
    assert (trip.error, station.executed) == ("CONSENT_REFUSED", [])


async def test_an_old_workstation_is_told_so(world: SessionWorld, soft: SoftToken) -> None:
    device = await bound(world, soft)
    station = TokenStation(soft, items=("token_read", "token_set_so_pin", "token_init_pin", "token_make_key"))
    trip = await issue(world, soft, device, station)
    assert trip.error == "PEER_TOO_OLD"
    assert "token_make_key" not in station.executed


async def test_what_is_due_is_told_by_number_before_and_by_proof_after_the_issuance(
    world: SessionWorld, soft: SoftToken
) -> None:
    device, token = await bound(world, soft), soft.token
    await world.world.issuance(device)
    name, services = name_of(token.info), world.world.services
    checks = DueChecks(world.database, authorizer(), services.due, services.requests, world.stations)
    station = a_workstation(world.org)
    assert await checks.check(station, CardName(serial=name.number)) == DueAnswer(due=True)
    with pytest.raises(NoSuchDevice):
        await checks.check(station, CardName(name.guid))
    assert (await issue(world, soft, device)).outcome == DONE
    nonce = check_nonce(name.guid, datetime.now(UTC))
    proof = prove(soft.token, Slot.CARD_AUTHENTICATION, PROOF_AUDIENCE, nonce)
    told = await checks.check(station, CardName(name.guid), proof)
    assert (told.due, told.proven) == (False, True)
    unproven = await checks.check(station, CardName(name.guid), proof[:-1] + bytes([proof[-1] ^ 1]))
    assert (unproven.due, unproven.proven) == (False, False)
