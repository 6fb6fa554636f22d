"""The command line, a daemon and a server process: what a person does with a card from issuance to its end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_proto.cms.v1 import workstations_pb2 as workstations
from cardwright_proto.cms.v1 import workstations_pb2_grpc
from cardwright_simulators.card import VirtualCard
from tests.support.command_line import Desk as CommandLine
from tests.support.daemons import Person
from tests.support.front_desk import Desk
from tests.support.installation import PATIENCE, Identity, Site, request_of
from tests.support.seat import seated
from tests.support.virtual import POOL
from tests.whole.test_workstation import enrolled, link_of

PIN = b"739146"
NEW = b"862951"


async def test_a_person_gets_a_card_and_has_it_renewed_by_the_command_line(
    here: Site, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server says that it wants to know who they are: first by the password they were given, then by the card."""
    login, serial = f"p{uuid4().hex[:8]}", str(uuid4().int % 10**8)
    person = await asyncio.to_thread(desk.person, login)
    device, _ = await asyncio.to_thread(desk.issuance, person, serial)
    given = await _password(desk, desk.issuer, "SetInitialPassword", proofs.SetInitialPasswordRequest(person=person))
    card = VirtualCard("yubikey-5.7", serial=int(serial), key_pool=POOL)
    # The password, the new PIN twice; then the PIN for each proof and each session.
    holder = Person(given, PIN, PIN, *[PIN] * 6)
    await enrolled(here, tmp_path / "station")
    link = link_of(here, tmp_path / "station")
    async with seated(monkeypatch, card, link=link, person=holder) as seat:
        wanted = await seat.cli("update", "--yes")
        assert (wanted.code, "--account" in wanted.err) == (2, True)
        # Of what the server offers only what is enough for a first issuance.
        assert wanted.err.endswith("--method (initial-password).\n")
        issued = await seat.done("update", "--yes", "--account", login, "--method", "initial-password")
        assert "The card is issued." in issued.out
        await asyncio.to_thread(
            desk.ask, desk.issuer, "RequestService", "CreateReissue", requests.CreateReissueRequest(device=device)
        )
        renewed = await seat.done("update", "--yes")
        assert "The card is updated." in renewed.out
        kept = await seat.done("escrow", "list", "--json")
        assert len(kept.json["keys"]) == 2


async def test_the_help_desk_reads_out_a_password_and_the_command_finds_its_request(
    here: Site, desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper = await asyncio.to_thread(desk.operator, "hal", operators.ROLE_HELP_DESK)
    login, serial = f"p{uuid4().hex[:8]}", str(uuid4().int % 10**8)
    person = await asyncio.to_thread(desk.person, login)
    device, _ = await asyncio.to_thread(desk.issuance, person, serial)
    given = await _password(desk, desk.issuer, "SetInitialPassword", proofs.SetInitialPasswordRequest(person=person))
    card = VirtualCard("yubikey-5.7", serial=int(serial), key_pool=POOL)
    await enrolled(here, tmp_path / "station")
    holder = Person(given, PIN, PIN)
    async with seated(monkeypatch, card, link=link_of(here, tmp_path / "station"), person=holder) as seat:
        await seat.done("update", "--yes", "--account", login, "--method", "initial-password")
        alone = await seat.cli("unlock")
        # The matrix names directory and answers for it, and this server has neither.
        assert (alone.code, "PROOF_REQUIRED" in alone.err) == (1, True)
        made = await asyncio.to_thread(
            desk.ask, helper, "RequestService", "CreateUnlock", requests.CreateUnlockRequest(device=device)
        )
        assisted = await seat.cli("unlock")
        assert assisted.err.endswith("--method (emergency-password).\n")
        spoken = await _password(
            desk, helper, "SetEmergencyPassword",
            proofs.SetEmergencyPasswordRequest(person=person, request=made.request.id),
        )  # fmt: skip
        holder.answers.extend([spoken, NEW, NEW])
        unlocked = await seat.done("unlock", "--account", login, "--method", "emergency-password")
    assert "The card is unlocked." in unlocked.out


def test_tokens_passwords_and_revocation_by_the_command_line(here: Site, desk: Desk) -> None:
    """What an administrator and an issuer need before a person sits down at a new workstation."""
    login, host = f"p{uuid4().hex[:8]}", f"desk-{uuid4().hex[:12]}"
    desk.person(login)

    def done(*words: str, by: str = "ann") -> Any:
        ran = CommandLine().run("server", *words, "--data", str(here.data), "--as", by, "--json")
        assert ran.code == 0, ran.err
        return ran.json

    token = done("workstation", "token", host)["token"]
    key = ec.generate_private_key(ec.SECP256R1())
    asked = workstations.EnrolRequest(token=token, host=host, request=request_of(key))
    with here.process.entry() as line:
        workstations_pb2_grpc.WorkstationServiceStub(line).Enrol(asked, timeout=PATIENCE)
    standing = {one["host"]: one["state"] for one in done("workstation", "list")["workstations"]}
    assert standing[host] == "active"
    assert done("workstation", "revoke", host, "--reason", "lost")["state"] == "revoked"
    again = CommandLine().run("server", "workstation", "revoke", host, "--data", str(here.data), "--as", "ann")
    assert "NAME_UNKNOWN" in again.err
    issuer = here.data / "operators" / "ida.pem"
    issuer.write_bytes(desk.issuer.key + desk.issuer.chain + here.process.root)
    issuer.chmod(0o600)
    first = done("user", "password", login, by="ida")["password"]
    assert first != done("user", "password", login, by="ida")["password"]


async def _password(desk: Desk, who: Identity, call: str, request: Any) -> bytes:
    given = await asyncio.to_thread(desk.ask, who, "AuthenticationService", call, request)
    return str(given.password).encode()
