"""What a policy may want that no card could ever come to, so that each of its sessions would end without its goal.

``document.read`` finds what contradicts itself in any program that reads it. What is here depends on what this server
can certify, archive and write, so it is judged when a version is drafted and once more when it is published; versions
that are in force already are carried out as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import MATCHING
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.policy import KeySource, SlotPolicy

from .model import ClearSecrets, DeviceKind, Origin, Policy


@dataclass(frozen=True, slots=True)
class CertificateKind:
    """What policies have to know of a certificate profile.

    ``lives``: the longest life of a certificate. ``algorithms`` are labels of keys. ``for_cards``: slots of cards get
    such certificates. ``says_hardware``: it asserts of its key what has to be proven.
    """

    name: str
    lives: timedelta
    algorithms: frozenset[str]
    for_cards: bool
    says_hardware: bool


CertificateKinds = Callable[[str, bool], CertificateKind]
"""The kind behind a profile's name, under a policy that is strict or is not."""

ARCHIVED: Final = frozenset(("rsa2048", "rsa3072", "p256", "p384"))
"""Algorithms of keys that the vault makes for slots with ``key = "escrow"``."""
WRITTEN: Final = frozenset(
    one.tag
    for one in (
        containers.CHUID,
        containers.CCC,
        containers.DISCOVERY,
        containers.KEY_HISTORY,
        containers.PRINTED,
        containers.FACIAL_IMAGE,
        containers.FINGERPRINTS,
        containers.IRIS,
        containers.SECURITY_OBJECT,
    )
)
"""Objects that a card can be given: the server's own, and those that come with an enrolment."""
_SHORTEST_PIN: Final = 6
"""SP 800-73-5 part 2 section 2.4.3: cards take no shorter one. Tokens may."""


_FEWEST_PIN_TRIES: Final = 2
"""The last try is never spent unless the person says so, so with one the PIN would never be used."""
_FEWEST_PUK_TRIES: Final = 3
"""After a session that broke off there are two candidates, and the wrong one must leave more than the last try."""


def unreachable(policy: Policy, certificates: CertificateKinds) -> tuple[str, ...]:
    """Each finding begins with its path in the document; none for a policy that cards can come to."""
    return (*_of_document(policy), *_of_slots(policy, certificates))


def _of_document(policy: Policy) -> Iterator[str]:
    slots = {row.slot for row in policy.card.slots}
    cards = policy.device_kinds - {DeviceKind.PKCS11_TOKEN, DeviceKind.PHONE}
    secrets = policy.card.secrets
    if policy.device_kinds == {DeviceKind.PHONE}:
        yield "$.device_kinds: nothing is written to phones here, so there must be another kind"
    imports = any(row.source is KeySource.IMPORTED for row in policy.card.slots)
    told = secrets.puk or secrets.management_key or imports
    if policy.clear_secrets is ClearSecrets.NEVER and told and not policy.strict:
        yield (
            "$.clear_secrets: no session here is sealed, so with 'never' no card gets a PUK, management key or "
            "archived key; 'trusted_station' leaves them to stations"
        )
    for place, tag in enumerate(policy.card.objects):
        if tag not in WRITTEN:
            name = containers.CONTAINERS[tag].name
            yield f"$.objects[{place}]: this server has no content for {name}, so no card would ever hold it"
    if cards and containers.CHUID.tag not in policy.card.objects:
        yield "$.objects: a card is known again by its CHUID, so each one needs it"
    if secrets.retries is not None:
        pin, puk = secrets.retries
        if pin < _FEWEST_PIN_TRIES:
            yield f"$.pin.retries: the last try is never spent, so there must be {_FEWEST_PIN_TRIES} at least"
        if puk < _FEWEST_PUK_TRIES:
            yield f"$.puk.retries: a session that broke off costs one, so there must be {_FEWEST_PUK_TRIES} at least"
    if policy.unlock and Slot.CARD_AUTHENTICATION not in slots:
        yield "$.unlock: a PUK is released only for a card that proves itself by its key in 9E, which is no slot here"
    if cards and policy.pin.max_length < _SHORTEST_PIN:
        yield f"$.pin.max_length: cards take no PIN of fewer than {_SHORTEST_PIN} characters"
    if secrets.management_algorithm is not None and not secrets.management_key:
        yield "$.management_key.algorithm: needs a management key of the card's own"
    if policy.activate_within > policy.validity:
        yield "$.activate_within_days: a card would have ended before it has to be activated"


def _of_slots(policy: Policy, certificates: CertificateKinds) -> Iterator[str]:
    for place, row in enumerate(policy.card.slots):
        kind = certificates(row.profile, policy.strict)
        path = f"$.slots[{place}]"
        yield from _of_slot(path, policy, row, kind)
        if policy.card.renew_before >= kind.lives:
            yield (
                f"$.renew_before_days: certificates of {kind.name} ({path}) live {kind.lives.days} days, so a new one "
                "would be due again at once"
            )
        elif not policy.card.renew_before and kind.lives < policy.validity:
            yield (
                f"$.renew_before_days: certificates of {kind.name} ({path}) end before the card, and none would be "
                "renewed before that"
            )


def _of_slot(path: str, policy: Policy, row: SlotPolicy, kind: CertificateKind) -> Iterator[str]:
    least = policy.least_origin[row.slot]
    if not kind.for_cards:
        yield f"{path}.profile: {kind.name} certifies no keys of cards"
    if row.algorithm.label not in kind.algorithms:
        yield f"{path}.algorithm: {kind.name} certifies no {row.algorithm.label} keys"
    if row.pin_policy in MATCHING:
        yield f"{path}.pin_policy: no card that can be written here opens a key by a fingerprint"
    if row.source is KeySource.IMPORTED and row.algorithm.label not in ARCHIVED:
        yield f"{path}.algorithm: {row.algorithm.label} keys are not archived"
    if kind.says_hardware and not least.proves(Origin.SEALED):
        yield f"{path}.least_origin: {kind.name} says that the key is in hardware, which {least} does not prove"
    if policy.device_kinds == {DeviceKind.PKCS11_TOKEN} and least is not Origin.UNPROVEN:
        yield f"{path}.least_origin: nothing proves where a PKCS#11 token made its keys"
