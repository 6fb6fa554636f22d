"""The acceptance chain, from a person in a directory to their end: a card, a logon, a loss, another card, and no logon.

Server process on PostgreSQL with its keys in SoftHSM2, slapd, daemon process, pcscd with vpcd, the command line; judges
are OpenSC, ykman, openssl, and MIT Kerberos with PKINIT.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_proto.cms.v1 import devices_pb2 as devices
from cardwright_proto.cms.v1 import people_pb2 as people
from cardwright_proto.cms.v1 import requests_pb2 as requests
from cardwright_simulators.card import KeyPool, VirtualCard
from tests.support.chain import OPENSC_IDS, Chain, chained
from tests.support.databases import PostgreSql
from tests.support.kdc import Kdc, kdc
from tests.support.pcscd import Pcscd
from tests.support.slapd import Slapd, slapd
from tests.support.strangers import Ykman
from tests.support.whole_place import station_of

__all__ = ["slapd"]

pytestmark = pytest.mark.pcscd

PIN = "739146"
MESSAGE = b"Meet me at the usual place.\n"


@pytest.fixture
def chain(tmp_path: Path, postgresql: PostgreSql, slapd: Slapd) -> Iterator[Chain]:
    """The installation."""
    with chained(tmp_path, postgresql, slapd) as made:
        yield made


def test_from_a_person_in_the_directory_to_their_end(chain: Chain, pcscd: Pcscd) -> None:
    pool, login = KeyPool(size=3), f"u{uuid4().hex[:8]}"
    first, second = (VirtualCard("yubikey-5.7", serial=serial, key_pool=pool) for serial in (61_000_001, 61_000_002))

    dn = chain.slapd.add_person(login)
    chain.slapd.add_group(f"cardholders-{login}", dn)
    person = chain.holder(login)
    device, _ = chain.desk.issuance(person, str(first.serial))
    asyncio.run(station_of(chain.here, chain.daemon.credentials))
    chain.daemon.start()
    chain.daemon.typing.types(password=b"right", new=PIN.encode(), current=PIN.encode())

    keys = chain.hsm.pkcs11_tool("--list-objects").count("Private Key Object")
    assert keys >= 4, "the authorities' keys are in the token"
    reader = pcscd.insert(first)
    assert updated(chain, reader, login) == "done"
    issued = chain.issued(device)
    read_back(chain, reader, issued)
    sealed = encrypted(chain, issued["9d"])
    assert chain.opened_by_opensc(sealed, issued["9d"], "9d", PIN) == MESSAGE

    with kdc(chain.published("root"), chain.published("cards"), allow_upn=True) as kerberos:
        kerberos.add(login)
        logs_in(chain, kerberos, login, issued["9a"], "good")

        lost = chain.report_lost(device)
        logs_in(chain, kerberos, login, issued["9a"], "certificateHold")
        chain.ask("RequestService", "Cancel", requests.CancelRequestRequest(id=lost), chain.helper)
        logs_in(chain, kerberos, login, issued["9a"], "good")

        lost = chain.report_lost(device)
        pcscd.remove(reader)
        other = chain.replacement(lost, person, str(second.serial))
        reader = pcscd.insert(second)
        assert updated(chain, reader, login) == "done"
        again = chain.issued(other)
        read_back(chain, reader, again)
        assert again["9a"] != issued["9a"]
        assert chain.opened_by_opensc(sealed, issued["9d"], "82", PIN) == MESSAGE
        assert chain.state(device) == devices.DEVICE_STATE_TERMINATED
        for slot, certificate in issued.items():
            reason = "superseded" if slot == "9d" else "keyCompromise"
            chain.until_seen(certificate, reason)
        logs_in(chain, kerberos, login, again["9a"], "good")
        pcscd.remove(reader)
        reader = pcscd.insert(first)
        logs_in(chain, kerberos, login, issued["9a"], "keyCompromise")
        pcscd.remove(reader)

        reader = pcscd.insert(second)
        left = people.SetPersonStatusRequest(id=person, status=people.PERSON_STATUS_LEFT, reason="retired")
        chain.ask("PersonService", "SetStatus", left, chain.helper)
        chain.until_state(other, devices.DEVICE_STATE_TERMINATED)
        logs_in(chain, kerberos, login, again["9a"], "cessationOfOperation")
    before = second.snapshot()
    assert updated(chain, reader, login) is None, "there is nothing to do for a card that ended"
    refused = chain.holder_runs(login, "unlock", "--forgotten", "--reader", reader)
    assert (refused.returncode, refused.stderr.split(":")[0]) == (1, "Error PROOF_REFUSED"), refused.stderr
    assert second.snapshot() == before


def updated(chain: Chain, reader: str, login: str) -> str | None:
    """Let the holder do what is due for the card in ``reader``; how it ended, None where nothing is."""
    done = chain.holder_runs(login, "update", "--yes", "--json", "--reader", reader)
    assert done.returncode == 0, done.stderr + done.stdout
    (card,) = json.loads(done.stdout)["cards"]
    return card["operation"] and str(card["operation"]["outcome"])


def read_back(chain: Chain, reader: str, issued: dict[str, x509.Certificate]) -> None:
    """OpenSC and ykman find what was issued."""
    ykman = Ykman(reader)
    for slot, certificate in issued.items():
        pem = chain.tools.run("pkcs15-tool", "--reader", reader, "--read-certificate", OPENSC_IDS[slot])
        begin = pem.index("-----BEGIN")
        assert x509.load_pem_x509_certificate(pem[begin:].encode()) == certificate, slot
        ykman("certificates", "export", slot, chain.tools.path("ykman.pem"))
        assert chain.tools.certificate("ykman.pem") == certificate, slot


def encrypted(chain: Chain, certificate: x509.Certificate) -> bytes:
    """A message to the holder, by openssl."""
    to = chain.tools.write("to.pem", certificate.public_bytes(Encoding.PEM))
    plain = chain.tools.write("plain", MESSAGE)
    chain.tools.run(
        "openssl", "cms", "-encrypt", "-binary", "-aes-256-cbc", "-in", plain, "-outform", "DER",
        "-out", chain.tools.path("sealed"), to,
    )  # fmt: skip
    return chain.tools.path("sealed").read_bytes()


def logs_in(chain: Chain, kerberos: Kdc, login: str, certificate: x509.Certificate, seen: str) -> None:
    """Kerberos gives a ticket exactly if relying parties are told that the certificate is good."""
    chain.until_seen(certificate, seen)
    kerberos.restart(chain.lists())
    done, said = kerberos.login(login, PIN)
    assert done is (seen == "good"), said
    assert done or "evoked" in kerberos.log, said
