"""What a step of a plan does, in words for people; composed here from the typed step, never taken from a server."""

from __future__ import annotations

from ..piv.containers import CONTAINERS
from .steps import (
    DeleteKey,
    GenerateKey,
    ImportKey,
    LeaveKey,
    LockCard,
    ResetCard,
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
    DeleteKey.kind: "Delete a key that is not needed any more, and its certificate",
    LeaveKey.kind: "Leave an older key to the archive",
    LockCard.kind: "Lock the card: its PIN is blocked until the help desk gives the card back",
    ResetCard.kind: "Erase everything on the card and put it back to its factory state",
}


_OF_TOKEN = {SetPuk.kind: "Set a new PIN of the security officer, which only the server knows"}


def step_words(step: Step, *, token: bool = False) -> str:
    """One sentence without its full stop. ``token``: the card is a PKCS#11 token."""
    if token and step.kind in _OF_TOKEN:
        return _OF_TOKEN[step.kind]
    gone = "; the key that is there is lost" if isinstance(step, GenerateKey | ImportKey) and step.replaces else ""
    match step:
        case SetRetries():
            return f"Set the tries: {step.pin} for the PIN, {step.puk} for the PUK"
        case SetManagementKey():
            touch = ", to be used with a touch" if step.touch else ""
            return f"Set a new management key ({step.algorithm.name}{touch})"
        case GenerateKey():
            return f"Make a {step.algorithm.label} key in slot {step.slot.label}{gone}"
        case ImportKey():
            return f"Write a {step.algorithm.label} key to slot {step.slot.label}{gone}"
        case DeleteKey():
            return f"Delete the key in slot {step.slot.label}, which is not needed any more, and its certificate"
        case WriteCertificate():
            return f"Write the certificate of slot {step.slot.label}"
        case LeaveKey():
            return (
                f"Leave the key that is in slot {step.slot.label} to the archive: older messages open only with a copy "
                "from there"
            )
        case WriteObject():
            return f"Write the {CONTAINERS[step.tag].name}"
    return _OF_KIND[step.kind]


def kind_words(kind: str, *, token: bool = False) -> str:
    """The same of a kind of step; "" for one that is not known here."""
    return (_OF_TOKEN.get(kind) if token else None) or _OF_KIND.get(kind, "")
