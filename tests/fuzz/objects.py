"""PIV data objects: any content is decoded or refused with MalformedObject, and an encoding is stable."""

from __future__ import annotations

from datetime import date
from uuid import UUID

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from cardwright_cardops.piv import objects

TAGS = sorted(objects.CODECS)


def one(raw: bytes) -> None:
    """The first octet chooses the container, the others are its content."""
    if not raw:
        return
    tag = TAGS[raw[0] % len(TAGS)]
    try:
        seen = objects.decode(tag, raw[1:])
    except objects.MalformedObject:
        return
    canonical = seen.encode()
    assert objects.decode(tag, canonical).encode() == canonical


def seeds() -> list[bytes]:
    """Small good contents, with the octet that chooses their container."""
    values: dict[str, objects.AnyObject] = {
        "5FC102": objects.Chuid(bytes(25), UUID(int=7), date(2030, 1, 2)),
        "5FC109": objects.Printed("A B", "Employee", date(2030, 1, 2), "1", "2"),
        "5FC10C": objects.KeyHistory(1, 1, "u://x"),
        "7E": objects.Discovery(bytes(11), objects.PinUsagePolicy(0x40, 0)),
        "5FC105": objects.CertificateObject(bytes.fromhex("3003020101"), compressed=True),
    }
    return [bytes((TAGS.index(int(tag, 16)),)) + value.encode() for tag, value in values.items()]


if __name__ == "__main__":
    fuzz(one, seeds())
