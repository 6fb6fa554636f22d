"""Virtual cards with the content that the conformance scripts are written for, and how to run one there.

The content comes from ``piv_card``: certificates, signed objects and keys of a PKI made in the test process.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cardwright_cardops.iso7816.tlv import encode
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.objects import CertificateObject, KeyHistory, PinUsagePolicy
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.connection import Interface
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import PROFILES, CardState, KeyPool, MemoryStore, Profile, VirtualCard, images
from cardwright_simulators.card.algorithms import Algorithm
from cardwright_simulators.card.state import Reference
from cardwright_simulators.scripts import Result, Script, conformance, run_script
from tests.support.piv_card import AT, START, PivCard, key, name_of

FINGER = bytes(range(0x40, 0x40 + 36))
NEW_PIN = b"271828\xff\xff"
NEW_PUK = b"31415926"
GLOBAL_PIN = b"654321\xff\xff"
PAIRING_CODE = b"20260731"
ABSENT_AID = bytes.fromhex("A0000009999999990002")
RETIRED = {"82": 0x5FC10D, "95": 0x5FC120}
IRIS = {"format_owner": 0x101, "format_type": 9, "biometric_type": 0x10, "data_type": 0x40}
POOL = KeyPool(size=1)

SCRIPTS = {script.name: script for script in conformance()}

Edit = Callable[[PivCard], None]
"""A change of the recipe before the card is built."""


@dataclass(frozen=True, slots=True)
class Content:
    """What one name of content means beside the personal card. Policies: without and with secure messaging."""

    policy: int = 0x40
    policy_sm: int = 0x48
    fingers: bool = False
    tries: int = 0
    keys: tuple[tuple[str, Algorithm], ...] = ()


CONTENTS = {
    "personal": Content(),
    "pin-only": Content(policy_sm=0x40),
    "occ": Content(0x50, 0x58, fingers=True),
    "everything": Content(0x70, 0x78, fingers=True),
    "vci-without-pairing": Content(policy_sm=0x4C),
    "last-try": Content(tries=1),
    "rsa": Content(keys=(("9A", Algorithm.RSA2048), ("9D", Algorithm.RSA2048))),
    "p384": Content(keys=(("9C", Algorithm.P384), ("9D", Algorithm.P384))),
}


def features(profile: Profile) -> frozenset[str]:
    """What scripts may need of a kind of card."""
    found = {"sm" if profile.suite else "no-sm"}
    if profile.suite == Algorithm.CS7:
        found.add("sm-p384")
    if profile.other_applications:
        found.add("other-application")
    if profile.extended:
        found.add("extended")
    if profile.selected_after_reset:
        found.add("selected-after-reset")
    return frozenset(found)


def secrets(profile: Profile) -> dict[str, Secret | bytes]:
    """The values that scripts name."""
    others = profile.other_applications
    other = Algorithm.AES128 if profile.management_algorithm == Algorithm.TDES else Algorithm.TDES
    values: dict[str, Secret | bytes] = {
        "PIN": Secret(profile.pin),
        "NEW_PIN": Secret(NEW_PIN),
        "PUK": Secret(profile.puk),
        "NEW_PUK": Secret(NEW_PUK),
        "GLOBAL_PIN": Secret(GLOBAL_PIN),
        "PAIRING_CODE": Secret(PAIRING_CODE),
        "FINGER": Secret(FINGER),
        "MANAGEMENT_KEY": Secret(profile.management_key),
        "MANAGEMENT_ALGORITHM": bytes((profile.management_algorithm,)),
        "OTHER_ALGORITHM": bytes((other,)),
        "OTHER_AID": min(others) if others else ABSENT_AID,
    }
    if profile.suite:
        values["SM_SUITE"] = bytes((profile.suite,))
    return values


class Stage:
    """One prepared card. ``connect`` reaches it over an interface, as if it were put into another reader."""

    def __init__(self, profile: Profile, snapshot: bytes) -> None:
        self.profile = profile
        self.store = MemoryStore(CardState.decode(snapshot))
        self.card = self._card(Interface.CONTACT)

    def connect(self, interface: Interface) -> DirectConnection:
        self.card = self._card(interface)
        return DirectConnection(self.card, interface=interface)

    def _card(self, interface: Interface) -> VirtualCard:
        return VirtualCard(self.profile, store=self.store, interface=interface, key_pool=POOL)


def stage(profile: Profile | str, content: str = "personal", edit: Edit | None = None) -> Stage:
    """A card of ``profile`` with ``content``; ``edit`` changes the recipe of its objects."""
    made = PROFILES[profile] if isinstance(profile, str) else profile
    if edit is None and PROFILES[made.name] is made:
        return Stage(made, _snapshot(made.name, content))
    return Stage(made, _prepare(made, content, edit))


def run(script: Script | str, at_stage: Stage) -> Result:
    """Run a script there, with all that may be needed."""
    chosen = SCRIPTS[script] if isinstance(script, str) else script
    return run_script(
        chosen,
        at_stage.connect(Interface(chosen.interface)),
        secrets(at_stage.profile),
        connect=at_stage.connect,
        features=features(at_stage.profile),
        may_change=True,
        at=AT,
    )


@cache
def _snapshot(profile: str, content: str) -> bytes:
    return _prepare(PROFILES[profile], content, None)


def _prepare(profile: Profile, content: str, edit: Edit | None) -> bytes:
    if content == "fresh":
        return VirtualCard(profile, serial=1).snapshot()
    chosen = CONTENTS[content]
    recipe = PivCard()
    recipe.policy = PinUsagePolicy(chosen.policy_sm if profile.suite else chosen.policy, 0x10 if chosen.fingers else 0)
    recipe.records[0x5FC121] = b"an iris record"
    recipe.headers[0x5FC121] = dict(IRIS)
    retired = recipe.profiles["9D"]
    for slot in RETIRED:
        recipe.profiles[slot] = replace(retired, public=slot)
    recipe.before_hashing = _retired(recipe)
    recipe.hashed = (*recipe.hashed, 0x5FC121, 0x5FC10C)
    if edit is not None:
        edit(recipe)
    objects = {tag: answer for tag, answer in recipe.data().objects.items() if answer is not None}
    keys: dict[str, Any] = {slot: key(slot) for slot in ("9A", "9C", "9D", "9E", *RETIRED)}
    for slot, algorithm in chosen.keys:
        keys[slot] = _other_key(slot, algorithm)
        tag = containers.CONTAINERS_BY_SLOT[int(slot, 16)].tag
        objects[tag] = containers.wrap(tag, CertificateObject(_certificate(keys[slot])).encode())
    card = images.load(
        {
            "objects": {f"{tag:X}": answer.hex() for tag, answer in objects.items()},
            "keys": {slot: _pkcs8(value).hex() for slot, value in keys.items()},
        },
        profile=profile,
    )
    state = CardState.decode(card.snapshot())
    if chosen.fingers:
        for finger in (0x96, 0x97):
            state.references[finger] = Reference(FINGER, 3, 3)
        state.objects[0x7F61] = _bit_group()
    if chosen.tries:
        state.references[0x80].tries = chosen.tries
    return state.encode()


def _retired(recipe: PivCard) -> Callable[[dict[int, bytes]], None]:
    def add(built: dict[int, bytes]) -> None:
        for slot, tag in RETIRED.items():
            built[tag] = CertificateObject(recipe.issued[slot].public_bytes(Encoding.DER)).encode()
        built[0x5FC10C] = KeyHistory(len(RETIRED), 0).encode()

    return add


def _bit_group() -> bytes:
    """Both fingers, each with 4 to 60 minutiae."""
    limits = encode(0xB1, encode(0x81, bytes((4, 60))))
    templates = (encode(0x7F60, encode(0x83, bytes((finger,))) + encode(0xA1, limits)) for finger in (0x96, 0x97))
    return encode(0x7F61, encode(0x02, b"\x02") + b"".join(templates))


@cache
def _other_key(slot: str, algorithm: Algorithm) -> rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey:
    if algorithm is Algorithm.P384:
        return ec.generate_private_key(ec.SECP384R1())
    return rsa.generate_private_key(65537, 2048)


def _certificate(used: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    builder = (
        x509.CertificateBuilder()
        .subject_name(name_of("Ada"))
        .issuer_name(name_of("Ada"))
        .public_key(used.public_key())
        .serial_number(1)
        .not_valid_before(START)
        .not_valid_after(AT)
    )
    return builder.sign(used, hashes.SHA256()).public_bytes(Encoding.DER)


def _pkcs8(used: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    return used.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
