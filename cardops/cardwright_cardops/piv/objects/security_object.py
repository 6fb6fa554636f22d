"""Security Object: signed hashes of the other containers (SP 800-73-5 part 1 section 3.1.7, table 12).

The signed part is an LDSSecurityObject as ICAO 9303 has it. What is hashed is containers.hashed_content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from asn1crypto import algos, core

from ... import asn1
from ..containers import SECURITY_OBJECT, Container
from .layout import FE, Content, Inner, Leftovers, write

_MAP, _SIGNED = 0xBA, 0xBB
MAX_DATA_GROUPS = 16
DIGESTS = frozenset({"sha1", "sha224", "sha256", "sha384", "sha512"})
"""Hash functions that can be recomputed; which of them are good enough is for the check to say."""


@dataclass(frozen=True, slots=True)
class SecurityObject(Leftovers):
    """``groups`` maps data group numbers (1-16) to container ids; ``signed`` is the DER of a CMS SignedData."""

    LAYOUT: ClassVar[tuple[Inner, ...]] = (
        Inner(_MAP, "Mapping of DG to ContainerID", range(0, 3 * MAX_DATA_GROUPS + 1, 3)),
        Inner(_SIGNED, "Security Object", range(1, 1299)),
        FE,
    )

    groups: tuple[tuple[int, int], ...]
    signed: bytes = field(repr=False)

    @classmethod
    def decode(cls, value: bytes, container: Container = SECURITY_OBJECT) -> SecurityObject:
        """Read the value inside tag 53. Raises MalformedObject; what is signed is not looked into."""
        content = Content(container, cls.LAYOUT, value)
        rows = content.need(_MAP)
        if len(rows) % 3:
            raise content.damaged(f"the container map has {len(rows)} octets, not a multiple of 3")
        groups = tuple((rows[at], int.from_bytes(rows[at + 1 : at + 3], "big")) for at in range(0, len(rows), 3))
        if len({number for number, _ in groups}) != len(groups):
            raise content.damaged("a data group number comes twice")
        return cls(groups=groups, signed=content.need(_SIGNED), **content.kept)

    def encode(self) -> bytes:
        """The value inside tag 53."""
        rows = b"".join(bytes((number,)) + owner.to_bytes(2, "big") for number, owner in self.groups)
        return write(((_MAP, rows), (_SIGNED, self.signed)), self)


@dataclass(frozen=True, slots=True)
class HashTable:
    """The content that the Security Object signs: hash function by asn1crypto's name, hash per data group."""

    digest: str
    hashes: tuple[tuple[int, bytes], ...]

    @classmethod
    def over(cls, contents: Mapping[int, bytes], digest: str = "sha256") -> HashTable:
        """Hash each container's content (containers.hashed_content); data group numbers count from 1.

        ``contents`` is keyed by data group number. Raises ValueError for more than 16 or numbers beyond 1-16.
        """
        if not all(1 <= number <= MAX_DATA_GROUPS for number in contents):
            raise ValueError("data group numbers are 1 to 16")
        return cls(
            digest,
            tuple((number, hashlib.new(digest, raw).digest()) for number, raw in sorted(contents.items())),
        )

    @classmethod
    def decode(cls, der: bytes) -> HashTable:
        """Read an LDSSecurityObject. Raises MalformedAsn1."""
        seen = asn1.load(_LdsSecurityObject, der)
        return cls(
            seen["hash_algorithm"]["algorithm"].native,
            tuple((row["number"].native, row["hash"].native) for row in seen["hashes"]),
        )

    def encode(self) -> bytes:
        """The DER of the LDSSecurityObject, version 0."""
        value = _LdsSecurityObject(
            {
                "version": 0,
                "hash_algorithm": {"algorithm": self.digest},
                "hashes": [{"number": number, "hash": value} for number, value in self.hashes],
            }
        )
        return bytes(value.dump())

    def matches(self, number: int, content: bytes) -> bool | None:
        """Whether ``content`` has the hash of data group ``number``; None when there is no such hash.

        Raises ValueError for a hash function outside DIGESTS.
        """
        if self.digest not in DIGESTS:
            raise ValueError(f"the hash function {self.digest} is unknown")
        for row, value in self.hashes:
            if row == number:
                return hashlib.new(self.digest, content).digest() == value
        return None


class _DataGroupHash(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [("number", core.Integer), ("hash", core.OctetString)]


class _DataGroupHashes(core.SequenceOf):  # type: ignore[misc]
    _child_spec = _DataGroupHash


class _LdsSecurityObject(core.Sequence):  # type: ignore[misc]
    _fields: ClassVar = [
        ("version", core.Integer),
        ("hash_algorithm", algos.DigestAlgorithm),
        ("hashes", _DataGroupHashes),
    ]
