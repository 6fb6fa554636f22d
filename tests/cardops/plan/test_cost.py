"""Exact APDU counts between runner and card, counted by the card: bare jobs at the floor, card init above it."""

from __future__ import annotations

from collections.abc import Mapping
from uuid import uuid4

import pytest

from cardwright_cardops.iso7816.exchange import Limits
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import Algorithm, ManagementAlgorithm, PublicKey
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.management_key import DEFAULT_KEY, ManagementKey
from cardwright_cardops.piv.objects import Ccc, CertificateObject, Chuid
from cardwright_cardops.piv.pins import FixedPins, TriesGuard
from cardwright_cardops.piv.references import ACTIVE_SLOTS, Slot
from cardwright_cardops.plan import bare
from cardwright_cardops.plan.local_authority import NON_FEDERAL, make_key
from cardwright_cardops.plan.records import MemoryJournal
from cardwright_cardops.program.items import Program, SetPin, Unblock, VerifyPin
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from tests.support.card_init import NOW, PIN, POOL, PUK, Case

P256, RSA2048 = Algorithm.P256, Algorithm.RSA2048
FLOOR = {(P256, True): 20, (RSA2048, True): 33, (P256, False): 16, (RSA2048, False): 16}
SAFETY = {(P256, True): 27, (RSA2048, True): 41, (P256, False): 23, (RSA2048, False): 23}
CERTIFICATE_OCTETS = {P256: 457, RSA2048: 853}
"""Sizes with which the public tools were measured."""


def counted(card: VirtualCard, program: Program[object], *, short: bool, keep: int = 0) -> int:
    """APDUs that ``program`` takes, without any safety of the executing end."""
    keys = KeyItems(FixedPins(Secret(b"123456"), Secret(PIN)), TriesGuard(keep))
    executor = LocalExecutor(DirectConnection(card), keys, Limits(extended=False) if short else None)
    executor.drops_status = False
    before = card.apdu_count
    run(program, executor)
    return card.apdu_count - before


def certificate_object(algorithm: Algorithm) -> bytes:
    """A certificate object of the size that the public tools wrote; the card does not look inside."""
    return CertificateObject(bytes(CERTIFICATE_OCTETS[algorithm])).encode()


def personalization(algorithm: Algorithm) -> Program[object]:
    work = bare.Personalization(
        management_key=ManagementKey(ManagementAlgorithm.TDES, Secret(DEFAULT_KEY)),
        new_management_key=ManagementKey(ManagementAlgorithm.TDES, Secret(bytes(range(1, 49, 2)))),
        puk=Secret(b"12345678"),
        new_puk=Secret(PUK),
        objects={
            containers.CHUID.tag: Chuid(NON_FEDERAL.encode(), uuid4(), NOW.date()).encode(),
            containers.CCC.tag: Ccc().encode(),
        },
        generate={slot: algorithm for slot in ACTIVE_SLOTS if slot is not Slot.KEY_MANAGEMENT},
        imports={Slot.KEY_MANAGEMENT: make_key(algorithm)},
    )

    def certify(keys: Mapping[Slot, PublicKey]) -> dict[int, bytes]:
        return {slot.certificate_tag: certificate_object(algorithm) for slot in ACTIVE_SLOTS}

    return bare.personalize(work, certify)


@pytest.mark.parametrize(("algorithm", "short"), FLOOR)
def test_bare_jobs_cost_the_floor(algorithm: Algorithm, short: bool) -> None:
    card = VirtualCard("yubikey-5.4", key_pool=POOL)
    assert counted(card, personalization(algorithm), short=short) == FLOOR[algorithm, short]
    tags = (containers.CHUID.tag, containers.CCC.tag, *(slot.certificate_tag for slot in ACTIVE_SLOTS))
    reading = {(P256, True): 11, (RSA2048, True): 19}.get((algorithm, short), 7)
    assert counted(card, bare.read(*tags), short=short) == reading


def test_bare_pin_jobs_cost_two() -> None:
    card = VirtualCard("yubikey-5.4")
    assert counted(card, bare.select_and(VerifyPin(), "verifying the PIN"), short=True) == 2
    assert counted(card, bare.select_and(SetPin(), "changing the PIN"), short=True) == 2
    unblock = bare.select_and(Unblock(Secret(b"12345678")), "unblocking the PIN")
    assert counted(card, unblock, short=True) == 2


@pytest.mark.parametrize(("algorithm", "short"), SAFETY)
def test_card_init_costs_its_safety_and_no_more(algorithm: Algorithm, short: bool) -> None:
    name = algorithm.label
    keys = f"9a={name},9c={name},9d={name}:import,9e={name}"
    wanted = {slot: (int(algorithm), slot != Slot.KEY_MANAGEMENT) for slot in map(int, ACTIVE_SLOTS)}
    case = Case("yubikey-5.4", keys, wanted, short=short)
    card, journal = case.card(), MemoryJournal()
    before = card.apdu_count
    case.run(card, journal)
    assert card.apdu_count - before == FLOOR[algorithm, short] + SAFETY[algorithm, short]
    assert case.faults_of(card, journal) == []


def test_nothing_due_costs_one_look() -> None:
    case = Case("yubikey-5.7", "9a=p256,9e=p256", {0x9A: (0x11, True), 0x9E: (0x11, True)})
    card, journal = case.card(), MemoryJournal()
    case.run(card, journal)
    before = card.apdu_count
    case.run(card, journal)
    # SELECT, version, serial, metadata of PIN, PUK, 9B and two slots, CHUID, Discovery, CCC, two certificates.
    assert card.apdu_count - before == 13
