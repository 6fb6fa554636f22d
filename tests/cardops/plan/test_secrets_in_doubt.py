"""Secrets that earlier sessions left in doubt: which values are tried, when it stops, what the journal then knows."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from cardwright_cardops.iso7816.status import VerificationFailed
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKeyRefused
from cardwright_cardops.plan.acts import Pace
from cardwright_cardops.plan.conduct import conduct
from cardwright_cardops.plan.execute import Report
from cardwright_cardops.plan.init import Secrets, initialize, personalize
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import DEFAULT, Candidates, Entry, Kind, MemoryJournal, fold
from cardwright_cardops.secret import Secret
from cardwright_simulators.card import ManagementAuthentication, Verify, VirtualCard, Write
from tests.support.card_init import LEFT_ALONE, NOW, PIN, POOL, executor

PUKS = {"1": b"11111111", "2": b"22222222", "3": b"33333333"}
KEYS = {"1": b"\x11" * 24, "2": b"\x22" * 24}
TDES, AES192 = 0x03, 0x0A
ONLY_SECRETS = DevicePolicy(secrets=SecretsPolicy(management_key=False), objects=())


def recorded(*names: str) -> list[Entry]:
    return [Entry(Kind.PUK, name, value=Secret(PUKS[name])) for name in names]


@dataclass
class Interrupted:
    """A card of a session that ended somewhere, with what its journal holds."""

    puk: bytes | None = None
    entries: list[Entry] = field(default_factory=list)
    tries: tuple[int, int] = (3, 3)
    profile: str = "yubikey-5.7"

    def __post_init__(self) -> None:
        self.card = VirtualCard(self.profile, serial=12345678, key_pool=POOL)
        self.state = self.card._core.state.references[0x81]
        if self.puk is not None:
            self.state.value, self.state.default = self.puk, False
        self.state.tries, self.state.maximum = self.tries
        self.journal = MemoryJournal(self.entries)

    def run(self, new: bytes, policy: DevicePolicy = ONLY_SECRETS) -> Report:
        return initialize(executor(self.card), policy, Secrets(new_puk=Secret(new)), self.journal, now=NOW)

    @property
    def attempts(self) -> list[bool]:
        """Each comparison of a PUK, right or wrong."""
        return [one.ok for one in self.card.log if isinstance(one, Verify) and one.reference == 0x81]


def test_older_puks_are_tried_after_newer_ones() -> None:
    at = Interrupted(PUKS["1"], recorded("1", "2"))
    report = at.run(PUKS["2"])
    assert [step.kind for step in report.done] == ["set-puk", "set-pin"]
    assert at.attempts == [False, True, True]
    assert (at.state.value, at.state.tries) == (PUKS["2"], 3)
    assert at.card._core.state.references[0x80].value == PIN + b"\xff\xff"
    assert fold(at.journal.entries()).puk == Candidates(("2",), True)


def test_the_newest_puk_is_tried_first() -> None:
    at = Interrupted(PUKS["2"], recorded("1", "2"))
    at.run(PUKS["2"])
    assert at.attempts == [True, True]
    assert at.state.value == PUKS["2"]


def test_candidates_stop_with_one_try_left() -> None:
    at = Interrupted(b"somebody", recorded("1", "2", "3"))
    with pytest.raises(VerificationFailed) as caught:
        at.run(PUKS["3"])
    assert (caught.value.tries_left, at.attempts, at.state.tries) == (1, [False, False], 1)


@pytest.mark.parametrize(("tries", "left"), [((9, 9), 7), ((4, 4), 2)])
def test_when_no_candidate_is_right_the_last_answer_is_told(tries: tuple[int, int], left: int) -> None:
    at = Interrupted(b"somebody", recorded("1", "2"), tries)
    with pytest.raises(VerificationFailed) as caught:
        at.run(PUKS["2"])
    assert (caught.value.tries_left, at.attempts) == (left, [False, False])


def test_a_card_that_does_not_count_gets_one_attempt() -> None:
    at = Interrupted(PUKS["1"], recorded("1", "2"), (0, 0), "tdes-only")
    with pytest.raises(VerificationFailed) as caught:
        at.run(PUKS["2"])
    assert (caught.value.tries_left, at.attempts) == (None, [False])


def test_the_pin_alone_finds_its_puk_among_the_candidates() -> None:
    pin_only = DevicePolicy(secrets=SecretsPolicy(puk=False, management_key=False), objects=())
    at = Interrupted(PUKS["1"], recorded("1", "2"))
    report = at.run(PUKS["2"], pin_only)
    assert [step.kind for step in report.done] == ["set-pin"]
    assert at.attempts == [False, True]
    assert (at.state.value, at.card._core.state.references[0x80].default) == (PUKS["1"], False)


# -------------------------------------------------------------------------------------------------- management key


def management(*names: str) -> list[Entry]:
    return [Entry(Kind.MANAGEMENT_KEY, name, algorithm=TDES, value=Secret(KEYS[name])) for name in names]


def untold(value: bytes, *entries: Entry) -> Interrupted:
    """A card that does not say whether its management key is the factory's."""
    at = Interrupted(entries=list(entries), profile="tdes-only")
    at.card._core.state.management.value = value
    return at


