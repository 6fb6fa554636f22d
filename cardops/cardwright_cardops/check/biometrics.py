"""Fingerprints, facial image, iris images: header, dates, signature, and the frame of the record inside.

Nothing of what the records show gets into a finding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..piv.containers import FACIAL_IMAGE, FINGERPRINTS, IRIS, Container
from ..piv.objects import BiometricObject
from ..piv.objects.biometric import PATRON_HEADER_VERSION, SIGNED_NOT_ENCRYPTED, when
from ..piv.signed import BIOMETRIC_CONTENT
from .context import Context
from .identity import end_of_card
from .signatures import Expected, examine


@dataclass(frozen=True, slots=True)
class Kind:
    """The header values of one modality (SP 800-76-2 section 9)."""

    container: Container
    owner: int
    types: frozenset[int]
    biometric_type: int
    data_types: frozenset[int]


KINDS = (
    Kind(FINGERPRINTS, 0x001B, frozenset({0x0201}), 0x000008, frozenset({0x80})),
    Kind(FACIAL_IMAGE, 0x001B, frozenset({0x0501}), 0x000002, frozenset({0x20})),
    Kind(IRIS, 0x0101, frozenset({0x0009}), 0x000010, frozenset({0x40})),
)

FINGERPRINT_FORMAT = b"FMR\0 20\0"
FACE_FORMAT = b"FAC\x00010\0"
FINGERPRINT_SIZES = range(26, 1575)
RESOLUTION = 197
"""Pixels per centimetre in both directions: 500 per inch."""


def check(context: Context) -> None:
    """Check every biometric record that is there."""
    for kind in KINDS:
        seen = context.get(kind.container, BiometricObject)
        if seen is None:
            continue
        _header(context, kind, seen)
        _dates(context, kind, seen)
        if kind.container is FINGERPRINTS:
            for problem in fingerprint_problems(seen.data):
                context.report("FINGERPRINT_RECORD", kind.container, problem)
        if kind.container is FACIAL_IMAGE:
            for problem in face_problems(seen.data):
                context.report("FACE_RECORD", kind.container, problem)
        if not seen.signature:
            context.report("BIOMETRIC_UNSIGNED", kind.container, "the record is not signed")
            continue
        expected = Expected(BIOMETRIC_CONTENT, seen.signed_content, wants_card_attributes=True)
        examine(context, kind.container, seen.signature, expected)


def _header(context: Context, kind: Kind, seen: BiometricObject) -> None:
    header, chuid = seen.header, context.chuid
    text, _, rest = header.creator.partition(b"\0")
    problems = (
        (header.version != PATRON_HEADER_VERSION, f"the patron header version is {header.version}"),
        (header.security != SIGNED_NOT_ENCRYPTED, f"the security options are {header.security:02X}"),
        (header.format_owner != kind.owner, f"the format owner is {header.format_owner:04X}"),
        (header.format_type not in kind.types, f"the format type is {header.format_type:04X}"),
        (header.biometric_type != kind.biometric_type, f"the biometric type is {header.biometric_type:06X}"),
        (header.data_type not in kind.data_types, f"the biometric data type is {header.data_type:02X}"),
        (not -2 <= header.quality <= 100, f"the quality is {header.quality}"),
        (len(text) == len(header.creator) or not text.isascii() or any(rest), "the creator is not ended by a null"),
        (any(header.reserved), "the reserved field is not zero"),
        (not seen.data, "the record is empty"),
    )
    for wrong, message in problems:
        if wrong:
            context.report("CBEFF_HEADER", kind.container, message)
    if chuid is not None and header.fascn != chuid.fascn:
        context.report("CBEFF_FASCN_MISMATCH", kind.container, "the header's FASC-N is not the CHUID's")


def _dates(context: Context, kind: Kind, seen: BiometricObject) -> None:
    header, chuid = seen.header, context.chuid
    start, end = when(header.not_before), when(header.not_after)
    if start is None or end is None or when(header.creation) is None:
        context.report("CBEFF_DATES", kind.container, "a date cannot be read")
    elif start > end:
        context.report("CBEFF_DATES_REVERSED", kind.container, f"valid from {start:%Y-%m-%d} to {end:%Y-%m-%d}")
    if start is not None and context.at < start:
        context.report("CBEFF_NOT_YET_VALID", kind.container, f"valid from {start:%Y-%m-%d} only")
    if end is None:
        return
    if context.at > end:
        context.report("CBEFF_EXPIRED", kind.container, f"the record's validity ended {end:%Y-%m-%d}")
    if chuid is not None and end.date() < end_of_card(chuid).date():
        context.report(
            "CBEFF_ENDS_BEFORE_CARD",
            kind.container,
            f"the record's validity ends {end:%Y-%m-%d}, the card's {chuid.expiration:%Y-%m-%d}",
        )


def fingerprint_problems(data: bytes) -> Iterator[str]:
    """What is wrong with the frame of an INCITS 378 record of two fingers (SP 800-76-2 table 6)."""
    if len(data) < 26 or data[:8] != FINGERPRINT_FORMAT:
        yield "no INCITS 378 minutiae record"
        return
    if int.from_bytes(data[8:10], "big") != len(data) or len(data) not in FINGERPRINT_SIZES:
        yield "the record's length is wrong"
    if not int.from_bytes(data[10:14], "big"):
        yield "the product identifier is zero"
    if data[14] >> 4 != 8:
        yield "the capture equipment is not marked as compliant"
    if (int.from_bytes(data[20:22], "big"), int.from_bytes(data[22:24], "big")) != (RESOLUTION, RESOLUTION):
        yield "the resolution is not 197 pixels per centimetre"
    if data[24] != 2:
        yield f"there are {data[24]} views instead of two"
    if data[25]:
        yield "the reserved octet is not zero"
    at = 26
    for _ in range(data[24]):
        if at + 4 > len(data):
            yield "a view is cut"
            return
        position, flags, quality, count = data[at : at + 4]
        if position > 14 or flags & 0x0F not in (0, 2) or quality not in (20, 40, 60, 80, 100, 254, 255):
            yield "finger position, impression type or quality of a view is out of range"
        if count > 128:
            yield "a view has more than 128 minutiae"
        end = at + 4 + 6 * count
        if end + 2 > len(data):
            yield "a view is cut"
            return
        if any(data[place + 4] > 179 for place in range(at + 4, end, 6)):
            yield "the angle of a minutia is out of range"
        if data[end : end + 2] != b"\0\0":
            yield "a view has extended data"
            return
        at = end + 2
    if at != len(data):
        yield "something follows the last view"


def face_problems(data: bytes) -> Iterator[str]:
    """What is wrong with the frame of an INCITS 385 record of one image (SP 800-76-2 table 12)."""
    if len(data) < 46 or data[:8] != FACE_FORMAT:
        yield "no INCITS 385 face record"
        return
    if int.from_bytes(data[8:12], "big") != len(data):
        yield "the record's length is wrong"
    if data[12:14] != b"\0\1":
        yield "there is not exactly one image"
    points = int.from_bytes(data[18:20], "big")
    image = 34 + 8 * points
    if image + 12 > len(data):
        yield "the record is cut before the image information"
        return
    kind, encoding = data[image], data[image + 1]
    colours, source = data[image + 6], data[image + 7]
    if (kind, colours) != (1, 1) or encoding not in (0, 1) or source not in (2, 6):
        yield "image type, data type, colour space or source is none that PIV has"
