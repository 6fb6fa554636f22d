"""Errors in the form in which gRPC carries them: google.rpc.Status with an ErrorInfo whose reason is our code."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from google.protobuf.any_pb2 import Any
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import ErrorInfo  # type: ignore[import-untyped]
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]

from .errors import CardwrightError
from .wire_reading import MAX_CODE, clean

DOMAIN: Final = "cardwright"
DETAILS: Final = "grpc-status-details-bin"
"""Where gRPC carries a google.rpc.Status: a key of the trailing metadata."""
MAX_DETAILS: Final = 1 << 14

_CODE: Final = re.compile(r"[A-Z][A-Z0-9_]*")
_METHODS: Final = re.compile(r"[a-z-]{1,40}( [a-z-]{1,40}){0,15}")
_SECONDS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,3})?", re.ASCII)


class RemoteError(CardwrightError):
    """An error that a call ended with; ``code`` is the one that it had at the other end.

    ``sw``, ``tries_left`` and ``reader`` are what the error carried there, None where it had none; ``retry_after``
    likewise: seconds until it is worth another try. ``methods``: names of those by which the person could prove enough,
    any of which does; empty where the error names none.
    """

    code = "REMOTE"
    default_advice = "Do what the text of the error says."

    def __init__(self, message: str, *, effect: str = "", advice: str = "") -> None:
        super().__init__(message, effect=effect, advice=advice)
        self.sw: int | None = None
        self.tries_left: int | None = None
        self.reader: str | None = None
        self.retry_after: float | None = None
        self.methods: frozenset[str] = frozenset()


def details_of(error: CardwrightError, status: int, more: Mapping[str, str] = MappingProxyType({})) -> bytes:
    """The google.rpc.Status of ``error`` with the number of a gRPC code; effect, advice and ``more`` are metadata."""
    sw, tries, reader = (getattr(error, name, None) for name in ("sw", "tries_left", "reader"))
    told = {
        "effect": clean(error.effect),
        "advice": clean(error.advice),
        "sw": f"{sw:04X}" if isinstance(sw, int) else "",
        "tries_left": str(tries) if isinstance(tries, int) else "",
        "reader": clean(reader) if isinstance(reader, str) else "",
        "methods": " ".join(sorted(getattr(error, "methods", ()))),
        **more,
    }
    info = ErrorInfo(reason=error.code, domain=DOMAIN)
    info.metadata.update({name: text for name, text in told.items() if text})
    packed = Any()
    packed.Pack(info)
    made: bytes = Status(code=status, message=clean(error.message), details=[packed]).SerializeToString()
    return made


def error_of(details: bytes) -> RemoteError | None:
    """The error in a google.rpc.Status; None where there is none of ours."""
    if len(details) > MAX_DETAILS:
        return None
    try:
        status = Status.FromString(details)
    except (DecodeError, UnicodeDecodeError):
        return None
    for packed in status.details:
        info = ErrorInfo()
        if not packed.Is(ErrorInfo.DESCRIPTOR):
            continue
        try:
            packed.Unpack(info)
        except (DecodeError, UnicodeDecodeError):
            return None
        if info.domain != DOMAIN or len(info.reason) > MAX_CODE or _CODE.fullmatch(info.reason) is None:
            continue
        told = info.metadata
        error = RemoteError(clean(status.message), effect=clean(told["effect"]), advice=clean(told["advice"]))
        vars(error)["code"] = info.reason
        error.reader = clean(told["reader"]) or None
        error.retry_after = float(told["retry_after"]) if _SECONDS.fullmatch(told["retry_after"]) else None
        error.tries_left = int(told["tries_left"]) if re.fullmatch("[0-9]{1,3}", told["tries_left"]) else None
        error.methods = frozenset(told["methods"].split()) if _METHODS.fullmatch(told["methods"]) else frozenset()
        error.sw = int(told["sw"], 16) if re.fullmatch("[0-9A-F]{4}", told["sw"]) else None
        return error
    return None
