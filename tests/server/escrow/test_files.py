"""A file with a key: offered to its owner for five minutes, claimed once, opened by strangers' tools."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from sqlalchemy import select

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.piv.algorithms import Algorithm
from cardwright_cardops.secret import Secret
from cardwright_server.authentication.errors import AccessDenied, ProofExpired, ProofRequired
from cardwright_server.authentication.model import Method
from cardwright_server.authentication.principal import Principal, server
from cardwright_server.escrow.errors import (
    EscrowQuota,
    NotCertified,
    OfferClaimed,
    OfferExpired,
    OfferRefused,
)
from cardwright_server.escrow.model import OFFER, KeyState, OfferState, Quotas
from cardwright_server.escrow.record import RELEASED
from cardwright_server.notify.templates import shipped
from cardwright_server.people.model import Role
from cardwright_server.store.audit_tables import audit_entry
from cardwright_server.store.escrow_tables import escrow_release, pfx_offer, pfx_offer_transition
from cardwright_server.store.notify_tables import outbox
from cardwright_server.store.purge import purge
from cardwright_server.store.tables import load
from cardwright_server.store.unit import Database
from cardwright_server.vault.errors import VaultLocked, VaultQuota
from cardwright_server.vault.messages import Limit
from tests.support.databases import Clock
from tests.support.escrow import Counter, make_counter, make_keep
from tests.support.mortal import Killed, Mortal
from tests.support.people import make_operator, make_person
from tests.support.vault import PASSPHRASE, openssl


@pytest.fixture
async def counter(open_database: Callable[..., Database], clock: Clock, tmp_path: Path) -> Counter:
    database = open_database(clock=clock)
    return await make_counter(make_keep(database, tmp_path, lambda: clock().timestamp()))


async def rows_of(counter: Counter, table: Any) -> list[Any]:
    return list(await counter.keep.database.read(lambda unit: unit.rows(select(table).order_by(table.c.id))))


async def state_of(counter: Counter, offer: UUID) -> OfferState:
    return next(OfferState(one.state) for one in await rows_of(counter, pfx_offer) if one.id == offer)


@pytest.mark.parametrize("algorithm", [Algorithm.RSA2048, Algorithm.P256])
async def test_openssl_opens_the_file_and_with_it_an_old_message(
    counter: Counter, tmp_path: Path, algorithm: Algorithm
) -> None:
    key = await counter.keep.new(algorithm=algorithm)
    certificate, pfx, pem = (tmp_path / name for name in ("certificate.pem", "file.pfx", "key.pem"))
    certificate.write_bytes(x509.load_der_x509_certificate(key.certificate).public_bytes(Encoding.PEM))
    message = openssl("cms", "-encrypt", "-aes256", "-outform", "DER", str(certificate), data=b"to the old key")
    owner = await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    pfx.write_bytes(await counter.service().claim_pfx(owner, offered.offer, offered.password))
    password = offered.password.reveal() + b"\n"
    shown = openssl("pkcs12", "-in", str(pfx), "-info", "-nodes", "-passin", "stdin", data=password)
    assert b"PBES2, PBKDF2, AES-256-CBC" in shown and b"MAC: sha256" in shown
    pem.write_bytes(shown)
    inside = openssl("x509", "-in", str(pem), "-outform", "DER")
    assert inside == key.certificate
    public = openssl("pkey", "-in", str(pem), "-pubout", "-outform", "DER")
    assert public == key.public_key
    opened = openssl("cms", "-decrypt", "-inform", "DER", "-recip", str(certificate), "-inkey", str(pem), data=message)
    assert opened == b"to the old key"
    openssl("pkcs12", "-in", str(pfx), "-noout", "-passin", "stdin", data=b"wrong\n", ok=False)
    assert len(password) >= 21 and (await state_of(counter, offered.offer)) == OfferState.CLAIMED
    assert (await counter.keep.archive.archived(key.org, key.fingerprint)).state is KeyState.RECOVERED


async def test_two_processes_claim_at_once_and_one_gets_the_file(
    counter: Counter, open_database: Callable[..., Database], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    files: list[bytes] = []
    real = counter.keep.vault.unwrap_for_pfx

    async def unwrap(*arguments: Any) -> bytes:
        files.append(await real(*arguments))
        return files[-1]

    monkeypatch.setattr(counter.keep.vault, "unwrap_for_pfx", unwrap)
    processes = [counter.service(open_database(clock=clock)) for _ in range(4)]
    for turn in range(1, 4):
        offered = await counter.service().offer_pfx(owner, key.id)
        claims = (one.claim_pfx(owner, offered.offer, offered.password) for one in processes)
        found = await asyncio.gather(*claims, return_exceptions=True)
        assert [type(one) for one in found if not isinstance(one, bytes)] == [OfferClaimed] * 3
        assert len(files) == turn and len([one for one in found if isinstance(one, bytes)]) == 1
    assert len(await rows_of(counter, escrow_release)) == 1 + 3  # one of them to the card
    events = [one for one in await rows_of(counter, outbox) if one.name == RELEASED]
    common = {"person": "Ada", "organization": "Example", "portal": "https://example.org"}
    assert "archive (to a file)" in shipped()[RELEASED].filled(common | events[0].data)[1]
    assert [(one.person, one.data) for one in events] == [(counter.holder.id, {"purpose": "to a file"})] * 3


@pytest.mark.parametrize(
    ("minutes", "error"),
    [(4.99, None), (5, OfferExpired), (600, OfferExpired), (-1, OfferExpired), (-9000, OfferExpired)],
)
async def test_an_offer_lasts_five_minutes_whatever_the_clock_does(
    counter: Counter, clock: Clock, minutes: float, error: type[CardwrightError] | None
) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    assert owner.authentication is not None
    owner = replace(owner, authentication=replace(owner.authentication, expires_at=clock() + timedelta(days=1)))
    offered = await counter.service().offer_pfx(owner, key.id)
    assert offered.expires_at == clock() + timedelta(minutes=5)
    clock.advance(minutes=minutes)
    if error is None:
        assert await counter.service().claim_pfx(owner, offered.offer, offered.password)
        return
    with pytest.raises(error):
        await counter.service().claim_pfx(owner, offered.offer, offered.password)
    assert await counter.keep.database.transact(counter.service().expire) == 1
    assert await counter.keep.database.transact(counter.service().expire) == 0
    # Nor does it come back when the clock is put right.
    clock.advance(minutes=-minutes)
    with pytest.raises(OfferExpired):
        await counter.service().claim_pfx(owner, offered.offer, offered.password)
    assert (await rows_of(counter, pfx_offer))[0].commitment is None
    assert len(await rows_of(counter, escrow_release)) == 1


async def test_only_who_was_offered_it_claims_it(counter: Counter) -> None:
    keep, key, owner = counter.keep, await counter.keep.new(), await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    other = await make_person(keep.database, keep.org, "bob")
    stranger = await counter.proven(other)
    foreigner = await counter.proven(await make_person(keep.database, uuid4(), "carl"))
    officer = await make_operator(keep.database, keep.org, Role.SECURITY_OFFICER)
    elsewhere: list[tuple[Principal, type[CardwrightError]]] = [
        (stranger, AccessDenied),
        (foreigner, AccessDenied),
        (officer, AccessDenied),
        (await counter.proven(), OfferRefused),  # the same person by another proof
        (replace(owner, workstation=uuid4()), OfferRefused),
        (await counter.proven(None, Method.LDAP_PASSWORD), ProofRequired),
    ]
    for who, error in elsewhere:
        with pytest.raises(error):
            await counter.service().claim_pfx(who, offered.offer, offered.password)
    with pytest.raises(AccessDenied):  # as for what belongs to somebody else
        await counter.service().claim_pfx(owner, uuid4(), offered.password)
    assert (await rows_of(counter, pfx_offer))[0].attempts == 0
    assert await counter.service().claim_pfx(owner, offered.offer, offered.password)


async def test_only_the_owner_is_offered_a_file(counter: Counter, clock: Clock) -> None:
    keep, key, owner = counter.keep, await counter.keep.new(), await counter.proven()
    bare = await keep.new(certified=False)
    other = await make_person(keep.database, keep.org, "bob")
    cases: list[tuple[Principal, UUID, type[CardwrightError]]] = [
        (await counter.proven(other), key.id, AccessDenied),
        (await make_operator(keep.database, keep.org, Role.SECURITY_OFFICER), key.id, AccessDenied),
        (await counter.proven(await make_person(keep.database, uuid4(), "carl")), key.id, AccessDenied),
        (owner, uuid4(), AccessDenied),
        (owner, bare.id, NotCertified),
        (await counter.proven(None, Method.LDAP_PASSWORD, Method.SECURITY_ANSWERS), key.id, ProofRequired),
    ]
    for who, wanted, error in cases:
        with pytest.raises(error):
            await counter.service().offer_pfx(who, wanted)
    clock.advance(minutes=5, seconds=1)
    with pytest.raises(ProofRequired):  # the PIN was typed too long ago
        await counter.service().offer_pfx(owner, key.id)
    clock.advance(minutes=20)
    with pytest.raises(ProofExpired):
        await counter.service().offer_pfx(owner, key.id)
    assert await rows_of(counter, pfx_offer) == []


async def test_three_wrong_passwords_and_the_offer_is_void(counter: Counter) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    for wrong in (b"", offered.password.reveal()[:-1], offered.password.reveal().lower()):
        with pytest.raises(OfferRefused):
            await counter.service().claim_pfx(owner, offered.offer, Secret(wrong))
    with pytest.raises(OfferRefused):
        await counter.service().claim_pfx(owner, offered.offer, offered.password)
    (row,) = await rows_of(counter, pfx_offer)
    assert (row.state, row.attempts, row.commitment) == (OfferState.VOID, 3, None)
    refused = [one for one in await rows_of(counter, audit_entry) if one.action == "escrow.claim-refused"]
    assert [one.outcome for one in refused] == ["refused"] * 3
    steps = [(one.source, one.event, one.target) for one in await rows_of(counter, pfx_offer_transition)]
    assert [event for _, event, _ in steps] == ["offer", "mistake", "mistake", "exhaust"]
    assert all(OFFER.permits(*one) for one in steps)


async def test_a_wrong_password_counts_from_every_process(
    counter: Counter, open_database: Callable[..., Database], clock: Clock
) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    processes = [counter.service(open_database(clock=clock)) for _ in range(5)]
    guesses = (one.claim_pfx(owner, offered.offer, Secret(b"guess")) for one in processes)
    assert {type(one) for one in await asyncio.gather(*guesses, return_exceptions=True)} == {OfferRefused}
    (row,) = await rows_of(counter, pfx_offer)
    assert (row.state, row.attempts) == (OfferState.VOID, 3)


async def test_a_newer_offer_ends_the_older_one(counter: Counter) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    first = await counter.service().offer_pfx(owner, key.id)
    second = await counter.service().offer_pfx(owner, key.id)
    assert first.password != second.password
    with pytest.raises(OfferClaimed):
        await counter.service().claim_pfx(owner, first.offer, first.password)
    with pytest.raises(OfferRefused):
        await counter.service().claim_pfx(owner, second.offer, first.password)
    assert await counter.service().claim_pfx(owner, second.offer, second.password)
    assert await state_of(counter, first.offer) == OfferState.SUPERSEDED


async def test_offers_are_counted_by_the_day(counter: Counter, clock: Clock) -> None:
    counter.quotas = Quotas(offers_of_person=2)
    key = await counter.keep.new()
    other = await make_person(counter.keep.database, counter.keep.org, "bob")
    for _ in range(2):
        await counter.service().offer_pfx(await counter.proven(), key.id)
    with pytest.raises(EscrowQuota) as caught:
        await counter.service().offer_pfx(await counter.proven(), key.id)
    assert caught.value.retry_after == 86400
    theirs = await counter.keep.new(counter.keep.task(other.id))
    await counter.service().offer_pfx(await counter.proven(other), theirs.id)
    clock.advance(days=1)
    await counter.service().offer_pfx(await counter.proven(), key.id)


async def test_the_vault_has_the_last_word_on_how_many(counter: Counter) -> None:
    vault = counter.keep.vault
    await vault.admin(PASSPHRASE).set_limit("archive.pfx.owner", Limit(1, None))
    key, owner = await counter.keep.new(), await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    await counter.service().claim_pfx(owner, offered.offer, offered.password)
    offered = await counter.service().offer_pfx(owner, key.id)
    with pytest.raises(VaultQuota):
        await counter.service().claim_pfx(owner, offered.offer, offered.password)
    with pytest.raises(OfferClaimed):
        await counter.service().claim_pfx(owner, offered.offer, offered.password)


async def test_a_locked_vault_spends_no_offer(counter: Counter) -> None:
    key, owner, admin = await counter.keep.new(), await counter.proven(), counter.keep.vault.admin(PASSPHRASE)
    offered = await counter.service().offer_pfx(owner, key.id)
    await admin.lock()
    for act in (
        counter.service().claim_pfx(owner, offered.offer, offered.password),
        counter.service().offer_pfx(owner, key.id),
    ):
        with pytest.raises(VaultLocked):
            await act
    assert await state_of(counter, offered.offer) == OfferState.OFFERED
    await admin.unlock()
    assert await counter.service().claim_pfx(owner, offered.offer, offered.password)


@pytest.mark.parametrize("after", [False, True])
async def test_a_server_that_dies_at_a_claim_gives_the_key_at_most_once(
    counter: Counter, database_url: str, clock: Clock, after: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    dying = Mortal(database_url, clock=clock, second_medium=counter.keep.database._medium)
    dying.fatal, dying.after = 1, after
    with pytest.raises(Killed):
        await counter.service(dying).offer_pfx(owner, key.id)
    assert len(await rows_of(counter, pfx_offer)) == int(after)
    offered = await counter.service().offer_pfx(owner, key.id)
    dying.fatal = 2
    with pytest.raises(Killed):
        await counter.service(dying).claim_pfx(owner, offered.offer, offered.password)
    await dying.close()
    assert await state_of(counter, offered.offer) == (OfferState.CLAIMED if after else OfferState.OFFERED)
    released = [one for one in await rows_of(counter, escrow_release) if one.way == "file"]
    assert [one.offer for one in released] == [offered.offer] * after
    if after:
        with pytest.raises(OfferClaimed):
            await counter.service().claim_pfx(owner, offered.offer, offered.password)
        offered = await counter.service().offer_pfx(owner, key.id)
    assert await counter.service().claim_pfx(owner, offered.offer, offered.password)


async def test_the_password_is_nowhere_in_the_books(counter: Counter, tmp_path: Path) -> None:
    key, owner = await counter.keep.new(), await counter.proven()
    offered = await counter.service().offer_pfx(owner, key.id)
    password = offered.password.reveal()
    forms = {password, password.replace(b"-", b""), password.hex().encode(), password.lower()}
    seen = [repr(offered).encode()]
    for table in load().sorted_tables:
        rows = await counter.keep.database.read(lambda unit, table=table: unit.rows(select(table)))  # type: ignore[misc]
        seen += [repr(one).encode() for one in rows]
    seen += [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert any(str(offered.offer).encode() in one for one in seen)
    assert not [form for form in forms for one in seen if form in one]


async def test_offers_are_purged_and_forgotten_keys_stay(counter: Counter, clock: Clock) -> None:
    key = await counter.keep.new()
    await counter.service().offer_pfx(await counter.proven(), key.id)
    clock.advance(days=8)
    assert (await purge(counter.keep.database))["pfx_offer"] == 1
    await counter.service().offer_pfx(await counter.proven(), key.id)
    other = await make_person(counter.keep.database, counter.keep.org, "bob")
    for org, person, left in ((key.org, other.id, 1), (uuid4(), counter.holder.id, 1), (key.org, counter.holder.id, 0)):
        forget = partial(counter.service().forget, principal=server(org), person=person)
        await counter.keep.database.transact(forget)
        assert len(await rows_of(counter, pfx_offer)) == left
    assert await rows_of(counter, pfx_offer_transition) == []
    assert (await counter.keep.archive.archived(key.org, key.fingerprint)).wrapped == key.wrapped
