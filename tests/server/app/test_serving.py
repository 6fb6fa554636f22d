"""A real process: what it answers to whom, over TLS, its own socket and HTTP."""

from __future__ import annotations

import hashlib
import stat
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc  # type: ignore[import-untyped]
from sqlalchemy import select

from cardwright_proto.cms.v1 import people_pb2, people_pb2_grpc, system_pb2, system_pb2_grpc, workstations_pb2
from cardwright_proto.cms.v1 import workstations_pb2_grpc as stations
from cardwright_server.app import issuance_of
from cardwright_server.audit.model import SERVER
from cardwright_server.authentication.matrix import RULES
from cardwright_server.config import load
from cardwright_server.founding import open_database
from cardwright_server.issuance import status
from cardwright_server.issuance.authorities import organization
from cardwright_server.issuance.model import Holder, HolderKind, Issued
from cardwright_server.issuance.names import HolderNames
from cardwright_server.issuance.origin import Expected
from cardwright_server.issuance.requests import CertificateRequest
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.vault.client import VaultClient
from tests.support.installation import (
    PASSPHRASE,
    PATIENCE,
    Identity,
    Site,
    cardwright,
    enrol_first,
    refusal,
    request_of,
)
from tests.support.issuance import spki
from tests.support.people import make_person

HELLO = system_pb2.HelloRequest(protocol=1, software="test 1")


def hello(line: grpc.Channel) -> system_pb2.HelloResponse:
    return system_pb2_grpc.SystemServiceStub(line).Hello(HELLO, timeout=PATIENCE)


def refused(identity: Identity, here: Site) -> tuple[str, str]:
    """How a call with this certificate ends."""
    with pytest.raises(grpc.RpcError) as error, here.process.calls(identity) as line:
        hello(line)
    return refusal(error.value)


