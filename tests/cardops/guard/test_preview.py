"""Permits made from the documents of real plans: the real planner's work passes, and nothing else.

The planner and the executing programs are used here as a server would use them; the guard only sees documents and
batches.
"""

from __future__ import annotations

import copy
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.guard import Act, GuardedExecutor, GuardRefused, Permit, State, begin, digest_of
from cardwright_cardops.guard import operations as o
from cardwright_cardops.guard.permit import Identity
from cardwright_cardops.guard.preview import PreviewUnfit, identity_of, permit_for
from cardwright_cardops.piv.key_items import KeyItems
from cardwright_cardops.piv.pins import FixedPins
from cardwright_cardops.plan.acts import STAGE, Circumstances, Pace
from cardwright_cardops.plan.authority import (
    Certify,
    Issued,
    ObjectContent,
    Preflight,
    Question,
    Reply,
    Signed,
    SignFirst,
)
from cardwright_cardops.plan.conduct import conduct
from cardwright_cardops.plan.execute import Report, execute
from cardwright_cardops.plan.init import look_for
from cardwright_cardops.plan.inventory import Inventory
from cardwright_cardops.plan.local_authority import LocalAuthority
from cardwright_cardops.plan.observe import observe
from cardwright_cardops.plan.planner import plan
from cardwright_cardops.plan.policy import DevicePolicy, SecretsPolicy, parse_keys
from cardwright_cardops.plan.records import MemoryJournal, Records, fold
from cardwright_cardops.plan.steps import Plan, WriteObject
from cardwright_cardops.program.items import SignRequest
from cardwright_cardops.program.local import LocalExecutor
from cardwright_cardops.program.runner import run
from cardwright_cardops.secret import Secret
from cardwright_cardops.transport.direct import DirectConnection
from cardwright_simulators.card import VirtualCard
from tests.support import guarded as g

NOW = datetime(2026, 11, 1, tzinfo=UTC)
CA = ec.generate_private_key(ec.SECP256R1())


class Server(LocalAuthority):
    """An authority far away: card keys sign requests, and a CA of its own issues."""

    def _answer(self, question: Question) -> Reply:
        if isinstance(question, Certify):
            if question.private_key is not None:
                return Issued(g.certificate(question.public_key, CA))
            return SignFirst(SignRequest(question.slot, g.NAME.public_bytes()))
        if isinstance(question, Signed):
            request = x509.load_der_x509_csr(question.answer)
            assert request.is_signature_valid
            return Issued(g.certificate(request.public_key(), CA))
        return super()._answer(question)


@dataclass
class Remote:
    """A server's session with a card behind the guard."""

    card: VirtualCard
    journal: MemoryJournal

    def __post_init__(self) -> None:
        keys = KeyItems(FixedPins(Secret(g.PIN), Secret(g.PIN)))
        self.local = LocalExecutor(DirectConnection(self.card), keys)
        self.server = Server(journal=self.journal, new_puk=Secret(b"27182818"), now=NOW)

    def preview(self, policy: DevicePolicy, confirmed: frozenset[Act] = frozenset()) -> tuple[Plan, Inventory, Permit]:
        """What is read, planned and shown."""
        reading = begin(Permit(bytes(32)), identity_of(Inventory().document()))
        assert isinstance(reading, State)
        inventory = run(observe(look_for(policy)), GuardedExecutor(self.local, reading))
        steps = plan(policy, inventory, self.records(inventory), now=NOW)
        return steps, inventory, permit_for(
            steps.document(), inventory.document(), contents=self.contents(steps, inventory), confirmed=confirmed
        )

    def records(self, inventory: Inventory) -> Records:
        return fold(self.journal.recall(inventory.identity))

    def contents(self, steps: Plan, inventory: Inventory) -> dict[int, bytes]:
        """The digests that the server announces with its plan."""
        self.server.answer((Preflight(steps, inventory),))
        digests = {}
        for step in steps.steps:
            if isinstance(step, WriteObject):
                (reply,) = self.server.answer((ObjectContent(step.tag, inventory, {}),))
                assert isinstance(reply, Issued)
                digests[step.tag] = hashlib.sha256(reply.content).digest()
        return digests

    def execute(self, policy: DevicePolicy, steps: Plan, permit: Permit, inventory: Inventory, pace: Pace) -> Report:
        """The same plan, made again from what is read under the permit, and carried out."""
        state = begin(permit, identity_of(inventory.document()), plan=bytes.fromhex(steps.digest))
        assert isinstance(state, State)
        self.guarded = GuardedExecutor(self.local, state, unbroken=lambda: True)

        def session() -> Any:
            seen = yield from observe(look_for(policy))
            again = plan(policy, seen, self.records(seen), now=NOW)
            assert again == steps
            how = Circumstances(self.records(seen), pace=pace, stage=STAGE)
            return (yield from execute(again, seen, how))

        report = conduct(session(), self.guarded, self.server, self.journal)
        assert isinstance(report, Report)
        return report


