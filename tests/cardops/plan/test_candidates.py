"""Which values are tried, in which order, and when nothing is tried at all."""

from __future__ import annotations

import pytest

from cardwright_cardops.piv import containers
from cardwright_cardops.plan.candidates import (
    GIVEN,
    ManagementKeyUnknown,
    PukBlocked,
    PukUnknown,
    management_candidates,
    management_key_is_due,
    puk_candidates,
    secret_is_due,
)
from cardwright_cardops.plan.capabilities import YUBICO
from cardwright_cardops.plan.inventory import Inventory, ObjectState, Presence, SecretState
from cardwright_cardops.plan.records import DEFAULT, Candidates

NONE = Candidates()
IN_FLIGHT = Candidates(("2", "1"))
REPLACING = Candidates(("1", DEFAULT))
SETTLED = Candidates(("1",), True)


def card(default: bool | None, *, bound: bool, left: int | None = None) -> Inventory:
    chuid = ObjectState(containers.CHUID.tag, Presence.PRESENT if bound else Presence.ABSENT)
    state = SecretState(default, 3 if left is not None else None, left)
    return Inventory(objects=(chuid,), puk=state, management_key=SecretState(default))


@pytest.mark.parametrize(
    ("default", "bound", "recorded", "given", "wanted"),
    [
        (True, False, NONE, False, (DEFAULT,)),
        (True, True, NONE, True, (DEFAULT,)),
        (True, True, IN_FLIGHT, False, (DEFAULT,)),
        (False, True, NONE, True, (GIVEN,)),
        (False, True, NONE, False, ()),
        (False, False, NONE, False, ()),
        (False, True, REPLACING, False, ("1",)),
        (False, True, IN_FLIGHT, True, (GIVEN, "2", "1")),
        (None, False, NONE, False, (DEFAULT,)),
        (None, False, NONE, True, (GIVEN,)),
        (None, True, NONE, False, ()),
        (None, True, REPLACING, False, ("1", DEFAULT)),
        (None, False, Candidates((DEFAULT,), refused=frozenset((DEFAULT,))), False, ()),
        (True, False, Candidates((DEFAULT,), refused=frozenset((DEFAULT,))), False, (DEFAULT,)),
        (None, False, Candidates(("1", DEFAULT), refused=frozenset(("1",))), False, (DEFAULT, "1")),
        (None, True, Candidates(("2", GIVEN)), False, ("2",)),
        (None, True, Candidates(("2", GIVEN)), True, ("2", GIVEN)),
        (None, True, Candidates(tuple("54321")), False, ("5", "4", "3")),
    ],
)
def test_management_keys(
    default: bool | None, bound: bool, recorded: Candidates, given: bool, wanted: tuple[str, ...]
) -> None:
    inventory = card(default, bound=bound)
    if wanted:
        assert management_candidates(inventory, recorded, YUBICO, given=given) == wanted
    else:
        with pytest.raises(ManagementKeyUnknown):
            management_candidates(inventory, recorded, YUBICO, given=given)


@pytest.mark.parametrize(
    ("default", "bound", "recorded", "given", "wanted"),
    [
        (True, False, NONE, False, (DEFAULT,)),
        (True, True, SETTLED, False, (DEFAULT,)),
        (False, True, NONE, False, ("new",)),
        (False, True, NONE, True, (GIVEN,)),
        (False, True, REPLACING, False, ("1",)),
        (False, True, IN_FLIGHT, False, ("2", "1")),
        (None, False, NONE, False, (DEFAULT,)),
        (None, False, REPLACING, False, ("1", DEFAULT)),
        (None, True, REPLACING, False, ("1", DEFAULT)),
        (None, True, NONE, True, (GIVEN,)),
        (None, True, NONE, False, ()),
        (None, False, NONE, True, (GIVEN,)),
    ],
)
def test_puks(default: bool | None, bound: bool, recorded: Candidates, given: bool, wanted: tuple[str, ...]) -> None:
    inventory = card(default, bound=bound, left=3)
    if wanted:
        assert puk_candidates(inventory, recorded, given=given, target="new") == wanted
    else:
        with pytest.raises(PukUnknown):
            puk_candidates(inventory, recorded, given=given, target="new")


def test_a_blocked_puk_has_no_candidates() -> None:
    with pytest.raises(PukBlocked):
        puk_candidates(card(True, bound=False, left=0), NONE, given=True, target="new")


@pytest.mark.parametrize(
    ("default", "bound", "in_flight", "settled", "only_default_before", "due"),
    [
        (True, True, False, True, True, True),
        (False, False, False, False, True, False),
        (False, True, True, False, True, False),
        (False, True, True, False, False, True),
        (None, False, False, False, True, True),
        (None, True, False, False, True, False),
        (None, False, False, True, True, False),
        (None, True, True, False, True, True),
    ],
)
def test_when_a_secret_has_still_to_be_changed(
    default: bool | None, bound: bool, in_flight: bool, settled: bool, only_default_before: bool, due: bool
) -> None:
    assert secret_is_due(SecretState(default), bound, in_flight, settled, only_default_before) is due


@pytest.mark.parametrize(
    ("default", "bound", "recorded", "due"),
    [
        (True, True, SETTLED, True),
        (False, True, NONE, False),
        (False, True, REPLACING, False),
        (False, True, IN_FLIGHT, True),
        (False, True, Candidates(("1", GIVEN)), True),
        (False, True, SETTLED, False),
        (None, False, NONE, True),
        (None, True, NONE, False),
        (None, True, Candidates((DEFAULT,), True), True),
        (None, True, Candidates((GIVEN,), True), True),
        (None, True, REPLACING, True),
        (None, True, SETTLED, False),
    ],
)
def test_when_the_management_key_has_still_to_be_changed(
    default: bool | None, bound: bool, recorded: Candidates, due: bool
) -> None:
    assert bool(management_key_is_due(SecretState(default), bound, recorded)) is due
