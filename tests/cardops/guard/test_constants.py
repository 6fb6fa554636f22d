"""The guard's own numbers say the same as the tables of the programs: two copies, compared here and nowhere else."""

from __future__ import annotations

from cardwright_cardops.guard import constants as c
from cardwright_cardops.guard.keys import ALGORITHMS, CURVES, RSA
from cardwright_cardops.guard.preview import _PIN_POLICIES, _TOUCH_POLICIES
from cardwright_cardops.piv import commands, containers
from cardwright_cardops.piv.algorithms import Algorithm, KeyKind, ManagementAlgorithm, PinPolicy, TouchPolicy
from cardwright_cardops.piv.management_key import DEFAULT_KEY
from cardwright_cardops.piv.references import ACTIVE_SLOTS, MANAGEMENT_KEY, RETIRED_SLOTS, PinReference
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.plan.policy import slot_pin_policy


def test_slots_and_certificates() -> None:
    assert set(ACTIVE_SLOTS) | set(RETIRED_SLOTS) == c.SLOTS
    assert {slot: slot.certificate_tag for slot in (*ACTIVE_SLOTS, *RETIRED_SLOTS)} == c.CERTIFICATES
    assert set(c.RETIRED) == set(RETIRED_SLOTS)
    assert {0x9D, *RETIRED_SLOTS} == c.IMPORT_SLOTS
    assert {0x9A, 0x9C, 0x9E} == c.PROVING_SLOTS
    assert {slot: int(slot_pin_policy(slot)) for slot in ACTIVE_SLOTS} == {
        slot: c.default_pin_policy(slot) for slot in ACTIVE_SLOTS
    }
    assert {c.default_pin_policy(slot) for slot in RETIRED_SLOTS} == {PinPolicy.ONCE}


def test_objects() -> None:
    behind_pin = {row.tag for row in containers.PIV_CONTAINERS if row.contact.needs_person}
    assert behind_pin == c.PROTECTED
    free = {row.tag for row in containers.PIV_CONTAINERS} - behind_pin
    assert free | {c.ATTESTATION_CERTIFICATE} == c.READABLE
    named = {c.DISCOVERY, c.PAIRING_CODE, c.SM_SIGNER}
    everything = {row.tag for row in containers.PIV_CONTAINERS}
    assert everything - named - set(c.CERTIFICATES.values()) == c.WRITABLE
    assert {commands.TAG_DISCOVERY, commands.TAG_BIT_GROUP} == c.BARE
    assert c.ATTESTATION_CERTIFICATE == 0x5FFF01
    assert containers.CHUID.tag == c.CHUID


def test_references_and_values() -> None:
    assert (c.PIN, c.GLOBAL_PIN, c.PUK) == (PinReference.PIN, PinReference.GLOBAL_PIN, PinReference.PUK)
    assert {0x80, 0x00} == c.PIN_REFERENCES
    assert c.MANAGEMENT_KEY == MANAGEMENT_KEY
    assert {commands.PIV_AID, commands.PIV_AID_TRUNCATED} == c.PIV_AIDS
    assert yubico.DEFAULT_PUK.reveal() == c.FACTORY_PUK
    assert DEFAULT_KEY == c.FACTORY_MANAGEMENT_KEY
    assert c.PUK_OCTETS == commands.PIN_OCTETS


def test_algorithms_and_policies() -> None:
    assert set(Algorithm) == ALGORITHMS
    assert {one: one.octets * 8 for one in Algorithm if one.kind is KeyKind.RSA} == RSA
    assert {one: one.octets * 8 for one in Algorithm if one.kind is KeyKind.EC} == {
        number: curve.key_size for number, curve in CURVES.items()
    }
    assert {one: one.block_octets for one in ManagementAlgorithm} == c.BLOCK_OCTETS
    assert {one: one.key_octets for one in ManagementAlgorithm} == c.MANAGEMENT_KEY_OCTETS
    assert {one.name.lower(): int(one) for one in PinPolicy} == _PIN_POLICIES
    assert {one.name.lower(): int(one) for one in TouchPolicy} == _TOUCH_POLICIES
    assert list(PinPolicy)[1:] == [c.PIN_NEVER, c.PIN_ONCE, c.PIN_ALWAYS, c.MATCH_ONCE, c.MATCH_ALWAYS]
    assert list(TouchPolicy)[1:] == [c.TOUCH_NEVER, c.TOUCH_ALWAYS, c.TOUCH_CACHED]