Documents = tuple[dict[str, Any], dict[str, Any], dict[int, bytes]]
POLICY = DevicePolicy(name="test", slots=parse_keys("9a=p256,9c=p256,9d=p256:import,9e=p256"))


@pytest.mark.parametrize("pace", Pace)
@pytest.mark.parametrize("profile", ["yubikey-5.7", "pivapplet"])
def test_a_fresh_card_is_set_up_under_the_guard(profile: str, pace: Pace) -> None:
    remote = Remote(VirtualCard(profile), MemoryJournal())
    steps, inventory, permit = remote.preview(POLICY)
    assert permit.plan.hex() == steps.digest
    assert permit.acts == frozenset()
    ranks = [entry.rank for entry in permit.entries if entry.rank is not None]
    assert ranks == sorted(ranks) and ranks.count(0) == 5, "PUK, PIN and three keys come first, in any order"
    assert len(set(ranks)) == len(ranks) - 4, "each other step has its own turn"
    report = remote.execute(POLICY, steps, permit, inventory, pace)
    assert len(report.done) == len(steps.steps)
    done = remote.guarded.state.facts.done
    assert [count for count, entry in zip(done, permit.entries, strict=True) if entry.rank is not None] == [1] * len(
        steps.steps
    )
    left, _, empty = remote.preview(POLICY)
    assert (left.steps, empty.entries) == ((), ())


def test_keys_are_renewed_under_the_guard_and_named_in_the_permit() -> None:
    remote = Remote(VirtualCard("yubikey-5.7"), MemoryJournal())
    steps, inventory, permit = remote.preview(POLICY)
    remote.execute(POLICY, steps, permit, inventory, Pace.PHASE)
    renewal = DevicePolicy(name="renewal", slots=parse_keys("9a=p384,9e=p256"), replace=True)
    remote.journal = MemoryJournal(remote.journal.entries())
    again = Remote(remote.card, remote.journal)
    steps, inventory, permit = again.preview(renewal)
    made = [entry.operation for entry in permit.entries if isinstance(entry.operation, o.MakeKey)]
    old = inventory.key(POLICY.slots[0].slot)
    assert old is not None
    assert [(one.slot, one.algorithm, one.replaces) for one in made] == [(0x9A, 0x14, bytes.fromhex(old.fingerprint))]
    report = again.execute(renewal, steps, permit, inventory, Pace.PHASE)
    assert len(report.done) == len(steps.steps)


def test_numbers_of_tries_are_set_only_after_the_confirmation() -> None:
    policy = DevicePolicy(name="tries", slots=parse_keys("9a=p256"), secrets=SecretsPolicy(retries=(5, 6)))
    remote = Remote(VirtualCard("yubikey-5.7"), MemoryJournal())
    steps, inventory, permit = remote.preview(policy)
    assert permit.acts == {Act.SET_RETRIES}
    before = [one for one in remote.card.log if type(one).__name__ == "Write"]
    with pytest.raises(GuardRefused):
        remote.execute(policy, steps, permit, inventory, Pace.PHASE)
    assert before == []
    assert "retries" not in [getattr(one, "kind", "") for one in remote.card.log]

    second = Remote(VirtualCard("yubikey-5.7"), MemoryJournal())
    steps, inventory, permit = second.preview(policy, frozenset((Act.SET_RETRIES,)))
    report = second.execute(policy, steps, permit, inventory, Pace.PHASE)
    assert len(report.done) == len(steps.steps)


# ------------------------------------------------------------------------------------------------ what is no preview


@pytest.fixture(scope="module")
def documents() -> Documents:
    """Plan, inventory and contents of a renewal that overwrites 9A."""
    remote = Remote(VirtualCard("yubikey-5.7"), MemoryJournal())
    steps, inventory, permit = remote.preview(POLICY)
    remote.execute(POLICY, steps, permit, inventory, Pace.PHASE)
    renewal = DevicePolicy(name="renewal", slots=parse_keys("9a=p384"), replace=True)
    inventory = run(observe(look_for(renewal)), remote.local)
    document = plan(renewal, inventory, remote.records(inventory), now=NOW).document()
    document["steps"].append({"kind": "write-object", "tag": "5FC106"})
    return document, inventory.document(), {0x5FC106: bytes(32)}


