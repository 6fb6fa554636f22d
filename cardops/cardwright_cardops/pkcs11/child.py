"""The process that holds one PKCS#11 module: ``python -m cardwright_cardops.pkcs11.child FD``.

The main thread only reads the pipe, so that the process ends with its parent even while the module hangs;
one worker thread makes every call into the module.
"""

from __future__ import annotations

import ctypes
import os
import sys
from multiprocessing.connection import Connection
from queue import SimpleQueue
from threading import Thread

import msgspec

from .messages import MAX_REQUEST, AnyRequest, Reply
from .worker import Worker

_PR_SET_DUMPABLE = 4
_CLOSING_SECONDS = 2.0
_EX_SOFTWARE = 70


def _harden() -> None:
    """No core file and no debugger of the same user: PINs pass through this memory."""
    if sys.platform != "win32":
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def _serve(connection: Connection, requests: SimpleQueue[bytes | None]) -> None:
    try:
        _answer_all(connection, requests)
    except BaseException:
        # A defect of ours or of a library: end at once, or the other side would wait for its whole deadline.
        os._exit(_EX_SOFTWARE)


def _answer_all(connection: Connection, requests: SimpleQueue[bytes | None]) -> None:
    worker = Worker()
    decoder = msgspec.msgpack.Decoder(AnyRequest)
    while (frame := requests.get()) is not None:
        try:
            reply = worker.answer(decoder.decode(frame))
        except msgspec.MsgspecError:
            reply = Reply(fault="BAD_ANSWER", detail="The request cannot be read.")
        del frame
        try:
            connection.send_bytes(msgspec.msgpack.encode(reply))
        except OSError:
            break
    worker.close()


def main(descriptor: int) -> None:
    """Serve until the other end closes; leave without running what the module registered at exit."""
    _harden()
    connection = Connection(descriptor)
    requests: SimpleQueue[bytes | None] = SimpleQueue()
    worker = Thread(target=_serve, args=(connection, requests), daemon=True)
    worker.start()
    while True:
        try:
            requests.put(connection.recv_bytes(MAX_REQUEST))
        except (EOFError, OSError):
            break
    requests.put(None)
    worker.join(_CLOSING_SECONDS)
    os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
