"""Who is asked in a call."""

from __future__ import annotations

from typing import Final

from cardwright_proto.agent.v1 import agent_pb2 as pb

from ..desk import Desk, Surroundings
from ..errors import BadRequest
from ..prompts import Prompter

MAX_VALUE: Final = 255
"""Octets of a PIN; cards take eight, PKCS#11 tokens what they say."""


def prompter_of(desk: Desk, asking: pb.Asking) -> Prompter:
    """The prompter for a call. Raises HeadlessPinRefused, BadRequest."""
    given = asking.headless
    if max(len(given.current), len(given.new)) > MAX_VALUE:
        raise BadRequest(f"A PIN or PUK has at most {MAX_VALUE} octets.")
    around = Surroundings(asking.tty, asking.tty_type, asking.display, given.current, given.new)
    return desk.prompter(around)
