"""Texts of mails: strict placeholders, one-line subjects, and values that cannot break out of their place."""

from __future__ import annotations

import unicodedata
from datetime import UTC, datetime
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_server.notify.errors import AddressUnusable, TemplateInvalid
from cardwright_server.notify.mail import usable_address
from cardwright_server.notify.sender import MailServer, compose
from cardwright_server.notify.store import Mail
from cardwright_server.notify.templates import COMMON, LONGEST_SUBJECT, LONGEST_VALUE, Template, replaced, shipped

DATA = frozenset({"device_label"})


def test_shipped_texts_fill() -> None:
    assert len(shipped()) >= 10
    for event, template in shipped().items():
        values = {name: f"<{name}>" for name in COMMON | template.data}
        subject, body = template.filled(values)
        assert "$" not in subject + body
        assert "<person>" in body
        assert "\n" not in subject
        assert max(map(len, body.splitlines())) <= 120, event
        for name in template.data:
            assert f"<{name}>" in subject + body, f"{event} does not use {name}"


@pytest.mark.parametrize(
    ("subject", "body", "said"),
    [
        ("x", "$unknown", "has no unknown"),
        ("$until", "x", "has no until"),
        ("x", "$ 5", "not followed"),
        ("x", "${person", "not followed"),
        ("x", "${person.mail}", "not followed"),
        ("x", "$Person", "not followed"),
        ("a\nBcc: eve@example.org", "x", "not one line"),
        ("a\r\nBcc: eve@example.org", "x", "not one line"),
        ("a\u2028b", "x", "not one line"),
        ("two  blanks", "x", "not one line"),
        ("=?utf-8?q?=0a?=", "x", "not one line"),
        ("", "x", "is empty"),
        ("x", " \n ", "is empty"),
        ("x" * (LONGEST_SUBJECT + 1), "x", "longer than"),
        ("x", "a\x00b", "control"),
        ("x", "a\u202eb", "control"),
    ],
)
def test_texts_that_cannot_be_sent_are_refused(subject: str, body: str, said: str) -> None:
    with pytest.raises(TemplateInvalid, match=said):
        Template("device.bind", DATA, subject, body)


def test_a_value_that_is_missing_is_an_error() -> None:
    template = Template("device.bind", DATA, "x", "$person $device_label")
    with pytest.raises(TemplateInvalid, match="no value for device_label"):
        template.filled({"person": "Ada"})


def test_values_are_text_and_never_placeholders() -> None:
    template = Template("device.bind", DATA, "for $person", "Hello $person, $$5 for $device_label")
    subject, body = template.filled({"person": "$device_label", "device_label": "${person}"})
    assert (subject, body) == ("for $device_label", "Hello $device_label, $5 for ${person}\n")


@given(st.text(max_size=400))
def test_no_value_breaks_a_line_or_grows_without_end(value: str) -> None:
    template = Template("device.bind", DATA, "for $person", "Hello $person,\nbye")
    subject, body = template.filled({"person": value})
    assert len(subject) <= LONGEST_SUBJECT
    assert body.count("\n") == 2
    assert len(body) <= LONGEST_VALUE + 20
    assert not any(unicodedata.category(one) in ("Cc", "Zl", "Zp", "Cf") for one in (subject + body).replace("\n", ""))


@given(st.text() | st.from_regex(r"=\?[a-z0-9-]+\?[qb]\?[A-Za-z0-9=+/_]*\?=.*", fullmatch=True))
def test_no_value_makes_another_header(value: str) -> None:
    template = Template("device.bind", DATA, "$person=$device_label", "x")
    subject, body = template.filled({"person": value, "device_label": f"?{value}"})
    made = Mail(UUID(int=1), UUID(int=2), "ada@example.org", subject, body, "<1@example.org>", 1, datetime.now(UTC))
    octets = compose(made, MailServer("localhost", 25, "cards@example.org")).as_bytes()
    head, _, text = octets.partition(b"\r\n\r\n")
    names = [line.split(b":")[0] for line in head.split(b"\r\n") if not line.startswith((b" ", b"\t"))]
    ours = b"From To Subject Date Message-ID Auto-Submitted Content-Type Content-Transfer-Encoding MIME-Version"
    assert sorted(names) == sorted(ours.split())
    assert text == b"x\r\n"


def test_an_organizations_text_is_for_events_that_send_mail() -> None:
    assert replaced("device.bind", "Neu", "Hallo $person").body == "Hallo $person"
    with pytest.raises(TemplateInvalid, match="no mail is sent"):
        replaced("device.nothing", "x", "y")


@pytest.mark.parametrize("address", ["ada@example.org", "a.b+c@mail.example.org", "o'hara@example.org"])
def test_usable_addresses(address: str) -> None:
    assert usable_address(address) == address


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ada",
        "@example.org",
        "ada@",
        "ada@localhost",
        "ada@example.org\nBcc: eve@example.org",
        "ada@example.org\r\n",
        "ada@example.org, eve@example.org",
        "Ada <ada@example.org>",
        "ada eve@example.org",
        "ädä@example.org",
        "ada@exämple.org",
        "ada@example.org ",
        "ada(comment)@example.org",
        "a" * 250 + "@example.org",
        "ada@example.org>",
    ],
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(AddressUnusable):
        usable_address(address)


@given(st.text(max_size=60))
def test_any_text_is_an_address_or_refused(text: str) -> None:
    try:
        assert usable_address(text) == text
        assert text.isascii()
        assert text.count("@") == 1
        assert not any(one in text for one in " \t\r\n,;<>")
    except AddressUnusable:
        pass