def authentications(at: Interrupted) -> list[bool]:
    return [one.ok for one in at.card.log if isinstance(one, ManagementAuthentication)]


def kept(at: Interrupted, start: int = 0) -> list[tuple[Kind, str]]:
    kinds = (Kind.MANAGEMENT_KEY, Kind.MANAGEMENT_KEY_SET, Kind.MANAGEMENT_KEY_REFUSED)
    return [(one.kind, one.reference) for one in at.journal.entries()[start:] if one.kind in kinds]


KEY_9A = DevicePolicy(slots=parse_keys("9a=p256"), secrets=SecretsPolicy())
KEY_ALONE = DevicePolicy(slots=parse_keys("9a=p256"), secrets=LEFT_ALONE)


def test_the_factory_key_is_recorded_before_and_after_it_works() -> None:
    at = Interrupted()
    at.run(PUKS["1"], KEY_9A)
    assert kept(at) == [
        (Kind.MANAGEMENT_KEY, DEFAULT), (Kind.MANAGEMENT_KEY_SET, DEFAULT),
        (Kind.MANAGEMENT_KEY, "1"), (Kind.MANAGEMENT_KEY_SET, "1"),
    ]  # fmt: skip


def test_the_factory_key_that_stays_is_not_said_to_be_set() -> None:
    at = Interrupted()
    at.run(PUKS["1"], KEY_ALONE)
    assert kept(at) == [(Kind.MANAGEMENT_KEY, DEFAULT)]


def test_a_recorded_key_that_works_is_known_to_be_set() -> None:
    at = Interrupted(entries=management("1"))
    at.card._core.state.management.value, at.card._core.state.management.default = KEYS["1"], False
    at.card._core.state.management.algorithm = TDES
    report = at.run(PUKS["1"], KEY_9A)
    assert "set-management-key" not in [step.kind for step in report.done]
    assert kept(at, 1) == [(Kind.MANAGEMENT_KEY_SET, "1")]
    assert authentications(at) == [True]


def test_a_refused_key_is_recorded_and_the_older_one_tried() -> None:
    at = untold(KEYS["1"], *management("1", "2"))
    at.run(PUKS["1"], KEY_9A)
    assert authentications(at) == [False, True]
    assert kept(at, 2)[:2] == [(Kind.MANAGEMENT_KEY_REFUSED, "2"), (Kind.MANAGEMENT_KEY_SET, "1")]
    assert fold(at.journal.entries()).management_key.settled


def test_when_every_key_is_refused_nothing_is_changed() -> None:
    at = untold(b"\x77" * 24, *management("1", "2"))
    before = at.card.state_hash()
    with pytest.raises(ManagementKeyRefused, match="accepted no management key that it may have"):
        at.run(PUKS["1"], KEY_9A)
    assert authentications(at) == [False] * 3, "both, and the factory key, as the card was never issued"
    assert at.card.state_hash() == before


def test_a_change_that_turns_out_to_be_done_is_not_made_again() -> None:
    at = untold(KEYS["1"], *management("1"))
    report = at.run(PUKS["1"], KEY_9A)
    assert "set-management-key" in [step.kind for step in report.done]
    assert [one for one in at.card.log if isinstance(one, Write) and one.kind == "management key"] == []
    assert at.card._core.state.management.value == KEYS["1"]
    assert kept(at, 1) == [(Kind.MANAGEMENT_KEY_SET, "1")]


def test_a_key_that_answers_no_witness_is_refused_by_its_name() -> None:
    """The same where the witness came with the observation, and nothing but the answer to it is sent."""
    at = Interrupted()
    at.card._core.state.management.value, at.card._core.state.management.default = b"\x77" * 24, False
    algorithm = ManagementAlgorithm(at.card._core.state.management.algorithm)
    before = at.card.state_hash()
    authority = LocalAuthority(journal=at.journal, new_puk=Secret(PUKS["1"]), management_key=Secret(KEYS["1"]), now=NOW)
    execution = personalize(
        KEY_9A, now=NOW, management_key_given=True, pace=Pace.PHASE, management_algorithm=algorithm
    )
    with pytest.raises(ManagementKeyRefused, match="did not accept the management key that it should have"):
        conduct(execution, executor(at.card), authority, at.journal)
    assert authentications(at) == [False]
    assert at.card.state_hash() == before


def test_a_key_of_24_octets_is_tried_for_both_algorithms_that_it_fits() -> None:
    at = untold(KEYS["1"])
    at.card._core.state.management.algorithm = ManagementAlgorithm.AES192
    secrets = Secrets(new_puk=Secret(PUKS["1"]), management_key=Secret(KEYS["1"]))
    report = initialize(executor(at.card), KEY_ALONE, secrets, at.journal, now=NOW)
    assert report.done and authentications(at) == [True]
