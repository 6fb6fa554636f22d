"""What FIPS 201-3 refuses, act by act and document by document, and that other policies are left alone."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from uuid import uuid4

import pytest

from cardwright_server.policies.compliance import (
    RULES,
    Act,
    ActKind,
    IdentityField,
    Place,
    publication,
    refusals,
    require,
)
from cardwright_server.policies.document import read, shipped
from cardwright_server.policies.errors import ComplianceRefused

PIV, CIV = read(shipped("piv")), read(shipped("civ"))
A, B, C = uuid4(), uuid4(), uuid4()
ISSUE = Act(ActKind.ISSUE, Place.STATION, (A, B, C), biometric=True, validity=timedelta(days=2191))
REISSUE = replace(ISSUE, kind=ActKind.REISSUE)
UPDATE = Act(ActKind.UPDATE, Place.REMOTE, sealed=True)
RESET = Act(ActKind.RESET_PIN, Place.REMOTE, operator=True, owner_confirmed=True, biometric=True, on_card=True)
END = Act(ActKind.TERMINATE, disposition="certificates-revoked", revoked_within=timedelta(hours=18))

ALLOWED = [
    ISSUE,
    REISSUE,
    UPDATE,
    RESET,
    END,
    replace(ISSUE, biometric=False, documents=2),
    replace(ISSUE, biometric=False, documents=3),
    replace(ISSUE, place=Place.SUPERVISED),
    replace(ISSUE, parts=(A, B)),
    replace(ISSUE, validity=timedelta(days=2192)),
    replace(UPDATE, place=Place.STATION, sealed=False),
    replace(UPDATE, place=Place.KIOSK, sealed=False),
    Act(ActKind.RESET_PIN, Place.STATION, documents=1),
    Act(ActKind.RESET_PIN, Place.STATION, documents=2),
    Act(ActKind.RESET_PIN, Place.STATION, biometric=True),
    Act(ActKind.RESET_PIN, Place.SUPERVISED, biometric=True),
    Act(ActKind.RESET_PIN, Place.KIOSK, biometric=True, card_authenticated=True),
]
REFUSED = [
    (replace(ISSUE, parts=(A,)), {"ONE_PERSON_ALONE"}),
    (replace(ISSUE, parts=(A, B, A)), {"ONE_PERSON_ALONE"}),
    (replace(ISSUE, place=Place.REMOTE), {"NOT_IN_PERSON"}),
    (replace(ISSUE, place=Place.KIOSK), {"NOT_IN_PERSON"}),
    (replace(ISSUE, biometric=False, documents=1), {"IDENTITY_NOT_CHECKED"}),
    (replace(ISSUE, validity=timedelta(days=2192, seconds=1)), {"VALID_TOO_LONG"}),
    (replace(REISSUE, new_numbers=False), {"NUMBERS_KEPT"}),
    (replace(REISSUE, new_signature_key=False), {"SIGNATURE_KEY_KEPT"}),
    (replace(REISSUE, revoked_within=timedelta(hours=19)), {"REVOKED_TOO_LATE"}),
    (replace(END, revoked_within=timedelta(hours=18, seconds=1)), {"REVOKED_TOO_LATE"}),
    (replace(END, disposition=""), {"DISPOSITION_MISSING"}),
    (Act(ActKind.UPDATE), {"NOT_SEALED"}),
    *((replace(UPDATE, changes=frozenset({one})), {"IDENTITY_CHANGED"}) for one in IdentityField),
    (Act(ActKind.RESET_PIN), {"PIN_RESET_NOT_BOUND"}),
    (replace(RESET, operator=False), {"PIN_RESET_NOT_BOUND"}),
    (replace(RESET, owner_confirmed=False), {"PIN_RESET_NOT_BOUND"}),
    (Act(ActKind.RESET_PIN, operator=True, biometric=True, on_card=True), {"PIN_RESET_NOT_BOUND"}),
    (replace(RESET, on_card=False), {"PIN_RESET_NOT_BOUND"}),
    (replace(RESET, biometric=False), {"PIN_RESET_NOT_BOUND"}),
    (Act(ActKind.RESET_PIN, Place.STATION), {"PIN_RESET_NOT_BOUND"}),
    (Act(ActKind.RESET_PIN, Place.SUPERVISED, documents=2), {"PIN_RESET_NOT_BOUND"}),
    (Act(ActKind.RESET_PIN, Place.KIOSK, biometric=True), {"PIN_RESET_NOT_BOUND"}),
    (Act(ActKind.RESET_PIN, Place.KIOSK, card_authenticated=True), {"PIN_RESET_NOT_BOUND"}),
    (
        Act(ActKind.ISSUE, Place.REMOTE, (A, A), validity=timedelta(days=4000)),
        {"ONE_PERSON_ALONE", "NOT_IN_PERSON", "IDENTITY_NOT_CHECKED", "VALID_TOO_LONG"},
    ),
]


@pytest.mark.parametrize("act", ALLOWED)
def test_what_the_standard_allows(act: Act) -> None:
    assert refusals(PIV, act) == ()
    require(PIV, act)


@pytest.mark.parametrize(("act", "codes"), REFUSED)
def test_what_the_standard_refuses(act: Act, codes: set[str]) -> None:
    assert {one.code for one in refusals(PIV, act)} == codes
    with pytest.raises(ComplianceRefused, match="FIPS 201-3 section") as refused:
        require(PIV, act)
    assert set(refused.value.reasons) == codes
    assert refusals(CIV, act) == ()


@pytest.mark.parametrize("left_out", ["operator", "owner_confirmed", "biometric", "on_card"])
def test_what_nobody_says_of_an_act_is_not_so(left_out: str) -> None:
    said = {"operator": True, "owner_confirmed": True, "biometric": True, "on_card": True}
    del said[left_out]
    (found,) = refusals(PIV, Act(ActKind.RESET_PIN, Place.REMOTE, **said))  # type: ignore[arg-type]
    assert found.code == "PIN_RESET_NOT_BOUND"
    assert {one.code for one in refusals(PIV, Act(ActKind.ISSUE))} == {
        "ONE_PERSON_ALONE", "NOT_IN_PERSON", "IDENTITY_NOT_CHECKED",
    }  # fmt: skip
    assert [one.code for one in refusals(PIV, Act(ActKind.RESET_PIN, Place.KIOSK, biometric=True))] == [found.code]
    assert [one.code for one in refusals(PIV, Act(ActKind.TERMINATE))] == ["DISPOSITION_MISSING"]
    assert refusals(PIV, replace(ISSUE, kind=ActKind.REISSUE)) == ()


def test_every_rule_is_held_by_an_example() -> None:
    assert {rule.refusal.code for rule in RULES} == set().union(*(codes for _, codes in REFUSED))


SLOT_9A = '[[slots]]\nslot = "9a"\nalgorithm = "rsa2048"\nprofile = "piv-authentication"\nleast_origin = "sealed"\n'


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ('device_kinds = ["smart-card"]', 'device_kinds = ["usb-key"]', "NO_CARD"),
        (SLOT_9A, "", "KEY_MISSING"),
        (
            'algorithm = "rsa2048"\nprofile = "signature"',
            'algorithm = "ed25519"\nprofile = "signature"',
            "ALGORITHM_NOT_APPROVED",
        ),
        ('profile = "signature"', 'profile = "signature"\npin_policy = "once"', "SIGNATURE_WITHOUT_PIN"),
        ('profile = "signature"', 'profile = "signature"\npin_policy = "match_always"', "SIGNATURE_WITHOUT_PIN"),
        ('profile = "piv-authentication"', 'profile = "piv-authentication"\npin_policy = "never"', "KEY_WITHOUT_PIN"),
        (', "fingerprints"', "", "OBJECT_MISSING"),
        ("min_length = 6", "min_length = 5", "PIN_TOO_WEAK"),
        ("min_length = 6", "digits_only = false", "PIN_TOO_WEAK"),
        ("min_length = 6", "refuse_common = false", "PIN_EASILY_GUESSED"),
        ("min_length = 6", "refuse_trivial = false", "PIN_EASILY_GUESSED"),
        ("retries = 10\n\n[puk]", "retries = 11\n\n[puk]", "PIN_TRIES"),
        ('algorithm = "aes256"', 'algorithm = "tdes"', "ADMINISTRATION_KEY"),
        ('clear_secrets = "never"', 'clear_secrets = "trusted_station"', "CLEAR_SECRETS"),
        ('clear_secrets = "never"', 'clear_secrets = "any"', "CLEAR_SECRETS"),
        ("validity_days = 2191", "validity_days = 2193", "VALID_TOO_LONG"),
        ("self_bind = false", "self_bind = true", "SELF_BOUND"),
        ('unlock = ["operator"]', 'unlock = ["operator", "assisted"]', "UNLOCK_BY_KNOWLEDGE"),
        ("retries = 10\n\n[puk]\nretries = 10\n", "\n[puk]\nown = false\n", "PUK_NOT_OWN"),
    ],
)
def test_documents_that_may_not_claim_compliance(old: str, new: str, code: str) -> None:
    text = shipped("piv")
    assert text.count(old) >= 1
    changed = text.replace(old, new, 1)
    if code == "PUK_NOT_OWN":
        changed = changed.replace('unlock = ["operator"]\n', "")
    assert code in {one.code for one in publication(read(changed))}
    civil = changed.replace('compliance = "piv"', 'compliance = "civ"')
    assert publication(read(civil)) == ()


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('unlock = ["operator"]', "unlock = []"),
        ("min_length = 6", "min_length = 7"),
        ("retries = 10\n\n[puk]", "retries = 9\n\n[puk]"),
        ("validity_days = 2191", "validity_days = 2192"),
        ("validity_days = 2191", "validity_days = 2190"),
        ('algorithm = "aes256"', 'algorithm = "aes128"'),
        ('device_kinds = ["smart-card"]', 'device_kinds = ["virtual-card"]'),
        ('device_kinds = ["smart-card"]', 'device_kinds = ["smart-card", "virtual-card"]'),
    ],
)
def test_documents_that_are_stricter_or_as_strict_may(old: str, new: str) -> None:
    text = shipped("piv")
    assert text.count(old) >= 1
    assert publication(read(text.replace(old, new, 1))) == ()


@pytest.mark.parametrize("name", ["piv", "piv-i"])
def test_shipped_policies_that_claim_it_may(name: str) -> None:
    assert publication(read(shipped(name))) == ()
