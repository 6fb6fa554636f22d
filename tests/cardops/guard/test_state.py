"""What the guard knows: what holds in both of two cases, what ends with a transaction, what comes next."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType

from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.permit import Entry, Identity, Permit
from cardwright_cardops.guard.state import UNREAD, Application, Facts, State

ONE, TWO = b"1" * 32, b"2" * 32


def facts(**keys: bytes) -> Facts:
    return Facts((), keys=MappingProxyType({int(slot[1:], 16): key for slot, key in keys.items()}))


def state(*entries: Entry) -> State:
    permit = Permit(bytes(32), entries, MappingProxyType({0x9A: ONE}), frozenset())
    return State.begin(permit, Identity(None, None, None), frozenset())


def test_a_key_holds_where_both_cases_have_it() -> None:
    met = facts(x9A=ONE, x9C=ONE, x9D=ONE).meet(facts(x9A=ONE, x9C=TWO, x9E=TWO))
    assert met.keys == {0x9A: ONE, 0x9C: UNREAD, 0x9D: UNREAD, 0x9E: UNREAD}
    assert facts(x9A=UNREAD).meet(facts(x9A=UNREAD)).keys == {0x9A: UNREAD}
    assert facts().meet(facts()).keys == {}


def test_of_all_else_only_what_both_cases_have() -> None:
    first = Facts((2, 0, 1), Application.PIV, frozenset((1, 2)), frozenset((3, 4)), factory=frozenset((5, 6)))
    second = Facts((1, 3, 1), Application.PIV, frozenset((2, 9)), frozenset((4, 9)), factory=frozenset((6, 9)))
    assert first.meet(second) == second.meet(first) == Facts(
        (1, 0, 1), Application.PIV, frozenset((2,)), frozenset((4,)), factory=frozenset((6,))
    )
    assert first.meet(replace(second, application=Application.DOMAIN)).application is Application.UNKNOWN


def test_a_key_comes_and_goes() -> None:
    before = facts(x9A=ONE, x9C=ONE)
    assert before.with_key(0x9A, TWO).keys == {0x9A: TWO, 0x9C: ONE}
    assert before.with_key(0x9D, TWO).keys == {0x9A: ONE, 0x9C: ONE, 0x9D: TWO}
    assert before.with_key(0x9A, None).keys == {0x9C: ONE}
    assert before.with_key(0x9E, None).keys == before.keys
    assert before.keys == {0x9A: ONE, 0x9C: ONE}


def test_touched_are_new_changed_and_missing_keys() -> None:
    begun = state()
    assert begun.touched == frozenset()
    for keys, touched in (({0x9A: TWO}, {0x9A}), ({}, {0x9A}), ({0x9A: ONE, 0x9C: TWO}, {0x9C}), ({0x9A: ONE}, set())):
        seen = replace(begun, facts=replace(begun.facts, keys=MappingProxyType(keys)))
        assert seen.touched == touched


def test_another_transaction_proves_and_selects_anew() -> None:
    inside = replace(
        state(), stage="write", proven=True, pin=True, facts=Facts((), Application.PIV, made=frozenset((0x9A,)))
    )
    assert inside.enter("write") is inside
    for stage in ("other", ""):
        after = inside.enter(stage)
        assert (after.stage, after.proven, after.pin) == (stage, False, False)
        assert after.facts == Facts((), Application.UNKNOWN, made=frozenset((0x9A,)))
    without = replace(inside, stage="")
    assert without.enter("") is not without and not without.enter("").proven


def test_entries_are_spent_one_by_one() -> None:
    begun = state(*(Entry(o.Manage(0x0A), None, 9) for _ in range(3)))
    assert begun.used == begun.facts.done == (0, 0, 0)
    assert begun.spend(1).used == (0, 1, 0)
    assert begun.spend(0).spend(2, 5).spend(2).used == (1, 0, 6)


def test_the_next_rank_is_the_lowest_that_is_not_done() -> None:
    entries = (
        Entry(o.Manage(0x0A), None, 9), Entry(o.Manage(0x0A), 4, 1), Entry(o.Manage(0x0A), 2, 1),
        replace(Entry(o.Manage(0x0A), 1, 1), optional=True),
    )  # fmt: skip
    begun = state(*entries)
    for done, rank in (((0, 0, 0, 0), 2), ((0, 0, 1, 0), 4), ((0, 1, 0, 0), 2), ((0, 1, 1, 0), None)):
        assert replace(begun, facts=replace(begun.facts, done=done)).open_rank() == rank
