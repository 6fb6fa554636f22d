"""Sending: mails are claimed, then sent by SMTP, then recorded; by as many processes as there are.

A mail whose sender died in between may have gone out or not. It is sent again under the same Message-ID and date,
which is the most that SMTP allows: receivers that know the first one drop the second.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from datetime import timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.utils import format_datetime
from enum import StrEnum

import aiosmtplib

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.secret import Secret

from ..limits import backoff
from ..store.errors import StoreError
from ..store.lease import new_holder
from ..store.unit import Database, Isolation, Unit
from . import store
from .store import Mail


class Security(StrEnum):
    """How the connection to the mail server is protected."""

    NONE = "none"
    STARTTLS = "starttls"
    TLS = "tls"


@dataclass(frozen=True, slots=True)
class MailServer:
    """Where mail goes. ``authorities``: PEM file of who may sign the server's certificate, None for the system's."""

    host: str
    port: int
    sender: str
    sender_name: str = "cardwright"
    security: Security = Security.STARTTLS
    username: str = ""
    password: Secret = field(default_factory=lambda: Secret(b""))
    authorities: str | None = None
    seconds: float = 30
    """Patience for each answer of the server."""


@dataclass(frozen=True, slots=True)
class Persistence:
    """How long is tried: like mail servers, with growing pauses, for days."""

    look: timedelta = timedelta(seconds=2)
    claim: timedelta = timedelta(minutes=10)
    first_pause: timedelta = timedelta(seconds=30)
    longest_pause: timedelta = timedelta(hours=2)
    give_up: timedelta = timedelta(days=3)


class _Refused(Exception):
    """The server refused this mail. ``final``: for good."""

    def __init__(self, said: str, *, final: bool) -> None:
        super().__init__(said)
        self.final = final


class Sender:
    """Sends queued mail. Every process may run one."""

    def __init__(self, database: Database, server: MailServer, persistence: Persistence | None = None) -> None:
        self._database = database
        self._server = server
        self._persistence = persistence or Persistence()
        self._holder = new_holder()
        self._connection: aiosmtplib.SMTP | None = None
        self.error: CardwrightError | str | None = None
        """Why the last round ended early, if it did: the database, or what the mail server said."""

    async def run(self) -> None:
        """Send until cancelled."""
        try:
            while True:
                try:
                    while await self.step():
                        pass
                    if isinstance(self.error, StoreError):
                        self.error = None
                except StoreError as error:
                    self.error = error
                await self._hang_up()
                await asyncio.sleep(self._persistence.look.total_seconds())
        finally:
            await self._hang_up()

    async def step(self) -> bool:
        """Send one mail that is due. Whether one was sent or given up; after a failure of the server it is False.

        Raises StoreError; a mail whose outcome could not be recorded is taken up again when its claim ends.
        """
        claimed = await self._database.transact(
            lambda unit: store.claim(unit, self._holder, self._persistence.claim), isolation=Isolation.READ_COMMITTED
        )
        if claimed is None:
            return False
        try:
            # Well within the claim, so that no two send at once.
            async with asyncio.timeout(self._persistence.claim.total_seconds() / 2):
                await self._send(claimed)
        except _Refused as refused:
            return await self._refused(claimed, str(refused), final=refused.final)
        except (aiosmtplib.SMTPException, OSError, TimeoutError, ssl.SSLError) as error:
            await self._hang_up()
            self.error = type(error).__name__
            await self._refused(claimed, type(error).__name__, final=False)
            return False
        self.error = None
        await self._database.transact(lambda unit: store.close(unit, claimed, self._holder, store.SENT))
        return True

    async def _refused(self, claimed: Mail, said: str, *, final: bool) -> bool:
        keep = self._persistence
        seconds = backoff(
            claimed.attempts, first=keep.first_pause.total_seconds(), longest=keep.longest_pause.total_seconds()
        )

        async def work(unit: Unit) -> bool:
            if final or unit.now - claimed.created_at >= keep.give_up:
                return await store.close(unit, claimed, self._holder, store.DEAD, said)
            return await store.put_back(unit, claimed, self._holder, timedelta(seconds=seconds), said)

        await self._database.transact(work)
        return True

    async def _send(self, claimed: Mail) -> None:
        connection = await self._connected()
        message = compose(claimed, self._server)
        try:
            await connection.send_message(message, sender=self._server.sender, recipients=[claimed.recipient])
        except aiosmtplib.SMTPRecipientsRefused as error:
            answer = error.recipients[0]
            raise _Refused(_said(answer.code, answer.message), final=500 <= answer.code < 600) from error
        except (aiosmtplib.SMTPDataError, aiosmtplib.SMTPSenderRefused) as error:
            raise _Refused(_said(error.code, error.message), final=500 <= error.code < 600) from error

    async def _connected(self) -> aiosmtplib.SMTP:
        if self._connection is not None and self._connection.is_connected:
            return self._connection
        server = self._server
        context = None
        if server.security is not Security.NONE:
            context = ssl.create_default_context(cafile=server.authorities)
        connection = aiosmtplib.SMTP(
            hostname=server.host,
            port=server.port,
            timeout=server.seconds,
            use_tls=server.security is Security.TLS,
            # True, not "if offered": nobody on the line may take the offer away.
            start_tls=server.security is Security.STARTTLS,
            tls_context=context,
            username=server.username or None,
            password=server.password.reveal() if server.username else None,
        )
        await connection.connect()
        self._connection = connection
        return connection

    async def _hang_up(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(aiosmtplib.SMTPException, OSError, TimeoutError):
                await connection.quit()
            connection.close()


def compose(claimed: Mail, server: MailServer) -> EmailMessage:
    """The message as it goes out: the same octets each time. Raises ValueError for a line break in a header."""
    message = EmailMessage(policy=SMTP_POLICY)
    message["From"] = Address(server.sender_name, addr_spec=server.sender)
    message["To"] = Address(addr_spec=claimed.recipient)
    message["Subject"] = claimed.subject
    message["Date"] = format_datetime(claimed.created_at)
    message["Message-ID"] = claimed.message_id
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(claimed.body, cte="quoted-printable")
    return message


def _said(code: int, text: str) -> str:
    # Servers repeat the address in their answers; it must not be kept longer than the mail.
    return f"{code} {' '.join(word for word in text.split() if '@' not in word)}"[:200]
