"""LDAP sessions in worker threads that can always be ended: limits on connecting, on each operation, and on the whole.

OpenLDAP's library blocks. Each session therefore runs in a thread of a small pool, over a line of ours (``ldap_line``);
whoever waits for it waits no longer than the deadline, after which the line is closed, so that the thread comes back
too, wherever in the library it waits. When every thread is taken the answer is "unavailable" at once, and after a few
failures in a row without asking at all.
"""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from datetime import timedelta
from typing import Final, TypeVar

import ldap
from ldap.controls import SimplePagedResultsControl

from cardwright_cardops.secret import Secret

from ..condition import Condition
from .breaker import Breaker
from .directory import DirectoryAnswerRefused, DirectoryError, DirectoryMisconfigured, DirectoryUnavailable
from .ldap_line import LdapServer, Line, open_line

T = TypeVar("T")
Entry = tuple[str, dict[str, list[bytes]]]
_END: Final = object()

AWAY = (
    ldap.SERVER_DOWN,
    ldap.TIMEOUT,
    ldap.CONNECT_ERROR,
    ldap.UNAVAILABLE,
    ldap.BUSY,
    ldap.TIMELIMIT_EXCEEDED,
    ldap.ADMINLIMIT_EXCEEDED,
    ldap.PROTOCOL_ERROR,
    ldap.DECODING_ERROR,
    ldap.LOCAL_ERROR,
    ldap.OPERATIONS_ERROR,
    ldap.OTHER,
)
"""Results that say the directory does not work at present."""
NOT_RIGHT = (
    ldap.INVALID_CREDENTIALS,
    ldap.INAPPROPRIATE_AUTH,
    ldap.NO_SUCH_OBJECT,
    ldap.INVALID_DN_SYNTAX,
    ldap.UNWILLING_TO_PERFORM,
    ldap.CONSTRAINT_VIOLATION,
    ldap.INSUFFICIENT_ACCESS,
    ldap.STRONG_AUTH_REQUIRED,
)
"""Results of a person's bind that say the password does not count: wrong, expired, locked there, nobody."""


class Session:
    """One connection, used by one thread. Everything raises ldap.LDAPError."""

    def __init__(self, server: LdapServer, end: socket.socket) -> None:
        self._server = server
        self.renew()
        # The address is only a form: the library talks to our end of the line, in clear, and closes it at unbind.
        self._ldap = ldap.initialize("ldapi:///", fileno=end)
        end.detach()
        self._ldap.set_option(ldap.OPT_PROTOCOL_VERSION, ldap.VERSION3)
        self._ldap.set_option(ldap.OPT_REFERRALS, 0)
        self._ldap.set_option(ldap.OPT_TIMEOUT, server.operation)

    def renew(self) -> None:
        """All of the time that the server is given for one question is there again."""
        self._ends = time.monotonic() + self._server.whole

    def bind(self, dn: str, password: Secret) -> None:
        """A simple bind. Raises ldap.INVALID_CREDENTIALS and others."""
        identifier = self._ldap.simple_bind(dn, password.reveal().decode("utf-8", "surrogateescape"))
        self._ldap.result3(identifier, timeout=self._left())

    def pages(self, base: str, filter_text: str, attributes: list[str], size: int) -> Iterator[list[Entry]]:
        """Entries below ``base``, page by page (RFC 2696); references to other servers are passed over."""
        control = SimplePagedResultsControl(True, size=size, cookie="")
        while True:
            identifier = self._ldap.search_ext(
                base,
                ldap.SCOPE_SUBTREE,
                filter_text,
                attributes,
                serverctrls=[control],
                timeout=self._left(),
            )
            _, found, _, controls = self._ldap.result3(identifier, timeout=self._left())
            yield [(dn, values) for dn, values in found if dn is not None]
            cookies = [one.cookie for one in controls if one.controlType == SimplePagedResultsControl.controlType]
            if not cookies or not cookies[0]:
                return
            control.cookie = cookies[0]

    def look(self, base: str) -> None:
        """Nothing, if there is such an entry or it is hidden from us. Raises ldap.NO_SUCH_OBJECT."""
        identifier = self._ldap.search_ext(base, ldap.SCOPE_BASE, attrlist=["1.1"], timeout=self._left())
        self._ldap.result3(identifier, timeout=self._left())

    def names(self, base: str, filter_text: str) -> list[str]:
        """Names of entries below ``base``, in one answer, so that it can be asked for amid ``pages``: of those a
        connection has one at a time. Raises ldap.SIZELIMIT_EXCEEDED where they are more than the directory tells."""
        identifier = self._ldap.search_ext(base, ldap.SCOPE_SUBTREE, filter_text, ["1.1"], timeout=self._left())
        _, found, _, _ = self._ldap.result3(identifier, timeout=self._left())
        return [dn for dn, _ in found if dn is not None]

    def close(self) -> None:
        """Say goodbye, whatever happened before."""
        # If the line is gone already there is nothing to end.
        with suppress(ldap.LDAPError):
            self._ldap.unbind_ext_s()

    def _left(self) -> float:
        left = min(self._ends - time.monotonic(), self._server.operation)
        if left <= 0:
            raise ldap.TIMEOUT({"desc": "out of time"})
        return left


