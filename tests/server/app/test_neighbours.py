"""The process with what an installation has around it: a directory, a mail server, an HSM."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from cardwright_proto.cms.v1 import authentication_pb2 as proofs
from cardwright_proto.cms.v1 import authentication_pb2_grpc, people_pb2, people_pb2_grpc, system_pb2, system_pb2_grpc
from tests.support.front_desk import Desk
from tests.support.installation import (
    ON_FREE_PORTS,
    PASSPHRASE,
    PATIENCE,
    Process,
    Site,
    a_folder,
    cardwright,
)
from tests.support.slapd import BASE, READER, Slapd, slapd
from tests.support.smtp import running_smtp
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm

__all__ = ["slapd"]


def until(seen: Callable[[], Any]) -> Any:
    """What is there once it is."""
    deadline = time.monotonic() + PATIENCE
    while not (found := seen()):
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
    return found


def test_persons_of_a_directory_prove_themselves_and_their_mail_goes_out(
    alone: Site, slapd: Slapd, tmp_path: Path
) -> None:
    slapd.add_person("dana", mail="dana@example.org", givenName="Dana")
    with running_smtp(tmp_path / "mail") as smtp:
        (alone.data / "server.toml").write_text(
            f"""{ON_FREE_PORTS}
[directory]
name = "corp"
base = "ou=people,{BASE}"

[directory.server]
uri = "ldaps://localhost:{slapd.tls_port}"
tls = "ldaps"
ca_file = "{slapd.ca}"
bind_dn = "{READER}"
bind_password_file = "{slapd.password_file()}"

[mail]
host = "{smtp.host}"
port = {smtp.port}
sender = "cards@example.org"
security = "none"
organization = "Example"
"""
        )
        process = alone.process.start()
        with process.entry() as line:
            service = authentication_pb2_grpc.AuthenticationServiceStub(line)
            assert proofs.METHOD_LDAP_PASSWORD in service.Methods(proofs.MethodsRequest()).methods
            evidence = proofs.Evidence(method=proofs.METHOD_LDAP_PASSWORD, password="right")
            proved = service.Prove(proofs.ProveRequest(login="Dana", evidence=[evidence]), timeout=PATIENCE)
            mine = people_pb2_grpc.PersonServiceStub(line).Get(
                people_pb2.GetPersonRequest(id=proved.person),
                metadata=(("cardwright-session", proved.session),),
                timeout=PATIENCE,
            ).person
        assert (mine.login, mine.mail) == ("dana", "dana@example.org")
        desk = Desk(alone)
        groups = desk.ask(alone.administrator, "GroupService", "Find", people_pb2.FindGroupsRequest()).groups
        (everyone,) = [one.id for one in groups if one.name == "everyone"]
        member = people_pb2.AddMemberRequest(group=everyone, person=str(UUID(proved.person)))
        desk.ask(alone.administrator, "GroupService", "AddMember", member)
        desk.issuance(proved.person, "34567890")
        first = until(smtp.received)[0]
    assert first.message["To"] == "dana@example.org"
    assert "Example has reserved a card for you" in first.message.get_content()


def test_the_vaults_keys_may_be_in_an_hsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hsm = SoftHsm.make(tmp_path)
    for name, value in hsm.environment.items():
        monkeypatch.setenv(name, value)
    pin = hsm.pin.reveal()
    with a_folder() as data:
        data.mkdir(mode=0o700)
        (data / "server.toml").write_text(
            f'{ON_FREE_PORTS}\n[vault]\nhsm_module = "{SOFTHSM}"\nhsm_token = "{LABEL}"\n'
        )
        said = cardwright("init", "--data", data, "--json", "--passphrase-fd", "FD", secret=pin)
        assert said.code == 0, said.err
        wrong = cardwright("run", "--data", data, "--passphrase-fd", "FD", secret=PASSPHRASE)
        assert (wrong.code, "VAULT_UNLOCK_REFUSED" in wrong.err) == (1, True)
        process = Process(data).start(pin)
        try:
            with process.local() as line:
                hello = system_pb2_grpc.SystemServiceStub(line).Hello(system_pb2.HelloRequest(protocol=1))
            assert hello.root
            assert process.get("http", "/crl/cards-1.crl")
            # No vault is in it, so nobody is asked for a passphrase.
            kept = cardwright("backup", "--data", data, "--json", data / "kept")
            assert (kept.code, "vault.backup" in kept.json["files"]) == (0, False), kept.err
        finally:
            assert process.stop() == 0, process.complaint
    objects = hsm.pkcs11_tool("--list-objects", "--type", "privkey")
    assert objects.count("Private Key Object") == 9  # root, three authorities, their responders, contents, audit
    assert "never extractable" in objects
