"""Image files, the JSON form, the documentation of the codes, and hostile input."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cardwright_cardops.check import (
    RULES,
    CardData,
    ImageUnreadable,
    Level,
    Report,
    Severity,
    check,
    load_image,
)
from cardwright_cardops.check.live import read_card
from cardwright_cardops.check.rules import markdown
from cardwright_cardops.piv.containers import CONTAINERS
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.program.runner import run
from cardwright_simulators.card import VirtualCard
from tests.support.card_init import CASES, executor
from tests.support.piv_card import AT, PivCard, crl, key

DOCUMENT = Path(__file__).parents[3] / "docs" / "findings.md"


def test_the_document_has_the_table() -> None:
    assert markdown() in DOCUMENT.read_text(encoding="utf-8"), "put check.rules.markdown() into docs/findings.md"


def test_codes_are_stable_words_and_never_silent() -> None:
    for rule in RULES.values():
        assert re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", rule.code)
        assert any(rule.severity(level) for level in Level)
        assert rule.reference and rule.title.endswith(".")


def test_json_form() -> None:
    report = check(CardData({0x5FC107: b"\x53\x00"}), level=Level.PIV, at=AT)
    seen = report.to_json()
    assert json.loads(json.dumps(seen)) == seen
    assert list(seen) == ["level", "at", "objects", "good", "findings"]
    assert (seen["level"], seen["at"], seen["good"]) == ("piv", "2027-05-01T12:00:00+00:00", False)
    findings = seen["findings"]
    assert isinstance(findings, list)
    assert findings[0] == {
        "code": "OBJECT_EMPTY",
        "severity": "warning",
        "object": "5FC107",
        "message": "Card Capability Container is empty",
        "reference": "SP 800-73-5 part 1 appendix A",
    }
    assert report.worst is Severity.ERROR
    assert Report(Level.BASIC, AT, (), ()).worst is None


@pytest.mark.parametrize("objects", [{}, {0x5FC102: b"\x53\x00"}])
@pytest.mark.parametrize("level", Level)
def test_a_card_with_nothing_on_it_is_good_at_no_level(objects: dict[int, bytes], level: Level) -> None:
    report = check(CardData(objects), level=level, at=AT)
    assert not report.good
    assert [each.object for each in report.findings if each.code == "NO_OBJECTS"] == [""]
    assert "NO_OBJECTS" not in {each.code for each in check(CardData({0x5FC109: None}), level=level, at=AT).findings}


@pytest.mark.parametrize("level", Level)
def test_factory_secrets_are_errors_named_by_their_reference(level: Level) -> None:
    card = CardData({0x5FC102: b"\x53\x01\x00"}, factory_secrets=(0x80, 0x81, 0x9B))
    found = [each for each in check(card, level=level, at=AT).findings if each.code == "FACTORY_SECRET"]
    assert [(each.object, each.severity) for each in found] == [(tag, Severity.ERROR) for tag in ("80", "81", "9B")]


def test_a_card_in_factory_state_tells_its_secrets_and_a_set_up_one_does_not() -> None:
    fresh = run(read_card(), executor(VirtualCard("yubikey-5.7")))
    assert fresh.factory_secrets == (0x80, 0x81, 0x9B)
    card = CASES["yubikey-5.7"].card()
    CASES["yubikey-5.7"].run(card, MemoryJournal())
    assert run(read_card(), executor(card)).factory_secrets == ()
    assert run(read_card(), executor(VirtualCard("sp800-73-5"))).factory_secrets == ()


def test_what_an_empty_card_misses() -> None:
    found = check(CardData({}), level=Level.CIV, at=AT).of(Severity.ERROR)
    missing = {each.object for each in found if each.code == "OBJECT_ABSENT"}
    assert missing == {"5FC107", "5FC102", "5FC105", "5FC103", "5FC106", "5FC108", "5FC101"}


def test_time_needs_a_zone() -> None:
    with pytest.raises(ValueError, match="time zone"):
        check(CardData({}), at=datetime(2027, 1, 1))


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"objects": []}', '{"objects": {"XX": "00"}}', '{"objects": {"7E": 5}}',
     '{"objects": {"7E": "0"}}', '{"objects": {}, "keys": {"9A": {"pkcs8": "3000"}}}', '{"objects": {}, "keys": [1]}',
     "[" * 100000],
)  # fmt: skip
def test_what_is_no_image(tmp_path: Path, text: str) -> None:
    path = tmp_path / "image.json"
    path.write_text(text)
    with pytest.raises(ImageUnreadable) as caught:
        load_image(path)
    assert caught.value.code == "IMAGE_UNREADABLE"


def test_a_missing_or_endless_file(tmp_path: Path) -> None:
    with pytest.raises(ImageUnreadable, match="cannot be read"):
        load_image(tmp_path / "none")
    with pytest.raises(ImageUnreadable, match="larger"):
        load_image("/dev/zero")


GOOD = PivCard()
ANSWERS = {tag: answer or b"" for tag, answer in GOOD.data().objects.items()}
CRLS = [crl("CA"), crl("Root")]


@settings(max_examples=25)
@given(st.data())
def test_one_damaged_object_hides_no_other(data: st.DataObject) -> None:
    """Damage anywhere is a report, not a crash; and a wrong 9C is found beside it."""
    tag = data.draw(st.sampled_from([each for each in sorted(ANSWERS) if each != 0x5FC10A]))
    raw = bytearray(ANSWERS[tag])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(raw) - 1))
        raw[place] ^= data.draw(st.integers(1, 255))
    if data.draw(st.booleans()):
        raw = raw[: data.draw(st.integers(0, len(raw)))]
    card = CardData({**ANSWERS, tag: bytes(raw)}, {0x9C: lambda public: False})
    for level in Level:
        report = check(card, level=level, at=AT, trust=GOOD.trust, crls=CRLS)
        assert ("KEY_MISMATCH", "5FC10A") in {(each.code, each.object) for each in report.findings}
        if level is Level.PIV and bytes(raw) != ANSWERS[tag]:
            assert any(each.severity is Severity.ERROR and each.code != "KEY_MISMATCH" for each in report.findings)


@settings(max_examples=40)
@given(st.dictionaries(st.sampled_from(sorted(CONTAINERS)), st.binary(max_size=80) | st.none(), max_size=8))
def test_noise_is_a_report(objects: dict[int, bytes | None]) -> None:
    for level in Level:
        report = check(CardData(objects), level=level, at=AT)
        assert len(report.objects) == len(objects)


def test_nothing_personal_is_in_a_report() -> None:
    card = PivCard(records={0x5FC103: b"MINUTIAE-OF-ADA", 0x5FC108: b"PICTURE-OF-ADA"})
    data = card.data()
    text = json.dumps(check(data, level=Level.PIV, at=AT, trust=card.trust).to_json()) + repr(data)
    shown = [word for word in ("Ada", "Lovelace", "MINUTIAE", "PICTURE", "1234567890") if word in text]
    assert shown == []
    assert key("9A").private_numbers().private_value not in {int(word) for word in re.findall(r"\d{20,}", text)}
