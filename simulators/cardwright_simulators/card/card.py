"""The virtual card: power, selection of applications, secure channels, and the one method ``transmit``."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Final, Protocol

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.transport.connection import Interface

from .answers import Command, Refused
from .application import PivApplication
from .channel import Channel
from .core import Core
from .factory import FACTORY_CHANNEL_VERSION, factory_state
from .keypool import KeyPool
from .log import Record, Selected
from .management import ManagementApplication
from .openfips201 import ManagedPivApplication
from .profiles import MANAGEMENT_AID, PIV_AID, PROFILES, SECURITY_DOMAIN_AID, Profile
from .scp03 import SecurityDomainSession
from .security_domain import SecurityDomainApplication
from .state import CardState
from .store import MemoryStore, Store
from .timing import Timing
from .yubico import VendorPivApplication

SELECT: Final = 0xA4
INITIALIZE_UPDATE: Final = 0x50
EXTERNAL_AUTHENTICATE: Final = 0x82
_GP: Final = 0x80
_SCP: Final = 0x04
_SM: Final = 0x0C


class UnknownProfile(CardwrightError):
    """A profile name that no card has."""

    code = "SIM_PROFILE_UNKNOWN"
    default_effect = "No virtual card was made."
    default_advice = "Choose one of: " + ", ".join(PROFILES) + "."


class WrongProfile(CardwrightError):
    """A stored card is of another kind than was asked for."""

    code = "SIM_PROFILE_MISMATCH"
    default_effect = "The virtual card was not started; its file was not changed."
    default_advice = "Start it with the profile it was made with, or choose another file."


class Application(Protocol):
    """One application on the card."""

    aid: bytes

    def select(self) -> bytes:
        """The answer to SELECT."""

    def leave(self) -> None:
        """Another application is selected."""

    def chains(self, ins: int) -> int:
        """9000 where a command may be chained, else the refusing status word."""

    def run(self, command: Command) -> bytes:
        """Execute one command. Raises Refused."""


class VirtualCard:
    """A smart card in software: a PIV application and what else its profile has.

    Not safe for two threads at once. ``serial`` names a fresh card; a stored one keeps its own. ``rng`` gives
    challenges and seeds; keys always come from the library's generator or from ``key_pool``.
    """

    def __init__(
        self,
        profile: Profile | str = "yubikey-5.7",
        *,
        serial: int | None = None,
        interface: Interface = Interface.CONTACT,
        store: Store | None = None,
        rng: Callable[[int], bytes] = os.urandom,
        key_pool: KeyPool | None = None,
        timing: Timing | None = None,
    ) -> None:
        """Raises UnknownProfile, WrongProfile, StateDamaged, OSError."""
        self.profile = find_profile(profile)
        store = store or MemoryStore()
        state = store.load()
        if state is None:
            number = int.from_bytes(rng(3), "big") + 10_000_000 if serial is None else serial
            state = factory_state(self.profile, number, rng(32))
            store.commit(state)
        elif state.profile != self.profile.name:
            raise WrongProfile(f"The stored card is a {state.profile}, not a {self.profile.name}.")
        self._core = Core(
            self.profile,
            state,
            store,
            interface=interface,
            rng=rng,
            key_pool=key_pool,
            timing=timing or Timing(),
        )
        self.apdu_count = 0
        self._piv = _piv_application(self._core)
        self._channels: dict[bytes, SecurityDomainSession] = {}
        if self.profile.scp03:
            for aid in (PIV_AID, SECURITY_DOMAIN_AID):
                self._channels[aid] = SecurityDomainSession(
                    self._core, aid=aid, draw=rng, initial_version=FACTORY_CHANNEL_VERSION
                )
        self._others: dict[bytes, Application] = {}
        if MANAGEMENT_AID in self.profile.other_applications:
            self._others[MANAGEMENT_AID] = ManagementApplication(self._core)
        if SECURITY_DOMAIN_AID in self.profile.other_applications:
            self._others[SECURITY_DOMAIN_AID] = SecurityDomainApplication(
                self._core, self._channels.get(SECURITY_DOMAIN_AID)
            )
        self._channel = Channel(self.profile, self)
        self._selected: Application | None = None
        self._powered = False
        self.power_on()

    @property
    def atr(self) -> bytes:
        """The answer to reset on the card's interface."""
        contact = self._core.interface is Interface.CONTACT
        return self.profile.atr if contact else self.profile.atr_contactless

    @property
    def interface(self) -> Interface:
        """How the card is coupled; another interface takes a new :class:`VirtualCard` on the same store."""
        return self._core.interface

    @property
    def serial(self) -> int:
        """The card's number."""
        return self._core.state.serial

    @property
    def log(self) -> list[Record]:
        """What happened inside, oldest first. The list is the log itself: ``clear()`` forgets."""
        return self._core.log

    @property
    def busy_seconds(self) -> float:
        """How long the chip would have worked so far."""
        return self._core.timing.busy_seconds

    @property
    def memory_full(self) -> bool:
        """When set, whatever needs new memory is refused with 6A84."""
        return self._core.memory_full

    @memory_full.setter
    def memory_full(self, value: bool) -> None:
        self._core.memory_full = value

    @property
    def touch_given(self) -> bool:
        """Whether somebody touches the card whenever a key wants it; else such uses are refused with 6982."""
        return self._core.touch_given

    @touch_given.setter
    def touch_given(self, value: bool) -> None:
        self._core.touch_given = value

    def power_on(self) -> bytes:
        """Cold reset; the ATR."""
        self._powered = True
        return self.reset()

    def power_off(self) -> None:
        """Take the power away: all that is volatile is lost."""
        self.reset()
        self._powered = False

    def reset(self) -> bytes:
        """Warm reset; the ATR. Every security status, session and pending answer is gone."""
        self._channel.clear()
        self._piv.leave()
        self._piv.security.reset()
        self._piv.messaging.erase()
        self._end_channels()
        self._selected = self._piv if self.profile.selected_after_reset else None
        return self.atr

    def transmit(self, command: bytes) -> bytes:
        """One command APDU in, the response APDU (at least two octets) out.

        No octets make it raise. A store that fails while it keeps a change is answered with 6581; only one that
        can then not even be read back raises (OSError, StateDamaged).
        """
        if not self._powered:
            self.power_on()
        self.apdu_count += 1
        answer = self._channel.transmit(command)
        self._core.timing.finish(len(command) + len(answer))
        return answer

    def state_hash(self) -> str:
        """Hex SHA-256 of the persistent state."""
        return self._core.state.digest()

    def snapshot(self) -> bytes:
        """The persistent state; :meth:`restore` makes a card of it."""
        return self._core.state.encode()

    @classmethod
    def restore(
        cls,
        snapshot: bytes,
        *,
        profile: Profile | None = None,
        interface: Interface = Interface.CONTACT,
        rng: Callable[[int], bytes] = os.urandom,
        key_pool: KeyPool | None = None,
        timing: Timing | None = None,
    ) -> VirtualCard:
        """A card in memory with that state, just powered. ``profile`` is needed for one not in PROFILES."""
        state = CardState.decode(snapshot)
        return cls(
            profile or state.profile,
            interface=interface,
            store=MemoryStore(state),
            rng=rng,
            key_pool=key_pool,
            timing=timing,
        )

    def chains(self, cla: int, ins: int) -> int:
        """Whether a command block that announces more may be taken (9000), for the channel."""
        if cla == _SM:
            return SW.OK if self.profile.suite else SW.SM_NOT_SUPPORTED
        if cla & ~(_SCP if self._channel_session() is None else _GP | _SCP):
            return SW.CLA_NOT_SUPPORTED
        return SW.INS_NOT_SUPPORTED if self._selected is None else self._selected.chains(ins)

    def run(
        self, cla: int, ins: int, p1: int, p2: int, data: bytes, le: int, extended: bool
    ) -> tuple[bytes, int]:
        """Execute one logical command for the channel, and keep what it changed."""
        core, session = self._core, self._channel_session()
        body, sw = b"", int(SW.OK)
        self._piv.security.begin_command()
        try:
            if cla == 0x00 and ins == SELECT:
                body = self._select(p1, p2, data)
            elif cla == 0x00 and (session is None or not session.level):
                body = self._plain(Command(cla, ins, p1, p2, data))
            elif cla == _SM:
                body, sw = self._under_sm(CommandAPDU(cla, ins, p1, p2, data, le))
            else:
                body, sw = self._with_channel(session, CommandAPDU(cla, ins, p1, p2, data, le), extended)
        except Refused as refused:
            sw = refused.sw
        if core.dirty:
            try:
                core.commit()
            except Refused as refused:
                # The state is the one before the command: nothing that it proved may outlive it.
                self._piv.leave()
                self._piv.security.read_usage()
                return b"", refused.sw
        return body, sw

    def _plain(self, command: Command) -> bytes:
        """A command without protection. It ends PIV secure messaging (SP 800-73-5 part 1 appendix B.1.7)."""
        if self._selected is None:
            raise Refused(SW.INS_NOT_SUPPORTED)
        self._piv.messaging.erase()
        return self._selected.run(command)

    def _under_sm(self, command: CommandAPDU) -> tuple[bytes, int]:
        """A command with class 0C (SP 800-73-5 part 2 section 4.2)."""
        if not self.profile.suite or self._selected is not self._piv:
            raise Refused(SW.SM_NOT_SUPPORTED)
        messaging = self._piv.messaging
        plain = messaging.unwrap(command)
        body, sw = self._inner(Command(0x00, plain.ins, plain.p1, plain.p2, plain.data, sm=True))
        response = messaging.wrap(ResponseAPDU(body, sw))
        return response.data, response.sw

    def _with_channel(
        self, session: SecurityDomainSession | None, command: CommandAPDU, extended: bool
    ) -> tuple[bytes, int]:
        """A command of another class, or inside an open channel (GlobalPlatform Amendment D)."""
        if session is None or command.cla & ~(_GP | _SCP):
            raise Refused(SW.CLA_NOT_SUPPORTED)
        if command.cla == _GP and command.ins == INITIALIZE_UPDATE:
            return session.initialize_update(command), SW.OK
        if command.cla == _GP | _SCP and command.ins == EXTERNAL_AUTHENTICATE:
            session.external_authenticate(command, extended=extended)
            return b"", SW.OK
        if not session.takes(command):
            # A class of GlobalPlatform means nothing to PIV outside a channel.
            if command.cla and self._selected is self._piv:
                raise Refused(SW.CLA_NOT_SUPPORTED)
            return self._plain(Command(command.cla, command.ins, command.p1, command.p2, command.data)), SW.OK
        plain = session.unwrap(command, extended=extended)
        body, sw = self._inner(Command(plain.cla, plain.ins, plain.p1, plain.p2, plain.data, scp=True))
        response = session.wrap(ResponseAPDU(body, sw))
        return response.data, response.sw

    def _inner(self, command: Command) -> tuple[bytes, int]:
        """The answer to an unwrapped command, also where it is a refusal: it has to be wrapped."""
        assert self._selected is not None
        try:
            return self._selected.run(command), SW.OK
        except Refused as refused:
            return b"", refused.sw

    def _channel_session(self) -> SecurityDomainSession | None:
        """The SCP03 end of the selected application."""
        return self._channels.get(self._selected.aid) if self._selected is not None else None

    def _end_channels(self) -> None:
        """Every SCP03 channel is closed."""
        for session in self._channels.values():
            session.reset()

    def _select(self, p1: int, p2: int, aid: bytes) -> bytes:
        """SELECT by AID (SP 800-73-5 part 2 section 3.1.1)."""
        self._piv.messaging.erase()
        if p1 != 0x04 or p2 != 0x00:
            raise Refused(SW.WRONG_P1P2)
        wanted: Application | None = self._others.get(aid)
        if len(aid) >= self.profile.shortest_aid and PIV_AID.startswith(aid):
            wanted = self._piv
        self._core.log.append(Selected(aid, wanted is not None))
        if self.profile.select_drops_status or (wanted is not None and wanted is not self._selected):
            self._piv.leave()
        if self.profile.select_drops_status or wanted is not None:
            self._end_channels()
        if wanted is None:
            raise Refused(SW.NOT_FOUND)
        self._selected = wanted
        return wanted.select()


def find_profile(profile: Profile | str) -> Profile:
    """The profile itself or the one of that name. Raises UnknownProfile."""
    if isinstance(profile, Profile):
        return profile
    try:
        return PROFILES[profile]
    except KeyError:
        raise UnknownProfile(f"There is no virtual card profile named {profile!r}.") from None


def _piv_application(core: Core) -> PivApplication:
    if core.profile.vendor:
        return VendorPivApplication(core)
    return ManagedPivApplication(core) if core.profile.openfips201 else PivApplication(core)
