"""Signatures over what the vault has read and judged: certificates, CRLs, OCSP responses, card content, audit."""

from __future__ import annotations

import base64
import hashlib

import msgspec

from .. import messages as m
from ..certificates import check_certificate
from ..content import check_content
from ..der import utc
from ..errors import VaultRefused
from ..model import AuditBlock, KeyRole, SignedBlock
from ..profiles import Holder
from ..quotas import Charge
from ..revocation import check_crl, check_response
from .act import Act

_CAS = (KeyRole.ROOT, KeyRole.ISSUING)


def sign_certificate(act: Act, request: m.SignCertificate) -> bytes:
    """A CA signs only under its own profiles, and no CA has a certificate's life longer than its own."""
    digest = hashlib.sha256(request.tbs).hexdigest()
    act.about(ca=request.ca, profile=request.profile, tbs=digest)
    key = act.signing_key(request.ca, *_CAS)
    rule = act.document.rules.get(request.profile)
    if rule is None or request.profile not in key.info.profiles:
        raise VaultRefused("profile", "This CA does not sign under this profile.")
    latest = act.log.marks.get(f"expiry:{request.ca}")
    if latest is None and rule.holder is not Holder.ROOT:
        raise VaultRefused("uncertified", "This CA has no certificate itself yet.")
    end = None if latest is None or rule.holder is Holder.ROOT else utc(int(latest))
    keys = {one.info.name: one.info for one in act.document.keys}
    facts = check_certificate(request.tbs, key.info, rule, keys, act.now, end)
    act.charge(Charge("certificate"))
    act.about(serial=f"{facts.serial:x}", until=int(facts.not_after.timestamp()))
    if rule.holder in (Holder.ROOT, Holder.CA):
        act.mark(f"expiry:{facts.subject_key}", str(int(facts.not_after.timestamp())))
    return act.sign(key, request.tbs)


def sign_crl(act: Act, request: m.SignCrl) -> bytes:
    """Numbers only rise; the same TBSCertList may be signed again."""
    digest = hashlib.sha256(request.tbs).hexdigest()
    act.about(ca=request.ca, tbs=digest)
    key = act.signing_key(request.ca, *_CAS)
    number = check_crl(request.tbs, key.info, act.now)
    act.about(number=str(number))
    last, _, last_digest = act.log.marks.get(f"crl:{request.ca}", "0:").partition(":")
    if number < int(last) or (number == int(last) and digest != last_digest):
        raise VaultRefused("crl-number", f"The last CRL of this CA has the number {last}.")
    act.charge(Charge("crl"))
    act.mark(f"crl:{request.ca}", f"{number}:{digest}")
    return act.sign(key, request.tbs)


def sign_ocsp(act: Act, request: m.SignOcsp) -> tuple[bytes, ...]:
    """All or none."""
    act.about(
        responder=request.responder,
        responses=len(request.tbs),
        tbs=hashlib.sha256(b"".join(request.tbs)).hexdigest(),
    )
    key = act.signing_key(request.responder, KeyRole.OCSP)
    cas = act.document.with_role(*_CAS)
    for tbs in request.tbs:
        check_response(tbs, key.info, cas, act.now)
    act.charge(Charge("ocsp", amount=len(request.tbs)))
    return tuple(act.sign(key, tbs) for tbs in request.tbs)


def sign_content(act: Act, request: m.SignContent) -> bytes:
    """Only SignedAttributes with the content type of their kind."""
    act.about(signer=request.signer, kind=request.kind.value)
    key = act.signing_key(request.signer, KeyRole.CONTENT)
    digest = check_content(request.signed_attributes, request.kind, key.info)
    act.about(digest=digest.hex())
    act.charge(Charge("content"))
    return act.sign(key, request.signed_attributes)


class BlockStatement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is signed for a block, as JSON: the block, and the head of the vault's own audit as an anchor."""

    format: str
    vault: str
    key: str
    chain: str
    epoch: int
    sequence: int
    previous: str
    root: str
    entries: int
    at: int
    vault_entries: int
    vault_head: str


BLOCK_FORMAT = "cardwright.audit-block.1"


def sign_audit_block(act: Act, request: m.SignAuditBlock) -> SignedBlock:
    """The next block of a chain, or the last one again. A new epoch begins only where the vault has one, too."""
    block = request.block
    act.about(chain=block.chain, epoch=block.epoch, sequence=block.sequence, root=block.root.hex())
    keys = [one for one in act.document.keys if one.info.role is KeyRole.AUDIT]
    if not keys:
        raise VaultRefused("key", "The vault has no key for audit blocks.")
    key = keys[-1]
    mark = f"chain:{block.chain}"
    last = act.log.marks.get(mark)
    signed = _again(block, last)
    if signed is None:
        _require_next(act, block, last)
        signed = msgspec.json.encode(
            BlockStatement(
                BLOCK_FORMAT,
                act.document.vault_id,
                key.info.name,
                block.chain,
                block.epoch,
                block.sequence,
                block.previous.hex(),
                block.root.hex(),
                block.entries,
                act.log.milliseconds,
                act.log.entries,
                act.log.head,
            )
        )
        act.charge(Charge("audit-block"))
        act.mark(mark, base64.b64encode(signed).decode())
    return SignedBlock(signed, act.sign(key, signed))


def _again(block: AuditBlock, last: str | None) -> bytes | None:
    """The last block's octets, if it is this one."""
    if last is None:
        return None
    signed = base64.b64decode(last)
    before = msgspec.json.decode(signed, type=BlockStatement)
    same = (before.epoch, before.sequence, before.previous, before.root, before.entries)
    asked = (block.epoch, block.sequence, block.previous.hex(), block.root.hex(), block.entries)
    return signed if same == asked else None


def _require_next(act: Act, block: AuditBlock, last: str | None) -> None:
    if block.epoch != act.document.epoch:
        raise VaultRefused("epoch", f"The vault is in epoch {act.document.epoch}.")
    if last is None:
        fits = block.sequence == 1 and block.previous == bytes(32)
        expected = "its first block"
    else:
        signed = base64.b64decode(last)
        before = msgspec.json.decode(signed, type=BlockStatement)
        # Within an epoch the chain has no second branch. A new epoch goes on from whatever the restored server has.
        follows = block.sequence == before.sequence + 1 and block.previous == hashlib.sha256(signed).digest()
        fits = follows or block.epoch > before.epoch
        expected = f"block {before.sequence + 1}"
    if not fits:
        raise VaultRefused("chain", f"This chain goes on with {expected}, from the block that was signed last.")
