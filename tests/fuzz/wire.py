"""Messages from a network: any octets become a batch, answers or an error, or are refused with a documented error."""

from __future__ import annotations

from contextlib import suppress

import atheris

from tests.support.fuzzing import fuzz

with atheris.instrument_imports(include=["cardwright_cardops"]):
    from cardwright_cardops import wire, wire_tokens
    from cardwright_proto.card.v1 import errors_pb2, programs_pb2, tokens_pb2


def one(raw: bytes) -> None:
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        batch = wire.batch_from_wire(wire.parse(raw, programs_pb2.Batch))
        assert wire.batch_from_wire(wire.batch_to_wire(batch)) == batch
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        error = wire.error_from_wire(wire.parse(raw, errors_pb2.Error))
        assert wire.error_from_wire(wire.error_to_wire(error)).code == error.code
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        steps = wire_tokens.steps_from_wire(wire.parse(raw, tokens_pb2.TokenBatch))
        assert wire_tokens.steps_from_wire(wire_tokens.steps_to_wire(steps)) == steps
    with suppress(wire.WireMalformed, wire.WireUnsupported):
        token = wire_tokens.token_from_wire(wire.parse(raw, tokens_pb2.Token))
        assert wire_tokens.token_from_wire(wire_tokens.token_to_wire(token)) == token


if __name__ == "__main__":
    fuzz(one)
