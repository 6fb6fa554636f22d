"""Mail from event to mailbox, received by a real SMTP server in another process."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from cardwright_server.notify.errors import TemplateInvalid
from cardwright_server.notify.mail import MailConsumer, Recipient, keep_template
from cardwright_server.notify.model import DomainEvent
from cardwright_server.notify.outbox import Dispatcher, Patience
from cardwright_server.notify.sender import MailServer, Persistence, Security, Sender
from cardwright_server.notify.store import Recorded, claim, count_mail
from cardwright_server.store.errors import DatabaseUnavailable
from cardwright_server.store.ids import new_id
from cardwright_server.store.notify_tables import mail, mail_template
from cardwright_server.store.purge import purge
from cardwright_server.store.unit import Database, Unit
from tests.support.databases import Clock
from tests.support.smtp import SmtpServer, free_port, running_smtp

Opener = Callable[..., Database]
ORG = new_id()


class People:
    """Stands for the people's service: who hears of an event."""

    def __init__(self, *addresses: str) -> None:
        self.addresses = addresses

    async def recipients(self, unit: Unit, event: Recorded) -> Sequence[Recipient]:
        return [Recipient(address, "Ada Lovelace", "Example Org") for address in self.addresses]


@pytest.fixture(scope="module")
def shared_smtp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SmtpServer]:
    with running_smtp(tmp_path_factory.mktemp("mail")) as server:
        yield server


@pytest.fixture
def smtp(shared_smtp: SmtpServer) -> SmtpServer:
    for path in shared_smtp.folder.iterdir():
        path.unlink()
    return shared_smtp


@pytest.fixture
def database(open_database: Opener, clock: Clock) -> Database:
    return open_database(clock=clock)


def server(smtp: SmtpServer, **more: Any) -> MailServer:
    return MailServer(smtp.host, smtp.port, "cards@example.org", "Cards", security=Security.NONE, seconds=5, **more)


async def tell(database: Database, *addresses: str, name: str = "device.renewal-warning", data: Any = None) -> None:
    """Emit one event and let the mail consumer queue what follows."""
    data = data or {"days": 17, "ends_at": "2027-06-01"}
    event = DomainEvent(ORG, name, "device", new_id(), new_id(), data)

    async def work(unit: Unit) -> None:
        unit.emit(event)

    await database.transact(work)
    consumer = MailConsumer(People(*addresses), domain="cards.example.org", portal="portal.example.org")
    dispatcher = Dispatcher(database, [consumer], Patience(lease=timedelta(0)))
    while await dispatcher.step():
        pass


async def drain(sender: Sender) -> None:
    while await sender.step():
        pass
    await sender._hang_up()


async def states(database: Database) -> dict[str, int]:
    return await database.read(count_mail)


async def test_a_mail_as_the_server_receives_it(database: Database, smtp: SmtpServer, clock: Clock) -> None:
    await tell(database, "ada@example.org", "o'hara@example.org")
    await drain(Sender(database, server(smtp)))
    first, second = sorted(smtp.received(), key=lambda one: one.recipients)
    assert (first.sender, first.recipients, second.recipients) == (
        "cards@example.org",
        ["ada@example.org"],
        ["o'hara@example.org"],
    )
    message = first.message
    assert message["From"] == "Cards <cards@example.org>"
    assert message["To"] == "ada@example.org"
    assert message["Subject"] == "Your card ends within 17 days"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message["Message-ID"].endswith("@cards.example.org>")
    assert message["Message-ID"] != second.message["Message-ID"]
    assert message["Date"].datetime == clock.now
    assert message.get_content_type() == "text/plain"
    text = message.get_content()
    for part in ("Hello Ada Lovelace,", "2027-06-01", "portal.example.org"):
        assert part in text
    assert await states(database) == {"sent": 2}


async def test_text_that_is_sent_is_kept_no_longer(database: Database, smtp: SmtpServer, clock: Clock) -> None:
    await tell(database, "ada@example.org")
    await drain(Sender(database, server(smtp)))
    (row,) = await database.read(lambda unit: unit.rows(select(mail)))
    assert (row.subject, row.body, row.closed_at) == ("", "", clock.now)
    clock.advance(days=31)
    assert (await purge(database))["mail"] == 1


@pytest.mark.parametrize(
    "hostile",
    [
        "\r\nBcc: eve@example.org\r\n\r\nhello",
        "\n.\nQUIT\n",
        "=?utf-8?q?=0d=0aBcc=3a?=",
        "=?utf-8?b?DQpCY2M6IGV2ZUBleGFtcGxlLm9yZw==?=",
    ],
)
async def test_values_cannot_add_headers_or_end_the_mail(database: Database, smtp: SmtpServer, hostile: str) -> None:
    data = {"reason": f"lost{hostile}"}
    await tell(database, "ada@example.org", name="device.report-incident", data=data)
    await drain(Sender(database, server(smtp)))
    (received,) = smtp.received()
    assert received.recipients == ["ada@example.org"]
    names = {name.lower() for name in received.message}
    assert names <= {
        *("from", "to", "subject", "date", "message-id", "auto-submitted", "content-type", "mime-version"),
        *("content-transfer-encoding", "x-peer", "x-mailfrom", "x-rcptto"),
    }
    assert "ask your help desk" in received.message.get_content()