def test_hello_is_open_to_everyone_and_tells_the_root(here: Site) -> None:
    root = hashlib.sha256(here.process.get("http", "/ca/root-1.cer")).digest()
    with here.process.local() as local, here.process.entry() as entry, here.process.calls(here.officer) as calls:
        for line in (local, entry, calls):
            said = hello(line)
            assert (said.protocol, said.newest, said.oldest, said.root) == (1, 1, 1, root)
            assert abs(said.now.ToDatetime(tzinfo=UTC) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize("newest, oldest", [(0, 0), (3, 2), (1, 2)])
def test_versions_without_a_common_one_are_refused(here: Site, newest: int, oldest: int) -> None:
    with pytest.raises(grpc.RpcError) as error, here.process.local() as line:
        system_pb2_grpc.SystemServiceStub(line).Hello(system_pb2.HelloRequest(protocol=newest, oldest=oldest))
    assert refusal(error.value) == ("UNIMPLEMENTED", "VERSIONS_APART")
    with here.process.local() as line:
        newer = system_pb2.HelloRequest(protocol=4, oldest=1)
        assert system_pb2_grpc.SystemServiceStub(line).Hello(newer).protocol == 1


def test_health_and_reflection(here: Site) -> None:
    with here.process.entry() as line:
        answer = health_pb2_grpc.HealthStub(line).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        (listed,) = reflection_pb2_grpc.ServerReflectionStub(line).ServerReflectionInfo(iter([asked]))
    names = {one.name.rpartition(".")[2] for one in listed.list_services_response.service}
    assert names == {name.partition(".")[0] for name in RULES} | {"Health", "ServerReflection"}
    assert here.process.get("metrics", "/health") == b"ok\n"


def test_metrics_name_calls_tasks_and_own_certificates(here: Site) -> None:
    with here.process.local() as line:
        hello(line)
        with pytest.raises(grpc.RpcError):
            ask: Any = line.unary_unary("/cardwright.cms.v1.NoService/Ask")
            ask(b"")
    text = here.process.get("metrics", "/metrics").decode()
    assert 'cardwright_calls_total{call="SystemService.Hello",status="OK"}' in text
    assert "NoService" not in text
    assert here.process.metric("cardwright_serving") == 1
    assert here.process.metric("cardwright_task_failing") == 0
    ends = [row for row in text.splitlines() if row.startswith("cardwright_own_certificate_not_after_seconds")]
    assert len(ends) == 9  # root, three authorities, their responders, the content signer, this server
    assert here.process.metric("cardwright_own_certificate_alarm") == 0


def test_status_is_for_operators(here: Site) -> None:
    said = here.process.call(
        here.administrator, lambda line: system_pb2_grpc.SystemServiceStub(line).Status, system_pb2.StatusRequest()
    )
    assert (said.database, said.vault, said.anchor[:9]) == ("sqlite", "software", "server:1:")
    assert {one.name: one.code for one in said.parts if not one.good} == {}
    assert {"vault", "audit", "outbox", "revocations", "publish-crl", "purge"} <= {one.name for one in said.parts}
    assert [one.kind for one in said.certificates].count("ocsp-responder") == 3
    shown = cardwright("status", "--data", here.data, "--json", "--as", "sam")
    assert (shown.code, shown.json["serving"], shown.json["database"]) == (0, True, "sqlite")
    bare = cardwright("status", "--data", here.data, "--json")
    assert bare.code == 0 and "parts" not in bare.json


async def test_a_denied_call_is_in_the_audit_although_it_changed_nothing(here: Site) -> None:
    async def denials() -> list[tuple[str, str]]:
        wanted = select(audit_entry.c.facts, audit_entry.c.front).where(
            audit_entry.c.action == "authorization.denied"
        )
        async with open_database(load(here.data)) as database:
            rows = await database.read(lambda unit: unit.rows(wanted))
        return [(row.facts["call"], row.front) for row in rows]

    before = await denials()
    with pytest.raises(grpc.RpcError) as error, here.process.local() as line:
        system_pb2_grpc.SystemServiceStub(line).Status(system_pb2.StatusRequest(), timeout=PATIENCE)
    assert refusal(error.value) == ("PERMISSION_DENIED", "ACCESS_DENIED")
    assert sorted(await denials()) == sorted([*before, ("SystemService.Status", "local")])


def test_nobody_is_local_by_saying_so(here: Site) -> None:
    with pytest.raises(grpc.RpcError) as error, here.process.entry() as line:
        system_pb2_grpc.SystemServiceStub(line).Hello(HELLO, metadata=(("cardwright-front", "local"),))
    assert refusal(error.value)[1] == "NOT_ADMITTED"
    request = system_pb2.EnrolFirstOperatorRequest(
        credential=here.credential, role=system_pb2.FIRST_ROLE_ADMINISTRATOR, login="eve", display_name="Eve",
        certificate_request=request_of(ec.generate_private_key(ec.SECP256R1())),
    )  # fmt: skip
    with pytest.raises(grpc.RpcError) as error, here.process.entry() as line:
        system_pb2_grpc.SystemServiceStub(line).EnrolFirstOperator(request)
    assert refusal(error.value) == ("PERMISSION_DENIED", "ACCESS_DENIED")


def test_the_first_credential_is_spent_by_two_persons(here: Site) -> None:
    for role in ("administrator", "security-officer"):
        said = enrol_first(here.data, here.credential, role, f"third-{role}")
        assert (said.code, "FIRST_CREDENTIAL_REFUSED" in said.err) == (1, True)
    files = sorted(here.data.glob("operators/*"))  # no key that was made for nothing
    assert [one.name for one in files] == ["ann.pem", "sam.pem"]
    assert {stat.S_IMODE(one.stat().st_mode) for one in files} == {0o600}
    again = cardwright("init", "--data", here.data, "--passphrase-fd", "FD", secret=b"not needed beside a server")
    assert (again.code, "FIRST_CREDENTIAL_SPENT" in again.err) == (1, True)


def test_an_operators_certificate_verifies_with_openssl_and_names_no_role(here: Site, tmp_path: Path) -> None:
    root, leaf = tmp_path / "root.pem", tmp_path / "leaf.pem"
    root.write_bytes(here.process.root)
    leaf.write_bytes(here.administrator.chain)
    command = ["openssl", "verify", "-x509_strict", "-purpose", "sslclient", "-CAfile", str(root)]
    done = subprocess.run([*command, "-untrusted", str(leaf), str(leaf)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "administrator" not in x509.load_pem_x509_certificate(here.administrator.chain).subject.rfc4514_string()[14:]


# ------------------------------------------------------------------------------------------------ wrong certificates


def test_a_certificate_by_nobody_does_not_get_through_the_handshake(here: Site) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "desk-1")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now - timedelta(days=1), now + timedelta(days=1))
    alone = made.sign(key, hashes.SHA256()).public_bytes(Encoding.DER)
    assert refused(Identity.of(key, alone), here)[0] == "UNAVAILABLE"


def test_the_servers_own_certificate_does_not_get_through_the_handshake(here: Site) -> None:
    content = (here.data / "tls" / "server.pem").read_bytes()
    key, begin, chain = content.partition(b"-----BEGIN CERTIFICATE-----")
    assert refused(Identity(key, begin + chain), here)[0] == "UNAVAILABLE"


async def test_a_cards_certificate_is_refused(here: Site) -> None:
    installation = load(here.data)
    key = ec.generate_private_key(ec.SECP256R1())
    client = VaultClient(installation.vault_sockets)
    async with open_database(installation) as database:
        org = await organization(database)
        assert org is not None
        person = await make_person(database, org, "carl")
        request = CertificateRequest(
            uuid4(), org, "piv-authentication", Holder(HolderKind.DEVICE_SLOT, uuid4(), "9a", person.id),
            HolderNames(common_name="Carl", email="carl@example.test", upn="carl@example.test", card_uuid=uuid4()),
            Expected(spki(key)), request_of(key), strict=False, session=uuid4(),
        )  # fmt: skip
        answer = await issuance_of(installation, client).certify(database, SERVER, request)
        assert isinstance(answer, Issued), answer
        session = answer.certificate.session
        assert session is not None
        await database.transact(lambda unit: status.release(unit, SERVER, org, session))
    await client.close()
    issuer = here.process.get("http", "/ca/cards-1.cer")
    assert refused(Identity.of(key, answer.certificate.certificate, issuer), here)[0] == "UNAVAILABLE"


def test_calls_want_a_certificate(here: Site) -> None:
    credentials = grpc.ssl_channel_credentials(here.process.root)
    with (
        pytest.raises(grpc.RpcError) as error,
        grpc.secure_channel(here.process.addresses["calls"], credentials) as line,
    ):
        hello(line)
    assert refusal(error.value)[0] == "UNAVAILABLE"


# ------------------------------------------------------------------------------------------------------ workstations


def test_a_workstation_is_enrolled_connects_renews_not_yet_and_is_revoked(here: Site) -> None:
    identifier, identity = here.enrolled()
    with here.process.calls(identity) as line:
        assert hello(line).protocol == 1
        with pytest.raises(grpc.RpcError) as early:
            stations.WorkstationServiceStub(line).Renew(
                workstations_pb2.RenewRequest(request=request_of(ec.generate_private_key(ec.SECP256R1())))
            )
        assert refusal(early.value)[1] == "RENEWAL_TOO_EARLY"
        with pytest.raises(grpc.RpcError) as denied:
            people_pb2_grpc.PersonServiceStub(line).Find(people_pb2.FindPersonsRequest())
        assert refusal(denied.value) == ("PERMISSION_DENIED", "ACCESS_DENIED")
        revoke = workstations_pb2.RevokeWorkstationRequest(id=identifier, reason="lost")
        here.process.call(here.officer, lambda to: stations.WorkstationServiceStub(to).Revoke, revoke)
        with pytest.raises(grpc.RpcError) as gone:
            people_pb2_grpc.PersonServiceStub(line).Find(people_pb2.FindPersonsRequest())
        assert refusal(gone.value)[0] in ("PERMISSION_DENIED", "UNAUTHENTICATED")


def test_an_enrolled_workstation_is_no_operator(here: Site) -> None:
    _, identity = here.enrolled(workstations_pb2.STATION_CLASS_ISSUANCE)
    with pytest.raises(grpc.RpcError) as error:
        here.process.call(
            identity, lambda line: system_pb2_grpc.SystemServiceStub(line).Status, system_pb2.StatusRequest()
        )
    assert refusal(error.value) == ("PERMISSION_DENIED", "ACCESS_DENIED")


# ----------------------------------------------------------------------------------------------- backup and rotation


def test_a_backup_is_made_by_an_administrator_who_knows_the_passphrase(here: Site) -> None:
    def asked(identity: Identity, name: str, passphrase: bytes = PASSPHRASE) -> system_pb2.BackupResponse:
        request = system_pb2.BackupRequest(name=name, vault_passphrase=passphrase.decode(), backup_passphrase="another")
        made: system_pb2.BackupResponse = here.process.call(
            identity, lambda line: system_pb2_grpc.SystemServiceStub(line).Backup, request
        )
        return made

    made = asked(here.administrator, "first")
    folder = here.data / "backups" / "first"
    assert Path(made.path) == folder and stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {one.name for one in folder.iterdir()} == {*made.files, "manifest.json"}
    for identity, name, passphrase, code in (
        (here.officer, "second", PASSPHRASE, "ACCESS_DENIED"),
        (here.administrator, "first", PASSPHRASE, "BACKUP_FAILED"),
        (here.administrator, "../third", PASSPHRASE, "REQUEST_MALFORMED"),
        (here.administrator, "third", b"wrong", "VAULT_UNLOCK_REFUSED"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            asked(identity, name, passphrase)
        assert refusal(error.value)[1] == code
    assert [one.name for one in folder.parent.iterdir()] == ["first"]


def test_a_master_key_is_rotated_by_a_security_officer_who_knows_the_passphrase(here: Site) -> None:
    def asked(identity: Identity, passphrase: bytes = PASSPHRASE) -> int:
        request = system_pb2.RotateMasterRequest(key=system_pb2.MASTER_KEY_PUK, vault_passphrase=passphrase.decode())
        made = here.process.call(
            identity, lambda line: system_pb2_grpc.SystemServiceStub(line).RotateMaster, request
        )
        return int(made.version)

    assert asked(here.officer) == 2
    for identity, passphrase, code in (
        (here.administrator, PASSPHRASE, "ACCESS_DENIED"),
        (here.officer, b"wrong", "VAULT_UNLOCK_REFUSED"),
    ):
        with pytest.raises(grpc.RpcError) as error:
            asked(identity, passphrase)
        assert refusal(error.value)[1] == code
    assert asked(here.officer) == 3
    # What was in use until now is not destroyed at once, and never by an administrator.
    old = system_pb2.DestroyMasterRequest(
        key=system_pb2.MASTER_KEY_PUK, version=2, vault_passphrase=PASSPHRASE.decode()
    )
    for identity, code in ((here.officer, "MASTER_SETTLING"), (here.administrator, "ACCESS_DENIED")):
        with pytest.raises(grpc.RpcError) as error:
            here.process.call(identity, lambda line: system_pb2_grpc.SystemServiceStub(line).DestroyMaster, old)
        assert refusal(error.value) == (
            "FAILED_PRECONDITION" if code == "MASTER_SETTLING" else "PERMISSION_DENIED", code,
        )  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- the audit


def test_the_audit_verifies_beside_the_running_server(here: Site, tmp_path: Path) -> None:
    keys = tmp_path / "audit.pem"
    keys.write_text(cardwright("audit", "key", "--data", here.data).out)
    anchor = cardwright("audit", "anchor", "--data", here.data).out.strip()
    said = cardwright("audit", "verify", "--data", here.data, "--key", keys, "--anchor", anchor, "--json")
    assert (said.code, said.json["findings"]) == (0, [])
    exported = tmp_path / "export"
    exported.write_text(cardwright("audit", "export", "--data", here.data).out)
    said = cardwright("audit", "verify", "--export", exported, "--key", keys, "--anchor", anchor, "--json")
    assert (said.code, said.json["findings"]) == (0, [])
    lines = exported.read_text().splitlines(keepends=True)
    exported.write_text("".join(lines[:-1]))
    number = int(anchor.split(":")[2])
    cut = anchor if number == len(lines) else str(said.json["anchor"])
    said = cardwright("audit", "verify", "--export", exported, "--key", keys, "--anchor", cut, "--json")
    assert (said.code, [one["fault"] for one in said.json["findings"]]) == (1, ["cut"])
    no_export = tmp_path / "program"
    no_export.write_bytes(b"\x7fELF\xff\xfe\n")
    said = cardwright("audit", "verify", "--export", no_export, "--key", keys, "--json")
    assert (said.code, said.json["error"]["code"]) == (1, "MALFORMED_AUDIT_EXPORT")
