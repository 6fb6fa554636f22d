"""CHUID, CCC, Discovery, Key History, printed data: single values and how they fit together."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time
from uuid import RFC_4122

from ..piv.containers import (
    BITGT,
    CCC,
    CHUID,
    DISCOVERY,
    KEY_HISTORY,
    PAIRING_CODE,
    PRINTED,
    RETIRED,
    SM_SIGNER,
)
from ..piv.objects import Ccc, Chuid, Discovery, KeyHistory, Printed, SmSigner
from ..piv.objects.ccc import PIV_DATA_MODEL
from ..piv.objects.certificate import load
from ..piv.objects.chuid import signature_input
from ..piv.objects.discovery import PIV_AID
from ..piv.objects.fascn import inspect
from ..piv.objects.key_history import MAX_RETIRED
from ..piv.objects.layout import MalformedObject
from ..piv.signed import CHUID_CONTENT
from .context import Context
from .profiles import MAX_CARD_YEARS
from .signatures import Expected, examine, judge_signer


def end_of_card(chuid: Chuid) -> datetime:
    """The last instant of the card's expiration date, taken as UTC: the standard names no zone."""
    return datetime.combine(chuid.expiration, time.max, UTC)


def check_chuid(context: Context) -> None:
    """FASC-N, GUID, expiration, signature. Goes first: the others need its signer."""
    chuid = context.chuid
    if chuid is None:
        return
    reading = inspect(chuid.fascn)
    if reading.fascn is None:
        context.report("CHUID_FASCN_MALFORMED", CHUID, f"the FASC-N is wrong: {', '.join(reading.defects)}")
    elif not reading.fascn.is_federal:
        context.report("CHUID_FASCN_NOT_FEDERAL", CHUID, "the FASC-N is that of issuers outside the government")
    elif not all(map(int, (reading.fascn.agency_code, reading.fascn.system_code, reading.fascn.credential_number))):
        context.report("CHUID_FASCN_ZERO", CHUID, "agency code, system code or credential number is zero")
    if chuid.guid.variant != RFC_4122 or chuid.guid.version not in (1, 4, 5):
        context.report("CHUID_GUID_NOT_UUID", CHUID, "the GUID has not the variant or version of a card UUID")
    if context.at > end_of_card(chuid):
        context.report("CHUID_EXPIRED", CHUID, f"the card expired {chuid.expiration:%Y-%m-%d}")
    if chuid.expiration.year > context.at.year + MAX_CARD_YEARS:
        context.report("CHUID_EXPIRATION_FAR", CHUID, f"the card expires {chuid.expiration:%Y-%m-%d}")
    if not chuid.signature:
        context.report("CHUID_UNSIGNED", CHUID, "the CHUID is not signed")
        return
    examine(context, CHUID, chuid.signature, Expected(CHUID_CONTENT, signature_input(context.contents[CHUID])))


def check_rest(context: Context) -> None:
    """The small containers."""
    ccc = context.get(CCC, Ccc)
    if ccc is not None and ccc.data_model != PIV_DATA_MODEL:
        context.report("CCC_DATA_MODEL", CCC, f"the data model number is {ccc.data_model:02X}")
    printed, chuid = context.get(PRINTED, Printed), context.chuid
    if printed is not None and chuid is not None and printed.expiration != chuid.expiration:
        context.report(
            "PRINTED_EXPIRATION_MISMATCH", PRINTED,
            f"printed {printed.expiration:%Y-%m-%d}, signed {chuid.expiration:%Y-%m-%d}",
        )  # fmt: skip
    _discovery(context)
    _key_history(context)
    _sm_signer(context)


def _discovery(context: Context) -> None:
    if not context.is_there(DISCOVERY):
        context.report("DISCOVERY_ABSENT", DISCOVERY, "there is no Discovery object")
    seen = context.get(DISCOVERY, Discovery)
    if seen is None:
        return
    if seen.aid != PIV_AID:
        context.report("DISCOVERY_AID", DISCOVERY, f"the AID is {seen.aid.hex().upper()}")
    policy = seen.policy
    if not policy.is_allowed:
        context.report("DISCOVERY_POLICY", DISCOVERY, f"the PIN usage policy is {policy.first:02X}{policy.second:02X}")
    needed = (
        (policy.vci, SM_SIGNER, "the virtual contact interface"),
        (policy.occ, BITGT, "on-card comparison"),
    )
    for promised, container, what in needed:
        if promised and not context.is_there(container):
            context.report("DISCOVERY_NEEDS_OBJECT", DISCOVERY, f"{what} needs {container.name}, which is absent")
    if policy.vci and not policy.vci_without_pairing_code and PAIRING_CODE.tag not in context.data.objects:
        # It is read with a PIN only and on some issuers' cards not at all, so its absence proves nothing.
        context.report(
            "OBJECT_NOT_READ", PAIRING_CODE, "the pairing code that the PIN usage policy promises was not seen"
        )


def _key_history(context: Context) -> None:
    present = [container for container in RETIRED if context.is_there(container)]
    seen = context.get(KEY_HISTORY, KeyHistory)
    if seen is None:
        if present and not context.is_there(KEY_HISTORY):
            context.report("KEY_HISTORY_ABSENT", KEY_HISTORY, f"{len(present)} retired certificates, no Key History")
        return
    if seen.on_card + seen.off_card > MAX_RETIRED:
        context.report("KEY_HISTORY_COUNT", KEY_HISTORY, f"more than {MAX_RETIRED} retired keys")
    elif seen.on_card != len(present):
        context.report(
            "KEY_HISTORY_COUNT", KEY_HISTORY, f"{seen.on_card} certificates announced, {len(present)} on the card"
        )
    good = re.fullmatch(r"http://[!-~]+/[0-9A-Fa-f]{64}", seen.url) is not None
    if (seen.off_card > 0 and not good) or (seen.off_card == 0 and seen.url and seen.on_card == 0):
        context.report("KEY_HISTORY_URL", KEY_HISTORY, "the address of the off-card certificates is missing or wrong")


def _sm_signer(context: Context) -> None:
    seen = context.get(SM_SIGNER, SmSigner)
    if seen is None:
        return
    try:
        judge_signer(context, SM_SIGNER, load(seen.der, SM_SIGNER))
    except MalformedObject as cause:
        context.report("OBJECT_MALFORMED", SM_SIGNER, str(cause))
