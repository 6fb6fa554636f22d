"""The oracle on a running installation with embedded defaults: its books, its vault, and a card of it."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_server.config import load
from cardwright_server.vault.client import VaultClient
from cardwright_server.vault.model import (
    ArchiveContext,
    Authorization,
    EscrowClass,
    MasterPurpose,
    PukPurpose,
    VaultCard,
    Wrapped,
)
from cardwright_simulators.card import VirtualCard
from tests.oracle.books import Books, Row, remembered
from tests.oracle.server import Told, judge
from tests.support.installation import PATIENCE, Site

_BEHALF = Authorization("oracle", "oracle")
LEASE = timedelta(seconds=31)
"""After so long nobody holds a card who does not renew it."""


async def books_of(here: Site) -> Books:
    """The books once everything in them is sealed."""
    async with asyncio.timeout(PATIENCE):
        while True:
            books = Books.read(here.data / "store.db")
            signed = {row["number"] for row in books.of("audit_block") if row["signed"]}
            if all(row["block"] in signed for row in books.of("audit_entry")):
                return books
            await asyncio.sleep(0.1)


async def wrong_with(here: Site, card: VirtualCard, device: str, request: str | None, pin: bytes) -> list[str]:
    """Everything that the oracle finds wrong with the card and the books about it."""
    books = await books_of(here)
    client = VaultClient(load(here.data).vault_sockets)
    try:
        told = await _told(client, here, books, device, request, pin)
    finally:
        await client.close()
    return judge(card.snapshot(), books, told)


async def _told(client: VaultClient, here: Site, books: Books, device: str, request: str | None, pin: bytes) -> Told:
    """What the judge cannot read by itself."""
    identifier = UUID(device)
    (row,) = books.of("device", id=identifier.hex)
    org = str(UUID(row["org"]))
    secrets = {}
    for name in books.secrets(identifier):
        one = VaultCard(org, device, name.generation, name.master)
        if name.kind == "puk":
            secrets[name] = (await client.puk(one, PukPurpose.SET, _BEHALF)).reveal()
        else:
            algorithm = ManagementAlgorithm(name.algorithm or 0)
            secrets[name] = (await client.new_management_key(one, algorithm, _BEHALF)).reveal()
    return Told(
        identifier,
        pin,
        datetime.now(UTC) + LEASE,
        None if request is None else UUID(request),
        secrets=secrets,
        archive=await _archive(client, org, books.archived(UUID(row["person"]))),
        remembered=remembered(here.data / "second-medium"),
        audit=await _audit_keys(client, books),
    )


async def _archive(client: VaultClient, org: str, rows: list[Row]) -> dict[str, bytes]:
    """The archived keys of one person: what the vault unseals is counted and limited."""
    found = {}
    for row in rows:
        context = ArchiveContext(
            org, row["owner"], row["public_key"], row["certificate"] or b"", EscrowClass(row["escrow_class"])
        )
        sealed = Wrapped(MasterPurpose.ARCHIVE, row["master"], row["wrapped"])
        key = load_der_private_key((await client.unwrap_for_card(sealed, context, _BEHALF)).reveal(), None)
        found[row["fingerprint"]] = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return found


async def _audit_keys(client: VaultClient, books: Books) -> dict[str, Any]:
    names = {json.loads(row["signed"])["key"] for row in books.of("audit_block") if row["signed"]}
    return {name: load_der_public_key((await client.public_key(name)).public_key) for name in names}
