"""From nothing to a card in a person's hands, with nothing in between that is not the real thing.

An installation founded by the command line, operators with certificates, a person who proves who they are at a
workstation, a blank virtual card, and what strangers read from it afterwards.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.check.live import read_card
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_proto.cms.v1 import (
    certificates_pb2,
    sessions_pb2,
)
from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_simulators.card import VirtualCard
from tests.support.front_desk import Desk
from tests.support.installation import Site
from tests.support.sessions import PIN, Station
from tests.support.virtual import POOL

SERIAL = "12345678"


async def test_a_person_is_issued_a_card_at_an_enrolled_workstation(here: Site, tmp_path: Path) -> None:
    desk = Desk(here)
    person = desk.person("carl")
    device, request = desk.issuance(person, SERIAL)
    _, station = here.enrolled()
    token = desk.proof(station, person, "carl")
    card = VirtualCard("yubikey-5.7", serial=int(SERIAL), key_pool=POOL)
    async with here.process.tunnel(station) as socket:
        without = await Station(card).run(socket, request=request)
        assert (without.error, without.outcome) == ("PROOF_REQUIRED", 0)
        sitting = Station(card, metadata=[("cardwright-session", token)])
        trip = await sitting.run(socket, request=request)
    assert (trip.error, trip.outcome) == ("", sessions_pb2.OUTCOME_DONE)

    found = desk.ask(desk.issuer, "DeviceService", "Get", devices.GetDeviceRequest(id=device)).device
    assert found.state == devices.DEVICE_STATE_ISSUED
    kept = desk.ask(desk.issuer, "CertificateService", "Find", certificates_pb2.FindCertificatesRequest(device=device))
    assert {one.state for one in kept.certificates} == {certificates_pb2.CERTIFICATE_STATE_GOOD}
    assert len(kept.certificates) == 4

    # What is on the card, read by a reader that knows nothing of the server, and judged by openssl.
    data = run(read_card(with_pin=True), LocalExecutor(
        DirectConnection(card), KeyItems(FixedPins(Secret(PIN)), local=True)))  # fmt: skip
    root, issuer = tmp_path / "root.pem", tmp_path / "issuer.pem"
    root.write_bytes(here.process.root)
    der = here.process.get("http", "/ca/cards-1.cer")
    issuer.write_bytes(x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM))
    command = ["openssl", "verify", "-x509_strict", "-CAfile", str(root), "-untrusted", str(issuer)]
    held = _certificates(card.snapshot())
    assert sorted(held) == ["9A", "9C", "9D", "9E"]
    for slot, certificate in held.items():
        leaf = tmp_path / f"{slot}.pem"
        leaf.write_bytes(certificate.public_bytes(Encoding.PEM))
        done = subprocess.run([*command, str(leaf)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert data is not None
    # The status that relying parties see.
    leaf, responder = tmp_path / "9A.pem", f"http://{here.process.addresses['http']}/ocsp"
    ask = ["openssl", "ocsp", "-issuer", str(issuer), "-cert", str(leaf), "-url", responder, "-CAfile", str(root)]
    said = subprocess.run(ask, capture_output=True, text=True, check=False)
    assert f"{leaf}: good" in said.stdout, said.stderr
    with pytest.raises(KeyError):
        _certificates(VirtualCard("yubikey-5.7").snapshot())


TAGS = {"9A": "5FC105", "9C": "5FC10A", "9D": "5FC10B", "9E": "5FC101"}


def _certificates(snapshot: bytes) -> dict[str, x509.Certificate]:
    """Certificates in the raw memory of a card, by slot; read without anything of the program under test."""
    objects = {tag.upper(): bytes.fromhex(raw) for tag, raw in json.loads(snapshot)["objects"].items()}
    found = {}
    for slot, tag in TAGS.items():
        raw = objects[tag]
        start = raw.index(b"\x30\x82")
        size = 4 + int.from_bytes(raw[start + 2 : start + 4], "big")
        found[slot] = x509.load_der_x509_certificate(raw[start : start + size])
    return found
