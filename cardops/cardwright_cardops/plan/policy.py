"""A device policy: what must be on a device. Pure values; a document of JSON values in, the same out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from ..errors import CardwrightError
from ..piv import containers
from ..piv.algorithms import Algorithm, ManagementAlgorithm, PinPolicy, TouchPolicy
from ..piv.references import Slot

MAX_SLOTS: Final = 24
NAMED_OBJECTS: Final = {
    "chuid": containers.CHUID.tag,
    "ccc": containers.CCC.tag,
    "discovery": containers.DISCOVERY.tag,
    "key-history": containers.KEY_HISTORY.tag,
    "printed": containers.PRINTED.tag,
    "facial-image": containers.FACIAL_IMAGE.tag,
    "fingerprints": containers.FINGERPRINTS.tag,
    "iris": containers.IRIS.tag,
    "security-object": containers.SECURITY_OBJECT.tag,
}
"""Objects of a policy's document by name; others are named by their tag in hexadecimal."""
_OBJECT_NAMES: Final = {tag: name for name, tag in NAMED_OBJECTS.items()}


class PolicyMalformed(CardwrightError):
    """A device policy, or its short form, that says something unknown, twice or impossible."""

    code = "POLICY_MALFORMED"
    default_effect = "Nothing was sent to the card."
    default_advice = "Write keys as SLOT=ALGORITHM or SLOT=ALGORITHM:import, for example 9a=p256,9d=rsa2048:import."


class KeySource(Enum):
    """Where the key of a slot is made."""

    GENERATED = "generate"
    """By the card itself."""
    IMPORTED = "import"
    """Outside, and kept there too: by the server (escrowed), or by ``card init`` in its secrets file."""


@dataclass(frozen=True, slots=True)
class SlotPolicy:
    """What a slot must hold. ``profile`` names the certificate profile that the authority knows.

    Policies of DEFAULT mean the slot's own (SP 800-73-5 part 1 table 5).
    """

    slot: Slot
    algorithm: Algorithm
    source: KeySource = KeySource.GENERATED
    profile: str = "self-signed"
    pin_policy: PinPolicy = PinPolicy.DEFAULT
    touch_policy: TouchPolicy = TouchPolicy.DEFAULT

    @property
    def effective_pin_policy(self) -> PinPolicy:
        """The PIN policy that the key has in the end."""
        return self.pin_policy or slot_pin_policy(self.slot)


@dataclass(frozen=True, slots=True)
class RecoveredKey:
    """An escrowed key that belongs in some retired slot. ``fingerprint``: hex SHA-256 of its SubjectPublicKeyInfo.

    ``needed``: no plan is better than one without it; else it may stay in the archive where no slot is free.
    """

    fingerprint: str
    algorithm: Algorithm
    needed: bool = True


