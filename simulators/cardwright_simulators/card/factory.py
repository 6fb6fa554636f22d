"""A card as it leaves the factory of its profile."""

from __future__ import annotations

from typing import Final

from .algorithms import GLOBAL_PIN, PAIRING_CODE, PIN, PUK
from .profiles import Profile
from .state import CardState, ManagementKey, Reference

FACTORY_CHANNEL_KEY: Final = bytes(range(0x40, 0x50))
FACTORY_CHANNEL_VERSION: Final = 0xFF


def factory_state(profile: Profile, serial: int, seed: bytes) -> CardState:
    """The persistent state of a fresh card. ``seed`` is 32 octets that no other card has."""
    tries = profile.tries
    references = {
        PIN: Reference(profile.pin, tries, tries, True),
        PUK: Reference(profile.puk, tries, tries, True),
    }
    if profile.global_pin:
        references[GLOBAL_PIN] = Reference(profile.global_pin, tries, tries, True)
    if profile.pairing_code:
        references[PAIRING_CODE] = Reference(profile.pairing_code, 0, 0)
    for finger, minutiae in profile.fingers.items():
        references[finger] = Reference(minutiae, tries, tries)
    keys = {FACTORY_CHANNEL_VERSION: (FACTORY_CHANNEL_KEY,) * 3} if profile.scp03 else {}
    return CardState(
        profile=profile.name,
        serial=serial,
        seed=seed,
        management=ManagementKey(profile.management_algorithm, profile.management_key, default=True),
        references=references,
        objects=dict(profile.initial_objects),
        channel_keys=keys,
    )
