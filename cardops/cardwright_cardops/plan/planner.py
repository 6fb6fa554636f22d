"""From inventory to policy: ``plan``, a pure function. There is no other way to recover: observe, and plan again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Final

from ..errors import CardwrightError
from ..piv import containers
from ..piv.algorithms import MATCHING, Algorithm, ManagementAlgorithm
from ..piv.references import RETIRED_SLOTS, Slot
from ..piv.vendor.yubico import KeyOrigin
from .candidates import management_key_is_due, secret_is_due
from .capabilities import Backend, CapabilityMissing, backend_of, require_algorithm, signs
from .inventory import Evidence, Inventory, KeyState, Presence
from .policy import DevicePolicy, KeySource, SlotPolicy
from .records import DEFAULT, FACTORY, Records
from .steps import (
    GenerateKey,
    ImportKey,
    LeaveKey,
    Plan,
    SetManagementKey,
    SetPin,
    SetPuk,
    SetRetries,
    Step,
    WriteCertificate,
    WriteObject,
)

SELF_SIGNED: Final = "self-signed"
RECOVERED: Final = "recovered"
"""Certificate profiles that the planner itself knows; all others are the authority's."""

_LAST: Final = (containers.KEY_HISTORY.tag, containers.SECURITY_OBJECT.tag)
_NOT_COVERED: Final = frozenset((containers.SECURITY_OBJECT.tag, containers.SM_SIGNER.tag))


class KeyInUse(CardwrightError):
    """A slot holds a key that does not fit the policy, and the policy does not allow to replace it."""

    code = "KEY_IN_USE"
    default_effect = "Nothing on the card was changed."
    default_advice = "Choose another slot, or allow the policy to replace keys if this one is not needed any more."

    def __init__(self, slot: Slot, why: str) -> None:
        super().__init__(f"Slot {slot.label} holds a key that would be lost: {why}.")
        self.slot = slot


class SelfSigningImpossible(CardwrightError):
    """A key that cannot sign was to have a self-signed certificate."""

    code = "SELF_SIGNING_IMPOSSIBLE"
    default_effect = "Nothing on the card was changed."
    default_advice = "Choose an algorithm that signs for this slot, import the key, or leave the slot out."

    def __init__(self, slot: Slot, algorithm: Algorithm) -> None:
        super().__init__(f"The {algorithm.label} key of slot {slot.label} cannot sign its own certificate.")
        self.slot = slot


class RetiredSlotsFull(CardwrightError):
    """No retired slot is free for a recovered key."""

    code = "RETIRED_SLOTS_FULL"
    default_effect = "Nothing on the card was changed."
    default_advice = (
        "Recover the key to a file or to another card: retired keys are not overwritten. Where the policy says so "
        "([escrow] leave), a renewal leaves the card's own old key to the archive."
    )

    def __init__(self) -> None:
        super().__init__("No retired slot of this card is free for a recovered key.")


def plan(
    policy: DevicePolicy,
    inventory: Inventory,
    records: Records | None = None,
    *,
    now: datetime,
    backend: Backend | None = None,
    certifies_existing: bool = True,
) -> Plan:
    """The steps from ``inventory`` to ``policy``; none when there is nothing to do.

    ``certifies_existing``: whether a key that was made in an earlier session can still get its certificate. Raises
    CapabilityMissing, KeyInUse, SelfSigningImpossible, RetiredSlotsFull; then nothing was sent to the card.
    """
    planner = _Planner(
        policy, inventory, records or Records(), now, backend or backend_of(inventory.features), certifies_existing
    )
    return Plan(policy.name, inventory.identity, tuple(planner.steps()))


