"""What is published can be done: any policy that publication accepts is carried out on a card of full capability."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest_asyncio
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.people.model import Group, Role
from cardwright_server.policies.document import PROFILES as NAMES
from cardwright_server.policies.document import read
from cardwright_server.policies.errors import PolicyContradictory
from cardwright_server.policies.reach import unreachable
from cardwright_server.store.unit import Database, Unit
from cardwright_simulators.card.attestation import root
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import KINDS
from tests.support.people import make_group, make_operator, make_person
from tests.support.session_world import SessionWorld, blank, make_session_world

ALGORITHMS = (*("p256",) * 6, "rsa2048", "p384", "ed25519")
OBJECTS = ("ccc", "discovery", "printed", "security-object", "key-history")
PROFILES = {
    "9a": ("piv-authentication", "piv-authentication", "smartcard-logon"),
    "9c": ("signature",),
    "9d": ("key-management",),
    "9e": ("card-authentication",),
}
DONE, NOTHING_DUE = sessions_pb2.OUTCOME_DONE, sessions_pb2.OUTCOME_NOTHING_DUE
NUMBERS = count(1)
DAYS = st.sampled_from([1, 30, 42, 364, 1094, 1095])
TRIES = st.sampled_from([2, 3, 10, 16, 255])


def _value(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(_value(one) for one in value)}]"
    return str(value).lower() if isinstance(value, bool | int) else f'"{value}"'


def _table(head: str, values: dict[str, Any]) -> str:
    return "\n".join([head, *(f"{name} = {_value(value)}" for name, value in values.items())])


def _some(**values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Some of these members; the rest is left out."""
    return st.fixed_dictionaries({}, optional=values)


@st.composite
def slots(draw: st.DrawFn) -> list[str]:
    made = []
    for slot in draw(st.lists(st.sampled_from(tuple(PROFILES)), unique=True, max_size=4)):
        escrow = slot == "9d" and draw(st.booleans())
        origins = ["unproven", "trusted_station", *([] if escrow else ["attested"])]
        usual = slot == "9e"
        values = {
            "slot": slot,
            "algorithm": draw(st.sampled_from(ALGORITHMS)),
            "profile": draw(st.sampled_from(PROFILES[slot])),
            "key": "escrow" if escrow else "generate",
            "least_origin": draw(st.sampled_from(origins)),
            "pin_policy": draw(st.sampled_from(["default"] if usual else ["default", "never", "once", "always"])),
            "touch_policy": draw(st.sampled_from(["default", "never", "always", "cached"])),
        }
        made.append(_table("[[slots]]", values))
    return made


@st.composite
def documents(draw: st.DrawFn) -> str:
    """Of what an open session at a trusted station can do at all: nothing that must arrive sealed."""
    keys = draw(slots())
    proves = any('slot = "9e"' in one for one in keys)
    methods = st.sampled_from(["self", "assisted", "operator"])
    head = draw(
        _some(
            validity_days=st.sampled_from([365, 1095, 1096, 1826, 7320]),
            renew_before_days=DAYS,
            activate_within_days=st.sampled_from([1, 30, 400]),
            unlock=st.lists(methods, unique=True, max_size=3 if proves else 0),
        )
    )
    head["objects"] = ["chuid", *draw(st.lists(st.sampled_from(OBJECTS), unique=True, max_size=5))]
    low = draw(st.sampled_from([4, 6, 8]))
    pin: dict[str, Any] = {"min_length": low, "max_length": draw(st.sampled_from([max(low, 6), 8]))}
    pin["digits_only"] = draw(st.booleans())
    puk: dict[str, Any] = {"own": draw(st.integers(0, 4)) > 0}
    if draw(st.booleans()):
        pin["retries"], puk["retries"] = draw(st.tuples(TRIES, TRIES))
    algorithms = st.sampled_from(["tdes", "aes128", "aes192", "aes256"])
    key = draw(_some(own=st.just(True), algorithm=algorithms, touch=st.booleans()) | _some(own=st.booleans()))
    general = {"clear_secrets": draw(st.sampled_from(["any", "trusted_station"])), **head}
    parts = [("", general), ("[pin]", pin), ("[puk]", puk), ("[management_key]", key)]
    return "\n".join([*(_table(*part) for part in parts), *keys])


def publishable(text: str) -> bool:
    """Whether publication takes it; what it refuses, and why, is tested by itself."""
    try:
        return not unreachable(read(f'name = "own"\n{text}', {*NAMES, "smartcard-logon"}), KINDS)
    except PolicyContradictory:
        return False


async def publish(world: SessionWorld, text: str, group: Group) -> None:
    author = await make_operator(world.database, world.org, Role.ADMINISTRATOR)
    policies = world.world.services.policies

    async def work(unit: Unit) -> None:
        draft = await policies.draft(unit, author, text)
        made = await policies.publish(unit, world.world.officer, draft.id)
        await policies.assign(unit, author, made.name, group.id)

    await world.database.transact(work)


@pytest_asyncio.fixture
async def world(open_database: Callable[..., Database], tmp_path: Path) -> AsyncIterator[SessionWorld]:
    made = await make_session_world(open_database(), tmp_path, "civ", known=(root(),))
    made.stations.every = True
    yield made
    made.issuing.core.close()


HIDDEN = """
objects = ["chuid", "printed", "security-object"]
[pin]
retries = 2
[puk]
retries = 3
"""
"""An object behind the PIN, and tries."""
CARRIED = """
[[slots]]
slot = "9d"
algorithm = "p256"
key = "escrow"
profile = "key-management"
least_origin = "trusted_station"
"""
"""A key of the server's that only a trusted station may carry to the card."""


@ON_SQLITE
@settings(
    max_examples=8, phases=(Phase.explicit, Phase.generate), deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.filter_too_much],
)  # fmt: skip
@given(text=documents().filter(publishable))
@example(text=HIDDEN)
@example(text=CARRIED)
async def test_what_is_published_is_carried_out(world: SessionWorld, text: str) -> None:
    number = next(NUMBERS)
    group = await make_group(world.database, world.org, f"group-{number}")
    await publish(world, f'name = "own-{number}"\n{text}', group)
    told = {"givenName": ("Ada",), "sn": ("Lovelace",), "userPrincipalName": ("ada@example.test",)}
    person = await make_person(world.database, world.org, f"ada-{number}", (group.id,), **told)
    card = blank(serial=20_000_000 + number)
    device = await world.bound(card, person)
    trip = await world.issue(card, device)
    assert (trip.error, trip.outcome) == ("", DONE)
    card.power_off()
    trip = await world.update(card, device)
    assert (trip.error, trip.outcome) == ("", NOTHING_DUE)
    card.power_off()
