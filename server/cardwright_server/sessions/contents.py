"""Contents of data objects: signed by the content signer, or plain for installations that claim no conformance."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from cryptography.hazmat.primitives.hashes import SHA256

from cardwright_cardops.piv import containers
from cardwright_cardops.piv.objects import Ccc, Chuid, Discovery, KeyHistory, Printed
from cardwright_cardops.piv.objects.discovery import ALLOWED_POLICIES, PinUsagePolicy
from cardwright_cardops.piv.references import RETIRED_SLOTS
from cardwright_cardops.plan.authority import Issued, Refused
from cardwright_cardops.plan.inventory import Inventory, Presence

from ..issuance.content import ContentSigner, current_signer
from ..issuance.names import HolderNames
from ..store.unit import Database
from ..vault.protocol import Vault
from .ports import Names, Task

MOST_KEPT: Final = 2000
"""Signed objects that a process remembers, of 2 to 4 KiB each."""
_SIGNED: Final = (containers.CHUID.tag, containers.SECURITY_OBJECT.tag)
_NAMED: Final = (containers.CHUID.tag, containers.PRINTED.tag)
_USAGES: Final = tuple(
    PinUsagePolicy(first, second) for first in ALLOWED_POLICIES for second in ((0x10, 0x20) if first & 0x20 else (0,))
)


class PlainContents:
    """``Contents`` without a content signer: an unsigned CHUID, CCC, Discovery and Key History."""

    async def content(
        self, task: Task, tag: int, card: Inventory, written: Mapping[int, bytes], kept: Mapping[int, bytes]
    ) -> Issued | Refused:
        """See ``Contents``; what has to be signed is refused."""
        if tag == containers.CHUID.tag:
            return Issued(Chuid(task.fascn, task.guid, task.expires).encode())
        return _unsigned(tag, card, written) or _refused(tag, "needs a content signer, and there is none")


class SignedContents:
    """``Contents`` by the content signer of now. ``issuer`` stands in Printed Information, 15 octets at most.

    Biometric records come with enrolment, which is not here: they are refused. What was signed a short while ago is
    given again: a session that goes on after a broken one shows the same plan, so that consent still covers it.
    """

    def __init__(self, database: Database, vault: Vault, names: Names, issuer: str = "") -> None:
        self._database = database
        self._vault = vault
        self._names = names
        self._issuer = issuer
        self._signed: OrderedDict[bytes, bytes] = OrderedDict()

    async def content(
        self, task: Task, tag: int, card: Inventory, written: Mapping[int, bytes], kept: Mapping[int, bytes]
    ) -> Issued | Refused:
        """See ``Contents``. Raises NoSuchAuthority, VaultError, and what ``Names`` raises."""
        plain = _unsigned(tag, card, written)
        if plain is not None:
            return plain
        names = await self._names.names(task) if tag in _NAMED else HolderNames()
        if tag == containers.PRINTED.tag:
            return Issued(self._printed(task, names).encode())
        if tag not in _SIGNED:
            return _refused(tag, "is not known to this server")
        certificate = await self._database.read(lambda unit: current_signer(unit, task.org))
        signer = ContentSigner(self._vault, certificate)
        if tag == containers.CHUID.tag:
            plain_chuid = Chuid(task.fascn, task.guid, task.expires, names.holder_uuid)

            async def sign_chuid() -> bytes:
                return (await signer.chuid(plain_chuid)).encode()

            return Issued(await self._once(signer, b"chuid" + plain_chuid.encode(), sign_chuid))
        covered = _covered(card, {**kept, **written})
        if isinstance(covered, Refused):
            return covered

        async def sign_security_object() -> bytes:
            return (await signer.security_object(covered)).encode()

        what = b"".join(tag.to_bytes(3) + hashlib.sha256(covered[tag]).digest() for tag in sorted(covered))
        return Issued(await self._once(signer, task.device.bytes + what, sign_security_object))

    async def _once(self, signer: ContentSigner, what: bytes, sign: Callable[[], Awaitable[bytes]]) -> bytes:
        """What ``sign`` gives, or gave for the same content by the same signer."""
        key = hashlib.sha256(signer.certificate.fingerprint(SHA256()) + what).digest()
        found = self._signed.get(key)
        if found is None:
            found = self._signed[key] = await sign()
            if len(self._signed) > MOST_KEPT:
                self._signed.popitem(last=False)
        return found

    def _printed(self, task: Task, names: HolderNames) -> Printed:
        """Each text in as many octets as SP 800-73-5 part 1 table 14 has for it."""
        unit = names.organizational_units[0] if names.organizational_units else ""
        return Printed(
            name=_cut(names.common_name, 125),
            affiliation=_cut(unit, 20),
            expiration=task.expires,
            serial_number=_cut(task.serial, 20),
            issuer=_cut(self._issuer, 15),
        )


def _covered(card: Inventory, known: Mapping[int, bytes]) -> dict[int, bytes] | Refused:
    """Every object of the standard that is on the card or is written, but certificates, which sign themselves.

    Only over contents that the server knows: what a workstation says of them is not enough to sign.
    """
    contents = dict(known)
    there = [row.tag for row in card.objects if row.presence is Presence.PRESENT]
    if containers.DISCOVERY.tag in there:
        contents |= _discovery_of(card)
    covered = {}
    for row in containers.PIV_CONTAINERS:
        if row.slot is not None or row.tag == containers.SECURITY_OBJECT.tag:
            continue
        if row.tag in contents:
            covered[row.tag] = containers.wrap(row.tag, contents[row.tag])
        elif row.tag in there:
            return Refused(f"{row.name} on the card is not what was written to it, so nothing vouches for it.")
    return covered


def _discovery_of(card: Inventory) -> dict[int, bytes]:
    """The Discovery Object that came with the card: it has one of few contents, so its digest tells which."""
    tag = containers.DISCOVERY.tag
    possible = (Discovery(policy=usage).encode() for usage in _USAGES)
    digest = card.object(tag).digest
    found = next((one for one in possible if hashlib.sha256(one).hexdigest() == digest), None)
    return {} if found is None else {tag: found}


def _unsigned(tag: int, card: Inventory, written: Mapping[int, bytes]) -> Issued | None:
    match tag:
        case containers.CCC.tag:
            return Issued(Ccc().encode())
        case containers.DISCOVERY.tag:
            return Issued(Discovery().encode())
        case containers.KEY_HISTORY.tag:
            held = {row.slot.certificate_tag for row in card.certificates} | written.keys()
            return Issued(KeyHistory(on_card=sum(one.certificate_tag in held for one in RETIRED_SLOTS)).encode())
    return None


def _refused(tag: int, why: str) -> Refused:
    return Refused(f"{containers.CONTAINERS[tag].name} {why}.")


def _cut(text: str, octets: int) -> str:
    """As much of ``text`` as ``octets`` of UTF-8 hold."""
    return text.encode()[:octets].decode(errors="ignore")
