"""A card as it leaves the factory of its profile."""

from __future__ import annotations

from typing import Final

from cardwright_cardops.iso7816.tlv import encode

from .algorithms import GLOBAL_PIN, PAIRING_CODE, PIN, PUK, SM_KEY
from .objects import PAIRING_CODE_OBJECT
from .profiles import Profile
from .state import CardState, ManagementKey, Reference, StoredKey

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
    state = CardState(
        profile=profile.name,
        serial=serial,
        seed=seed,
        management=ManagementKey(profile.management_algorithm, profile.management_key, default=True),
        references=references,
        objects=dict(profile.initial_objects),
        channel_keys=keys,
    )
    if profile.pairing_code:
        content = encode(0x99, profile.pairing_code) + encode(0xFE, b"")
        state.objects[PAIRING_CODE_OBJECT] = encode(0x53, content)
    if profile.suite:
        # Certificates are a slow import; only cards with secure messaging are born with one.
        from . import sm_identity

        private = sm_identity.factory_scalar(seed, profile.suite)
        state.keys[SM_KEY] = StoredKey(profile.suite, (private,), pin_policy=1, generated=True)
        state.cvc = sm_identity.issue(profile.suite, private, sm_identity.guid(seed))
        state.objects[sm_identity.SIGNER_OBJECT] = sm_identity.signer_object(profile.suite)
    return state
