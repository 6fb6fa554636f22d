"""SELECT: what it answers, and which statuses it leaves (SP 800-73-5 part 2 section 3.1.1)."""

from __future__ import annotations

import pytest

from cardwright_simulators.card import PROFILES, Selected
from tests.support.raw_card import ABSENT, OTHER, PIN, PIV, RawCard

YUBIKEYS = ["yubikey-5.7", "yubikey-5.4", "tdes-only", "t0-short"]


@pytest.mark.parametrize("aid", [PIV, "A00000030800001000"])
def test_standard_answer_has_the_full_aid(aid: str) -> None:
    data, sw = RawCard("sp800-73-5").send("00A40400", aid)
    assert sw == 0x9000
    assert data == (
        "61314F0BA00000030800001000010079074F05A000000308500E43617264777269676874205049567F66080202100002027FFF"
    )


def test_short_aid_of_usb_keys() -> None:
    data, sw = RawCard("yubikey-5.7").send("00A40400", "A000000308")
    assert (data, sw) == ("61114F0600001000010079074F05A000000308", 0x9000)


def test_secure_messaging_cards_announce_exactly_one_suite() -> None:
    assert "AC06800127060100" in RawCard("secure-messaging").send("00A40400", PIV)[0]
    assert "AC0680012E060100" in RawCard("secure-messaging-cs7").send("00A40400", PIV)[0]
    assert "AC" not in RawCard("sp800-73-5").send("00A40400", PIV)[0][:20]


def test_pivapplet_lists_all_algorithms() -> None:
    data = RawCard("pivapplet").send("00A40400", PIV)[0]
    assert "AC1B" + "".join(f"8001{a}" for a in ("03", "06", "07", "08", "0A", "0C", "11", "14")) + "060100" in data


def status(host: RawCard) -> int:
    return host.verify()


@pytest.mark.parametrize(
    ("name", "aid", "expected", "kept"),
    [
        ("sp800-73-5", PIV, 0x9000, True),
        ("sp800-73-5", ABSENT, 0x6A82, True),
        ("sp800-73-5", OTHER, 0x9000, False),
        *[(name, aid, sw, False) for name in YUBIKEYS for aid, sw in ((PIV, 0x9000), (ABSENT, 0x6A82))],
        ("pivapplet", PIV, 0x9000, True),
        ("pivapplet", ABSENT, 0x6A82, True),
    ],
)
def test_statuses_after_another_select(name: str, aid: str, expected: int, kept: bool) -> None:
    host = RawCard(name)
    host.select()
    assert host.verify(PIN) == 0x9000
    assert host.admin() == 0x9000
    assert host.select(aid) == expected
    if aid == OTHER:
        assert host.verify() == 0x6D00
        host.select()
    assert host.verify() == (0x9000 if kept else 0x63C3)
    assert host.put("5FC107", b"x") == (0x9000 if kept else 0x6982)


def test_reset_drops_everything_but_counters() -> None:
    host = RawCard("sp800-73-5")
    assert host.verify("303030303030FFFF") == 0x63C2
    assert host.verify() == 0x63C2
    host.verify(PIN)
    host.admin()
    assert host.verify("303030303030FFFF") == 0x63C2
    assert host.card.reset() == host.card.atr
    assert host.verify() == 0x63C2
    assert host.put("5FC107", b"x") == 0x6982


def test_standard_card_has_piv_selected_after_reset_and_usb_keys_nothing() -> None:
    assert RawCard("sp800-73-5").get("5FC102")[1] == 0x6A82
    assert RawCard("yubikey-5.7").get("7E")[1] == 0x6D00


@pytest.mark.parametrize(("p1p2", "sw"), [("0000", 0x6A86), ("040C", 0x6A86), ("0400", 0x6A82)])
def test_other_forms_of_select(p1p2: str, sw: int) -> None:
    assert RawCard("sp800-73-5").sw("00A4" + p1p2, "A0000003") == sw


def test_select_is_logged() -> None:
    host = RawCard("yubikey-5.7")
    host.select("A000000308")
    host.select(ABSENT)
    assert host.card.log == [
        Selected(bytes.fromhex("A000000308"), True),
        Selected(bytes.fromhex(ABSENT), False),
    ]


def test_otp_application_is_absent_and_management_tells_the_device() -> None:
    host = RawCard("yubikey-5.7", serial=12345678)
    assert host.select("A0000005272001") == 0x6A82
    text, sw = host.send("00A40400", "A000000527471117")
    assert (bytes.fromhex(text), sw) == (b"Virtual mgr - FW version 5.7.4", 0x9000)
    config, sw = host.send("001D0000")
    assert sw == 0x9000
    assert int(config[:2], 16) == len(config) // 2 - 1
    assert "020400BC614E" in config
    assert "0503050704" in config
    assert host.sw("001C0000", "00") == 0x6D00


def test_every_profile_is_named_as_its_key() -> None:
    assert all(name == profile.name for name, profile in PROFILES.items())
    assert len(PROFILES) == 9