class _Planner:
    def __init__(
        self,
        policy: DevicePolicy,
        inventory: Inventory,
        records: Records,
        now: datetime,
        backend: Backend,
        certifies_existing: bool,
    ) -> None:
        self.policy = policy
        self.inventory = inventory
        self.records = records
        self.now = now
        self.backend = backend
        self.certifies_existing = certifies_existing

    def steps(self) -> Iterator[Step]:
        """In the order of execution: secrets of the person, keys, objects, certificates, management key."""
        keys: list[Step] = []
        certificates: list[WriteCertificate] = []
        for row in self.policy.slots:
            for step in self._slot(row):
                (certificates if isinstance(step, WriteCertificate) else keys).append(step)  # type: ignore[arg-type]
        leaving: list[LeaveKey] = []
        going = {step.replaces: step.slot for step in keys if isinstance(step, GenerateKey | ImportKey)}
        for step in self._recovered(going, leaving):
            (certificates if isinstance(step, WriteCertificate) else keys).append(step)  # type: ignore[arg-type]
        management = list(self._management_key())
        objects = list(self._objects(certificates))
        yield from leaving
        yield from self._person()
        yield from sorted(keys, key=lambda step: isinstance(step, ImportKey))
        yield from objects
        yield from certificates
        yield from (WriteObject(tag) for tag in self._closing(objects, certificates))
        yield from management

    # ------------------------------------------------------------------------------------------------- secrets

    def _person(self) -> Iterator[Step]:
        wanted, inventory, records = self.policy.secrets, self.inventory, self.records
        older = set(records.puk.names[1:])
        if wanted.puk and secret_is_due(
            inventory.puk, inventory.is_bound, records.puk.in_flight, records.puk.settled, older <= {DEFAULT, FACTORY}
        ):
            yield SetPuk()
        if wanted.pin and (
            inventory.pin.is_blocked
            or secret_is_due(inventory.pin, inventory.is_bound, records.pin_in_flight, records.pin_settled, True)
        ):
            yield SetPin()
        if wanted.retries is not None:
            if not (self.backend.sets_retries and inventory.features.metadata):
                raise CapabilityMissing("This card cannot set the numbers of tries, or does not tell them.", "retries")
            if (inventory.pin.tries_total, inventory.puk.tries_total) != wanted.retries:
                yield SetRetries(*wanted.retries)

    def _management_key(self) -> Iterator[Step]:
        wanted, state, records = self.policy.secrets, self.inventory.management_key, self.records.management_key
        if not wanted.management_key:
            return
        algorithm = wanted.management_algorithm
        due = management_key_is_due(state, self.inventory.is_bound, records)
        due = due or (algorithm is not None and state.algorithm not in (None, algorithm))
        due = due or (state.touch_policy is not None and wanted.management_touch != (state.touch_policy > 1))
        if not due:
            return
        if not self.backend.sets_management_key:
            raise CapabilityMissing("This card's management key cannot be changed by a command.", "management-key")
        known = None if state.algorithm is None else ManagementAlgorithm(state.algorithm)
        target = algorithm or known or ManagementAlgorithm.TDES
        if target not in self.backend.management_algorithms:
            raise CapabilityMissing(f"This card has no {target.name} management keys.", "management-key")
        yield SetManagementKey(target, wanted.management_touch)

    # ---------------------------------------------------------------------------------------------------- slots

    def _slot(self, row: SlotPolicy) -> Iterator[Step]:
        key, certificate = self.inventory.key(row.slot), self.inventory.certificate(row.slot)
        if key is not None and self._fits(row, key):
            if certificate is not None and certificate.key == key.fingerprint:
                if self.policy.lasts(certificate.not_after, self.now):
                    return
            elif self._certifiable(row, key):
                self._require_signature(row)
                yield WriteCertificate(row.slot, row.algorithm, row.profile, key.fingerprint)
                return
        self._require(row)
        live = self._what_goes(row, key)
        if row.source is KeySource.IMPORTED:
            yield ImportKey(row.slot, row.algorithm, row.pin_policy, row.touch_policy, "", live)
        else:
            yield GenerateKey(row.slot, row.algorithm, row.pin_policy, row.touch_policy, live)
        yield WriteCertificate(row.slot, row.algorithm, row.profile)

    def _fits(self, row: SlotPolicy, key: KeyState) -> bool:
        """Whether the key in the slot is one that the policy wants, as far as the card can show."""
        if key.algorithm != row.algorithm or (row.slot in self.records.generating and not self._was_written(row, key)):
            return False
        if key.evidence is Evidence.CERTIFICATE:
            return True
        origin = KeyOrigin.IMPORTED if row.source is KeySource.IMPORTED else KeyOrigin.GENERATED
        return (
            key.origin in (None, origin)
            and key.pin_policy in (None, row.effective_pin_policy)
            and (key.touch_policy is None or key.touch_policy == (row.touch_policy or 1))
        )

    def _was_written(self, row: SlotPolicy, key: KeyState) -> bool:
        """Whether a key whose making was begun is there now: what was to go is gone."""
        return key.fingerprint != self.records.generating[row.slot]

    def _certifiable(self, row: SlotPolicy, key: KeyState) -> bool:
        """Whether the key that is there can get a certificate without being made again."""
        if key.evidence is Evidence.CERTIFICATE or not key.fingerprint:
            return False
        if (row.slot, key.fingerprint) in self.records.certificates:
            return True
        if row.source is KeySource.IMPORTED:
            return self.records.keys.get(row.slot) == key.fingerprint
        return self.certifies_existing

    def _require(self, row: SlotPolicy) -> None:
        imported = row.source is KeySource.IMPORTED
        if imported and not self.backend.imports:
            raise CapabilityMissing(f"This card takes no key from outside for slot {row.slot.label}.", "import")
        if row.slot not in (self.backend.import_slots if imported else self.backend.generate_slots):
            raise CapabilityMissing(f"This card makes no key in slot {row.slot.label}.", f"slot {row.slot.label}")
        if (row.pin_policy or row.touch_policy) and not self.backend.policies:
            raise CapabilityMissing("This card's keys take no PIN or touch policy of their own.", "policies")
        if row.pin_policy in MATCHING and not self.backend.matches:
            raise CapabilityMissing(f"This card opens no key of slot {row.slot.label} by a fingerprint.", "match")
        require_algorithm(self.backend, self.inventory, row.slot, row.algorithm)
        self._require_signature(row)

    def _require_signature(self, row: SlotPolicy) -> None:
        if row.profile != SELF_SIGNED:
            return
        able = row.algorithm.signs if row.source is KeySource.IMPORTED else signs(self.backend, row.slot, row.algorithm)
        if not able:
            raise SelfSigningImpossible(row.slot, row.algorithm)

    def _what_goes(self, row: SlotPolicy, key: KeyState | None) -> str:
        """The fingerprint of the key that is overwritten. Raises KeyInUse where that is not allowed.

        A key without certificate that our own unfinished work left behind may go.
        """
        if key is None:
            return ""
        begun = self.records.generating.get(row.slot)
        ours = begun is not None and (begun == "" or key.fingerprint != begun)
        ours = ours and not self._is_certified(row.slot, key)
        if not ours and not self.policy.replace and begun != key.fingerprint:
            raise KeyInUse(row.slot, self._why(row, key))
        return key.fingerprint or "unknown"

    def _is_certified(self, slot: Slot, key: KeyState) -> bool:
        certificate = self.inventory.certificate(slot)
        return certificate is not None and certificate.key == key.fingerprint

    def _why(self, row: SlotPolicy, key: KeyState) -> str:
        if key.algorithm != row.algorithm:
            return f"it is not of {row.algorithm.label}"
        if not self._fits(row, key):
            return "it was made in another way, or wants the PIN or a touch at other times"
        if self._is_certified(row.slot, key):
            return "its certificate ends, and a new one comes with a new key"
        return "it has no certificate, and none can be made for it"

    # ---------------------------------------------------------------------------------------- recovered keys

    def _recovered(self, going: Mapping[str, Slot], leaving: list[LeaveKey]) -> Iterator[Step]:
        """``going``: slots of keys that are overwritten. Those of them that no slot takes are put into ``leaving``."""
        taken = {row.slot for row in self.policy.slots}
        inventory, missing = self.inventory, []
        for wanted in self.policy.recovered:
            home = self._home(wanted.fingerprint)
            if home is None:
                missing.append(wanted)
                continue
            taken.add(home)
            key, certificate = inventory.key(home), inventory.certificate(home)
            if key is None or key.fingerprint != wanted.fingerprint:
                yield ImportKey(home, wanted.algorithm, key=wanted.fingerprint)
            if certificate is None or certificate.key != wanted.fingerprint:
                yield WriteCertificate(home, wanted.algorithm, RECOVERED, wanted.fingerprint)
        if any(wanted.needed for wanted in missing) and not self.backend.imports:
            raise CapabilityMissing("This card takes no keys from outside.", "import")
        for wanted in sorted(missing, key=lambda one: not one.needed):
            free = (slot for slot in RETIRED_SLOTS if self._is_free(slot) and slot not in taken)
            slot = next(free, None)
            if slot is None and wanted.needed:
                raise RetiredSlotsFull
            if slot is None:
                # What is not on the card any more is in the archive already, and nobody has to be told again.
                if wanted.fingerprint in going:
                    leaving.append(LeaveKey(going[wanted.fingerprint], wanted.fingerprint))
                continue
            require_algorithm(self.backend, inventory, Slot.RETIRED_1, wanted.algorithm)
            taken.add(slot)
            yield ImportKey(slot, wanted.algorithm, key=wanted.fingerprint)
            yield WriteCertificate(slot, wanted.algorithm, RECOVERED, wanted.fingerprint)

    def _home(self, fingerprint: str) -> Slot | None:
        """The retired slot that holds the key, its certificate, or the promise of it; none that the policy names."""
        for slot in RETIRED_SLOTS:
            if self.policy.slot(slot) is not None:
                continue
            key, certificate = self.inventory.key(slot), self.inventory.certificate(slot)
            if key is not None and key.fingerprint == fingerprint:
                return slot
            nobody = key is None or key.evidence is Evidence.CERTIFICATE
            if nobody and certificate is not None and certificate.key == fingerprint:
                return slot
            if key is None and certificate is None and self.records.keys.get(slot) == fingerprint:
                return slot
        return None

    def _is_free(self, slot: Slot) -> bool:
        state = self.inventory.object(slot.certificate_tag).presence
        empty = state is Presence.ABSENT or (state is Presence.UNREAD and bool(self.inventory.features.metadata))
        return slot in self.backend.import_slots and self.inventory.key(slot) is None and empty

    # -------------------------------------------------------------------------------------------------- objects

    def _objects(self, certificates: list[WriteCertificate]) -> Iterator[WriteObject]:
        """Objects that are missing. Those that the card hides come before the CHUID, which so vouches for them."""
        due = [tag for tag in self.policy.objects if tag not in _LAST and self._is_due(tag)]
        yield from (WriteObject(tag) for tag in sorted(due, key=_writing_order))

    def _is_due(self, tag: int) -> bool:
        presence = self.inventory.object(tag).presence
        if presence is Presence.PROTECTED:
            return not self.inventory.is_bound
        return presence is not Presence.PRESENT

    def _closing(self, objects: list[WriteObject], certificates: list[WriteCertificate]) -> Iterator[int]:
        """Key History, then the Security Object: they speak about what was written before them."""
        wrote = {step.tag for step in objects}
        history = containers.KEY_HISTORY.tag
        retired = {row.slot for row in self.inventory.certificates if row.slot.is_retired}
        retired |= {step.slot for step in certificates if step.slot.is_retired}
        keeps = history in self.policy.objects or self.policy.recovered
        told = self.inventory.retired_counts
        if keeps and (self.inventory.object(history).presence is not Presence.PRESENT or told is None
                      or told[0] != len(retired)):  # fmt: skip
            wrote.add(history)
            yield history
        closing = containers.SECURITY_OBJECT.tag
        if closing in self.policy.objects and (
            self._is_due(closing) or self.inventory.security_object_holds is False or wrote - _NOT_COVERED
        ):
            yield closing


def _writing_order(tag: int) -> tuple[bool, bool]:
    return not containers.CONTAINERS[tag].contact.needs_person, tag != containers.CHUID.tag