@dataclass(frozen=True, slots=True)
class SecretsPolicy:
    """The administrative secrets. Each flag wants a value that is not the factory's.

    ``retries`` are the tries (PIN, PUK), None to leave them. ``management_algorithm`` None keeps the card's own.
    """

    pin: bool = True
    puk: bool = True
    management_key: bool = True
    management_algorithm: ManagementAlgorithm | None = None
    management_touch: bool = False
    retries: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class DevicePolicy:
    """What must be on a device.

    ``replace`` allows overwriting keys that are on the card and do not fit. A certificate that ends within
    ``renew_before`` is renewed, together with its key; not one that lasts until ``ends``, when the card itself ends,
    because no new one would last longer. ``ends`` is of one card, so it is in no document.
    """

    name: str = "card init"
    slots: tuple[SlotPolicy, ...] = ()
    objects: tuple[int, ...] = (containers.CHUID.tag, containers.CCC.tag)
    recovered: tuple[RecoveredKey, ...] = ()
    secrets: SecretsPolicy = SecretsPolicy()
    replace: bool = False
    renew_before: timedelta = timedelta(0)
    ends: datetime | None = None

    def __post_init__(self) -> None:
        slots = [row.slot for row in self.slots]
        _require_once(slots)
        if Slot.ATTESTATION in slots:
            raise PolicyMalformed("Slot F9 belongs to the card's maker.")
        if len(set(self.objects)) != len(self.objects) or not set(self.objects) <= set(containers.CONTAINERS):
            raise PolicyMalformed("An object is named twice or has no container.")
        if any(containers.CONTAINERS[tag].slot is not None for tag in self.objects):
            raise PolicyMalformed("Certificates come with their slots, not as objects.")
        wanted = [row.fingerprint for row in self.recovered]
        if len(set(wanted)) != len(wanted) or len(wanted) > 20:
            raise PolicyMalformed("Recovered keys are named twice, or are more than the 20 retired slots.")

    def slot(self, slot: Slot) -> SlotPolicy | None:
        """The policy of one slot."""
        return next((row for row in self.slots if row.slot is slot), None)

    def lasts(self, not_after: datetime, now: datetime) -> bool:
        """Whether a certificate that ends at ``not_after`` need not be renewed yet, or cannot last longer."""
        with_the_card = self.ends is not None and not_after >= self.ends
        return not_after > now if with_the_card else not_after - self.renew_before > now

    def document(self) -> dict[str, Any]:
        """JSON values, stable order."""
        secrets = self.secrets
        return {
            "name": self.name,
            "slots": [
                {
                    "slot": row.slot.label,
                    "algorithm": row.algorithm.label,
                    "key": row.source.value,
                    "profile": row.profile,
                    "pin_policy": row.pin_policy.name.lower(),
                    "touch_policy": row.touch_policy.name.lower(),
                }
                for row in self.slots
            ],
            "objects": [_OBJECT_NAMES.get(tag, f"{tag:X}") for tag in self.objects],
            "recovered": [
                {"fingerprint": row.fingerprint, "algorithm": row.algorithm.label, "needed": row.needed}
                for row in self.recovered
            ],
            "secrets": {
                "pin": secrets.pin,
                "puk": secrets.puk,
                "management_key": secrets.management_key,
                "management_algorithm": (
                    None if secrets.management_algorithm is None else secrets.management_algorithm.name.lower()
                ),
                "management_touch": secrets.management_touch,
                "retries": None if secrets.retries is None else list(secrets.retries),
            },
            "replace": self.replace,
            "renew_before_days": self.renew_before.days,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> DevicePolicy:
        """Read what ``document`` wrote; every part but ``slots`` may be left out.

        Raises PolicyMalformed for anything unknown, UnsupportedAlgorithm and UnknownSlot for names nobody has.
        """
        root = _Reader(document, "the policy")
        defaults = cls()
        policy = cls(
            name=root.take("name", str, defaults.name),
            slots=tuple(_slot_policy(row) for row in root.rows("slots", MAX_SLOTS)),
            objects=tuple(_object_tag(text) for text in root.texts("objects", list(_OBJECT_DEFAULTS))),
            recovered=tuple(_recovered(row) for row in root.rows("recovered", 20)),
            secrets=_secrets(root.take("secrets", dict, {})),
            replace=root.take("replace", bool, False),
            renew_before=_days(root.take("renew_before_days", int, 0)),
        )
        root.end()
        return policy


_OBJECT_DEFAULTS: Final = ("chuid", "ccc")


def slot_pin_policy(slot: Slot) -> PinPolicy:
    """The PIN policy of a slot by the standard: 9C always, 9E never, all others once."""
    return {Slot.SIGNATURE: PinPolicy.ALWAYS, Slot.CARD_AUTHENTICATION: PinPolicy.NEVER}.get(slot, PinPolicy.ONCE)


def parse_keys(text: str) -> tuple[SlotPolicy, ...]:
    """The short form ``9a=p256,9d=rsa2048:import``.

    Raises PolicyMalformed, and UnknownSlot and UnsupportedAlgorithm for names that nobody has.
    """
    rows: list[SlotPolicy] = []
    for part in text.split(","):
        slot, equals, rest = part.strip().partition("=")
        algorithm, colon, source = rest.partition(":")
        if not (slot and equals and algorithm) or (colon and source not in ("import", "generate")):
            raise PolicyMalformed(f"'{part.strip()}' is not SLOT=ALGORITHM or SLOT=ALGORITHM:import.")
        made = KeySource(source) if colon else KeySource.GENERATED
        rows.append(SlotPolicy(Slot.named(slot), Algorithm.named(algorithm), made))
    _require_once([row.slot for row in rows])
    return tuple(rows)


def _require_once(slots: Sequence[Slot]) -> None:
    twice = sorted({slot for slot in slots if slots.count(slot) > 1})
    if twice:
        raise PolicyMalformed(f"Slot {', '.join(slot.label for slot in twice)} is named twice.")


class _Reader:
    """Takes known members out of a mapping and refuses what is left."""

    def __init__(self, document: Mapping[str, Any], where: str) -> None:
        if not isinstance(document, Mapping):
            raise PolicyMalformed(f"In {where} an object with named members is expected.")
        self._left = dict(document)
        self._where = where

    def take(self, name: str, kind: type | tuple[type, ...], default: Any = ...) -> Any:
        if name not in self._left:
            if default is ...:
                raise PolicyMalformed(f"In {self._where} '{name}' is missing.")
            return default
        value = self._left.pop(name)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            names = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            raise PolicyMalformed(f"In {self._where} '{name}' is not a {names.replace('NoneType', 'null')}.")
        return value

    def rows(self, name: str, most: int) -> list[Any]:
        rows: list[Any] = self.take(name, list, [])
        if len(rows) > most:
            raise PolicyMalformed(f"In {self._where} '{name}' has more than {most} entries.")
        return rows

    def texts(self, name: str, default: list[str]) -> list[str]:
        rows: list[Any] = self.take(name, list, default)
        if not all(isinstance(row, str) for row in rows):
            raise PolicyMalformed(f"In {self._where} '{name}' is not a list of names.")
        return rows

    def end(self) -> None:
        if self._left:
            raise PolicyMalformed(f"In {self._where} nobody knows '{min(map(str, self._left))}'.")


def _slot_policy(document: Mapping[str, Any]) -> SlotPolicy:
    row = _Reader(document, "a slot")
    made = SlotPolicy(
        slot=Slot.named(row.take("slot", str)),
        algorithm=Algorithm.named(row.take("algorithm", str)),
        source=_named(KeySource, row.take("key", str, "generate")),
        profile=row.take("profile", str, "self-signed"),
        pin_policy=_member(PinPolicy, row.take("pin_policy", str, "default")),
        touch_policy=_member(TouchPolicy, row.take("touch_policy", str, "default")),
    )
    row.end()
    return made


def _recovered(document: Mapping[str, Any]) -> RecoveredKey:
    row = _Reader(document, "a recovered key")
    algorithm = Algorithm.named(row.take("algorithm", str))
    made = RecoveredKey(row.take("fingerprint", str), algorithm, row.take("needed", bool, True))
    row.end()
    if len(made.fingerprint) != 64 or set(made.fingerprint) - set("0123456789abcdef"):
        raise PolicyMalformed("A recovered key's fingerprint is not 64 hexadecimal digits.")
    return made


def _secrets(document: Mapping[str, Any]) -> SecretsPolicy:
    row = _Reader(document, "secrets")
    algorithm = row.take("management_algorithm", (str, type(None)), None)
    retries = row.take("retries", (list, type(None)), None)
    if retries is not None and not (
        len(retries) == 2 and all(type(count) is int and 1 <= count <= 255 for count in retries)
    ):
        raise PolicyMalformed("In secrets 'retries' is not a pair of numbers from 1 to 255.")
    made = SecretsPolicy(
        pin=row.take("pin", bool, True),
        puk=row.take("puk", bool, True),
        management_key=row.take("management_key", bool, True),
        management_algorithm=None if algorithm is None else _member(ManagementAlgorithm, algorithm),
        management_touch=row.take("management_touch", bool, False),
        retries=None if retries is None else (retries[0], retries[1]),
    )
    row.end()
    if made.retries is not None and not (made.pin and made.puk):
        raise PolicyMalformed("Setting the tries puts PIN and PUK back to factory values, so both must be changed too.")
    return made


def _object_tag(text: str) -> int:
    if text in NAMED_OBJECTS:
        return NAMED_OBJECTS[text]
    try:
        return int(text, 16)
    except ValueError:
        known = ", ".join(sorted(NAMED_OBJECTS))
        raise PolicyMalformed(f"There is no object '{text}'; there are {known}.") from None


def _days(days: int) -> timedelta:
    if not 0 <= days <= 36500:
        raise PolicyMalformed("'renew_before_days' is not a number from 0 to 36500.")
    return timedelta(days=days)


def _named(kind: type[KeySource], text: str) -> KeySource:
    try:
        return kind(text)
    except ValueError:
        raise PolicyMalformed(f"A key is 'generate' or 'import', not '{text}'.") from None


def _member(kind: Any, text: str) -> Any:
    try:
        return kind[text.upper()]
    except KeyError:
        known = ", ".join(member.name.lower() for member in kind)
        raise PolicyMalformed(f"'{text}' is none of {known}.") from None
