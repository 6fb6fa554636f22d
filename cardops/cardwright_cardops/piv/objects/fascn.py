"""FASC-N: the 200-bit number of a federal card (SP 800-73-5 part 1 section 3.1.2; TIG SCEPACS section 2).

40 characters of 5 bits: four value bits, least significant first, then odd parity. Digits are 0-9, B
starts, D separates, F ends; the last character is the XOR of the values of all before it.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass, fields
from functools import reduce
from operator import xor

from ...errors import CardwrightError

SIZE = 25
_CHARACTERS = 40
_START, _SEPARATOR, _END = 0xB, 0xD, 0xF
_WIDTHS = (4, 4, 6, 1, 1, 10, 1, 4, 1)
_SEPARATED = 5
"""The first five fields are each followed by a separator, the others follow one another."""


class MalformedFascn(CardwrightError):
    """25 octets that are no FASC-N, or digits that do not make one."""

    code = "FASCN_MALFORMED"
    default_effect = "The card cannot be identified by its FASC-N."
    default_advice = "Run 'cardwright card check' for the whole picture; whoever wrote it has to write it anew."


@dataclass(frozen=True, slots=True)
class Fascn:
    """The nine fields as decimal digits of fixed width. Raises MalformedFascn for other text."""

    agency_code: str
    system_code: str
    credential_number: str
    credential_series: str = "0"
    individual_credential_issue: str = "1"
    person_identifier: str = "0000000000"
    organizational_category: str = "1"
    organizational_identifier: str = "0000"
    person_association: str = "1"

    def __post_init__(self) -> None:
        for row, width in zip(fields(self), _WIDTHS, strict=True):
            text = getattr(self, row.name)
            if len(text) != width or not (text.isascii() and text.isdigit()):
                raise MalformedFascn(f"the FASC-N field {row.name} is not {width} digits")

    @property
    def identifier(self) -> str:
        """The 14 digits that access control uses: agency, system and credential number."""
        return self.agency_code + self.system_code + self.credential_number

    @property
    def is_federal(self) -> bool:
        """False for the all-nines number of issuers outside the federal government."""
        return self.identifier != "9" * 14

    def encode(self) -> bytes:
        """The 25 octets, with parity and LRC."""
        values = [_START]
        for index, text in enumerate(astuple(self)):
            values.extend(int(digit) for digit in text)
            if index < _SEPARATED:
                values.append(_SEPARATOR)
        values.append(_END)
        values.append(reduce(xor, values))
        number = 0
        for value in values:
            number = number << 5 | _character(value)
        return number.to_bytes(SIZE, "big")

    @classmethod
    def decode(cls, raw: bytes) -> Fascn:
        """Read 25 octets strictly. Raises MalformedFascn for parity, LRC, separators and length."""
        reading = inspect(raw)
        if reading.fascn is None:
            raise MalformedFascn(f"no FASC-N: {', '.join(reading.defects)}")
        return reading.fascn

    def __str__(self) -> str:
        return "-".join(astuple(self)[:5])


@dataclass(frozen=True, slots=True)
class Reading:
    """A lenient read: ``raw`` as it came, the fields if nothing is wrong, else ``defects`` in words."""

    raw: bytes
    fascn: Fascn | None
    defects: tuple[str, ...]


def inspect(raw: bytes) -> Reading:
    """Read 25 octets and say everything that is wrong with them; never raises."""
    if len(raw) != SIZE:
        return Reading(raw, None, (f"{len(raw)} octets instead of {SIZE}",))
    number = int.from_bytes(raw, "big")
    symbols = [number >> 5 * (_CHARACTERS - 1 - place) & 0x1F for place in range(_CHARACTERS)]
    values = [_reverse(symbol >> 1) for symbol in symbols]
    defects: list[str] = []
    if any(_character(value) != symbol for value, symbol in zip(values, symbols, strict=True)):
        defects.append("parity is wrong")
    if reduce(xor, values[:-1]) != values[-1]:
        defects.append("LRC is wrong")
    texts = _split(values)
    if texts is None:
        defects.append("sentinels, separators or digits are wrong")
    if defects or texts is None:
        return Reading(raw, None, tuple(defects))
    return Reading(raw, Fascn(*texts), ())


def _split(values: list[int]) -> list[str] | None:
    texts: list[str] = []
    place = 1
    for index, width in enumerate(_WIDTHS):
        digits = values[place : place + width]
        if any(digit > 9 for digit in digits):
            return None
        texts.append("".join(map(str, digits)))
        place += width
        if index < _SEPARATED:
            if values[place] != _SEPARATOR:
                return None
            place += 1
    return texts if values[0] == _START and values[place] == _END else None


def _reverse(nibble: int) -> int:
    return (nibble & 1) << 3 | (nibble & 2) << 1 | (nibble & 4) >> 1 | (nibble & 8) >> 3


def _character(value: int) -> int:
    """Four bits, least significant first, and odd parity."""
    return _reverse(value) << 1 | (value.bit_count() + 1 & 1)
