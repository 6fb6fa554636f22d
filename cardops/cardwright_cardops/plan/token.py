"""PKCS#11 tokens as devices that have a policy: who they are, what they can do, what is planned for them.

An inventory of a token has the form of a card's: keys and certificates by PIV key reference. The same planner reads it.
Values only: what talks to a module is in ``token_state`` and ``token_steps``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final
from uuid import UUID, uuid5

from ..errors import CardwrightError
from ..piv.algorithms import Algorithm, PinPolicy
from ..piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from ..program.items import Outcome
from .capabilities import Backend, CapabilityMissing
from .inventory import Identity, Inventory
from .planner import plan
from .policy import DevicePolicy, SecretsPolicy, slot_pin_policy
from .records import Records
from .steps import DeleteKey, GenerateKey, ImportKey, Plan, SetPin, SetPuk, WriteObject

LONGEST_NUMBER: Final = 40
_NAMESPACE: Final = UUID("6f2b8f5e-3c0d-5c5e-9d3a-1f6f0d0a7b11")
_SERIAL: Final = 16
"""Octets that CK_TOKEN_INFO has for a serial number."""
_SLOTS: Final = frozenset((*ACTIVE_SLOTS, *RETIRED_SLOTS))


@dataclass(frozen=True, slots=True)
class TokenName:
    """What a token says of itself, whichever module reaches it: the texts of CK_TOKEN_INFO."""

    label: str
    serial: str
    manufacturer: str
    model: str

    @property
    def guid(self) -> UUID:
        """The same token always has the same; another label, serial number, manufacturer or model has another."""
        text = json.dumps([self.manufacturer, self.model, self.serial, self.label])
        return uuid5(_NAMESPACE, text)

    @property
    def number(self) -> str:
        """Manufacturer and serial number, by which an operator registers the token: at most 40 characters of ASCII."""
        maker, serial = (_plain(text) for text in (self.manufacturer, self.serial))
        whole = f"{maker}:{serial}"
        if len(whole) <= LONGEST_NUMBER and self.manufacturer.isascii() and self.serial.isascii():
            return whole
        mark = hashlib.sha256(f"{self.manufacturer}:{self.serial}".encode()).hexdigest()[:8]
        serial = serial[-_SERIAL:]
        return f"{maker[: LONGEST_NUMBER - len(serial) - len(mark) - 2]}~{mark}:{serial}"

    def identity(self, card_key: str = "") -> Identity:
        """As a card would have it. ``card_key``: fingerprint of the key in 9E."""
        return Identity(self.guid, "", self.number, card_key)


def is_number(text: str) -> bool:
    """Whether ``text`` can be the ``number`` of a token: a bare serial number is none."""
    return ":" in text and " " not in text and text.isascii() and len(text) <= LONGEST_NUMBER


def _plain(text: str) -> str:
    return text.encode("ascii", "replace").decode().replace(" ", "-")


@dataclass(frozen=True, slots=True)
class TokenFeatures:
    """A token and what can be done to it through its module. ``generates``: algorithms of keys that it makes.

    ``refusal``: why nothing can be written at all, in a sentence; "" where it can. ``unlocks``: the security officer's
    PIN sets a new PIN, and can be changed itself.
    """

    name: TokenName
    module: str
    generates: frozenset[Algorithm] = frozenset()
    imports: bool = False
    deletes: bool = False
    unlocks: bool = False
    refusal: str = ""

    @property
    def backend(self) -> Backend:
        """For the planner, which asks nothing about algorithms: ``require_able`` knows who makes a key."""
        return Backend(
            f"pkcs11 {self.module}",
            imports=self.imports,
            policies=True,
            any_key_signs=True,
            generate_slots=_SLOTS if self.generates else frozenset(),
            import_slots=_SLOTS if self.imports else frozenset(),
            max_object=1 << 16,
        )


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """The answer to one step. ``data``: what its kind says. ``seen`` and ``broken`` come with a read.

    ``broken``: slots with a public key and no private one, which the login would show; ``bare``: with a private key and
    no public one.
    """

    outcome: Outcome
    data: bytes = b""
    seen: Inventory | None = None
    broken: frozenset[Slot] = frozenset()
    bare: frozenset[Slot] = frozenset()
    cause: CardwrightError | None = field(default=None, repr=False)

    def require(self, doing: str) -> bytes:
        """The data of a step that was done. Raises its cause, StepNotDone without one."""
        if self.outcome is Outcome.ANSWERED and self.cause is None:
            return self.data
        raise self.cause or StepNotDone(f"A step was not done: {doing}.")


class StepNotDone(CardwrightError):
    """A token did not do a step, and nothing says why."""

    code = "TOKEN_STEP_NOT_DONE"
    default_effect = "Steps before it are done."
    default_advice = "Start again: the next session looks at the token and does the rest."


def token_policy(policy: DevicePolicy, *, so_pin: bool) -> DevicePolicy:
    """What of a policy means something for a token: keys, certificates, PIN and the security officer's PIN.

    ``so_pin``: whether that one is known, so that PINs can be set. Data objects, management key and numbers of tries
    are of cards only.
    """
    wanted = policy.secrets
    secrets = SecretsPolicy(pin=wanted.pin and so_pin, puk=wanted.puk and so_pin, management_key=False)
    return replace(policy, objects=(), secrets=secrets)


def plan_token(
    policy: DevicePolicy,
    inventory: Inventory,
    features: TokenFeatures,
    records: Records,
    *,
    now: datetime,
    deletes: bool = False,
) -> Plan:
    """The steps for a token, none when there is nothing to do. ``policy`` is what ``token_policy`` left of it.

    ``deletes``: keys that we certified once and that the policy names no more go, but those in retired slots. Raises
    CapabilityMissing for what the module cannot do, and what ``plan`` raises; then nothing was sent to the token.
    """
    for row in policy.slots:
        if row.touch_policy:
            raise CapabilityMissing("A PKCS#11 module knows no touch policy of a key.", "policies")
        if row.effective_pin_policy not in (slot_pin_policy(row.slot), PinPolicy.ALWAYS):
            raise CapabilityMissing(
                f"A token cannot have a key in slot {row.slot.label} with this PIN policy.", "policies"
            )
    made = plan(policy, inventory, records, now=now, backend=features.backend, certifies_existing=False)
    # Key History and Security Object are a card's.
    steps = tuple(step for step in made.steps if not isinstance(step, WriteObject))
    gone = _superseded(policy, inventory, records) if deletes else ()
    whole = replace(made, steps=(*steps, *gone))
    require_able(whole, features)
    return whole


def _superseded(policy: DevicePolicy, inventory: Inventory, records: Records) -> tuple[DeleteKey, ...]:
    wanted = {row.fingerprint for row in policy.recovered}
    return tuple(
        DeleteKey(row.slot, row.fingerprint)
        for row in inventory.keys
        if policy.slot(row.slot) is None
        and not row.slot.is_retired
        and row.fingerprint not in wanted
        and (row.slot, row.fingerprint) in records.certificates
    )


IMPORTED: Final = frozenset(
    (Algorithm.RSA1024, Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.RSA4096, Algorithm.P256, Algorithm.P384)
)
"""Algorithms of keys that go into a token from outside."""


def require_able(plan: Plan, features: TokenFeatures) -> None:
    """Raise CapabilityMissing where the module cannot do a step of ``plan``."""
    writes = [step for step in plan.steps if not isinstance(step, SetPuk | SetPin)]
    if writes and features.refusal:
        raise CapabilityMissing(f"The module {features.module} cannot do this: {features.refusal}.", "write")
    if any(isinstance(step, DeleteKey) for step in writes) and not features.deletes:
        raise CapabilityMissing(f"The module {features.module} deletes no keys.", "delete")
    for step in writes:
        able = IMPORTED if isinstance(step, ImportKey) else features.generates
        if isinstance(step, GenerateKey | ImportKey) and step.algorithm not in able:
            raise CapabilityMissing(
                f"This token has no {step.algorithm.label} keys, which the policy wants in slot {step.slot.label}.",
                step.algorithm.label,
            )
    if len(writes) < len(plan.steps) and not features.unlocks:
        raise CapabilityMissing(
            f"The module {features.module} sets no PIN by the security officer's PIN.", "unlock"
        )


__all__ = [
    "IMPORTED",
    "StepNotDone",
    "TokenAnswer",
    "TokenFeatures",
    "TokenName",
    "plan_token",
    "require_able",
    "token_policy",
]
