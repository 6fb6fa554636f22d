"""ykman administers the virtual card over a real pcscd through SCP03, the PIV application and the security domain."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import fingerprint
from cardwright_simulators.card import Write
from tests.support.strangers import FACTORY_KEY, PIN, Seat, Seats, ToolFailed, Tools, Ykman, ours

pytestmark = [
    pytest.mark.pcscd,
    pytest.mark.filterwarnings("ignore:Deprecated. use x509.Name:DeprecationWarning"),
]

FACTORY = ":".join(("404142434445464748494a4b4c4d4e4f",) * 3)
CHANGED = ":".join(f"{octet:02x}" * 16 for octet in (0x11, 0x22, 0x33))


@pytest.fixture(params=["yubikey-5.7", "yubikey-5.4"])
def seat(request: pytest.FixtureRequest, seats: Seats) -> Seat:
    return seats.fresh(request.param)


@pytest.fixture
def tool(ykman: Callable[[str], Ykman], seat: Seat) -> Ykman:
    return ykman(seat.reader)


def test_keys_and_certificates_through_the_channel(tool: Ykman, seat: Seat, tools: Tools) -> None:
    sealed, key = ("-s", FACTORY, "piv"), ("-m", FACTORY_KEY)
    public = tools.path("public.pem")
    tool.run(*sealed, "keys", "generate", *key, "-a", "rsa2048", "9a", public)
    tool.run(*sealed, "certificates", "generate", *key, "-P", PIN, "-s", "CN=Alice", "9a", public)
    tool.run(*sealed, "access", "change-pin", "-P", PIN, "-n", "271828")
    assert "CN=Alice" in tool.run(*sealed, "info")
    with ours(seat.reader, "271828") as card:
        row = card.inventory().key(Slot.AUTHENTICATION)
        assert row is not None and row.fingerprint == fingerprint(tools.public_key("public.pem"))
        certificate = card.certificate(Slot.AUTHENTICATION)
    tool.run(*sealed, "certificates", "export", "9a", tools.path("back.pem"))
    assert tools.certificate("back.pem") == certificate


def test_channel_keys_are_replaced(tool: Ykman, seat: Seat) -> None:
    assert "Default key set" in tool.run("sd", "info")
    tool.run("-s", FACTORY, "sd", "keys", "import", "scp03", "0x01", CHANGED)
    said = tool.run("sd", "info")
    assert "KVN=0x01" in said and "Default key set" not in said
    ccc = ("piv", "objects", "generate", "-m", FACTORY_KEY, "ccc")
    with pytest.raises(ToolFailed):
        tool.run("-s", FACTORY, *ccc)
    assert Write("object", containers.CCC.tag) not in seat.inside.log
    tool.run("-s", CHANGED, *ccc)
    assert Write("object", containers.CCC.tag) in seat.inside.log


def test_token_describes_itself(tool: Ykman, seat: Seat) -> None:
    said = tool.run("info")
    assert "Serial number: 12345678" in said and "PIV         \tEnabled" in said
    assert f"Firmware version: {'.'.join(map(str, seat.inside.profile.version))}" in said
