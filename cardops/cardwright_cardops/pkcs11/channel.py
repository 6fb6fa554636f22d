"""The parent's end of the pipe: start the process that holds a module, ask it, stop it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Connection, Pipe
from typing import Final, TypeVar

import msgspec

from .errors import AnswerInvalid, DataRejected, ModuleCrashed, ModuleTimeout
from .messages import MAX_REPLY, MAX_REQUEST, Reply, Request, wipe

T = TypeVar("T")

# Switches of known modules that write every call, PINs included, to a file or a terminal.
_LOUD: Final = ("YKCS11_DBG", "OPENSC_DEBUG", "PKCS11SPY", "PKCS11SPY_OUTPUT", "P11_KIT_DEBUG")
_STOPPING_SECONDS: Final = 3.0


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Our environment without the debug switches of modules, and ``extra``."""
    kept = {name: value for name, value in os.environ.items() if name not in _LOUD}
    return {**kept, **extra}


class Channel:
    """One child process. Not safe for two threads at once, but for ``stop``."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        ours, theirs = Pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "cardwright_cardops.pkcs11.child", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env=child_environment(environment),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._pipe: Connection = ours

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """False once the child ended."""
        return self._process.poll() is None

    def ask(self, request: Request, answer: type[T], seconds: float, effect: str | None) -> Reply | T:
        """Send a request and wait for its answer; a Reply comes back only for a fault.

        The request's secrets are wiped. Raises ModuleCrashed, ModuleTimeout, AnswerInvalid (each after the child
        was stopped) with ``effect``, and DataRejected for a request that is too large.
        """
        frame = bytearray()
        try:
            msgspec.msgpack.Encoder().encode_into(request, frame)
            if len(frame) > MAX_REQUEST:
                raise DataRejected("The object is too large to be handed to a module.")
            self._pipe.send_bytes(frame)
            if not self._pipe.poll(seconds):
                self.stop()
                raise ModuleTimeout(f"The module did not answer within {seconds:g} s.", effect=effect)
            reply = msgspec.msgpack.decode(self._pipe.recv_bytes(MAX_REPLY), type=Reply)
            return reply if reply.fault else msgspec.msgpack.decode(reply.body, type=answer)
        except msgspec.MsgspecError:
            self.stop()
            raise AnswerInvalid("The module's process gave an answer that cannot be read.", effect=effect) from None
        except (EOFError, OSError):
            self.stop()
            raise ModuleCrashed(f"The module's process ended ({self._ending()}).", effect=effect) from None
        finally:
            frame[:] = bytes(len(frame))
            wipe(request)

    def close(self) -> None:
        """Let the child finish (C_Finalize) and end; kill it if it does not."""
        self._pipe.close()
        try:
            self._process.wait(_STOPPING_SECONDS)
        except subprocess.TimeoutExpired:
            self.stop()

    def stop(self) -> None:
        """Kill the child. Safe from another thread: a waiting ``ask`` then ends with ModuleCrashed."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        self._process.wait()

    def _ending(self) -> str:
        status = self._process.wait()
        return f"signal {-status}" if status < 0 else f"exit status {status}"
