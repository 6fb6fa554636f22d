"""Inventories and plans on the wire: the same values and the same digest at the other end, or a documented error."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops import wire
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.inventory import (
    CertificateState,
    Evidence,
    Features,
    Identity,
    Inventory,
    KeyState,
    ObjectState,
    Presence,
    SecretState,
)
from cardwright_cardops.plan.steps import (
    STEP_KINDS,
    DeleteKey,
    GenerateKey,
    ImportKey,
    Plan,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    WriteCertificate,
    WriteObject,
)
from cardwright_proto.card.v1 import inventory_pb2, plan_pb2

text = st.text(st.characters(codec="utf-8"), max_size=20)
digest = st.binary(min_size=32, max_size=32).map(bytes.hex)
number = st.integers(0, 255)
moments = st.datetimes(datetime(1950, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))
slots, algorithms = st.sampled_from(Slot), st.sampled_from(Algorithm)
pins, touches = st.sampled_from(PinPolicy), st.sampled_from(TouchPolicy)
secrets = st.builds(
    SecretState, st.none() | st.booleans(), st.none() | number, st.none() | number, st.none() | number,
    st.none() | touches,
)  # fmt: skip
identities = st.builds(Identity, st.none() | st.uuids(), digest | st.just(""), st.just("") | number.map(str), digest)
inventories = st.builds(
    Inventory,
    identity=identities,
    features=st.builds(
        Features, st.none() | st.booleans(), st.none() | st.booleans(), text, text, text,
        st.lists(number, max_size=4).map(tuple),
    ),
    objects=st.lists(
        st.builds(ObjectState, st.integers(0x5FC100, 0x5FC123), st.sampled_from(Presence), digest, number, text),
        max_size=3,
    ).map(tuple),
    keys=st.lists(
        st.builds(
            KeyState, slots, st.sampled_from(Evidence), st.none() | number, digest, st.binary(max_size=30),
            st.none() | st.sampled_from(KeyOrigin), st.none() | pins, st.none() | touches,
        ),
        max_size=3,
    ).map(tuple),
    certificates=st.lists(
        st.builds(CertificateState, slots, digest, digest, text, text, st.integers(0, 2**160), moments, moments),
        max_size=2,
    ).map(tuple),
    pin=secrets,
    puk=secrets,
    management_key=secrets,
    expiration=st.none() | st.dates(date(2020, 1, 1)),
    pin_usage=text,
    retired_counts=st.none() | st.tuples(number, number),
    security_object_holds=st.none() | st.booleans(),
    defects=st.lists(text, max_size=2).map(tuple),
)  # fmt: skip
steps = st.one_of(
    st.just(SetPuk()),
    st.just(SetPin()),
    st.builds(SetRetries, number, number),
    st.builds(SetManagementKey, st.sampled_from(ManagementAlgorithm), st.booleans()),
    st.builds(GenerateKey, slots, algorithms, pins, touches, digest | st.just("")),
    st.builds(ImportKey, slots, algorithms, pins, touches, digest | st.just(""), digest | st.just("")),
    st.builds(WriteCertificate, slots, algorithms, text, digest | st.just("")),
    st.builds(WriteObject, st.integers(0x5FC100, 0x5FC123)),
    st.builds(DeleteKey, slots, digest),
)
plans = st.builds(Plan, text, identities, st.lists(steps, max_size=6).map(tuple))


@given(inventories)
def test_inventory_round_trip(inventory: Inventory) -> None:
    raw = wire.inventory_to_wire(inventory).SerializeToString()
    assert wire.inventory_from_wire(wire.parse(raw, inventory_pb2.Inventory)) == inventory


@given(plans)
def test_plan_round_trip_keeps_the_digest(plan: Plan) -> None:
    raw = wire.plan_to_wire(plan).SerializeToString()
    back = wire.plan_from_wire(wire.parse(raw, plan_pb2.Plan))
    assert back == plan
    assert back.digest == plan.digest


def test_every_kind_of_step_has_a_wire_form() -> None:
    names = {field.name.replace("_", "-") for field in plan_pb2.Step.DESCRIPTOR.fields}
    assert names == set(STEP_KINDS)


WHO = Identity(UUID(int=1), "", "7", "")
PLAN = Plan("p", WHO, (GenerateKey(Slot.AUTHENTICATION, Algorithm.P256), WriteObject(0x5FC102)))
INVENTORY = Inventory(
    identity=WHO,
    objects=(ObjectState(0x5FC102, Presence.PRESENT),),
    keys=(KeyState(Slot.AUTHENTICATION, Evidence.METADATA),),
    certificates=(
        CertificateState(
            Slot.AUTHENTICATION, "", "", "", "", 1, datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
        ),
    ),
)


def unknown(message: Any) -> None:
    message.MergeFromString(b"\xfa\x3f\x01x")


BAD_PLANS: dict[str, tuple[Callable[[plan_pb2.Plan], object], type[Exception]]] = {
    "another format": (lambda m: setattr(m, "format", 2), wire.WireUnsupported),
    "no format": (lambda m: m.ClearField("format"), wire.WireUnsupported),
    "unknown field": (unknown, wire.WireUnsupported),
    "unknown kind of step": (lambda m: unknown(m.steps.add()), wire.WireUnsupported),
    "unknown field of a step": (lambda m: unknown(m.steps[0].generate_key), wire.WireUnsupported),
    "step of no kind": (lambda m: m.steps.add(), wire.WireMalformed),
    "no card": (lambda m: m.ClearField("card"), wire.WireMalformed),
    "no slot": (lambda m: m.steps[0].generate_key.ClearField("slot"), wire.WireMalformed),
    "no such slot": (lambda m: setattr(m.steps[0].generate_key, "slot", "77"), wire.WireMalformed),
    "no such policy": (lambda m: setattr(m.steps[0].generate_key, "pin_policy", "x"), wire.WireMalformed),
    "odd spelling": (lambda m: setattr(m.steps[0].generate_key, "slot", "9a"), wire.WireMalformed),
    "odd tag": (lambda m: setattr(m.steps[1].write_object, "tag", "0x5FC102"), wire.WireMalformed),
    "GUID that is none": (lambda m: setattr(m.card, "guid", "x"), wire.WireMalformed),
    "text too long": (lambda m: setattr(m, "policy", "x" * 16385), wire.WireMalformed),
    "too many steps": (lambda m: m.steps.extend([plan_pb2.Step(set_pin=plan_pb2.SetPinStep())] * 512),
                       wire.WireMalformed),
    "negative tag": (lambda m: setattr(m.steps[1].write_object, "tag", "-5"), wire.WireMalformed),
}  # fmt: skip


@pytest.mark.parametrize(("change", "error"), BAD_PLANS.values(), ids=BAD_PLANS)
def test_bad_plans(change: Callable[[plan_pb2.Plan], object], error: type[Exception]) -> None:
    message = wire.plan_to_wire(PLAN)
    assert wire.plan_from_wire(message) == PLAN
    change(message)
    with pytest.raises(error):
        wire.plan_from_wire(message)


BAD_INVENTORIES: dict[str, tuple[Callable[[inventory_pb2.Inventory], object], type[Exception]]] = {
    "another format": (lambda m: setattr(m, "format", 7), wire.WireUnsupported),
    "unknown field": (lambda m: unknown(m.objects[0]), wire.WireUnsupported),
    "no identity": (lambda m: m.ClearField("identity"), wire.WireMalformed),
    "no PIN": (lambda m: m.ClearField("pin"), wire.WireMalformed),
    "no such presence": (lambda m: setattr(m.objects[0], "presence", "perhaps"), wire.WireMalformed),
    "no such slot": (lambda m: setattr(m.keys[0], "slot", "zz"), wire.WireMalformed),
    "slot too large": (lambda m: setattr(m.keys[0], "slot", "77"), wire.WireMalformed),
    "public key no hexadecimal": (lambda m: setattr(m.keys[0], "public_key", "x"), wire.WireMalformed),
    "moment that is none": (lambda m: setattr(m.certificates[0], "not_after", "soon"), wire.WireMalformed),
    "moment out of time": (
        lambda m: setattr(m.certificates[0], "not_after", "0001-01-01T00:00:00+14:00"), wire.WireMalformed
    ),
    "one count": (lambda m: m.retired_counts.append(1), wire.WireMalformed),
    "three counts": (lambda m: m.retired_counts.extend((1, 2, 3)), wire.WireMalformed),
    "too many defects": (lambda m: m.defects.extend(["x"] * 513), wire.WireMalformed),
}


@pytest.mark.parametrize(("change", "error"), BAD_INVENTORIES.values(), ids=BAD_INVENTORIES)
def test_bad_inventories(change: Callable[[inventory_pb2.Inventory], object], error: type[Exception]) -> None:
    message = wire.inventory_to_wire(INVENTORY)
    assert wire.inventory_from_wire(message) == INVENTORY
    change(message)
    with pytest.raises(error):
        wire.inventory_from_wire(message)


@given(st.binary(max_size=200))
def test_random_octets_raise_only_the_documented_errors(raw: bytes) -> None:
    with contextlib.suppress(wire.WireMalformed, wire.WireUnsupported):
        wire.inventory_from_wire(wire.parse(raw, inventory_pb2.Inventory))
    with contextlib.suppress(wire.WireMalformed, wire.WireUnsupported):
        wire.plan_from_wire(wire.parse(raw, plan_pb2.Plan))


@given(inventories, plans, st.data())
def test_damaged_messages_raise_only_the_documented_errors(
    inventory: Inventory, plan: Plan, data: st.DataObject
) -> None:
    for message in (wire.inventory_to_wire(inventory), wire.plan_to_wire(plan)):
        raw = bytearray(message.SerializeToString(deterministic=True))
        for _ in range(data.draw(st.integers(1, 3))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(number)
        with contextlib.suppress(wire.WireMalformed, wire.WireUnsupported):
            if isinstance(message, plan_pb2.Plan):
                wire.plan_from_wire(wire.parse(bytes(raw), plan_pb2.Plan))
            else:
                wire.inventory_from_wire(wire.parse(bytes(raw), inventory_pb2.Inventory))
