"""What ``cardwright`` does to cards over a real pcscd, other people's tools read, check and use; and the reverse."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_simulators.card.attestation import root_pem
from tests.support.strangers import (
    FACTORY_KEY,
    NEW_PIN,
    NEW_PUK,
    PIN,
    Seats,
    ToolFailed,
    Tools,
    Ykman,
    initialized,
    ours,
)

pytestmark = [
    pytest.mark.pcscd,
    pytest.mark.filterwarnings("ignore:Deprecated. use x509.Name:DeprecationWarning"),
]

OPENSSL_VERIFY = ("openssl", "verify", "-check_ss_sig", "-x509_strict", "-partial_chain")


class Cardwright:
    """Our command line, each time a process of its own."""

    def __init__(self, tools: Tools, reader: str) -> None:
        self._tools = tools
        self._reader = reader

    def __call__(self, *arguments: str | Path, lines: tuple[str, ...] = ()) -> str:
        """Run a command on the card in the reader; ``lines`` go to --secrets-fd."""
        secrets = ("--secrets-fd", "0") if lines else ()
        given = "".join(f"{line}\n" for line in lines).encode()
        return self._tools.run("cardwright", *arguments, "--reader", self._reader, *secrets, given=given)

    def json(self, *arguments: str, lines: tuple[str, ...] = ()) -> Any:
        """What a command says with --json."""
        return json.loads(self(*arguments, "--json", lines=lines))


@pytest.mark.parametrize("profile", ["yubikey-5.7", "t0-short"])
def test_ykman_accepts_a_card_that_ours_set_up(
    profile: str, seats: Seats, ykman: Callable[[str], Ykman], tools: Tools
) -> None:
    seat = seats.fresh(profile)
    done = initialized(seat, "9a=p256,9c=rsa2048,9d=rsa2048:import,9e=ed25519")
    piv = ykman(seat.reader)
    said = piv("info")
    assert "default" not in said and "No data available" not in said
    for slot, kind in zip(ACTIVE_SLOTS, ("ECCP256", "RSA2048", "RSA2048", "ED25519"), strict=True):
        name = slot.label.lower()
        told = piv("keys", "info", name)
        assert kind in told and ("IMPORTED" if name == "9d" else "GENERATED") in told
        piv("certificates", "export", name, tools.path(f"{name}.pem"))
        assert f"{name}.pem: OK" in tools.run(*OPENSSL_VERIFY, "-trusted", f"{name}.pem", f"{name}.pem")
        with ours(seat.reader) as card:
            certificate = card.certificate(slot)
        assert tools.certificate(f"{name}.pem") == certificate
    piv("keys", "attest", "9a", tools.path("statement.pem"))
    assert tools.certificate("statement.pem").public_key() == tools.certificate("9a.pem").public_key()
    piv("certificates", "import", "-m", done.management_key, "-P", NEW_PIN, "--verify", "9c", tools.path("9c.pem"))
    piv("access", "change-pin", "-P", NEW_PIN, "-n", PIN)
    piv("access", "unblock-pin", "-p", NEW_PUK, "-n", NEW_PIN)
    with pytest.raises(ToolFailed):
        piv("keys", "generate", "-m", FACTORY_KEY, "-a", "eccp256", "82", "-")


def test_yubico_piv_tool_accepts_a_card_that_ours_set_up(seats: Seats, tools: Tools) -> None:
    seat = seats.fresh("yubikey-5.4")
    done = initialized(seat, "9a=p256,9c=p384,9d=rsa2048:import,9e=p256")
    piv = ("yubico-piv-tool", "-r", seat.reader)
    said = tools.run(*piv, "-astatus")
    assert "No data available" not in said and said.count("Algorithm:") == 4
    verify = ("-averify-pin", f"-P{NEW_PIN}")
    for slot in ("9a", "9c", "9d", "9e"):
        tools.run(*piv, "-aread-certificate", f"-s{slot}", f"-o{slot}.pem")
        tools.run(*OPENSSL_VERIFY, "-trusted", f"{slot}.pem", f"{slot}.pem")
        assert "Success" in tools.run(*piv, *verify, "-atest-signature", f"-s{slot}", f"-i{slot}.pem")
    assert "Successfully performed RSA decryption" in tools.run(*piv, *verify, "-atest-decipher", "-s9d", "-i9d.pem")
    tools.run(*piv, f"-k{done.management_key}", "-aset-ccc")
    with pytest.raises(ToolFailed):
        tools.run(*piv, "-aset-ccc")


def test_command_line_and_ykman_take_turns(seats: Seats, ykman: Callable[[str], Ykman], tools: Tools) -> None:
    seat = seats.fresh("yubikey-5.7")
    cardwright, piv = Cardwright(tools, seat.reader), ykman(seat.reader)
    keys = "9a=p256,9c=p256,9d=rsa2048:import,9e=p256"
    out = tools.path("secrets")
    cardwright("card", "init", "--yes", "--keys", keys, "--secrets-out", out, lines=(NEW_PIN, NEW_PUK))
    assert out.stat().st_mode & 0o777 == 0o600
    said = piv("info")
    assert "default" not in said and len(re.findall("Private key type", said)) == 4

    cardwright(
        "key", "generate", "82", "--algorithm", "p384", "--management-key-file", out, "--out", tools.path("82.pem")
    )
    piv("keys", "export", "82", tools.path("again.pem"))
    assert tools.public_key("again.pem") == tools.public_key("82.pem")
    tools.write("root.pem", root_pem())
    stated = cardwright.json("key", "attest", "82", "--root", str(tools.path("root.pem")))
    assert stated["trusted"] is True

    tools.run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
              "83.key", "-subj", "/CN=Bob", "-out", "83.pem")  # fmt: skip
    cardwright("key", "import", "83", tools.path("83.key"), "--management-key-file", out)
    cardwright("cert", "import", "83", tools.path("83.pem"), "--management-key-file", out)
    piv("certificates", "export", "83", tools.path("back.pem"))
    assert tools.certificate("back.pem") == tools.certificate("83.pem")
    assert "ECCP256" in piv("keys", "info", "83") and "IMPORTED" in piv("keys", "info", "83")
    cardwright("cert", "delete", "83", "--management-key-file", out)
    with pytest.raises(ToolFailed, match="No certificate"):
        piv("certificates", "export", "83", tools.path("back.pem"))

    cardwright("pin", "change", lines=(NEW_PIN, "271828"))
    piv("access", "change-pin", "-P", "271828", "-n", "161803")
    cardwright("pin", "unblock", lines=(NEW_PUK, "141421"))
    piv("access", "change-pin", "-P", "141421", "-n", NEW_PIN)
    cardwright("pin", "change", "--puk", lines=(NEW_PUK, "31415926"))
    piv("access", "unblock-pin", "-p", "31415926", "-n", NEW_PIN)

    checked = cardwright.json("card", "check")
    assert [row for row in checked["findings"] if row["severity"] == "error"] == []


def test_command_line_reads_what_ykman_wrote(seats: Seats, ykman: Callable[[str], Ykman], tools: Tools) -> None:
    seat = seats.fresh("yubikey-5.7", serial=31415926)
    cardwright, piv = Cardwright(tools, seat.reader), ykman(seat.reader)
    for slot, algorithm in (("9a", "eccp256"), ("9c", "rsa2048"), ("9d", "eccp384"), ("9e", "ed25519")):
        public = tools.path(f"{slot}.pem")
        piv("keys", "generate", "-m", FACTORY_KEY, "-a", algorithm, slot, public)
        piv("certificates", "generate", "-m", FACTORY_KEY, "-P", PIN, "-s", f"CN=Alice {slot}", slot, public)
    piv("objects", "generate", "-m", FACTORY_KEY, "ccc")
    listed = json.loads(tools.run("cardwright", "card", "list", "--json"))
    assert "31415926" in json.dumps(listed)
    shown = cardwright.json("card", "show")
    assert [row["slot"] for row in shown["keys"]] == ["9A", "9C", "9D", "9E"]
    assert [row["subject"] for row in shown["certificates"]] == [
        f"CN=Alice {slot}" for slot in ("9a", "9c", "9d", "9e")
    ]
    assert (shown["pin"]["is_default"], shown["identity"]["serial"]) == (True, "31415926")
    cardwright("cert", "export", "9d", "--out", tools.path("export.pem"))
    with ours(seat.reader) as card:
        certificate = card.certificate(Slot.KEY_MANAGEMENT)
    piv("certificates", "export", "9d", "-F", "DER", tools.path("export.der"))
    assert tools.certificate("export.pem") == certificate
    assert tools.path("export.der").read_bytes() == certificate.public_bytes(Encoding.DER)
    cardwright("pin", "change", lines=(PIN, NEW_PIN))
    piv("access", "change-pin", "-P", NEW_PIN, "-n", PIN)
