"""What a step makes of an inventory: the planner's model of the card, used by previews and by the laws."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from ..piv import containers
from ..piv.algorithms import TouchPolicy
from ..piv.references import Slot
from ..piv.vendor.yubico import KeyOrigin
from .inventory import CertificateState, Evidence, Identity, Inventory, KeyState, ObjectState, Presence, SecretState
from .policy import slot_pin_policy
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

_LONG_AGO: Final = datetime(2000, 1, 1, tzinfo=UTC)
_FOREVER: Final = datetime(9999, 12, 31, tzinfo=UTC)
_NEW_CARD: Final = UUID("00000000-0000-4000-8000-000000000001")


def apply(step: Step, inventory: Inventory) -> Inventory:
    """The inventory that observing shows after ``step``.

    What only the card or the authority knows has a stand-in: new keys have made-up fingerprints that differ from
    what was there, new certificates never end.
    """
    match step:
        case SetPuk():
            return replace(inventory, puk=_set(inventory, inventory.puk))
        case SetPin():
            return replace(inventory, pin=_set(inventory, inventory.pin))
        case SetRetries():
            return replace(
                inventory,
                pin=replace(inventory.pin, is_default=False, tries_total=step.pin, tries_left=step.pin),
                puk=replace(inventory.puk, is_default=False, tries_total=step.puk, tries_left=step.puk),
            )
        case SetManagementKey():
            if not inventory.features.metadata:
                return inventory
            touch = TouchPolicy.ALWAYS if step.touch else TouchPolicy.NEVER
            state = replace(
                inventory.management_key, is_default=False, algorithm=int(step.algorithm), touch_policy=touch
            )
            return replace(inventory, management_key=state)
        case GenerateKey():
            return _with_key(step, inventory, KeyOrigin.GENERATED, "")
        case ImportKey():
            return _with_key(step, inventory, KeyOrigin.IMPORTED, step.key)
        case WriteCertificate():
            return _with_certificate(step, inventory)
        case WriteObject():
            return _with_object(step.tag, inventory)
        case DeleteKey():
            return _without(step, inventory)
        case LeaveKey():
            return inventory
        case LockCard():
            return replace(inventory, pin=replace(inventory.pin, tries_left=0))
        case ResetCard():
            return _emptied(inventory)


def _without(step: DeleteKey, inventory: Inventory) -> Inventory:
    return replace(
        inventory,
        keys=tuple(row for row in inventory.keys if row.slot is not step.slot),
        certificates=tuple(row for row in inventory.certificates if row.slot is not step.slot),
    ).with_object(ObjectState(step.slot.certificate_tag, Presence.ABSENT))


def _emptied(inventory: Inventory) -> Inventory:
    """Nothing but what the maker put there, of which a Discovery Object is all that is read."""
    tells = True if inventory.features.metadata else None
    kept = (row for row in inventory.objects if row.tag == containers.DISCOVERY.tag)
    gone = (ObjectState(row.tag, Presence.ABSENT) for row in inventory.objects if row.tag != containers.DISCOVERY.tag)
    return Inventory(
        Identity(serial=inventory.identity.serial),
        inventory.features,
        tuple(sorted((*kept, *gone), key=lambda row: row.tag)),
        pin=SecretState(tells),
        puk=SecretState(tells),
        management_key=SecretState(tells),
        pin_usage=inventory.pin_usage,
    )


def _set(inventory: Inventory, state: SecretState) -> SecretState:
    told = False if inventory.features.metadata else state.is_default
    return replace(state, is_default=told, tries_left=state.tries_total)


def _with_key(
    step: GenerateKey | ImportKey, inventory: Inventory, origin: KeyOrigin, fingerprint: str
) -> Inventory:
    if not inventory.features.metadata:
        return inventory  # the card does not tell; the certificate that follows does
    return inventory.with_key(
        KeyState(
            step.slot,
            Evidence.METADATA,
            step.algorithm,
            fingerprint or _another(inventory, step.slot),
            b"",
            origin,
            step.pin_policy or slot_pin_policy(step.slot),
            step.touch_policy or TouchPolicy.NEVER,
        )
    )


def _another(inventory: Inventory, slot: Slot) -> str:
    """A fingerprint that neither the slot's key nor its certificate has."""
    key, certificate = inventory.key(slot), inventory.certificate(slot)
    old = (key.fingerprint if key else "") + (certificate.key if certificate else "")
    return hashlib.sha256(f"{slot.label} after {old}".encode()).hexdigest()


def _with_certificate(step: WriteCertificate, inventory: Inventory) -> Inventory:
    slot, key = step.slot, inventory.key(step.slot)
    told = key is not None and key.evidence is Evidence.METADATA
    public = step.key or (key.fingerprint if key is not None and told else _another(inventory, slot))
    if not inventory.features.metadata:
        inventory = inventory.with_key(KeyState(slot, Evidence.CERTIFICATE, step.algorithm, public))
    inventory = inventory.with_certificate(
        CertificateState(
            slot, hashlib.sha256(public.encode()).hexdigest(), public, "", "", 1, _LONG_AGO, _FOREVER
        )
    )
    return inventory.with_object(ObjectState(step.tag, Presence.PRESENT, "stand-in", 1))


def _with_object(tag: int, inventory: Inventory) -> Inventory:
    inventory = inventory.with_object(ObjectState(tag, Presence.PRESENT, "stand-in", 1))
    if tag == containers.SECURITY_OBJECT.tag:
        return replace(inventory, security_object_holds=True)
    if inventory.security_object_holds is not None:
        inventory = replace(inventory, security_object_holds=False)
    if tag == containers.CHUID.tag and inventory.identity.guid is None:
        return replace(inventory, identity=replace(inventory.identity, guid=_NEW_CARD))
    if tag == containers.KEY_HISTORY.tag:
        retired = sum(row.slot.is_retired for row in inventory.certificates)
        return replace(inventory, retired_counts=(retired, (inventory.retired_counts or (0, 0))[1]))
    return inventory
