"""What a card's personalization back end can do, as data; ``plan`` refuses by it before the first write."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ..errors import CardwrightError
from ..piv.algorithms import Algorithm, KeyKind, ManagementAlgorithm
from ..piv.references import ACTIVE_SLOTS, RETIRED_SLOTS, Slot
from .inventory import Features, Inventory


class CapabilityMissing(CardwrightError):
    """The card cannot do what the policy asks for. ``capability`` names it."""

    code = "CAPABILITY_MISSING"
    default_effect = "Nothing on the card was changed."
    default_advice = "Change the policy to what the card can do, or use another card."

    def __init__(self, message: str, capability: str) -> None:
        super().__init__(message)
        self.capability = capability


@dataclass(frozen=True, slots=True)
class Backend:
    """One way to personalize. Sizes are octets; ``None`` for algorithms means that the card has to be asked.

    ``any_key_signs``: keys of 9D and the retired slots sign too, which the standard does not ask for with curves.
    ``policies``: GENERATE and import take PIN and touch policies; ``matches``: also those that want a fingerprint. A
    card without a sensor refuses these at each write, and no back end here knows which one has it.
    ``management_attempts``: candidates of the management key that may be tried in one session.
    """

    name: str
    imports: bool = False
    sets_management_key: bool = False
    sets_retries: bool = False
    resets: bool = False
    moves: bool = False
    attests: bool = False
    seals: bool = False
    policies: bool = False
    matches: bool = False
    any_key_signs: bool = False
    origin_from_zero: bool = False
    generate_slots: frozenset[Slot] = frozenset(ACTIVE_SLOTS)
    import_slots: frozenset[Slot] = frozenset()
    algorithms: frozenset[Algorithm] | None = None
    management_algorithms: frozenset[ManagementAlgorithm] = frozenset(ManagementAlgorithm)
    management_attempts: int = 3
    max_object: int = 12720
    """Most octets of the value of one object."""


_ALL_SLOTS: Final = frozenset((*ACTIVE_SLOTS, *RETIRED_SLOTS))
_STANDARD: Final = frozenset((Algorithm.RSA2048, Algorithm.RSA3072, Algorithm.P256, Algorithm.P384))
_OLDER_TOKENS: Final = frozenset((Algorithm.RSA1024, Algorithm.RSA2048, Algorithm.P256, Algorithm.P384))

PLAIN: Final = Backend("plain", algorithms=_STANDARD)
OPENFIPS201: Final = Backend("openfips201", seals=True, algorithms=_STANDARD)
YUBICO: Final = Backend(
    "yubico",
    imports=True,
    sets_management_key=True,
    sets_retries=True,
    resets=True,
    moves=True,
    attests=True,
    seals=True,
    policies=True,
    any_key_signs=True,
    generate_slots=_ALL_SLOTS,
    import_slots=_ALL_SLOTS,
    max_object=3063,
)
YUBICO_OLDER: Final = Backend(
    "yubico before 5.7",
    imports=True,
    sets_management_key=True,
    sets_retries=True,
    resets=True,
    attests=True,
    policies=True,
    any_key_signs=True,
    generate_slots=_ALL_SLOTS,
    import_slots=_ALL_SLOTS,
    algorithms=_OLDER_TOKENS,
    max_object=3063,
)
_PIVAPPLET_SLOTS: Final = frozenset((*ACTIVE_SLOTS, *RETIRED_SLOTS[:11]))
PIVAPPLET: Final = Backend(
    "pivapplet",
    imports=True,
    sets_management_key=True,
    sets_retries=True,
    resets=True,
    attests=True,
    policies=True,
    any_key_signs=True,
    origin_from_zero=True,
    generate_slots=_PIVAPPLET_SLOTS,
    import_slots=_PIVAPPLET_SLOTS,
    algorithms=_OLDER_TOKENS,
    max_object=3063,
)
BACKENDS: Final = {row.name: row for row in (PLAIN, OPENFIPS201, YUBICO, YUBICO_OLDER, PIVAPPLET)}
"""Every back end by name."""

_FIRST_WITH_MORE: Final = (5, 7)


def backend_of(features: Features) -> Backend:
    """The back end of a card by what it answered.

    A card that answers GET VERSION has the administration of these tokens. The version itself may only take
    away: one before 5.7 is believed to lack what came with 5.7, a later one proves nothing.
    """
    if features.label.startswith("PivApplet"):
        return PIVAPPLET
    if features.label.startswith("OpenFIPS201"):
        return OPENFIPS201
    if not features.version:
        return PLAIN
    number = tuple(int(part) for part in features.version.split("."))
    return YUBICO_OLDER if number < _FIRST_WITH_MORE else YUBICO


def require_algorithm(backend: Backend, inventory: Inventory, slot: Slot, algorithm: Algorithm) -> None:
    """Raise CapabilityMissing where the card is known not to have ``algorithm``."""
    announced = {number for number in inventory.features.announced if number in set(Algorithm)}
    lacks_by_kind = backend.algorithms is not None and algorithm not in backend.algorithms
    lacks_by_word = bool(announced) and algorithm not in announced
    if lacks_by_kind or lacks_by_word:
        raise CapabilityMissing(
            f"This card has no {algorithm.label} keys, which the policy wants in slot {slot.label}.", algorithm.label
        )


def signs(backend: Backend, slot: Slot, algorithm: Algorithm) -> bool:
    """Whether a key of ``algorithm`` in ``slot`` can sign its own certificate or request."""
    if not algorithm.signs:
        return False
    agreement = slot is Slot.KEY_MANAGEMENT or slot.is_retired
    return backend.any_key_signs or algorithm.kind is KeyKind.RSA or not agreement