CHANGES: dict[str, Any] = {
    "another format": lambda plan, card: plan.update(format=2),
    "an older format": lambda plan, card: plan.update(format=0),
    "no format": lambda plan, card: plan.pop("format"),
    "another card": lambda plan, card: plan["card"].update(serial="1"),
    "card that is not the one read": lambda plan, card: card["identity"].update(guid=None),
    "inventory of another format": lambda plan, card: card.update(format=2),
    "inventory of an older format": lambda plan, card: card.update(format=0),
    "unknown step": lambda plan, card: plan["steps"].append({"kind": "open-door"}),
    "step of no kind": lambda plan, card: plan["steps"].append({}),
    "step with more to it": lambda plan, card: plan["steps"][0].update(quietly=True),
    "step with less to it": lambda plan, card: plan["steps"][0].pop("touch_policy"),
    "step with one field under another name": lambda plan, card: plan["steps"][1].update(
        {"title": plan["steps"][1].pop("profile")}
    ),
    "no steps": lambda plan, card: plan.pop("steps"),
    "steps that are none": lambda plan, card: plan.update(steps=["reset"]),
    "object without content": lambda plan, card: plan["steps"].append({"kind": "write-object", "tag": "5FC102"}),
    "overwritten key not named": lambda plan, card: plan["steps"][0].update(replaces=""),
    "another key named": lambda plan, card: plan["steps"][0].update(replaces="00" * 32),
    "key unknown": lambda plan, card: plan["steps"][0].update(replaces="unknown"),
    "key that is not there": lambda plan, card: plan["steps"][0].update(slot="9D"),
    "key that cannot be read": lambda plan, card: card["keys"][0].update(fingerprint=""),
    "no such slot": lambda plan, card: plan["steps"][0].update(slot="F9"),
    "no such policy": lambda plan, card: plan["steps"][0].update(pin_policy="sometimes"),
    "slot is a number": lambda plan, card: plan["steps"][0].update(slot=0x9A),
    "floating": lambda plan, card: plan.update(policy=1.5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_plans_that_cannot_be_shown_have_no_permit(
    change: Any, documents: Documents
) -> None:
    good, card, contents = documents
    assert permit_for(good, card, contents=contents).entries
    bad, other = copy.deepcopy(good), copy.deepcopy(card)
    change(bad, other)
    with pytest.raises(PreviewUnfit):
        permit_for(bad, other, contents=contents)


def test_keys_are_made_first_wherever_the_plan_has_them(documents: Documents) -> None:
    good, card, contents = copy.deepcopy(documents)
    assert [step["kind"] for step in good["steps"]] == ["generate-key", "write-certificate", "write-object"]
    good["steps"].reverse()
    ranks = {
        type(entry.operation): entry.rank
        for entry in permit_for(good, card, contents=contents).entries
        if entry.rank is not None
    }
    assert ranks[o.MakeKey] < ranks[o.PutObject] < ranks[o.PutCertificate]


@pytest.mark.parametrize(
    "damage", [{}, {"identity": {}, "keys": []}, {"identity": {"guid": "x", "serial": ""}, "keys": []}]
)
def test_damaged_inventory_identifies_no_card(damage: dict[str, Any]) -> None:
    with pytest.raises(PreviewUnfit):
        identity_of(damage)


def test_the_card_key_is_that_of_9e_wherever_it_is_listed() -> None:
    rows = [{"slot": slot, "public_key": f"{slot}00"} for slot in ("9D", "F9", "9A")]
    told: dict[str, Any] = {"identity": {"guid": None, "serial": "7"}, "keys": rows}
    assert identity_of(told) == Identity(None, 7, None)
    for place in range(4):
        listed = [*rows[:place], {"slot": "9E", "public_key": "AABB"}, *rows[place:]]
        assert identity_of({**told, "keys": listed}) == Identity(None, 7, b"\xaa\xbb")


def test_digest_binds_every_value_of_a_plan(
    documents: Documents,
) -> None:
    good, _, _ = documents
    digest = digest_of(good)
    assert digest_of(dict(reversed(list(good.items())))) == digest
    for change in ("policy", "format"):
        other = copy.deepcopy(good)
        other[change] = 7
        assert digest_of(other) != digest
    for index, step in enumerate(good["steps"]):
        for name in step:
            other = copy.deepcopy(good)
            other["steps"][index][name] = "7"
            assert digest_of(other) != digest
    for bad in (1.5, b"x", {1: 2}, [object()]):
        with pytest.raises(ValueError, match="a plan holds no"):
            digest_of({"x": bad})


def test_key_without_certificate_is_overwritten_by_its_fingerprint(
    documents: Documents,
) -> None:
    good, card, contents = copy.deepcopy(documents)
    there = next(row["fingerprint"] for row in card["keys"] if row["slot"] == "9A")
    card["certificates"] = [row for row in card["certificates"] if row["slot"] != "9A"]
    good["steps"][0]["replaces"] = ""
    made = permit_for(good, card, contents=contents).entries[0].operation
    assert isinstance(made, o.MakeKey)
    assert made.replaces == bytes.fromhex(there)
