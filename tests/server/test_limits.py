"""Token buckets, admission and jitter."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cardwright_server.limits import (
    Admission,
    Buckets,
    LimitExceeded,
    Limits,
    Rate,
    Scope,
    ServerBusy,
    backoff,
    jittered,
)


@dataclass
class Time:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def passes(buckets: Buckets, key: object, tries: int = 100) -> int:
    count = 0
    for _ in range(tries):
        try:
            buckets.take(key)
        except LimitExceeded:
            break
        count += 1
    return count


def test_a_burst_then_the_rate() -> None:
    clock = Time()
    buckets = Buckets(Scope.WORKSTATION, Rate(5, 2), clock=clock)
    assert passes(buckets, "a") == 5
    with pytest.raises(LimitExceeded, match="workstation") as refused:
        buckets.take("a")
    assert refused.value.retry_after == pytest.approx(0.5)
    clock.now += 0.49
    assert passes(buckets, "a") == 0
    clock.now += 0.01
    assert passes(buckets, "a") == 1
    clock.now += 3600
    assert passes(buckets, "a") == 5


def test_sources_do_not_share() -> None:
    buckets = Buckets(Scope.ADDRESS, Rate(3, 1), clock=Time())
    assert passes(buckets, "a") == 3
    assert passes(buckets, "b") == 3


def test_a_clock_that_goes_back_gives_nothing() -> None:
    clock = Time()
    buckets = Buckets(Scope.PERSON, Rate(2, 1), clock=clock)
    assert passes(buckets, "a") == 2
    clock.now -= 500
    assert passes(buckets, "a") == 0


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 4)), max_size=60))
def test_never_more_than_burst_and_rate(steps: list[tuple[float, int]]) -> None:
    """In every window from the start, what passed is at most the burst and what was refilled."""
    clock = Time()
    rate = Rate(4, 1.5)
    buckets = Buckets(Scope.OPERATOR, rate, clock=clock)
    start, passed = clock.now, 0
    for pause, cost in steps:
        clock.now += pause
        try:
            buckets.take("a", cost)
            passed += cost
        except LimitExceeded as refused:
            assert refused.retry_after > 0
            clock.now += refused.retry_after
            buckets.take("a", cost)  # what was said holds
            passed += cost
        assert passed <= rate.burst + (clock.now - start) * rate.per_second + 1e-6


def test_memory_is_bounded_and_flooding_gives_no_fresh_bucket() -> None:
    clock = Time()
    buckets = Buckets(Scope.ADDRESS, Rate(2, 1), size=50, clock=clock)
    assert passes(buckets, "attacker") == 2
    for number in range(49):
        buckets.take(number)
    assert len(buckets) == 50
    with pytest.raises(LimitExceeded):
        buckets.take("newcomer")
    with pytest.raises(LimitExceeded):
        buckets.take("attacker")
    clock.now += 2
    buckets.take("newcomer")
    assert len(buckets) <= 50
    for number in range(1000, 2000):
        clock.now += 1
        buckets.take(number)
        assert len(buckets) <= 50


def test_more_than_a_burst_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="more than a burst"):
        Buckets(Scope.ADDRESS, Rate(2, 1)).take("a", 3)


@pytest.mark.parametrize(("burst", "per_second"), [(0, 1), (1, 0), (-1, 1), (float("nan"), 1), (1, float("nan"))])
def test_rates_that_let_nothing_through_are_refused(burst: float, per_second: float) -> None:
    with pytest.raises(ValueError, match="a rate needs"):
        Rate(burst, per_second)


def test_limits_take_from_all_or_none() -> None:
    clock = Time()
    rates = {Scope.PERSON: Rate(2, 0.1), Scope.ADDRESS: Rate(5, 1)}
    limits = Limits(rates, clock=clock)
    keys = {Scope.PERSON: "ada", Scope.ADDRESS: "10.0.0.1", Scope.OPERATOR: "nobody limits operators"}
    limits.take(keys)
    limits.take(keys)
    for _ in range(20):
        with pytest.raises(LimitExceeded, match="person") as refused:
            limits.take(keys)
        assert refused.value.retry_after == pytest.approx(10)
    # The person's refusals took nothing from the address: three others get in from there.
    for number in range(3):
        limits.take({Scope.PERSON: number, Scope.ADDRESS: "10.0.0.1"})
    with pytest.raises(LimitExceeded, match="address"):
        limits.take({Scope.PERSON: "another", Scope.ADDRESS: "10.0.0.1"})


def test_admission() -> None:
    admission = Admission("card sessions", 2, retry_after=4)
    with admission, admission:
        with pytest.raises(ServerBusy, match="card sessions") as refused, admission:
            pytest.fail("there was no place")
        assert 2 <= refused.value.retry_after <= 6
        assert admission.taken == 2
    with pytest.raises(LookupError), admission:
        raise LookupError
    assert admission.taken == 0


def test_jitter_spreads_within_its_bounds() -> None:
    values = [jittered(10) for _ in range(500)]
    assert min(values) >= 5
    assert max(values) <= 15
    assert max(values) - min(values) > 5


def test_backoff_doubles_up_to_the_longest() -> None:
    for attempt in range(1, 200):
        assert 0.75 * min(60, 2.0 ** (attempt - 1)) <= backoff(attempt, first=1, longest=60)
        assert backoff(attempt, first=1, longest=60) <= 1.25 * min(60, 2.0 ** (attempt - 1))
