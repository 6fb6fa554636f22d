"""Frames and faults: how messages and errors cross a socket."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from .errors import (
    HsmUnusable,
    VaultDamaged,
    VaultError,
    VaultExists,
    VaultLocked,
    VaultQuota,
    VaultRefused,
    VaultUnavailable,
    VaultUnlockRefused,
)
from .messages import MAX_FRAME, Fault

SOCKET: Final = "vault.sock"
ADMIN_SOCKET: Final = "admin.sock"

_UCRED: Final = struct.Struct("3i")
_PLAIN: Final = {
    one.code: one
    for one in (VaultLocked, VaultUnavailable, HsmUnusable, VaultUnlockRefused, VaultDamaged, VaultExists)
}


def peer_uid(writer: asyncio.StreamWriter) -> int:
    """The user id at the other end of a unix socket, as the kernel knows it."""
    connection = writer.get_extra_info("socket")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    return int(_UCRED.unpack(credentials)[1])


async def read_frame(reader: asyncio.StreamReader) -> bytes:
    """One frame. Raises EOFError at the end of the stream, ValueError for a length that no frame has, OSError."""
    size = int.from_bytes(await reader.readexactly(4), "big")
    if not 0 < size <= MAX_FRAME:
        raise ValueError(f"no frame has {size} octets")
    return await reader.readexactly(size)


def frame(content: bytes) -> bytes:
    """The octets of a frame. Raises VaultRefused if it is too large."""
    if not 0 < len(content) <= MAX_FRAME:
        raise VaultRefused("size", f"A message of {len(content)} octets is too large.")
    return len(content).to_bytes(4, "big") + content


def fault_of(error: VaultError) -> Fault:
    """An error as it crosses the line."""
    match error:
        case VaultRefused():
            return Fault(error.code, error.message, error.reason)
        case VaultQuota():
            return Fault(error.code, error.message, error.limit, error.retry_after)
    return Fault(error.code, error.message)


def error_of(fault: Fault) -> VaultError:
    """The error that a fault stands for."""
    if fault.code == VaultRefused.code:
        return VaultRefused(fault.reason, fault.message)
    if fault.code == VaultQuota.code:
        return VaultQuota(fault.reason, fault.retry_after)
    return _PLAIN.get(fault.code, VaultUnavailable)(fault.message)
