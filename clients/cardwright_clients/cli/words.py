"""Words for people: what a step does. Composed here from the typed step, never taken from a server."""

from __future__ import annotations

from cardwright_cardops.piv.containers import CONTAINERS
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


def describe_step(step: Step) -> str:
    """One line, in the imperative: "make a p256 key in slot 9A"."""
    match step:
        case SetPuk():
            return "set the new PUK"
        case SetPin():
            return "set the new PIN"
        case SetRetries():
            return f"allow {step.pin} tries for the PIN and {step.puk} for the PUK, and set both anew"
        case SetManagementKey():
            touch = ", to be used with a touch" if step.touch else ""
            return f"set a new management key ({step.algorithm.name}{touch})"
        case GenerateKey():
            gone = "; the key that is there is lost" if step.replaces else ""
            return f"make a {step.algorithm.label} key in slot {step.slot.label}{gone}"
        case ImportKey():
            gone = "; the key that is there is lost" if step.replaces else ""
            return f"import a {step.algorithm.label} key into slot {step.slot.label}{gone}"
        case WriteCertificate():
            return f"write the certificate of slot {step.slot.label}"
        case WriteObject():
            return f"write the {CONTAINERS[step.tag].name}"
