"""One thread for each reader: everything that blocks at a card happens there, one piece after another."""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any, Final, TypeVar

T = TypeVar("T")

_END: Final = None


class ReaderWorker:
    """Runs blocking work on its own thread, in order. ``run`` is for one event loop.

    Deadlines are the connection's: a PC/SC call that hangs is given up there, ends its transaction when it returns
    after all and lets the card go. So work always comes back, and whoever stops waiting for it here leaves nothing
    behind but a result that nobody takes.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._name = f"reader:{name}"
        self._stopped = False
        self._alone = threading.Lock()
        self._loop = asyncio.get_running_loop()
        self._begin()

    async def run(self, work: Callable[[], T]) -> T:
        """``work()`` on the thread; its errors pass through.

        Being cancelled gives up the result, not the work: what comes next waits for it. After ``stop`` a thread comes
        back for the one piece of work: whoever held a card in a reader that is gone still lets it go.
        """
        future: asyncio.Future[T] = self._loop.create_future()
        self._work.put((work, future))
        if self._stopped:
            self._work.put(_END)
            self._begin()
        return await future

    def stop(self) -> None:
        """The reader is gone: the thread ends after what is queued. Never waits."""
        if not self._stopped:
            self._stopped = True
            self._work.put(_END)

    def _begin(self) -> None:
        threading.Thread(target=self._run, name=self._name, daemon=True).start()

    def _run(self) -> None:
        while (job := self._work.get()) is not _END:
            work, future = job
            result: Any = None
            error: BaseException | None = None
            with self._alone:
                try:
                    result = work()
                except BaseException as raised:  # raised again where somebody waits for it
                    error = raised
            self._tell(future, result, error)
            del job, work, future, result, error

    def _tell(self, future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
        def settle() -> None:
            if future.done():
                return
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(result)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)
