"""Steps as others see them: names, documents, how long they take, and when the card may be pulled."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any
from uuid import UUID

import pytest

from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.steps import (
    STEP_KINDS,
    DeleteKey,
    GenerateKey,
    ImportKey,
    LeaveKey,
    LockCard,
    Plan,
    ResetCard,
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

P256, RSA = Algorithm.P256, Algorithm.RSA2048
TDES, AES192 = ManagementAlgorithm.TDES, ManagementAlgorithm.AES192

# Step to its name, its document without the kind, its seconds, and whether the card may be pulled.
STEPS: list[tuple[Step, str, dict[str, Any], float, bool]] = [
    (SetPuk(), "set-puk", {}, 0.2, True),
    (SetPin(), "set-pin", {}, 0.2, True),
    (SetRetries(3, 5), "set-retries", {"pin": 3, "puk": 5}, 0.6, False),
    (SetManagementKey(AES192), "set-management-key", {"algorithm": "0A", "touch": False}, 0.2, True),
    (SetManagementKey(TDES, True), "set-management-key", {"algorithm": "03", "touch": True}, 0.2, True),
    (
        GenerateKey(Slot.SIGNATURE, P256), "generate-key-9C",
        {"slot": "9C", "algorithm": "11", "pin_policy": "default", "touch_policy": "default", "replaces": ""},
        1.0, True,
    ),
    (
        GenerateKey(Slot.RETIRED_2, RSA, PinPolicy.ALWAYS, TouchPolicy.CACHED, "aa"), "generate-key-83",
        {"slot": "83", "algorithm": "07", "pin_policy": "always", "touch_policy": "cached", "replaces": "aa"},
        8.0, False,
    ),
    (
        ImportKey(Slot.KEY_MANAGEMENT, P256), "import-key-9D",
        {"slot": "9D", "algorithm": "11", "pin_policy": "default", "touch_policy": "default", "key": "",
         "replaces": ""},
        1.0, True,
    ),
    (
        ImportKey(Slot.RETIRED_1, RSA, PinPolicy.NEVER, TouchPolicy.NEVER, "bb", "cc"), "import-key-82",
        {"slot": "82", "algorithm": "07", "pin_policy": "never", "touch_policy": "never", "key": "bb",
         "replaces": "cc"},
        1.0, False,
    ),
    (
        WriteCertificate(Slot.AUTHENTICATION, P256), "write-certificate-9A",
        {"slot": "9A", "algorithm": "11", "profile": "self-signed", "key": ""}, 1.0, True,
    ),
    (
        WriteCertificate(Slot.SIGNATURE, RSA, "person", "dd"), "write-certificate-9C",
        {"slot": "9C", "algorithm": "07", "profile": "person", "key": "dd"}, 1.0, True,
    ),
    (WriteObject(0x5FC102), "write-object-5FC102", {"tag": "5FC102"}, 0.2 + 2881 / 4000, True),
    (DeleteKey(Slot.SIGNATURE, "ee"), "delete-key-9C", {"slot": "9C", "key": "ee"}, 0.2, True),
    (ResetCard(), "reset-card", {}, 3.0, True),
    (LockCard(), "lock-card", {}, 1.0, True),
    (LeaveKey(Slot.KEY_MANAGEMENT, "ab"), "leave-key-9D", {"slot": "9D", "key": "ab"}, 0.0, True),
]  # fmt: skip


@pytest.mark.parametrize(("step", "name", "document", "seconds", "pulled"), STEPS, ids=lambda one: str(one)[:40])
def test_each_step_as_others_see_it(
    step: Step, name: str, document: dict[str, Any], seconds: float, pulled: bool
) -> None:
    assert step_id(step) == name
    assert step_document(step) == {"kind": step.kind} | document
    assert next(iter(step_document(step))) == "kind"
    assert step_from_document(json.loads(json.dumps(step_document(step)))) == step
    assert step.seconds == pytest.approx(seconds)
    assert step.may_be_pulled is pulled


def test_the_vocabulary_is_whole() -> None:
    assert set(STEP_KINDS) == {step.kind for step, *_ in STEPS}
    assert all(STEP_KINDS[step.kind] is type(step) for step, *_ in STEPS)


@pytest.mark.parametrize(
    ("algorithm", "seconds"),
    [(Algorithm.RSA1024, 2), (RSA, 8), (Algorithm.RSA3072, 30), (Algorithm.RSA4096, 90), (P256, 1)],
)
def test_making_rsa_keys_takes_its_time(algorithm: Algorithm, seconds: float) -> None:
    assert GenerateKey(Slot.SIGNATURE, algorithm).seconds == seconds


def test_the_certificate_s_container() -> None:
    assert WriteCertificate(Slot.SIGNATURE, P256).tag == 0x5FC10A


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "set-pun"}, {"slot": "9B"}, {"slot": "9c"}, {"slot": 0x9C}, {"algorithm": "12"}, {"algorithm": "011"},
        {"pin_policy": "DEFAULT"}, {"touch_policy": "sometimes"}, {"more": 1}, {"tag": "5FC102"},
    ],
)  # fmt: skip
def test_other_documents_are_no_steps(change: dict[str, Any]) -> None:
    document = step_document(GenerateKey(Slot.SIGNATURE, P256))
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        step_from_document(document | change)
    for missing in ("kind", "slot", "algorithm"):
        with pytest.raises((KeyError, TypeError)):
            step_from_document({name: value for name, value in document.items() if name != missing})


def test_a_plan_is_bound_by_all_that_is_in_it() -> None:
    card = Identity(UUID(int=5), "f", "s", "k")
    whole = Plan("policy", card, (SetPuk(), SetRetries(3, 3)))
    assert whole.document() == {
        "format": 1, "policy": "policy",
        "card": {"guid": str(UUID(int=5)), "fascn": "f", "serial": "s", "card_key": "k"},
        "steps": [{"kind": "set-puk"}, {"kind": "set-retries", "pin": 3, "puk": 3}],
    }  # fmt: skip
    assert Plan("policy", Identity(), ()).document()["card"]["guid"] is None
    others = [
        replace(whole, policy="other"), replace(whole, card=Identity()), replace(whole, steps=(SetPuk(),)),
        replace(whole, steps=whole.steps[::-1]),
    ]  # fmt: skip
    assert len({plan.digest for plan in (whole, *others)}) == 5 and len(whole.digest) == 64
    assert whole.seconds == pytest.approx(0.8)
    assert bool(whole) and not bool(replace(whole, steps=()))
