"""Forms of logins and of places in a directory, and certificate fields: pure values."""

from __future__ import annotations

from dataclasses import replace
from uuid import uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_server.people.errors import FieldMissing
from cardwright_server.people.mapping import CertificateMapping, certificate_fields
from cardwright_server.people.model import EVERYWHERE, Person, PersonStatus, Reach, Scope
from cardwright_server.people.naming import BadName, branch_path, folded_login

PERSON = Person(
    id=uuid4(),
    org=uuid4(),
    login="anna",
    display_name="Anna A",
    mail="",
    status=PersonStatus.ACTIVE,
    source="embedded",
    entry="",
    dn="",
    attributes={
        "givenName": ("Anna", "Annie"),
        "sn": ("A",),
        "employeeNumber": ("7",),
        "ou": ("IT",),
        "mail": ("x@y",),
    },
    version=1,
)


@given(st.text(max_size=50))
def test_a_folded_login_is_its_own_folded_form(text: str) -> None:
    try:
        folded = folded_login(text)
    except BadName:
        return
    assert folded_login(folded) == folded
    assert folded_login(f" {text} ") == folded


@pytest.mark.parametrize(
    ("below", "above", "inside"),
    [
        ("uid=a,ou=x,dc=e", "ou=x,dc=e", True),
        ("uid=a, OU = X , DC=E", "ou=x,dc=e", True),
        ("ou=x,dc=e", "ou=x,dc=e", True),
        ("uid=a,ou=xy,dc=e", "ou=x,dc=e", False),
        ("ou=x,dc=e,dc=f", "ou=x,dc=e", False),
        (r"uid=a\,ou=x,dc=e", "ou=x,dc=e", False),
        ("uid=b+cn=a,dc=e", "cn=a+uid=b,dc=e", True),
        (r"cn=a\2bb=c,dc=e", "cn=a+b=c,dc=e", False),
        (r"ou=x\1fdc=e,dc=e", "ou=x,dc=e", False),
        (r"ou=a\5c1f,dc=e", r"ou=a\1f,dc=e", False),
        ("ou=Stra\u00dfe,dc=e", "ou=STRASSE,dc=e", True),
        ("ou=a  b,dc=e", "ou=a b,dc=e", True),
    ],
)
def test_a_branch_is_a_prefix_and_nothing_else_is(below: str, above: str, inside: bool) -> None:
    assert branch_path(below).startswith(branch_path(above)) is inside


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=4), st.text(min_size=1, max_size=8))
def test_a_child_lies_below_its_parent_and_never_above(names: list[str], child: str) -> None:
    def escaped(text: str) -> str:
        return "".join(f"\\{octet:02x}" for octet in text.encode("utf-8", "surrogatepass"))

    parent = ",".join(f"ou={escaped(name)}" for name in names)
    try:
        above, below = branch_path(parent), branch_path(f"cn={escaped(child)},{parent}")
    except BadName:
        return
    assert below.startswith(above)
    assert not above.startswith(below)


@pytest.mark.parametrize("dn", ["nonsense", ",", "   ", "dc=", "=x", "dc=a,,dc=b", "dc=" + "a" * 2000, "cn=\ud800"])
def test_what_is_no_place_is_refused_or_covers_only_itself(dn: str) -> None:
    try:
        path = branch_path(dn)
    except BadName:
        return
    assert path and not branch_path("dc=example").startswith(path)


def test_scopes_that_cannot_be_meant() -> None:
    for reach, group, branch in (
        (Reach.EVERYWHERE, uuid4(), ""),
        (Reach.GROUP, None, ""),
        (Reach.GROUP, uuid4(), "dc=e"),
        (Reach.BRANCH, None, ""),
        (Reach.BRANCH, uuid4(), "dc=e"),
    ):
        with pytest.raises(ValueError):
            Scope(reach, group, branch)
    assert EVERYWHERE.reach is Reach.EVERYWHERE


def test_certificate_fields_take_the_first_template_that_can_be_filled() -> None:
    mapping = msgspec.convert(
        {
            "common_name": ["{display_name} ({badge})", "{display_name} ({employeeNumber})"],
            "organizational_units": ["{ou}", "{department}", "Staff"],
            "serial_number": ["{employeeNumber}"],
        },
        CertificateMapping,
    )
    made = certificate_fields(mapping, PERSON)
    assert (made.common_name, made.serial_number) == ("Anna A (7)", "7")
    assert made.organizational_units == ("IT", "Staff")
    assert (made.given_name, made.surname, made.upn, made.sid, made.email) == ("Anna", "A", "", "", "x@y")
    assert "Anna" not in repr(made)
    own = certificate_fields(mapping, replace(PERSON, mail="own@example.org"))
    assert own.email == "own@example.org"


def test_a_required_field_that_stays_empty_makes_no_certificate() -> None:
    with pytest.raises(FieldMissing, match="upn"):
        certificate_fields(CertificateMapping(required=("common_name", "upn")), PERSON)


@pytest.mark.parametrize(
    "document",
    [
        {"common_names": ["x"]},
        {"common_name": "{display_name}"},
        {"common_name": ["{display_name"]},
        {"common_name": ["{}"]},
        {"common_name": [""]},
        {"common_name": ["{a b}"]},
        {"required": ["nickname"]},
    ],
)
def test_a_mapping_that_cannot_be_meant_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(document, CertificateMapping)