class LdapClient:
    """Runs sessions. Made in a running loop's process; ``clock`` is the breaker's, monotonic seconds.

    ``condition`` learns here of what went wrong; that all is well only who asks under our own account can say.
    """

    def __init__(self, server: LdapServer, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.server = server
        self.condition = Condition("directory")
        self._threads = ThreadPoolExecutor(server.sessions, thread_name_prefix="ldap")
        self._guard = threading.Lock()
        self._used = 0
        self._breaker = Breaker(server.failures, timedelta(seconds=server.rest), clock)

    async def run(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` on a fresh session in a thread. Its ldap.LDAPError become DirectoryError.

        Raises DirectoryUnavailable within ``server.whole`` seconds, whatever the directory does.
        """
        self._admit()
        async with self._judged():
            return await self._over_a_line(work)

    async def steps(self, work: Callable[[Session], Iterator[T]]) -> AsyncGenerator[T, None]:
        """As ``run``, for what comes in parts: each within ``server.whole`` seconds. In between no thread waits and
        the directory is asked nothing; the session is kept, and counts as used until the generator is closed."""
        self._admit()
        try:
            async with self._judged():
                line = await open_line(self.server)
        except BaseException:
            self._leave()
            raise
        parts = self._parts(work, line)
        step: Future[object] | None = None
        try:
            while True:
                async with self._judged():
                    step = self._threads.submit(next, parts, _END)
                    part = await asyncio.wrap_future(step)
                if part is _END:
                    return
                yield part  # type: ignore[misc]
        finally:
            await line.close()

            def end(_: Future[object] | None) -> None:
                parts.close()
                self._leave()

            # A thread that is still in the library comes back by the end of the line; till then the place is taken.
            if step is None:
                end(step)
            else:
                step.add_done_callback(end)

    def _parts(self, work: Callable[[Session], Iterator[T]], line: Line) -> Generator[T, None, None]:
        session = Session(self.server, line.end)
        try:
            for part in work(session):
                yield part
                session.renew()
        finally:
            session.close()

    def _admit(self) -> None:
        wait = self._breaker.enter()
        if wait is not None:
            raise DirectoryUnavailable("the directory did not answer a moment ago", wait)
        if not self._enter():
            self._breaker.abandoned()
            raise DirectoryUnavailable("every connection to the directory is busy", timedelta(seconds=1))

    @asynccontextmanager
    async def _judged(self) -> AsyncIterator[None]:
        """Something is asked: not for ever, the breaker hears how it went, and errors are ours."""
        try:
            async with asyncio.timeout(self.server.whole):
                yield
        except asyncio.CancelledError:
            self._breaker.abandoned()
            raise
        except (TimeoutError, OSError, *AWAY) as error:
            self._breaker.failed()
            self.condition.bad(DirectoryUnavailable.code)
            rest = timedelta(seconds=self.server.rest)
            raise DirectoryUnavailable(f"the directory is away: {_said(error)}", rest) from error
        except ldap.LDAPError as error:
            self._breaker.succeeded()
            raise self._noted(_refused(error)) from error
        except DirectoryError as error:
            self._breaker.succeeded()
            self._noted(error)
            raise
        self._breaker.succeeded()

    def close(self) -> None:
        """End the threads that have nothing to do; others end by their deadlines."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @property
    def sessions_in_use(self) -> int:
        """Threads that are taken at the moment."""
        return self._used

    def _noted(self, error: DirectoryError) -> DirectoryError:
        # What is wrong with one entry says nothing of the directory.
        if isinstance(error, DirectoryMisconfigured):
            self.condition.bad(error.code)
        return error

    def _enter(self) -> bool:
        with self._guard:
            if self._used >= self.server.sessions:
                return False
            self._used += 1
            return True

    def _leave(self) -> None:
        with self._guard:
            self._used -= 1

    async def _over_a_line(self, work: Callable[[Session], T]) -> T:
        """Run ``work`` in a thread; its place is free again when the thread has come back."""
        try:
            line = await open_line(self.server)
        except BaseException:
            self._leave()
            raise
        future = self._threads.submit(self._session, work, line.end)
        future.add_done_callback(lambda _: self._leave())
        try:
            return await asyncio.wrap_future(future)
        finally:
            await line.close()

    def _session(self, work: Callable[[Session], T], end: socket.socket) -> T:
        session = Session(self.server, end)
        try:
            return work(session)
        finally:
            session.close()


def _said(error: BaseException) -> str:
    detail = error.args[0] if error.args and isinstance(error.args[0], dict) else {}
    return str(detail.get("desc", "") or error) or "too slow"


def _refused(error: ldap.LDAPError) -> DirectoryError:
    if isinstance(error, ldap.SIZELIMIT_EXCEEDED | ldap.REFERRAL):
        return DirectoryAnswerRefused(f"the directory's answer is refused: {_said(error)}")
    return DirectoryMisconfigured(f"the directory refuses: {_said(error)}")
