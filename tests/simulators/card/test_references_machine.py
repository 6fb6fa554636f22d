"""PIN and PUK counters and statuses against a model of a dozen lines, on every kind of card."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from cardwright_simulators.card import MemoryStore, VirtualCard
from tests.support.raw_card import ABSENT, PIV, RawCard

PINS = ["313233343536FFFF", "383736353433FFFF", "30303030303030FF"]
PUKS = ["3132333435363738", "6162636465666768"]


class Secrets(RuleBasedStateMachine):
    """The model: two values, two counters, one status."""

    @initialize(name=st.sampled_from(["sp800-73-5", "yubikey-5.7", "yubikey-5.4", "pivapplet", "globalplatform"]))
    def begin(self, name: str) -> None:
        self.store = MemoryStore()
        self.host = RawCard(name, store=self.store)
        self.host.select()
        self.pin, self.puk = PINS[0], PUKS[0]
        self.tries = {"pin": 3, "puk": 3}
        self.verified = False

    def attempt(self, secret: str, right: bool) -> int | None:
        """The status word of a refusal; None when the secret was right."""
        if not self.tries[secret]:
            return 0x6983
        self.tries[secret] = 3 if right else self.tries[secret] - 1
        return None if right else 0x63C0 | self.tries[secret]

    @rule(pin=st.sampled_from(PINS))
    def verify(self, pin: str) -> None:
        blocked = not self.tries["pin"]
        refusal = self.attempt("pin", pin == self.pin)
        assert self.host.verify(pin) == (refusal or 0x9000)
        if not blocked:
            self.verified = refusal is None

    @rule(old=st.sampled_from(PINS), new=st.sampled_from(PINS))
    def change_pin(self, old: str, new: str) -> None:
        blocked = not self.tries["pin"]
        refusal = self.attempt("pin", old == self.pin)
        assert self.host.sw("00240080", old + new) == (refusal or 0x9000)
        if refusal is None:
            self.pin = new
        if not blocked:
            self.verified = refusal is None

    @rule(old=st.sampled_from(PUKS), new=st.sampled_from(PUKS))
    def change_puk(self, old: str, new: str) -> None:
        refusal = self.attempt("puk", old == self.puk)
        assert self.host.sw("00240081", old + new) == (refusal or 0x9000)
        if refusal is None:
            self.puk = new

    @rule(puk=st.sampled_from(PUKS), new=st.sampled_from(PINS))
    def unblock(self, puk: str, new: str) -> None:
        blocked = not self.tries["puk"]
        refusal = self.attempt("puk", puk == self.puk)
        assert self.host.sw("002C0080", puk + new) == (refusal or 0x9000)
        if refusal is None:
            self.pin, self.tries["pin"] = new, 3
        elif not blocked:
            self.verified = False

    @rule()
    def logout(self) -> None:
        assert self.host.sw("0020FF80", le=False) == 0x9000
        self.verified = False

    @rule(aid=st.sampled_from([PIV, ABSENT]))
    def select(self, aid: str) -> None:
        self.host.select(aid)
        if self.host.card.profile.select_drops_status:
            self.verified = False

    @rule()
    def reset(self) -> None:
        self.host.card.reset()
        self.host.select()
        self.verified = False

    @rule()
    def pull_and_insert(self) -> None:
        name = self.host.card.profile.name
        self.host = RawCard.around(VirtualCard(name, store=self.store))
        self.host.select()
        self.verified = False

    @invariant()
    def query_tells_the_model(self) -> None:
        profile = self.host.card.profile
        expected = 0x63C0 | self.tries["pin"] if self.tries["pin"] else profile.blocked_query
        assert self.host.verify() == (0x9000 if self.verified else expected)


TestSecrets = Secrets.TestCase
TestSecrets.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