async def test_names_beyond_ascii_arrive(database: Database, smtp: SmtpServer) -> None:
    data = {"reason": "gestört 🔑"}
    await tell(database, "ada@example.org", name="device.report-incident", data=data)
    await drain(Sender(database, server(smtp)))
    (received,) = smtp.received()
    assert received.octets.isascii()
    assert received.message["Subject"] == "Your card was reported: gestört 🔑"
    assert "gestört 🔑" in received.message.get_content()


async def test_addresses_that_are_none_get_no_mail_and_stop_nobody(database: Database, smtp: SmtpServer) -> None:
    await tell(database, "eve@example.org\nBcc: x@example.org", "", "ada@example.org")
    await drain(Sender(database, server(smtp)))
    assert [one.recipients for one in smtp.received()] == [["ada@example.org"]]


async def test_events_without_text_or_recipient_send_nothing(database: Database) -> None:
    await tell(database, "ada@example.org", name="device.scratched")
    await tell(database)
    assert await states(database) == {}


async def test_an_organizations_own_text(database: Database, smtp: SmtpServer) -> None:
    await database.transact(
        lambda unit: keep_template(unit, ORG, "device.renewal-warning", "Fertig", "Hallo $person: $ends_at")
    )
    await database.transact(lambda unit: keep_template(unit, new_id(), "device.renewal-warning", "x", "of another one"))
    await tell(database, "ada@example.org")
    await drain(Sender(database, server(smtp)))
    (received,) = smtp.received()
    assert received.message["Subject"] == "Fertig"
    assert received.message.get_content().strip() == "Hallo Ada Lovelace: 2027-06-01"
    with pytest.raises(TemplateInvalid):
        await database.transact(lambda unit: keep_template(unit, ORG, "device.renewal-warning", "x", "$secret"))
    await database.transact(lambda unit: keep_template(unit, ORG, "device.renewal-warning", "Neu", "Hallo $person"))
    await tell(database, "ada@example.org")
    await drain(Sender(database, server(smtp)))
    assert smtp.received()[-1].message["Subject"] == "Neu"


async def test_an_own_text_that_no_longer_fits_gives_way_to_the_shipped_one(
    database: Database, smtp: SmtpServer
) -> None:
    await database.transact(lambda unit: keep_template(unit, ORG, "device.renewal-warning", "Fertig", "Hallo"))
    await database.transact(lambda unit: unit.execute(update(mail_template).values(body="$gone")))
    await tell(database, "ada@example.org")
    await drain(Sender(database, server(smtp)))
    assert smtp.received()[0].message["Subject"] == "Your card ends within 17 days"


async def test_refused_for_now_is_tried_again_later(database: Database, smtp: SmtpServer, clock: Clock) -> None:
    address = f"busy-2-{new_id().hex}@example.org"
    await tell(database, address, "ada@example.org")
    sender = Sender(database, server(smtp), Persistence(first_pause=timedelta(seconds=60)))
    dues = []
    for _ in range(2):
        await drain(sender)
        (row,) = await database.read(lambda unit: unit.rows(select(mail).where(mail.c.recipient == address)))
        assert row.state == "queued"
        assert row.error.startswith("451")
        assert "@" not in row.error
        dues.append(row.due_at - clock.now)
        await drain(sender)  # not due: nothing happens
        clock.now = row.due_at
    await drain(sender)
    assert await states(database) == {"sent": 2}
    assert [one.recipients for one in smtp.received()] == [["ada@example.org"], [address]]
    assert timedelta(seconds=45) <= dues[0] <= timedelta(seconds=75) < dues[1] <= timedelta(seconds=150)


async def test_refused_for_good_is_given_up_at_once(database: Database, smtp: SmtpServer) -> None:
    await tell(database, "unknown-1@example.org", "ada@example.org")
    await drain(Sender(database, server(smtp)))
    assert await states(database) == {"sent": 1, "dead": 1}
    (row,) = await database.read(lambda unit: unit.rows(select(mail).where(mail.c.state == "dead")))
    assert row.error.startswith("550")
    assert "@" not in row.error
    assert row.body == ""


async def test_after_three_days_it_is_given_up(database: Database, clock: Clock) -> None:
    await tell(database, "ada@example.org")
    nobody = MailServer("127.0.0.1", free_port(), "cards@example.org", security=Security.NONE, seconds=1)
    sender = Sender(database, nobody)
    assert await sender.step() is False
    assert await states(database) == {"queued": 1}
    clock.advance(days=3)
    assert await sender.step() is False
    assert await states(database) == {"dead": 1}
    assert sender.error is not None


