"""APDUs and BER-TLV: any octets are read or refused with the documented error, and what was read is written back."""

from __future__ import annotations

from contextlib import suppress

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from cardwright_cardops.iso7816 import tlv
    from cardwright_cardops.iso7816.apdu import CommandAPDU, MalformedApdu, ResponseAPDU


def one(raw: bytes) -> None:
    with suppress(tlv.MalformedTlv):
        items = tlv.parse_all(raw)
        assert tlv.parse_all(tlv.join(items)) == items
    with suppress(MalformedApdu):
        command = CommandAPDU.parse(raw)
        extended = len(command.data) > 255 or (command.le or 0) > 256
        assert CommandAPDU.parse(command.encode(extended=extended)) == command
    with suppress(MalformedApdu):
        assert ResponseAPDU.parse(raw).encode() == raw


if __name__ == "__main__":
    fuzz(one, [bytes.fromhex("00A4040005A00000030800"), bytes.fromhex("7F490786050401020304")])
