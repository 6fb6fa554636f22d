"""asn1crypto kept strict: DER only, nothing left over, everything parsed at once, one error type.

asn1crypto alone reads BER, ignores what follows and parses lazily, so that a damaged structure fails
far from where it was read.
"""

from __future__ import annotations

from typing import TypeVar

from asn1crypto import core

from .errors import CardwrightError

MAX_SIZE = 1 << 20
MAX_DEPTH = 32

T = TypeVar("T", bound=core.Asn1Value)

_SEQUENCE, _SET = 0x30, 0x31


class MalformedAsn1(CardwrightError):
    """Octets that are no DER, or no DER of the wanted structure."""

    code = "ASN1_MALFORMED"
    default_effect = "The signature or certificate that it belongs to cannot be used."
    default_advice = "Run 'cardwright card check' for the whole picture; whoever wrote it has to write it anew."


def load(kind: type[T], der: bytes) -> T:
    """The value of ``kind`` that ``der`` is. Raises MalformedAsn1."""
    require_der(der)
    try:
        value = kind.load(der, strict=True)
        _settle(value)
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, AttributeError) as cause:
        # asn1crypto: AttributeError on an EXTERNAL or EMBEDDED PDV where another type belongs, IndexError on an empty
        # BIT STRING inside an OCTET STRING.
        raise MalformedAsn1(f"no {kind.__name__}: {str(cause).partition(chr(10))[0]}") from cause
    result: T = value
    return result


def require_der(der: bytes) -> None:
    """Check X.690 chapters 8 to 11 as far as tags, lengths, nesting and simple types go. Raises MalformedAsn1."""
    if len(der) > MAX_SIZE:
        raise MalformedAsn1(f"{len(der)} octets are too many")
    end = _walk(der, 0, len(der), 0)
    if end != len(der):
        raise MalformedAsn1(f"{len(der) - end} octets follow the structure")


def _settle(value: core.Asn1Value) -> None:
    """Parse everything below ``value`` now. What its structure leaves open (ANY) stays as it is."""
    if isinstance(value, core.Choice):
        _settle(value.chosen)
    elif isinstance(value, core.Sequence | core.Set):
        for name in value:
            _settle(value[name])
    elif isinstance(value, core.SequenceOf | core.SetOf):
        for child in value:
            _settle(child)
    elif isinstance(value, core.ParsableOctetString) and value._parsed is not None:
        # Its own native value would parse ANY below it too, for which there is no structure: Kerberos names.
        _settle(value.parsed)
    elif not isinstance(value, core.Any):
        _ = value.native


def _walk(der: bytes, start: int, limit: int, depth: int) -> int:
    """Check the one element at ``start``; the offset behind it."""
    if depth > MAX_DEPTH:
        raise MalformedAsn1("nested too deeply")
    tag, constructed, body, end = _header(der, start, limit)
    if constructed:
        children: list[bytes] = []
        at = body
        while at < end:
            following = _walk(der, at, end, depth + 1)
            if tag == _SET:
                children.append(der[at:following])
            at = following
        if children != sorted(children):
            raise MalformedAsn1("a SET is not in DER order")
    else:
        _primitive(tag, der[body:end])
    return end


def _header(der: bytes, start: int, limit: int) -> tuple[int, bool, int, int]:
    """The first tag octet, whether constructed, start and end of the content."""
    if limit - start < 2:
        raise MalformedAsn1("cut in a tag or a length")
    tag = der[start]
    at = start + 1
    if tag & 0x1F == 0x1F:
        number = 0
        while at < limit:
            octet = der[at]
            number = number << 7 | octet & 0x7F
            at += 1
            if not number:
                raise MalformedAsn1("a tag number starts with zeros")
            if not octet & 0x80:
                break
        if number < 0x1F or at >= limit:
            raise MalformedAsn1("a long tag that should be short, or is cut")
    constructed = bool(tag & 0x20)
    if tag < 0x40 and constructed != (tag | 0x20 in (_SEQUENCE, _SET)):
        raise MalformedAsn1(f"tag {tag:02X} is not DER")
    size = der[at]
    at += 1
    if size & 0x80:
        octets = size & 0x7F
        if not 1 <= octets <= 4 or at + octets > limit:
            raise MalformedAsn1("a length is indefinite, too long or cut")
        size = int.from_bytes(der[at : at + octets], "big")
        if size < 0x80 or size.bit_length() <= 8 * (octets - 1):
            raise MalformedAsn1("a length is not the shortest")
        at += octets
    if size > limit - at:
        raise MalformedAsn1("cut in a value")
    return tag, constructed, at, at + size


def _primitive(tag: int, content: bytes) -> None:
    match tag:
        case 0x01 if content not in (b"\x00", b"\xff"):
            raise MalformedAsn1("a BOOLEAN is not DER")
        case 0x02 | 0x0A if not content or (
            len(content) > 1 and content[0] in (0, 0xFF) and content[0] ^ content[1] < 0x80
        ):
            raise MalformedAsn1("an INTEGER is not DER")
        case 0x03 if not content or content[0] > 7 or (content[0] and len(content) == 1):
            raise MalformedAsn1("a BIT STRING is not DER")
        case 0x05 if content:
            raise MalformedAsn1("a NULL is not empty")
