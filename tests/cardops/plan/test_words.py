"""Every kind of step has words, and they say what is lost."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.steps import (
    STEP_KINDS,
    DeleteKey,
    GenerateKey,
    ImportKey,
    LeaveKey,
    LockCard,
    ResetCard,
    SetManagementKey,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
)
from cardwright_cardops.plan.words import kind_words, step_words

SLOT, P256, OLD = Slot(0x9A), Algorithm.P256, "ab" * 32


def test_every_kind_has_words_of_its_own() -> None:
    words = {kind: kind_words(kind) for kind in STEP_KINDS}
    assert all(words.values())
    assert len(set(words.values())) == len(words)
    assert kind_words("fly") == ""


@pytest.mark.parametrize(
    ("step", "words"),
    [
        (SetPuk(), "Set a new PUK"),
        (SetRetries(5, 3), "Set the tries: 5 for the PIN, 3 for the PUK"),
        (SetManagementKey(ManagementAlgorithm.AES192), "Set a new management key (AES192)"),
        (
            SetManagementKey(ManagementAlgorithm.AES192, touch=True),
            "Set a new management key (AES192, to be used with a touch)",
        ),
        (GenerateKey(SLOT, P256), "Make a p256 key in slot 9A"),
        (GenerateKey(SLOT, P256, replaces=OLD), "Make a p256 key in slot 9A; the key that is there is lost"),
        (ImportKey(SLOT, P256), "Write a p256 key to slot 9A"),
        (ImportKey(SLOT, P256, replaces=OLD), "Write a p256 key to slot 9A; the key that is there is lost"),
        (WriteCertificate(SLOT, P256), "Write the certificate of slot 9A"),
        (WriteObject(0x5FC102), "Write the Card Holder Unique Identifier"),
        (DeleteKey(SLOT, OLD), "Delete the key in slot 9A, which is not needed any more, and its certificate"),
        (
            LeaveKey(Slot.KEY_MANAGEMENT, "ab"),
            "Leave the key that is in slot 9D to the archive: older messages open only with a copy from there",
        ),
        (ResetCard(), "Erase everything on the card and put it back to its factory state"),
        (LockCard(), "Lock the card: its PIN is blocked until the help desk gives the card back"),
    ],
)
def test_words_of_steps(step: Step, words: str) -> None:
    assert step_words(step) == words
