"""Card scripts on cards that pcscd reaches: the same data, another Connection."""

from __future__ import annotations

import pytest

from cardwright_cardops.transport.connection import Connection, Interface
from cardwright_cardops.transport.pcsc import connect
from cardwright_simulators.scripts import Connect, Result, deviations, run_script
from tests.support.conformance import SCRIPTS, Stage, features, secrets, stage
from tests.support.pcscd import Pcscd
from tests.support.piv_card import AT

pytestmark = [pytest.mark.pcscd]


def run_through(pcscd: Pcscd, place: Stage, script: str, reach: Connect | None = None) -> Result:
    """Put the card into a reader, or have ``reach`` do it, and run the script there."""
    interface = Interface(SCRIPTS[script].interface)
    if reach is None:
        place.connect(interface)
        connection: Connection = connect(pcscd.insert(place.card))
    else:
        connection = reach(interface)
    return run_script(
        SCRIPTS[script], connection, secrets(place.profile), connect=reach, features=features(place.profile),
        may_change=True, at=AT,
    )  # fmt: skip


@pytest.mark.parametrize("script", ["CE-026", "CE-035", "CE-063", "CE-085", "CE-109", "CE-112", "CE-124", "CE-136"])
def test_card_by_the_standard(pcscd: Pcscd, script: str) -> None:
    assert run_through(pcscd, stage("secure-messaging", SCRIPTS[script].card), script).outcome == "passed"


@pytest.mark.parametrize("script", ["CE-001", "CE-026", "CE-072", "CE-085", "CE-090"])
def test_card_without_case_4(pcscd: Pcscd, script: str) -> None:
    """T=0: data comes by GET RESPONSE only; deviations are the same as without PC/SC."""
    listed = deviations()["t0-short"].get(script)
    outcome = run_through(pcscd, stage("t0-short", SCRIPTS[script].card), script).outcome
    assert outcome == (listed.found if listed else "passed")


def test_both_interfaces(pcscd: Pcscd) -> None:
    """The card is taken out of one reader and put into another, as a person would do it."""
    place = stage("secure-messaging", SCRIPTS["CE-053"].card)

    def reach(interface: Interface) -> Connection:
        pcscd.clear()
        place.connect(interface)
        return connect(pcscd.insert(place.card))

    assert run_through(pcscd, place, "CE-053", reach).outcome == "passed"
