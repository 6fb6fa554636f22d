"""Everything that the acceptance chain goes through: server on PostgreSQL with an HSM and a directory, a workstation of
processes on pcscd, and what relying parties see: OCSP, revocation lists, a KDC, other people's tools.

The server is the ordinary process but for one number: it publishes revocation lists as soon as something changed, not
every 20 seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.hazmat.primitives.serialization.pkcs7 import pkcs7_decrypt_der

from cardwright_cardops.piv.private_key import card_private_key
from cardwright_proto.cms.v1 import certificates_pb2 as certificates
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import operators_pb2 as operators
from cardwright_proto.cms.v1 import people_pb2 as people
from cardwright_proto.cms.v1 import policies_pb2 as policies
from cardwright_proto.cms.v1 import policies_pb2_grpc
from cardwright_proto.cms.v1 import requests_pb2 as requests
from tests.support.daemon_process import DaemonProcess
from tests.support.databases import PostgreSql
from tests.support.front_desk import Desk
from tests.support.installation import (
    MAIN,
    ON_FREE_PORTS,
    PASSPHRASE,
    PATIENCE,
    Identity,
    Process,
    Site,
    a_folder,
    enrol_first,
    founded,
)
from tests.support.kdc import MODULE, REALM
from tests.support.slapd import BASE, READER, Slapd
from tests.support.softhsm import LABEL, SOFTHSM, SoftHsm
from tests.support.strangers import Tools

DIRECTORY = "corp"
POLICY = "chain"
_POLICY = f"""
name = "{POLICY}"
title = "Logon, signature, encryption"
compliance = "civ"
clear_secrets = "any"
max_devices = 2
validity_days = 1826
renew_before_days = 30
objects = ["chuid", "ccc", "security-object", "key-history"]
unlock = ["self", "assisted", "operator"]
slots = [
    {{ slot = "9a", algorithm = "rsa2048", profile = "piv-authentication" }},
    {{ slot = "9c", algorithm = "p256", profile = "signature" }},
    {{ slot = "9d", algorithm = "rsa2048", key = "escrow", profile = "key-management" }},
    {{ slot = "9e", algorithm = "p256", profile = "card-authentication" }},
]
"""
"""As ``civ``, with an RSA key for logon: MIT's client takes no other from a PKCS#11 module."""
_SOON = """\
from datetime import timedelta
from cardwright_server.issuance import jobs
jobs.PUBLISH_EVERY = timedelta(seconds=0.2)
""" + MAIN
OPENSC_IDS = {"9a": "01", "9c": "02", "9d": "03", "9e": "04", "82": "05"}


@dataclass(frozen=True)
class Seen:
    """What relying parties are told of a certificate: "good", or the reason of RFC 5280 by which it is revoked."""

    ocsp: str
    crl: str


