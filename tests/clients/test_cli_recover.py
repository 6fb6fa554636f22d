"""Which plans ``cardwright escrow recover`` begins without a question: those that do what it was asked for only."""

from __future__ import annotations

from uuid import UUID

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.steps import (
    DeleteKey,
    GenerateKey,
    ImportKey,
    LeaveKey,
    Plan,
    SetPuk,
    Step,
    WriteCertificate,
    WriteObject,
)
from cardwright_clients.cli.escrow import _only_puts_back
from cardwright_clients.sdk.values import UpdatePreview

OLD, NEW = "ab" * 32, "cd" * 32
BACK = (
    ImportKey(Slot.RETIRED_1, Algorithm.P256, key=OLD),
    WriteCertificate(Slot.RETIRED_1, Algorithm.P256, key=OLD),
    WriteObject(containers.KEY_HISTORY.tag),
    WriteObject(containers.SECURITY_OBJECT.tag),
)


def preview(*steps: Step) -> UpdatePreview:
    return UpdatePreview(Plan("civ", Identity(UUID(int=1), "", "1", ""), steps))


def test_keys_that_are_put_back_are_what_was_asked_for() -> None:
    assert _only_puts_back(preview(*BACK))
    assert not _only_puts_back(UpdatePreview(None))


@pytest.mark.parametrize(
    "step",
    [
        GenerateKey(Slot.AUTHENTICATION, Algorithm.P256),
        ImportKey(Slot.KEY_MANAGEMENT, Algorithm.P256),
        ImportKey(Slot.RETIRED_1, Algorithm.P256, key=NEW, replaces=OLD),
        WriteCertificate(Slot.AUTHENTICATION, Algorithm.P256),
        WriteObject(containers.CHUID.tag),
        DeleteKey(Slot.KEY_MANAGEMENT, OLD),
        LeaveKey(Slot.KEY_MANAGEMENT, OLD),
        SetPuk(),
    ],
    ids=lambda step: step.kind,
)
def test_whatever_else_is_due_is_asked_about(step: Step) -> None:
    assert not _only_puts_back(preview(*BACK, step))
