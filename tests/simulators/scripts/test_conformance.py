"""The card-edge conformance suite on every kind of virtual card: what has to pass passes, the rest is listed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cardwright_simulators.card import PROFILES
from cardwright_simulators.scripts import deviations
from tests.support.conformance import CONTENTS, SCRIPTS, features, run, stage

BY_THE_STANDARD = ("sp800-73-5", "secure-messaging", "secure-messaging-cs7")
APPLICABLE = {
    "sp800-73-5": 124,
    "secure-messaging": 144,
    "secure-messaging-cs7": 145,
    "globalplatform": 124,
    "yubikey-5.7": 124,
    "yubikey-5.4": 124,
    "tdes-only": 124,
    "t0-short": 123,
    "pivapplet": 121,
}
"""How many of the 147 scripts each kind of card has what they need for."""


def expected(profile: str, script: str) -> str:
    if not features(PROFILES[profile]).issuperset(SCRIPTS[script].needs):
        return "not applicable"
    listed = deviations().get(profile, {}).get(script)
    return listed.found if listed else "passed"


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("profile", PROFILES)
def test_script(profile: str, script: str) -> None:
    result = run(script, stage(profile, SCRIPTS[script].card))
    assert result.outcome == expected(profile, script)


@pytest.mark.parametrize("profile", PROFILES)
def test_how_many_apply(profile: str) -> None:
    assert sum(expected(profile, script) != "not applicable" for script in SCRIPTS) == APPLICABLE[profile]


def test_every_script_passes_on_a_card_by_the_standard() -> None:
    assert not deviations().keys() & set(BY_THE_STANDARD)
    assert [
        script for script in SCRIPTS if all(expected(profile, script) != "passed" for profile in BY_THE_STANDARD)
    ] == []


def test_deviations_name_cards_and_scripts_that_there_are() -> None:
    rows = deviations()
    assert rows.keys() <= PROFILES.keys()
    for profile, listed in rows.items():
        assert listed.keys() <= SCRIPTS.keys()
        assert all(expected(profile, script) == row.found != "passed" for script, row in listed.items())


def test_scripts_are_for_contents_that_are_made_here() -> None:
    assert {script.card for script in SCRIPTS.values()} == CONTENTS.keys() | {"fresh"}


def test_suite_is_the_whole_list(shared_data: Path) -> None:
    listed = json.loads((shared_data / "card-edge-conformance.json").read_text())["tests"]
    assert [row["id"] for row in listed] == list(SCRIPTS)
