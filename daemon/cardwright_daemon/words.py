"""What a step of a plan does, in words for people; composed here from the typed step, never taken from a server."""

from __future__ import annotations

from cardwright_cardops.piv import containers
from cardwright_cardops.plan.steps import (
    GenerateKey,
    ImportKey,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
)

_OF_KIND = {
    SetPuk.kind: "Set a new PUK",
    SetPin.kind: "Set a new PIN, which you choose",
    SetRetries.kind: "Set how many tries PIN and PUK have",
    SetManagementKey.kind: "Set a new management key",
    GenerateKey.kind: "Make a key",
    ImportKey.kind: "Write a key",
    WriteCertificate.kind: "Write a certificate",
    WriteObject.kind: "Write a data object",
}


def step_words(step: Step) -> str:
    """One sentence without its full stop."""
    match step:
        case SetRetries():
            return f"Set the tries: {step.pin} for the PIN, {step.puk} for the PUK"
        case GenerateKey():
            over = ", over the one that is there" if step.replaces else ""
            return f"Make a {step.algorithm.label} key in slot {step.slot.label}{over}"
        case ImportKey():
            over = ", over the one that is there" if step.replaces else ""
            return f"Write a {step.algorithm.label} key to slot {step.slot.label}{over}"
        case WriteCertificate():
            return f"Write the certificate of slot {step.slot.label}"
        case WriteObject():
            return f"Write {containers.CONTAINERS[step.tag].name}"
    return _OF_KIND[step.kind]


def kind_words(kind: str) -> str:
    """The same of a kind of step; "" for one that is not known here."""
    return _OF_KIND.get(kind, "")