@dataclass
class Chain:
    """A running installation with its operators, and a workstation."""

    here: Site
    desk: Desk
    helper: Identity
    slapd: Slapd
    daemon: DaemonProcess
    tools: Tools
    folder: Path
    hsm: SoftHsm

    # --------------------------------------------------------------------------------------------------- operators

    def ask(self, service: str, method: str, request: Any, who: Identity | None = None) -> Any:
        """A call of the issuing operator, or of ``who``."""
        return self.desk.ask(who or self.desk.issuer, service, method, request)

    def holder(self, login: str) -> str:
        """Take over a person from the directory, whose group there gives them the policy; the id."""
        person = self.ask(
            "PersonService", "Import", people.ImportPersonRequest(login=login), self.here.administrator
        )
        found = self.ask(
            "PersonService", "Get", people.GetPersonRequest(id=person.id), self.here.administrator
        )
        (group,) = [one for one in found.groups if one.source == DIRECTORY]
        self._policy(policies.AssignPolicyRequest(name=POLICY, group=group.id))
        return str(person.id)

    def _policy(self, assign: policies.AssignPolicyRequest) -> None:
        def call(who: Identity, method: str, request: Any) -> Any:
            stub = policies_pb2_grpc.PolicyServiceStub
            return self.here.process.call(who, lambda line: getattr(stub(line), method), request)

        draft = call(self.here.administrator, "Draft", policies.DraftPolicyRequest(text=_POLICY))
        call(self.here.officer, "Publish", policies.PublishPolicyRequest(id=draft.id))
        call(self.here.administrator, "Assign", assign)

    def report_lost(self, device: str) -> str:
        """The help desk takes the call; the request for another device."""
        self.ask(
            "DeviceService", "ReportIncident",
            devices.ReportIncidentRequest(id=device, incident=devices.DEVICE_REASON_LOST), self.helper,
        )  # fmt: skip
        wanted = requests.FindRequestsRequest(
            device=device,
            kinds=[requests.REQUEST_KIND_REPLACEMENT],
            states=[requests.REQUEST_STATE_PENDING, requests.REQUEST_STATE_APPROVED],
        )
        (found,) = self.ask("RequestService", "Find", wanted).requests
        return str(found.id)

    def replacement(self, request: str, person: str, serial: str) -> str:
        """Another card of the stock in place of the lost one; its id."""
        self.ask("RequestService", "Approve", requests.ApproveRequestRequest(id=request))
        card = devices.DeliveredDevice(serial=serial)
        (device,) = self.ask(
            "DeviceService", "Register",
            devices.RegisterDevicesRequest(kind=devices.DEVICE_KIND_SMART_CARD, devices=[card]),
        ).ids  # fmt: skip
        self.ask(
            "DeviceService", "Bind", devices.BindDeviceRequest(id=device, person=person, replacement=request)
        )
        return str(device)

    def state(self, device: str) -> int:
        """Of a device."""
        return int(self.ask("DeviceService", "Get", devices.GetDeviceRequest(id=device)).device.state)

    def until_state(self, device: str, wanted: int) -> None:
        """Wait until a device is in that state: what follows from an event comes a little later."""
        deadline = time.monotonic() + PATIENCE
        while (now := self.state(device)) != wanted:
            assert time.monotonic() < deadline, now
            time.sleep(0.1)

    def issued(self, device: str) -> dict[str, x509.Certificate]:
        """What was issued last for each slot of a device, as the server has it."""
        found = self.ask(
            "CertificateService", "Find", certificates.FindCertificatesRequest(device=device, page_size=200)
        )
        newest = {one.part: one.id for one in found.certificates}
        return {
            part: x509.load_der_x509_certificate(
                self.ask("CertificateService", "Get", certificates.GetCertificateRequest(id=one)).der
            )
            for part, one in newest.items()
        }

    # -------------------------------------------------------------------------------------------- the workstation

    def holder_runs(self, login: str, *words: str) -> subprocess.CompletedProcess[str]:
        """A command of the holder, who proves by the directory's password who they are where that is wanted."""
        who = ("--account", login, "--method", "directory-password")
        return subprocess.run(
            [sys.executable, "-W", "ignore", "-c", MAIN, *words, *who],
            env=os.environ | {"CARDWRIGHT_FOLDER": str(self.daemon.folder)},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE * 2, check=False,
        )  # fmt: skip

    # ------------------------------------------------------------------------------------------- relying parties

    def published(self, name: str) -> Path:
        """An authority's certificate as everybody gets it, PEM."""
        found = x509.load_der_x509_certificate(self.here.process.get("http", f"/ca/{name}-1.cer"))
        path = self.folder / f"{name}.pem"
        path.write_bytes(found.public_bytes(Encoding.PEM))
        return path

    def lists(self) -> list[Path]:
        """The revocation lists of root and cards of now, PEM."""
        made = []
        for name in ("root", "cards"):
            found = x509.load_der_x509_crl(self.here.process.get("http", f"/crl/{name}-1.crl"))
            made.append(self.folder / f"{name}.crl")
            made[-1].write_bytes(found.public_bytes(Encoding.PEM))
        return made

    def seen(self, certificate: x509.Certificate) -> Seen:
        """What openssl is told by OCSP, and what the list says."""
        (self.folder / "asked.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
        root, cards = self.published("root"), self.published("cards")
        address = f"http://{self.here.process.addresses['http']}/ocsp"
        said = self.tools.run(
            *("openssl", "ocsp", "-issuer", cards, "-cert", self.folder / "asked.pem"),
            *("-url", address, "-CAfile", root, "-verify_other", cards, "-no_nonce"),
        )
        assert "Response verify OK" in said, said
        status = said.partition("asked.pem: ")[2].split()[0]
        if status == "revoked":
            status = said.partition("Reason: ")[2].split()[0]
        listed = x509.load_pem_x509_crl(self.lists()[1].read_bytes())
        row = listed.get_revoked_certificate_by_serial_number(certificate.serial_number)
        reason = "good" if row is None else row.extensions.get_extension_for_class(x509.CRLReason).value.reason.value
        return Seen(status, reason)

    def until_seen(self, certificate: x509.Certificate, wanted: str) -> None:
        """Wait until the list says it; by then OCSP must, which does so from the moment of the change."""
        assert self.seen(certificate).ocsp == wanted
        deadline = time.monotonic() + PATIENCE
        while (now := self.seen(certificate)) != Seen(wanted, wanted):
            assert time.monotonic() < deadline, now
            time.sleep(0.1)

    def opened_by_opensc(self, sealed: bytes, certificate: x509.Certificate, slot: str, pin: str) -> bytes:
        """A CMS message (DER), opened with the key that pkcs11-tool uses on the card that is in."""
        module = next(Path("/usr/lib").rglob(MODULE))

        def use(block: bytes, agree: bool) -> bytes:
            assert not agree
            given, got = self.tools.write("wrapped", block), self.tools.path("unwrapped")
            self.tools.run(
                *("pkcs11-tool", "--module", module, "--login", "--pin", "env:CHAIN_PIN", "--decrypt"),
                *("--mechanism", "RSA-X-509", "--id", OPENSC_IDS[slot], "-i", given, "-o", got),
                CHAIN_PIN=pin,
            )
            return got.read_bytes()

        key: Any = card_private_key(certificate.public_key(), use)  # type: ignore[arg-type]
        opened: bytes = pkcs7_decrypt_der(sealed, certificate, key, [])
        return opened


def _configuration(url: str, slapd: Slapd) -> str:
    server = {
        "uri": f"ldaps://localhost:{slapd.tls_port}", "tls": "ldaps", "ca_file": str(slapd.ca),
        "bind_dn": READER, "bind_password_file": str(slapd.password_file()),
    }  # fmt: skip
    lines = "\n".join(f"{name} = {json.dumps(value)}" for name, value in server.items())
    return f"""{ON_FREE_PORTS}
[database]
url = "{url}"

[vault]
hsm_module = "{SOFTHSM}"
hsm_token = "{LABEL}"

[directory]
name = "{DIRECTORY}"
base = "ou=people,{BASE}"

[directory.server]
{lines}

[certificate_fields]
upn = ["{{login}}@{REALM}"]
"""


@contextmanager
def _site(postgresql: PostgreSql, slapd: Slapd) -> Iterator[Site]:
    """Founded and running, with its first two operators."""
    with a_folder() as data:
        credential = founded(data, _configuration(postgresql.url(postgresql.create()), slapd))
        process = Process(data, _SOON).start()
        try:
            for role, login in (("administrator", "ann"), ("security-officer", "sam")):
                said = enrol_first(data, credential, role, login)
                assert said.code == 0, said.err
            yield Site.of(process, credential)
        finally:
            process.stop()


@contextmanager
def chained(folder: Path, postgresql: PostgreSql, slapd: Slapd) -> Iterator[Chain]:
    """All of it, but for cards and the KDC. The daemon is not started, and knows no server yet."""
    if not SOFTHSM.exists():
        pytest.skip(f"SoftHSM2 is not installed (package softhsm2): no {SOFTHSM}")
    for name in ("hsm", "tools"):
        (folder / name).mkdir()
    hsm = SoftHsm.make(folder / "hsm", PASSPHRASE)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in hsm.environment.items():
            patch.setenv(name, value)
        with _site(postgresql, slapd) as here:
            desk = Desk(here)
            helper = desk.operator("hel", operators.ROLE_HELP_DESK)
            daemon = DaemonProcess(here.process.addresses["calls"], folder / "station")
            try:
                yield Chain(here, desk, helper, slapd, daemon, Tools(folder / "tools"), folder, hsm)
            finally:
                daemon.close()