async def test_an_outage_of_the_database_is_over_before_the_next_mail(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With nothing to send; what a mail server said stands until it takes a mail."""
    server = MailServer("127.0.0.1", free_port(), "cards@example.org", security=Security.NONE, seconds=1)
    sender = Sender(database, server, Persistence(look=timedelta(0)))
    seen: list[object] = []
    enough = asyncio.Event()

    async def step() -> bool:
        seen.append(sender.error)
        if len(seen) == 1:
            raise DatabaseUnavailable("gone")
        if len(seen) == 3:
            sender.error = "SMTPServerDisconnected"
        if len(seen) == 4:
            enough.set()
        return False

    monkeypatch.setattr(sender, "step", step)
    task = asyncio.create_task(sender.run())
    async with asyncio.timeout(10):
        await enough.wait()
    task.cancel()
    assert [seen[0], type(seen[1]), *seen[2:4]] == [None, DatabaseUnavailable, None, "SMTPServerDisconnected"]


async def test_an_answer_that_is_lost_repeats_the_same_mail(database: Database, smtp: SmtpServer, clock: Clock) -> None:
    """Accepted, and the line cut before the answer: sent again under the same id, so that receivers can tell."""
    address = f"lost-1-{new_id().hex}@example.org"
    await tell(database, address)
    sender = Sender(database, server(smtp))
    await drain(sender)
    assert await states(database) == {"queued": 1}
    clock.advance(minutes=5)
    await drain(sender)
    assert await states(database) == {"sent": 1}
    first, second = smtp.received()
    strip = b"X-Peer"
    assert first.octets.split(strip)[0] == second.octets.split(strip)[0]
    assert first.message["Message-ID"] == second.message["Message-ID"]


async def test_a_sender_that_died_is_followed_by_another(database: Database, smtp: SmtpServer, clock: Clock) -> None:
    await tell(database, "ada@example.org")
    died = await database.transact(lambda unit: claim(unit, new_id(), timedelta(minutes=10)))
    assert died is not None
    sender = Sender(database, server(smtp))
    await drain(sender)
    assert await states(database) == {"sending": 1}
    clock.advance(minutes=10)
    await drain(sender)
    assert await states(database) == {"sent": 1}
    assert len(smtp.received()) == 1


async def test_a_repeated_event_queues_no_second_mail(database: Database, clock: Clock) -> None:
    people = MailConsumer(People("ada@example.org"), domain="d.example.org", portal="p")
    data = {"kind": "unlock"}
    event = Recorded(new_id(), ORG, 1, clock.now, "request.deny", "request", new_id(), None, data, None)
    for _ in range(2):
        await database.transact(lambda unit: people.handle(unit, event))
    assert await states(database) == {"queued": 1}


async def test_several_senders_send_each_mail_once(open_database: Opener, smtp: SmtpServer) -> None:
    databases = [open_database(pool=2) for _ in range(3)]
    await tell(databases[0], *(f"person{number}@example.org" for number in range(24)))
    await asyncio.gather(*(drain(Sender(database, server(smtp))) for database in databases))
    assert sorted(one.recipients[0] for one in smtp.received()) == sorted(f"person{n}@example.org" for n in range(24))
    assert await states(databases[0]) == {"sent": 24}


async def test_running(database: Database, smtp: SmtpServer) -> None:
    sender = Sender(database, server(smtp), Persistence(look=timedelta(milliseconds=10)))
    task = asyncio.create_task(sender.run())
    await tell(database, "ada@example.org")
    async with asyncio.timeout(20):
        while await states(database) != {"sent": 1}:
            await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("tls")
    names = folder / "certificate.pem", folder / "key.pem"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command = ["openssl", "req", "-x509", *key, *subject, "-out", str(names[0]), "-keyout", str(names[1])]
    subprocess.run(command, check=True, capture_output=True)
    return names


async def test_starttls_with_a_certificate_that_is_checked(
    database: Database, tmp_path: Path, certificate: tuple[Path, Path]
) -> None:
    with running_smtp(tmp_path / "mail", tls=certificate) as smtp:
        await tell(database, "ada@example.org")
        trusting = MailServer("localhost", smtp.port, "cards@example.org", authorities=str(certificate[0]), seconds=5)
        await drain(Sender(database, trusting))
        (received,) = smtp.received()
        assert received.tls
        await tell(database, "ada@example.org")
        stranger = Sender(database, MailServer("localhost", smtp.port, "cards@example.org", seconds=5))
        await drain(stranger)
        assert await states(database) == {"sent": 1, "queued": 1}
        assert len(smtp.received()) == 1


async def test_no_mail_goes_out_in_clear_where_tls_was_asked_for(database: Database, smtp: SmtpServer) -> None:
    await tell(database, "ada@example.org")
    strict = MailServer(smtp.host, smtp.port, "cards@example.org", security=Security.STARTTLS, seconds=5)
    await drain(Sender(database, strict))
    assert smtp.received() == []
    assert await states(database) == {"queued": 1}
