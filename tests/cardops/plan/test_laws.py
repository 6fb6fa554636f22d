"""The planner's laws: for any policy, card and records, after any steps, and for a step whose effect is unknown."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import assume, given
from hypothesis import strategies as st

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from cardwright_cardops.piv.vendor.yubico import KeyOrigin
from cardwright_cardops.plan.apply import apply
from cardwright_cardops.plan.candidates import ManagementKeyUnknown
from cardwright_cardops.plan.capabilities import CapabilityMissing
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
from cardwright_cardops.plan.planner import KeyInUse, RetiredSlotsFull, SelfSigningImpossible, plan
from cardwright_cardops.plan.policy import (
    DevicePolicy,
    KeySource,
    RecoveredKey,
    SecretsPolicy,
    SlotPolicy,
    slot_pin_policy,
)
from cardwright_cardops.plan.records import DEFAULT, Entry, Kind, Records
from cardwright_cardops.plan.steps import (
    GenerateKey,
    ImportKey,
    Plan,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
    step_document,
    step_from_document,
    step_id,
)

NOW = datetime(2026, 11, 22, tzinfo=UTC)
SLOTS = (*ACTIVE_SLOTS, Slot.RETIRED_1, Slot.RETIRED_2)
OBJECTS = (
    containers.CHUID.tag, containers.CCC.tag, containers.PRINTED.tag, containers.KEY_HISTORY.tag,
    containers.SECURITY_OBJECT.tag,
)  # fmt: skip
ALGORITHMS = (*[Algorithm.P256] * 4, *[Algorithm.RSA2048] * 4, Algorithm.X25519, Algorithm.RSA4096)
VERSIONS = ("5.7.4", "5.7.4", "5.4.3", "5.4.3", "")
"""Mostly what cards can do: examples that are refused prove nothing."""
REFUSALS = (CapabilityMissing, KeyInUse, SelfSigningImpossible, RetiredSlotsFull, ManagementKeyUnknown)
RECOVERED = tuple(f"{number:064x}" for number in range(1, 4))


@st.composite
def policies(draw: st.DrawFn) -> DevicePolicy:
    slots = draw(st.lists(st.sampled_from(SLOTS), unique=True, max_size=5))
    rows = tuple(
        SlotPolicy(
            slot,
            draw(st.sampled_from(ALGORITHMS)),
            draw(st.sampled_from(KeySource)),
            draw(st.sampled_from(("self-signed", "issued"))),
            draw(st.sampled_from((PinPolicy.DEFAULT, PinPolicy.NEVER, PinPolicy.ALWAYS))),
            draw(st.sampled_from((TouchPolicy.DEFAULT, TouchPolicy.NEVER, TouchPolicy.CACHED))),
        )
        for slot in slots
    )
    secrets = SecretsPolicy(
        pin=True,
        puk=True,
        management_key=draw(st.booleans()),
        management_algorithm=draw(st.sampled_from((None, ManagementAlgorithm.AES256))),
        management_touch=draw(st.booleans()),
        retries=draw(st.sampled_from((None, None, (5, 4)))),
    )
    recovered = draw(st.lists(st.sampled_from(RECOVERED), unique=True, max_size=3))
    return DevicePolicy(
        slots=rows,
        objects=tuple(draw(st.lists(st.sampled_from(OBJECTS), unique=True))),
        recovered=tuple(RecoveredKey(mark, Algorithm.P256, draw(st.booleans())) for mark in recovered),
        secrets=secrets,
        replace=draw(st.sampled_from((True, True, False))),
        renew_before=timedelta(days=draw(st.sampled_from((0, 30)))),
    )


@st.composite
def inventories(draw: st.DrawFn) -> Inventory:
    told = draw(st.booleans())
    secret = st.builds(
        SecretState, st.booleans() if told else st.none(), st.just(3 if told else None),
        st.sampled_from((3, 1, 0) if told else (None,)),
    )  # fmt: skip
    inventory = Inventory(
        identity=Identity(serial="1"),
        features=Features(metadata=told, version=draw(st.sampled_from(VERSIONS)) if told else "5.2.7"),
        pin=draw(secret),
        puk=replace(draw(secret), tries_left=3 if told else None),
        management_key=SecretState(
            draw(st.booleans()) if told else None,
            algorithm=int(ManagementAlgorithm.AES192) if told else None,
            touch_policy=draw(st.sampled_from((TouchPolicy.NEVER, TouchPolicy.ALWAYS))) if told else None,
        ),
        security_object_holds=draw(st.sampled_from((None, True, False))),
    )
    found = [Presence.PRESENT, Presence.ABSENT, Presence.DAMAGED]
    present = draw(st.lists(st.sampled_from(found), min_size=len(OBJECTS), max_size=len(OBJECTS)))
    rows = [ObjectState(tag, presence) for tag, presence in zip(OBJECTS, present, strict=True)]
    rows += [ObjectState(slot.certificate_tag, Presence.ABSENT) for slot in RETIRED_SLOTS]
    inventory = replace(inventory, objects=tuple(sorted(rows, key=lambda row: row.tag)))
    for slot in draw(st.lists(st.sampled_from(SLOTS), unique=True, max_size=4)):
        inventory = draw(slots_of(inventory, slot, told))
    return inventory


@st.composite
def slots_of(draw: st.DrawFn, inventory: Inventory, slot: Slot, told: bool) -> Inventory:
    """``inventory`` with nothing, a key, an orphaned or a fitting certificate in ``slot``."""
    mark = draw(st.sampled_from((f"{slot:064x}", *RECOVERED)))
    has_key, has_certificate = draw(st.booleans()), draw(st.booleans())
    algorithm = draw(st.sampled_from((Algorithm.P256, Algorithm.RSA2048)))
    if has_certificate:
        end = draw(st.sampled_from((NOW - timedelta(days=1), NOW + timedelta(days=10), NOW + timedelta(days=900))))
        key = mark if not told or draw(st.booleans()) else "another"
        inventory = inventory.with_object(ObjectState(slot.certificate_tag, Presence.PRESENT)).with_certificate(
            CertificateState(slot, "", key, "", "", 1, NOW - timedelta(days=900), end)
        )
        if not told:
            return inventory.with_key(KeyState(slot, Evidence.CERTIFICATE, algorithm, key))
    if has_key and told:
        inventory = inventory.with_key(
            KeyState(
                slot, Evidence.METADATA, algorithm, mark, b"", draw(st.sampled_from(KeyOrigin)),
                draw(st.sampled_from((slot_pin_policy(slot), PinPolicy.NEVER))), TouchPolicy.NEVER,
            )
        )  # fmt: skip
    return inventory


def noted(step: Step, records: Records, inventory: Inventory) -> Records:
    """What the execution keeps before ``step`` is sent."""
    entries: list[Entry] = []
    match step:
        case SetPuk():
            older = () if records.puk.names else (Entry(Kind.PUK, DEFAULT),)
            entries = [*older, Entry(Kind.PUK, "1")]
        case SetPin():
            entries = [Entry(Kind.PIN)]
        case SetRetries():
            entries = [Entry(Kind.RETRIES), Entry(Kind.PUK, "1")]
        case SetManagementKey():
            if not records.management_key.names:
                older_name = DEFAULT if inventory.management_key.is_default is not False else "given"
                entries = [Entry(Kind.MANAGEMENT_KEY_SET, older_name)]
            entries.append(Entry(Kind.MANAGEMENT_KEY, "1"))
        case GenerateKey():
            entries = [Entry(Kind.GENERATING, slot=step.slot, fingerprint=step.replaces)]
        case ImportKey():
            made = apply(step, inventory).key(step.slot)
            mark = step.key or (made.fingerprint if made is not None else "")
            entries = [
                Entry(Kind.KEY, slot=step.slot, fingerprint=mark),
                Entry(Kind.GENERATING, slot=step.slot, fingerprint=step.replaces),
            ]
    for entry in entries:
        records = records.with_entry(entry)
    return records


def confirmed(step: Step, records: Records) -> Records:
    """What the execution keeps once the card has confirmed ``step``."""
    entries: list[Entry] = []
    match step:
        case SetPuk():
            entries = [Entry(Kind.PUK_SET, "1")]
        case SetPin():
            entries = [Entry(Kind.PIN_SET)]
        case SetRetries():
            entries = [Entry(Kind.PUK_SET, "1"), Entry(Kind.PIN_SET)]
        case SetManagementKey():
            entries = [Entry(Kind.MANAGEMENT_KEY_SET, "1")]
        case WriteCertificate():
            entries = [Entry(Kind.WRITTEN, slot=step.slot)]
    for entry in entries:
        records = records.with_entry(entry)
    return records


def carry_out(steps: tuple[Step, ...], inventory: Inventory, records: Records) -> tuple[Inventory, Records]:
    for step in steps:
        records = noted(step, records, inventory)
        inventory = apply(step, inventory)
        records = confirmed(step, records)
    return inventory, records


def first_plan(policy: DevicePolicy, inventory: Inventory) -> Plan:
    """The plan for a card without records; examples that are refused do not count."""
    try:
        return plan(policy, inventory, now=NOW)
    except REFUSALS:
        assume(False)
        raise


@given(policies(), inventories())
def test_all_steps_leave_nothing_to_do(policy: DevicePolicy, inventory: Inventory) -> None:
    steps = first_plan(policy, inventory).steps
    after, records = carry_out(steps, inventory, Records())
    assert plan(policy, after, records, now=NOW).steps == ()


@given(policies(), inventories(), st.data())
def test_after_any_steps_planning_again_reaches_the_goal(
    policy: DevicePolicy, inventory: Inventory, data: st.DataObject
) -> None:
    records = Records()
    steps = first_plan(policy, inventory).steps
    for _ in range(3):  # three interruptions, each with a step whose effect nobody knows
        if not steps:
            break
        size = data.draw(st.integers(0, len(steps) - 1))
        inventory, records = carry_out(steps[:size], inventory, records)
        doubtful = steps[size]
        records = noted(doubtful, records, inventory)
        if data.draw(st.booleans()):
            inventory = apply(doubtful, inventory)
        steps = plan(policy, inventory, records, now=NOW).steps
    after, records = carry_out(steps, inventory, records)
    assert plan(policy, after, records, now=NOW).steps == ()


@given(policies(), inventories(), st.data())
def test_nothing_that_the_card_can_show_is_done_twice(
    policy: DevicePolicy, inventory: Inventory, data: st.DataObject
) -> None:
    steps = first_plan(policy, inventory).steps
    size = data.draw(st.integers(0, len(steps)))
    after, records = carry_out(steps[:size], inventory, Records())
    again = {step_id(step) for step in plan(policy, after, records, now=NOW).steps}
    told = inventory.features.metadata
    shown = {step_id(step) for step in steps[:size] if told or not isinstance(step, GenerateKey | ImportKey)}
    # Key History and the Security Object speak about what comes after them in a later plan.
    speaking = {f"write-object-{tag:X}" for tag in (containers.KEY_HISTORY.tag, containers.SECURITY_OBJECT.tag)}
    rest = {step_id(step) for step in steps[size:]}
    assert again & shown <= speaking | rest
    if told:
        assert again <= rest | speaking


@given(policies(), inventories())
def test_a_step_says_what_it_overwrites(policy: DevicePolicy, inventory: Inventory) -> None:
    for step in first_plan(policy, inventory).steps:
        if isinstance(step, GenerateKey | ImportKey):
            key = inventory.key(step.slot)
            assert bool(step.replaces) is (key is not None)
            assert policy.replace or not step.replaces


@given(policies(), inventories())
def test_retired_keys_are_never_overwritten_by_recovered_ones(policy: DevicePolicy, inventory: Inventory) -> None:
    wanted = {row.fingerprint for row in policy.recovered}
    for step in first_plan(policy, inventory).steps:
        if isinstance(step, ImportKey) and step.key in wanted:
            key = inventory.key(step.slot)
            assert key is None or (key.evidence is Evidence.CERTIFICATE and key.fingerprint == step.key)


@given(policies(), inventories())
def test_what_the_security_object_covers_is_followed_by_it(policy: DevicePolicy, inventory: Inventory) -> None:
    closing = containers.SECURITY_OBJECT.tag
    tags = [step.tag for step in first_plan(policy, inventory).steps if isinstance(step, WriteObject)]
    if closing in policy.objects and tags:
        assert tags[-1] == closing


@given(policies(), inventories())
def test_plans_and_inventories_survive_their_documents(policy: DevicePolicy, inventory: Inventory) -> None:
    made = first_plan(policy, inventory)
    assert tuple(step_from_document(step_document(step)) for step in made.steps) == made.steps
    assert Inventory.from_document(inventory.document()) == inventory
    assert DevicePolicy.from_document(policy.document()) == policy
    assert len({step_id(step) for step in made.steps}) == len(made.steps)
    assert made.digest == Plan(made.policy, made.card, made.steps).digest
