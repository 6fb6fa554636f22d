"""Answers of a card: any octets are read or refused with MalformedAnswer; a public key read is a public key written."""

from __future__ import annotations

from contextlib import suppress

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from cardwright_cardops.iso7816.tlv import encode
    from cardwright_cardops.piv import responses
    from cardwright_cardops.piv.algorithms import Algorithm
    from cardwright_cardops.piv.vendor.yubico import parse_metadata


def one(raw: bytes) -> None:
    with suppress(responses.MalformedAnswer):
        responses.parse_select(raw)
    with suppress(responses.MalformedAnswer):
        responses.dynamic_authentication(raw, 0x82, 0x80)
    for early in (False, True):
        with suppress(responses.MalformedAnswer):
            parse_metadata(raw, origin_from_zero=early)
    for algorithm in Algorithm:
        try:
            key = responses.parse_public_key(algorithm, raw)
        except responses.MalformedAnswer:
            continue
        template = responses.encode_public_key(key)
        again = responses.parse_public_key(algorithm, encode(0x7F49, template))
        assert responses.encode_public_key(again) == template


if __name__ == "__main__":
    answers = ("61114F0600001000010079074F05A000000308", "7C0482020102", "0101070202010503010105010106020505")
    fuzz(one, [bytes.fromhex(answer) for answer in answers])
