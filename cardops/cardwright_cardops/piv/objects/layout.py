"""How the codecs read and write the data objects inside a container, and how they say that it is damaged."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar, Protocol, TypedDict

from ...errors import CardwrightError
from ...iso7816 import tlv
from ...iso7816.tlv import MalformedTlv, Tlv
from ..containers import Container

ERROR_DETECTION = 0xFE


class MalformedObject(CardwrightError):
    """The content of a container that its codec cannot read. ``reason`` never holds the content itself."""

    code = "OBJECT_MALFORMED"
    default_effect = "That object cannot be used; the card's other objects are not affected."
    default_advice = "Write the object anew, or run `cardwright card check` for the whole picture."

    def __init__(self, container: Container, reason: str) -> None:
        super().__init__(f"{container.name} ({container.tag_text}): {reason}")
        self.container = container
        self.reason = reason


class Need(Enum):
    """Whether an inner data object belongs into its container."""

    MANDATORY = "mandatory"
    OPTIONAL = "optional"
    LEGACY = "legacy"
    """Removed from the standard: tolerated on read, never written."""


@dataclass(frozen=True, slots=True)
class Inner:
    """One row of a container's table: tag, name, allowed lengths in octets of the value."""

    tag: int
    name: str
    sizes: range | tuple[int, ...]
    need: Need = Need.MANDATORY


FE = Inner(ERROR_DETECTION, "Error Detection Code", (0,))


class PivObject(Protocol):
    """What every codec offers."""

    LAYOUT: ClassVar[tuple[Inner, ...]]

    @property
    def unknown(self) -> tuple[Tlv, ...]:
        """Data objects whose tag the standard does not know here; they are written back."""

    @property
    def legacy(self) -> tuple[Tlv, ...]:
        """Data objects that older versions of the standard had here; they are not written back."""

    @property
    def order(self) -> tuple[int, ...]:
        """The inner tags in the order in which they were read; empty for an object made by hand."""

    def encode(self) -> bytes:
        """What containers.wrap and the Security Object take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Leftovers:
    """What a codec keeps beside the fields of the standard; base of all object values."""

    unknown: tuple[Tlv, ...] = ()
    legacy: tuple[Tlv, ...] = field(default=(), compare=False, repr=False)
    order: tuple[int, ...] = field(default=(), compare=False, repr=False)


class Kept(TypedDict):
    """The arguments of Leftovers."""

    unknown: tuple[Tlv, ...]
    legacy: tuple[Tlv, ...]
    order: tuple[int, ...]


class Content:
    """The data objects of one container, sorted by a layout. Reading them twice or missing them is damage."""

    def __init__(self, container: Container, layout: tuple[Inner, ...], raw: bytes) -> None:
        """Raises MalformedObject when ``raw`` is no BER-TLV or a tag of the layout comes twice."""
        self.container = container
        try:
            items = tlv.parse_all(raw)
        except MalformedTlv as cause:
            raise MalformedObject(container, f"not BER-TLV: {cause}") from cause
        known = {row.tag: row for row in layout}
        self._values: dict[int, bytes] = {}
        for item in items:
            if item.tag in known and item.tag in self._values:
                raise self.damaged(f"tag {item.tag:X} comes twice")
            self._values.setdefault(item.tag, item.value)
        self.kept: Kept = {
            "unknown": tuple(item for item in items if item.tag not in known),
            "legacy": tuple(item for item in items if item.tag in known and known[item.tag].need is Need.LEGACY),
            "order": tuple(item.tag for item in items),
        }

    def damaged(self, reason: str) -> MalformedObject:
        """The error to raise for this container."""
        return MalformedObject(self.container, reason)

    def get(self, tag: int) -> bytes | None:
        """The value of ``tag``, None if it is not there."""
        return self._values.get(tag)

    def need(self, tag: int, size: int | None = None) -> bytes:
        """The value of ``tag``. Raises MalformedObject when it is missing or not ``size`` octets long."""
        value = self._values.get(tag)
        if value is None:
            raise self.damaged(f"tag {tag:X} is missing")
        if size is not None and len(value) != size:
            raise self.damaged(f"tag {tag:X} has {len(value)} octets instead of {size}")
        return value

    def text(self, tag: int) -> str:
        """The value of ``tag`` as text. Raises MalformedObject when missing or not UTF-8."""
        try:
            return self.need(tag).decode("utf-8")
        except UnicodeDecodeError as cause:
            raise self.damaged(f"tag {tag:X} is not text") from cause


def write(items: Iterable[tuple[int, bytes | None]], leftovers: Leftovers, *, end: bool = True) -> bytes:
    """The data objects in order (None: absent), the unknown ones, and ``FE 00`` if ``end``."""
    out = [Tlv(tag, value) for tag, value in items if value is not None]
    out.extend(leftovers.unknown)
    if end:
        out.append(Tlv(ERROR_DETECTION, b""))
    return tlv.join(out)
