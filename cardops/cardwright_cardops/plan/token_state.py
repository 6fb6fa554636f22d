"""What a module says of a token, as the planner reads it: identity, features, inventory."""

from __future__ import annotations

import hashlib
from datetime import UTC
from typing import Final

from cryptography import x509

from ..piv.algorithms import Algorithm
from ..piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from ..pkcs11.capabilities import Ability, TokenCapabilities
from ..pkcs11.inventory import CertificateEntry, KeyEntry, TokenInventory
from ..pkcs11.quirks import UnlockBy
from ..pkcs11.token import Token
from ..pkcs11.values import PinState, TokenInfo, User
from .inventory import (
    CertificateState,
    Evidence,
    Features,
    Inventory,
    KeyState,
    ObjectState,
    Presence,
    SecretState,
)
from .token import TokenFeatures, TokenName

SLOTS: Final = (*ACTIVE_SLOTS, *RETIRED_SLOTS)


def name_of(info: TokenInfo) -> TokenName:
    """The texts by which a token is known."""
    told = info.identity
    return TokenName(told.label, told.serial, told.manufacturer, told.model)


def features_of(token: Token) -> TokenFeatures:
    """What can be done to ``token``, as it was last read."""
    able = token.capabilities
    names = {one.label: one for one in Algorithm}
    return TokenFeatures(
        name_of(token.info),
        able.module,
        generates=frozenset(names[one.value] for one in able.algorithms if one.value in names),
        imports=able.import_key.sure,
        deletes=able.delete_key.sure and able.delete_certificate.sure,
        unlocks=able.unlock_by is UnlockBy.SO_PIN and able.so_login.sure and able.change_so_pin.sure,
        refusal=_refusal(able),
    )


def _refusal(able: TokenCapabilities) -> str:
    for operation in ("generate", "write_certificate"):
        found = able.capability(operation)
        if found.able is not Ability.YES:
            return found.reason or "it does not say whether it can"
    if able.writer is not User.USER:
        return "it writes only for its security officer, who is not the person; use the card through its reader"
    if not able.shows_bare_keys:
        return "it does not show keys that have no certificate yet"
    return ""


def inventory_of(token: Token, found: TokenInventory) -> Inventory:
    """What stands at the ids of PIV key references; everything else on the token is nobody's business here."""
    keys, certificates, objects = [], [], []
    for slot in SLOTS:
        identifier = token.id_of(slot)
        if (entry := found.key(identifier)) is not None and (key := _key(slot, entry)) is not None:
            keys.append(key)
        if (certificate := found.certificate(identifier)) is not None:
            made, state = _certificate(slot, certificate)
            objects.append(state)
            certificates += [] if made is None else [made]
    card_key = next((one.fingerprint for one in keys if one.slot is Slot.CARD_AUTHENTICATION), "")
    return Inventory(
        identity=name_of(token.info).identity(card_key),
        features=Features(metadata=True, serial=True, label="PKCS#11"),
        objects=tuple(sorted(objects, key=lambda row: row.tag)),
        keys=tuple(sorted(keys, key=lambda row: row.slot)),
        certificates=tuple(sorted(certificates, key=lambda row: row.slot)),
        pin=_secret(token.info.user_pin_state),
        puk=_secret(token.info.so_pin_state),
        management_key=SecretState(is_default=False),
        defects=found.problems[:16],
    )


def broken(token: Token, found: TokenInventory) -> frozenset[Slot]:
    """Slots that have a public half and no private one. Only the login shows that."""
    return frozenset(slot for slot in SLOTS if _is(found.key(token.id_of(slot)), private=False))


def bare(token: Token, found: TokenInventory) -> frozenset[Slot]:
    """Slots that have a private half whose public one nothing tells. Only the login shows that."""
    keys = ((slot, found.key(token.id_of(slot))) for slot in SLOTS)
    return frozenset(slot for slot, key in keys if key is not None and key.private and not key.public)


def _is(entry: KeyEntry | None, *, private: bool) -> bool:
    return entry is not None and entry.private is private


def _key(slot: Slot, entry: KeyEntry) -> KeyState | None:
    """A key whose public half is told; a bare private one shows only after the login, so it is none here."""
    if entry.public_key is None or not entry.public:
        return None
    algorithm = next((one for one in Algorithm if entry.algorithm and one.label == entry.algorithm.value), None)
    return KeyState(
        slot,
        Evidence.METADATA,
        None if algorithm is None else int(algorithm),
        hashlib.sha256(entry.public_key).hexdigest(),
        entry.public_key,
    )


def _certificate(slot: Slot, entry: CertificateEntry) -> tuple[CertificateState | None, ObjectState]:
    tag, digest = slot.certificate_tag, hashlib.sha256(entry.der).hexdigest()
    if entry.public_key is None:
        return None, ObjectState(tag, Presence.DAMAGED, digest, len(entry.der), entry.problem)
    parsed = x509.load_der_x509_certificate(entry.der)
    made = CertificateState(
        slot,
        digest,
        hashlib.sha256(entry.public_key).hexdigest(),
        parsed.subject.rfc4514_string(),
        parsed.issuer.rfc4514_string(),
        parsed.serial_number,
        parsed.not_valid_before_utc.astimezone(UTC),
        parsed.not_valid_after_utc.astimezone(UTC),
    )
    return made, ObjectState(tag, Presence.PRESENT, digest, len(entry.der))


_TRIES: Final = {PinState.LOCKED: 0, PinState.NOT_SET: 0, PinState.FINAL_TRY: 1}


def _secret(state: PinState) -> SecretState:
    """PKCS#11 counts nothing: what is locked or was never set has no try left, the final one is one."""
    return SecretState(is_default=False, tries_left=_TRIES.get(state))
