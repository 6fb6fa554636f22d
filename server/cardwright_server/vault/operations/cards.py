"""Secrets of cards: management key and PUK."""

from __future__ import annotations

import os

from cryptography.hazmat.primitives import constant_time

from cardwright_cardops.globalplatform.diversification import KeyPurpose
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.management_key import ManagementKey
from cardwright_cardops.secret import Secret

from .. import messages as m
from ..derivation import card_key, card_puk
from ..errors import VaultRefused
from ..model import MasterPurpose, PukPurpose, VaultCard, WitnessResponse
from ..quotas import Charge
from .act import Act


def answer_management_key(act: Act, request: m.AnswerManagementKey) -> WitnessResponse:
    """Decrypt one block; the challenge that goes with it is the vault's own."""
    act.about_card(request.card)
    _require_block(request.algorithm, request.witness)
    act.charge(Charge("management-key.answer"), Charge("management-key.answer.card", act.card_scope(request.card)))
    key = _management_key(act, request.card, request.algorithm)
    challenge = os.urandom(request.algorithm.block_octets)
    act.challenges.add(request.card, request.algorithm, challenge)
    return WitnessResponse(key.decrypt(request.witness), challenge)


def check_management_key(act: Act, request: m.CheckManagementKey) -> bool:
    """Encrypt the challenge and compare; never tell the result."""
    act.about_card(request.card)
    _require_block(request.algorithm, request.challenge)
    _require_block(request.algorithm, request.response)
    act.challenges.take(request.card, request.algorithm, request.challenge)
    key = _management_key(act, request.card, request.algorithm)
    proved = constant_time.bytes_eq(key.encrypt(request.challenge), request.response)
    act.about(proved=int(proved))
    return proved


def new_management_key(act: Act, request: m.NewManagementKey) -> bytes:
    """The clear value, for the write."""
    act.about_card(request.card, request.authorization)
    act.require_current(MasterPurpose.MANAGEMENT_KEY, request.card.master)
    act.charge(Charge("management-key.write"), Charge("management-key.write.card", act.card_scope(request.card)))
    return _management_key(act, request.card, request.algorithm).value.reveal()


def puk(act: Act, request: m.Puk) -> bytes:
    """The clear value, to write it or to unblock a PIN with it."""
    act.about_card(request.card, request.authorization)
    act.about(purpose=request.purpose.value)
    scope = act.card_scope(request.card)
    if request.purpose is PukPurpose.SET:
        act.require_current(MasterPurpose.PUK, request.card.master)
        act.charge(Charge("puk.set"), Charge("puk.set.card", scope))
    else:
        act.charge(
            Charge("puk.unlock"),
            Charge("puk.unlock.card", scope),
            Charge("puk.unlock.actor", request.authorization.actor),
        )
    return card_puk(act.cmac(MasterPurpose.PUK, request.card.master), request.card.context)


def _management_key(act: Act, card: VaultCard, algorithm: ManagementAlgorithm) -> ManagementKey:
    cmac = act.cmac(MasterPurpose.MANAGEMENT_KEY, card.master)
    value = card_key(cmac, KeyPurpose.MANAGEMENT_KEY, card.context, algorithm.key_octets)
    return ManagementKey(algorithm, Secret(value))


def _require_block(algorithm: ManagementAlgorithm, block: bytes) -> None:
    if len(block) != algorithm.block_octets:
        raise VaultRefused("block", f"{algorithm.name} has blocks of {algorithm.block_octets} octets.")
