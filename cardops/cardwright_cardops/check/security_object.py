"""The Security Object: signature, every hash, and whether it covers what has no other signature."""

from __future__ import annotations

from ..asn1 import MalformedAsn1
from ..piv.containers import (
    BITGT,
    CCC,
    CONTAINERS_BY_ID,
    DISCOVERY,
    KEY_HISTORY,
    PAIRING_CODE,
    PRINTED,
    SECURITY_OBJECT,
    hashed_content,
)
from ..piv.objects import SecurityObject
from ..piv.objects.security_object import HashTable
from ..piv.signed import LDS_CONTENT
from .context import Context
from .profiles import SIGNATURE_HASHES
from .signatures import Expected, examine

UNSIGNED = (CCC, PRINTED, DISCOVERY, KEY_HISTORY, BITGT, PAIRING_CODE)
"""Containers without a signature of their own."""


def check(context: Context) -> None:
    """Compare the Security Object with the card. An unread container is left out."""
    seen = context.get(SECURITY_OBJECT, SecurityObject)
    if seen is None:
        return
    _coverage(context, seen)
    signature = examine(context, SECURITY_OBJECT, seen.signed, Expected(LDS_CONTENT, None, may_have_certificate=False))
    if signature is None or signature.content is None:
        return
    try:
        table = HashTable.decode(signature.content)
    except MalformedAsn1 as cause:
        context.report("SIGNATURE_MALFORMED", SECURITY_OBJECT, f"what is signed: {cause}")
        return
    if table.digest not in SIGNATURE_HASHES or table.digest != signature.digest:
        context.report("SECURITY_OBJECT_DIGEST", SECURITY_OBJECT, f"{table.digest}, signed with {signature.digest}")
    hashed = {number for number, _ in table.hashes}
    if len(hashed) != len(table.hashes) or hashed != {number for number, _ in seen.groups}:
        context.report("SECURITY_OBJECT_MAP", SECURITY_OBJECT, "the map and the hashes name different data groups")
    for number, owner in seen.groups:
        _one(context, table, number, owner)


def _one(context: Context, table: HashTable, number: int, owner: int) -> None:
    container = CONTAINERS_BY_ID.get(owner)
    if container is None:
        context.report("SECURITY_OBJECT_UNKNOWN", SECURITY_OBJECT, f"there is no container {owner:04X}")
        return
    name = f"container {owner:04X} ({container.tag_text})"
    if container.tag not in context.data.objects:
        context.report("SECURITY_OBJECT_MISSES", SECURITY_OBJECT, f"{name} was hashed and is not on the card")
        return
    answer = context.data.objects[container.tag]
    if answer is None or (container not in context.contents and _is_unreadable(context, container.tag_text)):
        return
    try:
        matches = table.matches(number, hashed_content(container.tag, answer))
    except ValueError as cause:
        context.report("SECURITY_OBJECT_DIGEST", SECURITY_OBJECT, str(cause))
        return
    if matches is False:
        context.report("SECURITY_OBJECT_HASH_MISMATCH", SECURITY_OBJECT, f"the hash of {name} does not match")


def _is_unreadable(context: Context, tag: str) -> bool:
    return any(finding.code == "OBJECT_UNREADABLE" and finding.object == tag for finding in context.findings)


def _coverage(context: Context, seen: SecurityObject) -> None:
    covered = {owner for _, owner in seen.groups}
    for container in UNSIGNED:
        if context.is_there(container) and container.container_id not in covered:
            context.report(
                "SECURITY_OBJECT_COVERAGE", SECURITY_OBJECT, f"{container.name} ({container.tag_text}) has no hash"
            )
