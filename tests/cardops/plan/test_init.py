"""card init on fresh cards of every kind, judged by the raw memory of the card, by the check, and by itself."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cardwright_cardops.check import Level, Severity, check
from cardwright_cardops.check.live import read_card
from cardwright_cardops.piv import containers
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.references import Slot
from cardwright_cardops.plan.init import Secrets, initialize, look_for
from cardwright_cardops.plan.inventory import Identity
from cardwright_cardops.plan.journal_file import FileJournal
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import Journal, JournalOfAnotherCard, Kind, MemoryJournal
from cardwright_cardops.plan.steps import SetManagementKey, SetRetries, Step
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import ManagementAuthentication, Verify, VirtualCard
from tests.oracle.card import Expected, judge
from tests.support.card_init import CASES, NOW, P256, PIN, PUK, Case, executor, values_of


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_a_fresh_card_becomes_good_and_stays_so(case: Case) -> None:
    card, journal = case.card(), MemoryJournal()
    report = case.run(card, journal)
    assert case.faults_of(card, journal) == []
    assert report.done
    before = card.state_hash()
    again = case.run(card, journal)
    assert again.done == ()
    assert card.state_hash() == before


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_check_finds_nothing_wrong_at_level_basic(case: Case) -> None:
    card = case.card()
    case.run(card, MemoryJournal())
    data = run(read_card(with_pin=True), executor(card))
    findings = check(data, level=Level.BASIC, at=NOW).findings
    assert [finding for finding in findings if finding.severity is not Severity.INFO] == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_report_says_what_observing_says(case: Case) -> None:
    card, journal = case.card(), MemoryJournal()
    report = case.run(card, journal)
    seen = run(observe(replace(look_for(case.policy), thorough=True)), executor(card, short=case.short))
    assert report.inventory.objects == tuple(row for row in seen.objects if row in report.inventory.objects)
    assert report.inventory.keys == seen.keys
    assert report.inventory.certificates == seen.certificates
    assert report.inventory.puk.is_default is seen.puk.is_default
    assert report.inventory.identity.guid == seen.identity.guid is not None


def test_no_status_stands_afterwards() -> None:
    case = CASES["yubikey-5.7"]
    card = case.card()
    case.run(card, MemoryJournal())
    assert card.transmit(bytes.fromhex("00A4040009A00000030800001000"))[-2:] == b"\x90\x00"
    assert card.transmit(bytes.fromhex("0020008000"))[-2:] != b"\x90\x00"


def test_nothing_is_guessed_on_a_fresh_token() -> None:
    case = CASES["yubikey-5.7"]
    card = case.card()
    case.run(card, MemoryJournal())
    assert all(record.ok for record in card.log if isinstance(record, Verify | ManagementAuthentication))


def test_the_secrets_file_holds_what_is_on_the_card(tmp_path: Path) -> None:
    case = CASES["yubikey-5.7"]
    card, path = case.card(), tmp_path / "card.secrets"
    steps: list[Step] = []

    def opened(identity: Identity) -> Journal:
        assert identity.serial == "12345678"
        return FileJournal.begin(path)

    secrets = Secrets(new_puk=Secret(PUK))
    initialize(
        executor(card), case.policy, secrets, opened, now=NOW,
        progress=lambda step, done: steps.append(step) if done else None,
    )  # fmt: skip
    kept = FileJournal.resume(path)
    journal = MemoryJournal(kept.entries())
    assert case.faults_of(card, journal) == []
    assert PUK in set(values_of(journal, Kind.PUK))
    assert len(list(values_of(journal, Kind.KEY))) == 1
    assert len(steps) == len(set(steps)) == 13
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_journal_of_another_card_is_refused() -> None:
    case = CASES["yubikey-5.7"]
    journal = MemoryJournal()
    case.run(case.card(), journal)
    other = VirtualCard("yubikey-5.7", serial=87654321)
    before = other.state_hash()
    with pytest.raises(JournalOfAnotherCard):
        case.run(other, journal)
    assert other.state_hash() == before


def test_tries_are_set_together_with_new_pin_and_puk() -> None:
    secrets = SecretsPolicy(retries=(8, 5))
    case = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)}, secrets)
    card, journal = case.card(), MemoryJournal()
    report = case.run(card, journal)
    assert SetRetries(8, 5) in report.done
    keys = frozenset(values_of(journal, Kind.MANAGEMENT_KEY))
    assert judge(card.snapshot(), Expected(case.expected, PIN, PUK, keys, tries=(8, 5), now=NOW)) == []
    assert case.run(card, journal).done == ()


def test_the_management_key_gets_the_algorithm_that_is_wanted() -> None:
    secrets = SecretsPolicy(management_algorithm=ManagementAlgorithm.AES256)
    case = Case("yubikey-5.4", "9a=p256", {0x9A: (P256, True)}, secrets)
    card, journal = case.card(), MemoryJournal()
    assert SetManagementKey(ManagementAlgorithm.AES256) in case.run(card, journal).done
    assert case.faults_of(card, journal) == []
    assert {len(value) for value in values_of(journal, Kind.MANAGEMENT_KEY)} == {32}


@pytest.mark.parametrize("keys", ["9a=ed25519,9c=p384,9d=rsa2048,9e=p256", "82=p256,95=p384:import,9d=ed25519"])
def test_every_kind_of_key_that_signs(keys: str) -> None:
    case = Case("yubikey-5.7", keys, {})
    policy = case.policy
    wanted = {int(row.slot): (int(row.algorithm), row.source.value == "generate") for row in policy.slots}
    case = replace(case, expected=wanted)
    card, journal = case.card(), MemoryJournal()
    case.run(card, journal)
    assert case.faults_of(card, journal) == []


def test_more_keys_later_change_nothing_else() -> None:
    first = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)})
    card, journal = first.card(), MemoryJournal()
    first.run(card, journal)
    kept = run(observe(), executor(card)).certificate(Slot.AUTHENTICATION)
    second = Case("yubikey-5.7", "9a=p256,9e=p256", {0x9A: (P256, True), 0x9E: (P256, True)})
    report = second.run(card, journal)
    assert [step.kind for step in report.done] == ["generate-key", "write-certificate"]
    assert second.faults_of(card, journal) == []
    assert run(observe(), executor(card)).certificate(Slot.AUTHENTICATION) == kept


def test_certificates_that_end_are_renewed_with_new_keys_where_that_is_allowed() -> None:
    case = Case("yubikey-5.7", "9a=p256", {0x9A: (P256, True)})
    card, journal = case.card(), MemoryJournal()
    case.run(card, journal)
    old = run(observe(), executor(card)).key(Slot.AUTHENTICATION)
    policy = DevicePolicy(slots=parse_keys("9a=p256"), replace=True, renew_before=NOW.replace(year=2036) - NOW)
    report = initialize(executor(card), policy, Secrets(), journal, now=NOW)
    assert [step.kind for step in report.done] == ["generate-key", "write-certificate"]
    new = run(observe(), executor(card)).key(Slot.AUTHENTICATION)
    assert old is not None and new is not None and new.fingerprint != old.fingerprint
    assert case.faults_of(card, journal) == []


def test_a_damaged_chuid_is_written_again() -> None:
    case = CASES["yubikey-5.7"]
    card, journal = case.card(), MemoryJournal()
    case.run(card, journal)
    state = card._core.state
    state.objects[containers.CHUID.tag] = state.objects[containers.CHUID.tag][:-4] + b"\x3e\x01\xfe\x00"
    report = case.run(card, journal)
    assert [step.kind for step in report.done] == ["write-object"]
    assert case.faults_of(card, journal) == []
