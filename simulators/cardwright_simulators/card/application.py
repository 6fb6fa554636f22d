"""The PIV card application: its commands, its objects, and the rule which statuses a command leaves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.iso7816.tlv import MalformedTlv, encode, parse_all, parse_one, parse_unique

from .algorithms import CARD_AUTHENTICATION, RSA_BITS, SIGNATURE, SM_KEY, Algorithm
from .answers import Command, Refused, require
from .authenticate import PIN_ALWAYS, PIN_NEVER, PIN_ONCE, TOUCH_NEVER, Authenticator
from .core import Core
from .keys import generate
from .log import ProtectedRead, key_use
from .objects import BARE, CONTAINERS, DISCOVERY, Container, Rule
from .profiles import PIV_AID
from .references import References
from .secure_messaging import CardSession
from .security import Security
from .state import StoredKey

VERIFY: Final = 0x20
CHANGE_REFERENCE_DATA: Final = 0x24
RESET_RETRY_COUNTER: Final = 0x2C
GENERATE: Final = 0x47
GENERAL_AUTHENTICATE: Final = 0x87
GET_DATA: Final = 0xCB
PUT_DATA: Final = 0xDB
_FREE: Final = Container(0, Rule.ALWAYS, False)
_POLICIES: Final = {SIGNATURE: PIN_ALWAYS, CARD_AUTHENTICATION: PIN_NEVER, SM_KEY: PIN_NEVER}
_SUITE_CURVES: Final[dict[int, int]] = {Algorithm.P256: Algorithm.CS2, Algorithm.P384: Algorithm.CS7}
_CHAINED: Final = frozenset((GENERAL_AUTHENTICATE, PUT_DATA, GENERATE))
_CHAINED_WITH_OCC: Final = frozenset((VERIFY, CHANGE_REFERENCE_DATA))


class PivApplication:
    """One PIV application. ``commands`` maps an instruction to what executes it; vendors add theirs."""

    aid = PIV_AID

    def __init__(self, core: Core) -> None:
        self.core = core
        self.security = Security(core)
        self.references = References(core, self.security)
        self._authenticator = Authenticator(core, self.security)
        self.messaging = CardSession()
        self.commands: dict[int, Callable[[Command], bytes]] = {
            GET_DATA: self._get_data,
            VERIFY: self.references.verify,
            CHANGE_REFERENCE_DATA: self.references.change,
            RESET_RETRY_COUNTER: self.references.reset_retry_counter,
            GENERAL_AUTHENTICATE: self._general_authenticate,
            PUT_DATA: self._put_data,
            GENERATE: self._generate,
        }
        self._select_answer = core.profile.select_answer()

    def select(self) -> bytes:
        """The answer to SELECT."""
        return self._select_answer

    def leave(self) -> None:
        """Another application is selected: the application's statuses end."""
        self.security.drop()

    def run(self, command: Command) -> bytes:
        """Execute one command. Raises Refused."""
        execute = self.commands.get(command.ins)
        if execute is None:
            raise Refused(SW.INS_NOT_SUPPORTED)
        self.security.sm, self.security.scp = command.sm, command.scp
        return execute(command)

    def chains(self, ins: int) -> int:
        """Whether a command may be chained: 9000, or the status word of the refusal."""
        if self.core.profile.chains_every_command or ins in _CHAINED:
            return SW.OK
        if ins in _CHAINED_WITH_OCC and self.security.usage.occ:
            return SW.OK
        return SW.CHAINING_NOT_SUPPORTED if ins in self.commands else SW.INS_NOT_SUPPORTED

    def _get_data(self, command: Command) -> bytes:
        """GET DATA (part 2 section 3.1.2)."""
        if command.p1 != 0x3F or command.p2 != 0xFF:
            raise Refused(SW.WRONG_P1P2)
        data = command.data
        if len(data) < 3 or data[0] != 0x5C or data[1] != len(data) - 2:
            raise Refused(SW.WRONG_DATA)
        core, tag = self.core, int.from_bytes(data[2:], "big")
        answer = self.stored_object(tag)
        container = CONTAINERS.get(tag, _FREE)
        if answer is None and (core.profile.absent_before_rule or tag not in CONTAINERS):
            raise Refused(SW.NOT_FOUND)
        access = core.state.access.get(tag)
        if access is not None:
            mode = access.contactless if core.contactless else access.contact
            require(self.security.allows(mode), SW.SECURITY_STATUS)
        elif container.rule is not Rule.ALWAYS or core.contactless:
            security = self.security
            if (container.vci and core.contactless and not security.vci) or not security.satisfied(container.rule):
                raise Refused(SW.SECURITY_STATUS)
            if answer is not None and container.rule is not Rule.ALWAYS:
                core.log.append(ProtectedRead(tag))
        if answer is None:
            raise Refused(SW.NOT_FOUND)
        return answer

    def stored_object(self, tag: int) -> bytes | None:
        """What GET DATA answers, if anything; vendors have objects that the maker put there."""
        return self.core.state.objects.get(tag)

    def _put_data(self, command: Command) -> bytes:
        """PUT DATA (part 2 section 3.3.1)."""
        require(command.p1 == 0x3F and command.p2 == 0xFF, SW.WRONG_P1P2)
        self.security.require_admin()
        try:
            items = parse_all(command.data)
        except MalformedTlv:
            raise Refused(SW.WRONG_DATA) from None
        if len(items) == 1 and items[0].tag in BARE:
            tag, value = items[0].tag, items[0].value
            answer = items[0].encode()
        else:
            require(len(items) == 2 and items[0].tag == 0x5C and items[1].tag == 0x53)
            tag, value = int.from_bytes(items[0].value, "big"), items[1].value
            answer = items[1].encode()
            require(1 <= len(items[0].value) <= 3 and tag not in BARE)
        self.write_object(tag, answer, bool(value))
        return b""

    def write_object(self, tag: int, answer: bytes, keep: bool) -> None:
        """Replace an object as a whole, or empty it."""
        core = self.core
        known = tag in CONTAINERS or tag in core.state.access
        require(known or (tag >> 16 == 0x5F and not core.profile.data_model_only), SW.FUNCTION)
        require(tag not in core.profile.read_only, SW.FUNCTION)
        old = core.state.objects.get(tag, b"")
        if keep:
            require(len(answer) <= core.profile.object_limit + 5, SW.NO_SPACE)
            core.room(len(answer) - len(old))
            core.state.objects[tag] = answer
            core.changed("object", tag, len(answer))
        elif old:
            del core.state.objects[tag]
            core.changed("object deleted", tag)
        if tag == DISCOVERY:
            self.security.read_usage()

    def _general_authenticate(self, command: Command) -> bytes:
        if command.p2 == SM_KEY:
            return self._establish(command)
        return self._authenticator.authenticate(command)

    def _establish(self, command: Command) -> bytes:
        """Key establishment of secure messaging (part 2 section 4.1); it is sent in clear."""
        key = self.core.state.keys.get(SM_KEY)
        require(key is not None and not command.sm, SW.WRONG_P1P2)
        assert key is not None
        private = self.core.working(SM_KEY, key).exported()
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        answer = self.messaging.establish(
            command.data, command.p1, private, self.core.state.cvc, self.core.rng
        )
        self.core.log.append(key_use(SM_KEY, key.algorithm, command.data))
        self.core.timing.use(key.algorithm)
        return answer

    def _generate(self, command: Command) -> bytes:
        """GENERATE ASYMMETRIC KEY PAIR (part 2 section 3.3.2)."""
        require(command.p1 == 0x00 and command.p2 in self.core.profile.generate_slots, SW.WRONG_P1P2)
        self.security.require_admin()
        try:
            parameters = parse_unique(parse_one(command.data, 0xAC).value)
        except MalformedTlv:
            raise Refused(SW.WRONG_DATA) from None
        mechanism = parameters.pop(0x80, b"")
        require(len(mechanism) == 1)
        algorithm = mechanism[0]
        if command.p2 == SM_KEY:
            require(algorithm == self.core.profile.suite or _SUITE_CURVES.get(algorithm) == self.core.profile.suite)
            algorithm = self.core.profile.suite
        else:
            require(algorithm in self.core.profile.algorithms)
        exponent = parameters.pop(0x81, b"\x01\x00\x01")
        require(algorithm not in RSA_BITS or int.from_bytes(exponent, "big") == 65537)
        policies = self.policies(command.p2, parameters)
        self.core.room(0)
        private = generate(algorithm, self.core.key_pool)
        self.core.timing.generate(algorithm)
        self.store_key(command.p2, StoredKey(algorithm, private, *policies, True), "key generated")
        if command.p2 == SM_KEY:
            self._certify(algorithm, private[0])
        return encode(0x7F49, self.core.working(command.p2, self.core.state.keys[command.p2]).public)

    def _certify(self, suite: int, private: bytes) -> None:
        """A new key 04 gets a new certificate from the virtual content signer."""
        from . import sm_identity

        state = self.core.state
        state.cvc = sm_identity.issue(suite, private, sm_identity.guid(state.seed))
        self.messaging.erase()

    def policies(self, slot: int, parameters: dict[int, bytes]) -> tuple[int, int]:
        """PIN and touch policy of a new key; refuses parameters that the card does not know."""
        require(not parameters)
        return default_pin_policy(slot), TOUCH_NEVER

    def store_key(self, slot: int, key: StoredKey, kind: str) -> None:
        """Put ``key`` into ``slot``, replacing what was there."""
        self.core.state.keys[slot] = key
        self.core.changed(kind, slot, 16 + sum(map(len, key.private)))


def default_pin_policy(slot: int) -> int:
    """The PIN policy that the standard gives the keys of ``slot``."""
    return _POLICIES.get(slot, PIN_ONCE)
