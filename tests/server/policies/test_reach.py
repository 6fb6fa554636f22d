"""Policies that no card could come to are refused when they are drafted and published, each reason with its path."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from cardwright_server.authentication.authorize import Authorize
from cardwright_server.people.model import Role
from cardwright_server.people.service import PeopleService
from cardwright_server.policies.document import SHIPPED, read, shipped
from cardwright_server.policies.errors import PolicyUnreachable
from cardwright_server.policies.model import VersionState
from cardwright_server.policies.reach import CertificateKind, unreachable
from cardwright_server.policies.service import PolicyService
from cardwright_server.store.ids import new_id
from cardwright_server.store.unit import Database
from tests.support.issuance import ON_SQLITE
from tests.support.lifecycles import KINDS
from tests.support.people import allow, authorizer, make_operator

DOCUMENTED = Path(__file__).parents[3] / "docs" / "server-devices.md"
NAMES = frozenset({"piv-authentication", "card-authentication", "signature", "key-management", "server"})
LOGIN = '[[slots]]\nslot = "9a"\nalgorithm = "p256"\nprofile = "piv-authentication"\n'
SIGNATURE = '[[slots]]\nslot = "9c"\nalgorithm = "p256"\nprofile = "signature"\n'
DECRYPTION = '[[slots]]\nslot = "9d"\nalgorithm = "rsa4096"\nprofile = "key-management"\nkey = "escrow"\n'
DOORS = '[[slots]]\nslot = "9e"\nalgorithm = "p256"\nprofile = "card-authentication"\n'
TOKENS = "device_kinds = ['pkcs11-token']\n"
SEALED = DECRYPTION.replace("rsa4096", "rsa3072") + 'least_origin = "sealed"\n'
OPEN = "[management_key]\nown = false\n[puk]\nown = false\n"
TRIES = "[pin]\nretries = {}\n[puk]\nretries = {}\n"


def findings(text: str) -> tuple[str, ...]:
    return unreachable(read(f'name = "own"\n{text}', NAMES), KINDS)


def test_the_documented_policy_can_be_reached() -> None:
    """Whoever copies it can publish it."""
    _, _, block = DOCUMENTED.read_text().partition("```toml\n")
    assert unreachable(read(block.partition("```")[0]), KINDS) == ()


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_policies_can_be_reached(name: str) -> None:
    assert unreachable(read(shipped(name)), KINDS) == ()


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("renew_before_days = 1095\n" + LOGIN, "$.renew_before_days: certificates of civ-authentication ($.slots[0])"),
        ("renew_before_days = 1400\n" + LOGIN, "$.renew_before_days: certificates of civ-authentication ($.slots[0])"),
        ("renew_before_days = 0\n" + LOGIN, "$.renew_before_days: certificates of civ-authentication ($.slots[0]) end"),
        (LOGIN + SIGNATURE.replace("p256", "ed25519"), "$.slots[1].algorithm: civ-signature certifies no ed25519"),
        (LOGIN.replace("p256", "rsa1024"), "$.slots[0].algorithm: civ-authentication certifies no rsa1024"),
        (DECRYPTION, "$.slots[0].algorithm: rsa4096 keys are not archived"),
        (SIGNATURE.replace('"signature"', '"server"'), "$.slots[0].profile: server certifies no keys of cards"),
        ("device_kinds = ['phone']\n" + LOGIN, "$.device_kinds: nothing is written to phones here"),
        ("clear_secrets = 'never'\n" + LOGIN, "$.clear_secrets: no session here is sealed"),
        ("clear_secrets = 'never'\n[puk]\nown = false\n" + LOGIN, "$.clear_secrets: no session here is sealed"),
        ("clear_secrets = 'never'\n[management_key]\nown = false\n" + LOGIN, "$.clear_secrets: no session here"),
        ("clear_secrets = 'never'\n" + OPEN + SEALED, "$.clear_secrets: no session here is sealed"),
        (LOGIN + "pin_policy = 'match_once'", "$.slots[0].pin_policy: no card that can be written here opens"),
        (LOGIN + "pin_policy = 'match_always'", "$.slots[0].pin_policy: no card that can be written here opens"),
        ("unlock = ['self']\n" + LOGIN, "$.unlock: a PUK is released only for a card that proves itself"),
        ("objects = ['chuid', '5FC122']\n" + LOGIN, "$.objects[1]: this server has no content for Secure Messaging"),
        ("objects = ['ccc']\n" + LOGIN, "$.objects: a card is known again by its CHUID"),
        ("[pin]\nmin_length = 4\nmax_length = 5\n" + LOGIN, "$.pin.max_length: cards take no PIN of fewer than 6"),
        (TRIES.format(1, 3) + LOGIN, "$.pin.retries: the last try is never spent"),
        (TRIES.format(3, 2) + LOGIN, "$.puk.retries: a session that broke off costs one"),
        ("[management_key]\nown = false\nalgorithm = 'aes256'\n" + LOGIN, "$.management_key.algorithm: needs"),
        ("validity_days = 40\nactivate_within_days = 41\n" + LOGIN, "$.activate_within_days: a card would have ended"),
        (TOKENS + LOGIN + "least_origin = 'attested'", "$.slots[0].least_origin: nothing proves where"),
        ("compliance = 'piv'\n" + LOGIN, "$.slots[0].least_origin: piv-authentication says that the key is in hard"),
    ],
)
def test_what_no_card_could_come_to_is_found(text: str, where: str) -> None:
    (found,) = findings(text)
    assert found.startswith(where)


@pytest.mark.parametrize(
    "text",
    [
        "renew_before_days = 1094\n" + LOGIN,
        "validity_days = 1095\nrenew_before_days = 0\nactivate_within_days = 1095\n" + LOGIN,
        "unlock = ['self']\n" + LOGIN + DOORS,
        TRIES.format(2, 3) + LOGIN,
        "[pin]\nmin_length = 4\nmax_length = 6\n" + LOGIN,
        "device_kinds = ['phone', 'smart-card']\n" + LOGIN,
        "clear_secrets = 'never'\n" + OPEN + LOGIN,
        "compliance = 'piv'\nclear_secrets = 'never'\n" + LOGIN + "least_origin = 'sealed'",
        TOKENS + "objects = []\n[pin]\nmin_length = 4\nmax_length = 5\n" + LOGIN,
        "compliance = 'piv'\n" + LOGIN + "least_origin = 'sealed'",
        DECRYPTION.replace("rsa4096", "rsa3072"),
        DECRYPTION.replace("escrow", "generate"),
        "objects = ['chuid', 'printed', 'facial-image', 'fingerprints', 'iris']\n",
    ],
)
def test_what_cards_can_come_to_is_let_through(text: str) -> None:
    assert findings(text) == ()


def test_every_finding_is_told_at_once() -> None:
    assert len(findings("objects = []\nunlock = ['self']\nrenew_before_days = 1400\n" + LOGIN + SIGNATURE)) == 4


def brief(name: str, strict: bool) -> CertificateKind:
    """Certificates that live as long as the policy begins to renew before their end."""
    kind = KINDS(name, strict)
    return CertificateKind(kind.name, timedelta(days=30), kind.algorithms, kind.for_cards, kind.says_hardware)


@ON_SQLITE
async def test_drafting_and_publishing_refuse_but_what_is_in_force_stays(
    open_database: Callable[..., Database],
) -> None:
    database, org, decide = open_database(), new_id(), authorizer()
    before, now = (_service(decide, kinds) for kinds in (KINDS, brief))
    author = await make_operator(database, org, Role.ADMINISTRATOR)
    officer = await make_operator(database, org, Role.SECURITY_OFFICER)
    first, second = [await database.transact(lambda unit: before.draft_shipped(unit, author, "civ")) for _ in "12"]
    await database.transact(lambda unit: before.publish(unit, officer, first.id))
    with pytest.raises(PolicyUnreachable) as refused:
        await database.transact(lambda unit: now.draft_shipped(unit, author, "civ"))
    assert (refused.value.code, len(refused.value.findings)) == ("POLICY_UNREACHABLE", 4)
    assert all(one.startswith("$.renew_before_days") for one in refused.value.findings)
    # The certificate profiles are others since it was drafted.
    with pytest.raises(PolicyUnreachable):
        await database.transact(lambda unit: now.publish(unit, officer, second.id))
    found = await database.read(lambda unit: now.find(unit, author, "civ"))
    assert [one.state for one in found] == [VersionState.PUBLISHED, VersionState.DRAFT]
    assert (await database.read(lambda unit: now.in_force(unit, org, first.policy))).number == 1


def _service(authorize: Authorize, kinds: Callable[[str, bool], CertificateKind]) -> PolicyService:
    return PolicyService(authorize, PeopleService(allow), kinds)
