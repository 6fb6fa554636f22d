"""The script language and its runner: strict readers, values that never show, honest results."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816.exchange import BrokenExchange
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import CardRemoved, Connection, Interface
from cardwright_simulators.scripts import (
    Result,
    ScriptChangesCard,
    ScriptMalformed,
    ScriptNeedsInterface,
    ScriptValueMissing,
    parse,
    run_script,
)
from cardwright_simulators.scripts.template import parse as template
from tests.support.conformance import SCRIPTS, features, secrets, stage
from tests.support.conformance import run as run_there
from tests.support.piv_card import AT
from tests.support.scripted import ScriptedCard

HEAD = '[[script]]\nname = "X"\ntitle = "a script"\n'


def script(steps: str, more: str = "") -> str:
    return f"{HEAD}{more}steps = [{steps}]\n"


def run(steps: str, card: ScriptedCard, values: dict[str, Secret | bytes] | None = None, more: str = "") -> Result:
    (made,) = parse(script(steps, more).encode())
    result = run_script(made, card, values or {}, may_change=True)
    card.done()
    return result


@pytest.mark.parametrize(
    ("text", "octets"),
    [
        ("", ""),
        ("00CB 3FFF", "00cb3fff"),
        ("53(70(0102)FE())", "5306700201 02fe00"),
        ("53(A5*200)", "5381c8" + "a5" * 200),
        ("53(00*256)", "53820100" + "00" * 256),
        ("<name>", "0a0b0c0d"),
        ("<name[1:3]><name[:1]><name[-1:]>", "0b0c0a0d"),
        ("(<name>)", "040a0b0c0d"),
    ],
)
def test_what_a_template_builds(text: str, octets: str) -> None:
    assert template(text).build({"name": bytes.fromhex("0a0b0c0d")}) == bytes.fromhex(octets)


@pytest.mark.parametrize(
    ("text", "data", "kept"),
    [
        ("9000", "9000", {}),
        ("9000", "900000", None),
        ("90..", "90ff", {}),
        ("90..", "90", None),
        ("..*4", "00010203", {}),
        ("..*4", "000102", None),
        ("{}", "", {}),
        ("{all}", "0102", {"all": "0102"}),
        ("53({inner})", "53020102", {"inner": "0102"}),
        ("53({inner})", "5381020102", {"inner": "0102"}),
        ("53({inner})", "5382000101", {"inner": "01"}),
        ("53({inner})", "530301", None),
        ("53({inner})", "5380", None),
        ("53({inner})", "53", None),
        ("53({inner})", "530201020300", None),
        ("61(4F({aid})[50({})]AC({list}))", "61084f0101500100ac00", {"aid": "01", "list": ""}),
        ("61(4F({aid})[50({})]AC({list}))", "61054f0101ac00", {"aid": "01", "list": ""}),
        ("61(4F({aid})[50({})]AC({list}))", "61054f0101ad00", None),
        ("<name>{rest}", "0a0b0c0dff", {"rest": "ff"}),
        ("{}<name>{rest}", "00000a0b0c0dff", {"rest": "ff"}),
    ],
)
def test_what_a_template_fits(text: str, data: str, kept: dict[str, str] | None) -> None:
    found = template(text).match(bytes.fromhex(data), {"name": bytes.fromhex("0a0b0c0d")})
    assert found == (None if kept is None else {name: bytes.fromhex(value) for name, value in kept.items()})


@pytest.mark.parametrize("text", ["0", "gg", "53(", "53)", "(]", "<a b>", "{A}", "<name", "00*99999", "53(70(01)", "é"])
def test_malformed_templates(text: str) -> None:
    with pytest.raises(ScriptMalformed):
        template(text)


@given(st.text(alphabet="0123456789ABCDEF<>()[]{}.*:ab \n", max_size=40))
def test_any_text_is_a_template_or_malformed(text: str) -> None:
    try:
        made = template(text)
    except ScriptMalformed:
        return
    values = dict.fromkeys(("a", "b", "ab", "ba", "aa", "bb"), b"\x01\x02")
    try:
        if made.builds:
            assert made.match(made.build(values), values) is not None
    except ScriptValueMissing:
        pass


@given(st.recursive(st.binary(max_size=300), lambda inner: st.lists(inner, max_size=3)))
def test_what_is_built_fits_its_own_template(tree: object) -> None:
    def text(node: object) -> str:
        return node.hex().upper() if isinstance(node, bytes) else "".join(f"({text(each)})" for each in node)  # type: ignore[attr-defined]

    made = template(text(tree))
    octets = made.build({})
    assert made.match(octets, {}) == {}
    assert made.match(octets + b"\0", {}) is None


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("steps = [", "Invalid value"),
        (HEAD, "steps"),
        (script("", "colour = 1\n"), "colour"),
        (script("", 'interface = "usb"\n'), "interface"),
        (script("{}"), "step 1 has 0 verbs"),
        (script('{send = "00", reset = true}'), "step 1 has 2 verbs"),
        (script('{send = "00", wait = 1}'), "wait"),
        (script('{send = 1}'), "send"),
        (script('{send = "0"}'), "'0' cannot be read"),
        (script('{send = "00{a}"}'), "does not say each octet"),
        (script('{send = "00", sw = "900"}'), "'900' is no status word"),
        (script('{send = "00", sw = ""}'), "'' is no status word"),
        (script('{send = "00", sw = "X000"}'), "is no status word"),
        (script('{send = "00", sw = "6XXX"}'), "is no status word"),
        (script('{send = "00", data = "("}'), "leaves a bracket open"),
        (script('{send = "<it>", each = ["{}"]}'), "does not say each octet"),
        (script('{reset = false}'), "reset"),
        (script('{over = "usb"}'), "over"),
        (script('{do = "dance"}'), "no macro 'dance'"),
        (script('{do = "a"}') + '[macro]\na = [{do = "b"}]\nb = [{do = "a"}]\n', "calls itself"),
        (script('{judge = "gold", objects = []}'), "judge"),
        ("\xff", "X"),
    ],
)
def test_malformed_scripts(text: str, why: str) -> None:
    with pytest.raises(ScriptMalformed) as raised:
        parse(text.encode("latin-1"), "X")
    assert why in str(raised.value)


def test_command_forms() -> None:
    card = ScriptedCard(
        [
            ("00200080", "63c3"),
            ("00cb3fff00", "9000"),
            ("00cb3fff05 5c035fc102 00", "5300 9000"),
            ("00200080 08 3132333435360000", "9000"),
            ("80cafe", "6700"),
            ("10db3fff ff" + "a5" * 255, "9000"),
            ("00db3fff 01 a5", "9000"),
        ]
    )
    steps = """{send = "00200080", sw = "63CX", tries = "n"}, {send = "00CB3FFF00"},
        {send = "00CB3FFF(5C(<tag>))00", data = "53()", each = [{tag = "5FC102"}]},
        {send = "00200080(3132333435360000)"},
        {send = "80CAFE", raw = true, sw = "!9000"}, {send = "00DB3FFF(A5*256)"}, {same = ["<n>", "03"]}"""
    assert run(steps.replace("\n", ""), card).outcome == "passed"


def test_answers_are_followed_to_their_end_unless_raw() -> None:
    answers = [("00cb3fff00", "01 6102"), ("00c0000002", "0203 9000")]
    assert run('{send = "00CB3FFF00", data = "010203"}', ScriptedCard(answers)).passed
    assert run('{send = "00CB3FFF00", raw = true, sw = "61XX", data = "01"}', ScriptedCard(answers[:1])).passed


def test_script_ends_with_the_first_step_that_goes_wrong() -> None:
    card = ScriptedCard([("00200080", "9000"), ("00200081", "6a88")])
    result = run('{send = "00200080"}, {send = "00200081"}, {send = "00200082"}', card)
    assert not result.passed
    assert result.outcome == "2: 6A88"
    assert [(step.place, step.text, step.ok) for step in result.steps] == [
        ("1", "send 00200080", True),
        ("2", "send 00200081", False),
    ]


@pytest.mark.parametrize(
    ("sw", "word", "ok"),
    [
        ("9000", "9000", True), ("9000", "6a82", False), ("6A82 9000", "6a82", True), ("63CX", "63c0", True),
        ("63CX", "6300", False), ("!9000", "6a82", True), ("!9000", "9000", False), ("63C<n>", "63c3", True),
        ("63C<n>", "63c2", False), ("63C<n-1>", "63c2", True), ("6AXX", "6a82", True), ("6AXX", "6982", False),
    ],
)  # fmt: skip
def test_status_words(sw: str, word: str, ok: bool) -> None:
    card = ScriptedCard([("00200080", word)])
    assert run(f'{{let = "n", be = "03"}}, {{send = "00200080", sw = "{sw}"}}', card).passed is ok


def test_macros_and_repetitions_have_places() -> None:
    card = ScriptedCard([("00200080", "9000"), ("00200080", "6983")])
    macro = '[macro]\ntwice = [{send = "00200080", each = ["01", "02"]}]\n'
    (made,) = parse((script('{do = "twice"}') + macro).encode())
    result = run_script(made, card, {})
    assert [step.place for step in result.steps] == ["1.1[1]", "1.1[2]"]
    assert result.outcome == "1.1[2]: 6983"


def test_steps_and_scripts_that_need_what_the_card_lacks_are_left_out() -> None:
    steps = '{send = "00200080", needs = ["wings"]}, {send = "00200081"}'
    assert run(steps, ScriptedCard([("00200081", "9000")])).passed
    result = run(steps, ScriptedCard([]), more='needs = ["wings"]\n')
    assert (result.applies, result.passed, result.outcome, result.steps) == (False, False, "not applicable", ())
    (made,) = parse(script(steps, 'needs = ["wings"]\n').encode())
    card = ScriptedCard([("00200080", "9000"), ("00200081", "9000")])
    assert run_script(made, card, {}, features=["wings"]).passed


def test_wrong_values_are_of_the_same_form() -> None:
    card = ScriptedCard([("0020008008 3132333435 37 ffff", "9000")])
    assert run('{send = "00200080(<WRONG_PIN>)"}', card, {"PIN": Secret(b"123456\xff\xff")}).passed
    card = ScriptedCard([("0020008008 3132333435363730", "9000")])
    assert run('{send = "00200080(<WRONG_PIN>)"}', card, {"PIN": Secret(b"12345679")}).passed
    card = ScriptedCard([("0020008002 0040", "9000")])
    assert run('{send = "00200080(<WRONG_PUK>)"}', card, {"PUK": Secret(b"\x00\x41")}).passed


def test_a_missing_value_is_named() -> None:
    with pytest.raises(ScriptValueMissing) as raised:
        run('{send = "00200080(<PIN>)"}', ScriptedCard([]))
    assert raised.value.name == "PIN"


def test_a_card_is_changed_only_by_permission() -> None:
    place = stage("sp800-73-5")
    with pytest.raises(ScriptChangesCard):
        run_script(SCRIPTS["CE-035"], place.connect(place.card.interface), secrets(place.profile))
    assert place.card.apdu_count == 0


def test_the_other_interface_has_to_be_there() -> None:
    with pytest.raises(ScriptNeedsInterface):
        run('{over = "contactless"}', ScriptedCard([]))


def test_transport_errors_are_not_results() -> None:
    card = ScriptedCard([("00200080", CardRemoved("gone"))])
    with pytest.raises(CardRemoved):
        run('{send = "00200080"}', card)


def test_scripts_that_do_not_change_a_card_leave_it_as_it_was() -> None:
    changed = []
    for name, each in SCRIPTS.items():
        place = stage("secure-messaging", each.card)
        before = place.card.state_hash()
        run_there(name, place)
        if not each.changes and place.card.state_hash() != before:
            changed.append(name)
    assert changed == []


def test_results_show_no_value() -> None:
    values = [bytes(value).hex() for value in (b"123456\xff\xff", b"12345678", b"20260731")]
    for name, each in SCRIPTS.items():
        shown = repr(run_there(name, stage("secure-messaging", each.card))).lower()
        assert not [value for value in values if value in shown], name


@pytest.mark.parametrize(
    ("steps", "values"),
    [
        ('{proof = "00", of = "nothing"}', {}),
        ('{let = "x", point = "1111"}', {}),
        ('{let = "x"}', {}),
        ('{question = "q", slot = "9A"}', {}),
        ('{question = "q", slot = "07", certificate = "5300"}', {}),
        ('{establish = "guid"}', {"SM_SUITE": b"\x11"}),
        ('{let = "x", encipher = "00"}', {"MANAGEMENT_ALGORITHM": b"\x08", "MANAGEMENT_KEY": bytes(15)}),
        ('{let = "x", encipher = "00"}', {"MANAGEMENT_ALGORITHM": b"\x09", "MANAGEMENT_KEY": bytes(16)}),
        ('{protect = "00CB3FFF00", into = "w"}', {}),
        ('{send = "00CB3F(5C00)00"}', {}),
        ('{send = "00CB3FFF(5C00)0000"}', {}),
        ('{send = "00CB3FFF035C010200"}', {}),
        ('{send = "00DB3FFF(00*256)", raw = true}', {}),
    ],
)
def test_what_only_shows_when_it_runs_is_malformed_too(steps: str, values: dict[str, Secret | bytes]) -> None:
    with pytest.raises(ScriptMalformed):
        run(steps, ScriptedCard([]), values)


class Noisy:
    """A connection that damages one answer: cut short, lengthened, emptied, or with an octet replaced."""

    def __init__(self, connection: Connection, damage: Callable[[bytes], bytes], turn: int) -> None:
        self._connection = connection
        self._damage = damage
        self._left = turn

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)

    def transmit(self, command: bytes) -> bytes:
        answer = self._connection.transmit(command)
        self._left -= 1
        return answer if self._left else self._damage(answer)


@given(
    st.sampled_from([name for name in SCRIPTS if name not in ("CE-090", "CE-099")]),
    st.integers(1, 30),
    st.integers(0, 300),
    st.binary(max_size=3),
    st.booleans(),
)
def test_damaged_answers_end_in_a_result_or_a_documented_error(
    name: str, turn: int, at: int, new: bytes, keep_status: bool
) -> None:
    def damage(answer: bytes) -> bytes:
        body, status = (answer[:-2], answer[-2:]) if keep_status else (answer, b"")
        place = at % (len(body) + 1)
        return body[:place] + new + body[place + 1 :] + status

    place = stage("secure-messaging", SCRIPTS[name].card)

    def reach(interface: Interface) -> Any:
        return Noisy(place.connect(interface), damage, turn)

    with contextlib.suppress(BrokenExchange):
        run_script(
            SCRIPTS[name], reach(Interface(SCRIPTS[name].interface)), secrets(place.profile), connect=reach,
            features=features(place.profile), may_change=True, at=AT,
        )  # fmt: skip
