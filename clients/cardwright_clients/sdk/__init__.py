"""Typed clients for Python programs: ``DaemonClient`` for the workstation, ``ServerClient`` for the server.

See docs/sdk.md. Values are in ``values``, errors of the line in ``errors``; what the other end says comes as
``cardwright_cardops.rpc_status.RemoteError`` with a stable code of docs/errors.md. What is not used is not loaded.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .daemon import DaemonClient
    from .errors import DaemonNotRunning, DaemonSilent, OperationLost, ServerRefused, ServerUnreachable
    from .identity import OperatorFile, OperatorFileUnusable
    from .server import ServerClient

__all__ = [
    "DaemonClient",
    "DaemonNotRunning",
    "DaemonSilent",
    "OperationLost",
    "OperatorFile",
    "OperatorFileUnusable",
    "ServerClient",
    "ServerRefused",
    "ServerUnreachable",
]
_PLACES = {
    "DaemonClient": "daemon",
    "OperatorFile": "identity",
    "OperatorFileUnusable": "identity",
    "ServerClient": "server",
}
"""Modules of what is not an error of the line."""


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"{__name__}.{_PLACES.get(name, 'errors')}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
