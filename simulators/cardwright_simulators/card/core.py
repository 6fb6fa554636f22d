"""What the parts of one card share: its kind, memory, log, clock and random octets."""

from __future__ import annotations

from collections.abc import Callable

from cardwright_cardops.iso7816.status import SW
from cardwright_cardops.transport.connection import Interface

from .answers import Refused
from .keypool import KeyPool
from .keys import WorkingKey, working_key
from .log import Record, Write
from .profiles import Profile
from .state import CardState, StoredKey
from .store import Store
from .timing import Timing


class Core:
    """The hardware of one card. ``dirty`` is set by whoever changes ``state`` and cleared by ``commit``."""

    def __init__(
        self,
        profile: Profile,
        state: CardState,
        store: Store,
        *,
        interface: Interface,
        rng: Callable[[int], bytes],
        key_pool: KeyPool | None,
        timing: Timing,
    ) -> None:
        self.profile = profile
        self.state = state
        self.store = store
        self.interface = interface
        self.rng = rng
        self.key_pool = key_pool
        self.timing = timing
        self.log: list[Record] = []
        self.memory_full = False
        self.touch_given = True
        self.dirty = False
        self._working: dict[int, tuple[StoredKey, WorkingKey]] = {}

    @property
    def contactless(self) -> bool:
        """Whether the standard's rules for the contactless interface apply now."""
        return self.interface is Interface.CONTACTLESS and self.profile.contactless_rules

    @property
    def channel_keys(self) -> dict[int, tuple[bytes, bytes, bytes]]:
        """SCP03 key sets by version number."""
        return self.state.channel_keys

    @channel_keys.setter
    def channel_keys(self, value: dict[int, tuple[bytes, bytes, bytes]]) -> None:
        self.state.channel_keys = value
        self.dirty = True

    @property
    def sequence(self) -> int:
        """How many SCP03 channels were begun with the keys of now."""
        return self.state.sequence

    @sequence.setter
    def sequence(self, value: int) -> None:
        self.state.sequence = value
        self.dirty = True

    def changed(self, kind: str, number: int, octets: int = 8) -> None:
        """Persistent content of about ``octets`` changed: log it, and keep it when the command ends."""
        self.dirty = True
        self.log.append(Write(kind, number))
        self.timing.write(octets)

    def commit(self) -> None:
        """Keep the state now. Where that fails the state is again the last one kept, and 6581 is answered."""
        self.dirty = False
        try:
            self.store.commit(self.state)
        except OSError:
            self.state = self.store.load() or self.state
            raise Refused(SW.MEMORY_FAILURE) from None

    def room(self, octets: int) -> None:
        """Refuse with 6A84 unless ``octets`` more fit beside the objects that are there."""
        used = sum(map(len, self.state.objects.values()))
        if self.memory_full or used + octets > self.profile.memory:
            raise Refused(SW.NO_SPACE)

    def working(self, slot: int, stored: StoredKey) -> WorkingKey:
        """The key of ``slot`` ready for use, kept while the slot holds that same key."""
        known = self._working.get(slot)
        if known is None or known[0] is not stored:
            known = (stored, working_key(stored.algorithm, stored.private))
            self._working[slot] = known
        return known[1]
