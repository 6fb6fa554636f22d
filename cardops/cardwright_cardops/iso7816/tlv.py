"""Strict BER-TLV (ISO 7816-4 section 5.2.2, X.690): bounded, no indefinite length, nothing left over."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import CardwrightError

MAX_TAG_OCTETS = 3
MAX_LENGTH_OCTETS = 3


class MalformedTlv(CardwrightError):
    """Bytes that are not BER-TLV as this reader accepts it. ``offset`` is where reading stopped."""

    code = "TLV_MALFORMED"
    default_effect = "The content of that object cannot be used; nothing on the card was changed."
    default_advice = "Write the object anew, or run 'cardwright card check' for the whole picture."

    def __init__(self, message: str, *, offset: int = 0) -> None:
        super().__init__(message)
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Tlv:
    """One data object: ``tag`` as the number its octets spell (0x5FC102), ``value`` without the length."""

    tag: int
    value: bytes

    def encode(self) -> bytes:
        """Tag, shortest length, value."""
        return encode(self.tag, self.value)

    def __repr__(self) -> str:
        return f"Tlv({self.tag:X}, {len(self.value)} octets)"


def encode_tag(tag: int) -> bytes:
    """The octets of ``tag``. Raises MalformedTlv for a number that is no BER tag of at most 3 octets."""
    octets = tag.to_bytes((tag.bit_length() + 7) // 8 or 1, "big")
    if _tag_size(octets, 0) != len(octets):
        raise MalformedTlv(f"{tag:X} is not the tag of a BER-TLV data object")
    return octets


def encode_length(size: int) -> bytes:
    """The shortest BER length field for ``size`` (below 2^24). Raises MalformedTlv beyond."""
    if size < 0x80:
        return bytes((size,))
    if size < 0x100:
        return bytes((0x81, size))
    if size < 0x10000:
        return b"\x82" + size.to_bytes(2, "big")
    if size < 0x1000000:
        return b"\x83" + size.to_bytes(3, "big")
    raise MalformedTlv(f"{size} octets are more than a data object may hold")


def encode(tag: int, value: bytes) -> bytes:
    """One data object with the shortest length field."""
    return encode_tag(tag) + encode_length(len(value)) + value


def join(items: Iterable[Tlv]) -> bytes:
    """The data objects one after another."""
    return b"".join(item.encode() for item in items)


def iterate(raw: bytes) -> Iterator[Tlv]:
    """The data objects of ``raw`` in order. Raises MalformedTlv at the first octet that does not fit."""
    offset, end = 0, len(raw)
    while offset < end:
        tag, offset = _read_tag(raw, offset)
        size, offset = _read_length(raw, offset)
        if size > end - offset:
            raise MalformedTlv(
                f"tag {tag:X} says {size} octets, {end - offset} follow", offset=offset
            )
        yield Tlv(tag, raw[offset : offset + size])
        offset += size


def parse_all(raw: bytes) -> tuple[Tlv, ...]:
    """All data objects of ``raw``; an empty input has none. Raises MalformedTlv."""
    return tuple(iterate(raw))


def parse_one(raw: bytes, tag: int | None = None) -> Tlv:
    """The single data object that ``raw`` is, of ``tag`` if given.

    Raises MalformedTlv when there is another tag, trailing octets or nothing.
    """
    items = parse_all(raw)
    if len(items) != 1:
        raise MalformedTlv(f"expected one data object, found {len(items)}")
    if tag is not None and items[0].tag != tag:
        raise MalformedTlv(f"expected tag {tag:X}, found {items[0].tag:X}")
    return items[0]


def parse_unique(raw: bytes) -> dict[int, bytes]:
    """Tag to value, in order. Raises MalformedTlv when a tag comes twice."""
    found: dict[int, bytes] = {}
    for item in iterate(raw):
        if item.tag in found:
            raise MalformedTlv(f"tag {item.tag:X} comes twice")
        found[item.tag] = item.value
    return found


def is_constructed(tag: int) -> bool:
    """Whether bit 6 of the first tag octet says that the value is made of data objects."""
    return bool(encode_tag(tag)[0] & 0x20)


def _tag_size(raw: bytes, offset: int) -> int:
    """Octets of the tag that starts at ``offset``; 0 if it is none."""
    first = raw[offset]
    if first in (0x00, 0xFF):
        return 0
    if first & 0x1F != 0x1F:
        return 1
    for size in range(2, MAX_TAG_OCTETS + 1):
        if offset + size > len(raw):
            return 0
        octet = raw[offset + size - 1]
        if size == 2 and (octet & 0x7F) == 0:
            return 0
        if not octet & 0x80:
            return size
    return 0


def _read_tag(raw: bytes, offset: int) -> tuple[int, int]:
    size = _tag_size(raw, offset)
    if not size:
        raise MalformedTlv("no BER tag of at most 3 octets here", offset=offset)
    return int.from_bytes(raw[offset : offset + size], "big"), offset + size


def _read_length(raw: bytes, offset: int) -> tuple[int, int]:
    if offset >= len(raw):
        raise MalformedTlv("the input ends before a length", offset=offset)
    first = raw[offset]
    if first < 0x80:
        return first, offset + 1
    octets = first & 0x7F
    start = offset + 1
    if not 1 <= octets <= MAX_LENGTH_OCTETS or start + octets > len(raw):
        raise MalformedTlv("the length field is indefinite, too long or cut", offset=offset)
    return int.from_bytes(raw[start : start + octets], "big"), start + octets
