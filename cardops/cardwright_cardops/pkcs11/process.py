"""A process of its own for a PKCS#11 module, and the calls to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Self, TypeVar

from .channel import Channel
from .errors import UNCHANGED, UNKNOWN_EFFECT, ModuleUnusable, error_of
from .messages import Load, Reply, Request
from .quirks import Quirks, quirks_of
from .values import ModuleInfo

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Deadlines:
    """Seconds an operation may take before the module's process is stopped.

    Generation is long because RSA-4096 on a chip takes minutes.
    """

    load: float = 30.0
    read: float = 60.0
    operation: float = 60.0
    generation: float = 600.0


class ModuleProcess:
    """One module, one process, one call at a time. Threads may share it; they wait for each other.

    Nothing is started before the first call. A crash or a hang costs the operation under way and every login; the
    next call starts a new process. Logins are never repeated.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        environment: Mapping[str, str] | None = None,
        deadlines: Deadlines | None = None,
    ) -> None:
        """``path`` is the module's absolute path, ``environment`` is added to that of its process.

        Raises ModuleUnusable if there is no such file.
        """
        self.path = Path(path)
        self.deadlines = deadlines or Deadlines()
        self._environment = dict(environment or {})
        self._lock = Lock()
        self._channel: Channel | None = None
        self._info: ModuleInfo | None = None
        if not self.path.is_absolute() or not self.path.is_file():
            raise ModuleUnusable(f"There is no file at {self.path}, or the path is not absolute.")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int | None:
        """Process id of the child, None if none runs."""
        channel = self._channel
        return channel.pid if channel is not None and channel.running else None

    @property
    def info(self) -> ModuleInfo:
        """What the module says of itself. Raises ModuleUnusable, ModuleCrashed, ModuleTimeout."""
        with self._lock:
            self._ready()
            assert self._info is not None
            return self._info

    @property
    def quirks(self) -> Quirks:
        """What is known of this module. Raises as ``info``."""
        return quirks_of(self.info)

    def ask(self, request: Request, answer: type[T], seconds: float, *, changes: bool = False) -> T:
        """One request to the child, with ``changes`` if it can change the token. For this package only.

        Raises the Pkcs11Error for whatever went wrong; secrets in the request are wiped.
        """
        with self._lock:
            reply = self._exchange(self._ready(), request, answer, seconds, changes)
        if not isinstance(reply, Reply):
            return reply
        error = error_of(reply.fault, reply.detail)
        if not changes and type(error).default_effect == UNKNOWN_EFFECT:
            error.effect = UNCHANGED
        raise error

    def close(self) -> None:
        """End the child. Never raises; a later call starts a new one."""
        with self._lock:
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def abort(self) -> None:
        """Kill the child at once, from any thread; an operation under way ends with ModuleCrashed."""
        channel = self._channel
        if channel is not None:
            channel.stop()

    def _exchange(
        self, channel: Channel, request: Request, answer: type[T], seconds: float, changes: bool
    ) -> Reply | T:
        try:
            return channel.ask(request, answer, seconds, None if changes else UNCHANGED)
        finally:
            if not channel.running:
                self._channel = None
                channel.close()

    def _ready(self) -> Channel:
        if self._channel is not None and self._channel.running:
            return self._channel
        if self._channel is not None:
            self._channel.close()
        channel = self._channel = Channel(self._environment)
        reply = self._exchange(channel, Load(str(self.path)), ModuleInfo, self.deadlines.load, False)
        if isinstance(reply, Reply):
            self._channel = None
            channel.close()
            raise error_of(reply.fault, reply.detail)
        self._info = reply
        return channel
