"""A card's management key and PUK, by their names in the journal: the vault's, or those the card came with.

A name says generation and version of the master key, so the vault can make the same value again (S3) and no value is
ever recorded. A candidate of an unfinished session is used again, so there never are more than needed.
"""

from __future__ import annotations

from collections.abc import Iterable

from cardwright_cardops.iso7816.apdu import CommandAPDU
from cardwright_cardops.piv.algorithms import ManagementAlgorithm
from cardwright_cardops.piv.commands import (
    TAG_CHALLENGE,
    TAG_RESPONSE,
    TAG_WITNESS,
    general_authenticate,
)
from cardwright_cardops.piv.management_key import (
    DEFAULT_KEY,
    ManagementKey,
    ManagementKeyRefused,
    answer_witness,
    check_response,
)
from cardwright_cardops.piv.references import MANAGEMENT_KEY
from cardwright_cardops.piv.responses import dynamic_authentication
from cardwright_cardops.piv.vendor import yubico
from cardwright_cardops.plan.authority import (
    Algorithms,
    AnswerWitness,
    CheckWitness,
    Granted,
    KeyAlgorithms,
    ManagementKeyGiven,
    SecretGiven,
    WitnessAnswer,
)
from cardwright_cardops.plan.candidates import ManagementKeyUnknown, PukUnknown
from cardwright_cardops.plan.records import DEFAULT, FACTORY, Entry, Kind
from cardwright_cardops.secret import Secret

from ..devices.model import SecretName
from ..vault.model import Authorization, MasterPurpose, PukPurpose, VaultCard, VendorCard
from ..vault.protocol import Vault
from .ledger import Ledger
from .ports import Task

_FITTING = {
    16: (ManagementAlgorithm.AES128,),
    24: (ManagementAlgorithm.AES192, ManagementAlgorithm.TDES),
    32: (ManagementAlgorithm.AES256,),
}
_PUBLISHED = {SecretName.MANAGEMENT_KEY: Secret(DEFAULT_KEY), SecretName.PUK: yubico.DEFAULT_PUK}


class CardSecrets:
    """Answers about the secrets of one card in one session."""

    def __init__(self, vault: Vault, ledger: Ledger, task: Task, authorization: Authorization) -> None:
        self._vault = vault
        self._ledger = ledger
        self._task = task
        self._authorization = authorization
        self._opened: dict[SecretName, Secret] = {}
        self._target_puk = ""

    # ------------------------------------------------------------------------------------------- management key

    async def algorithms(self, question: KeyAlgorithms) -> Algorithms:
        """Of which algorithm a candidate can be. Raises ManagementKeyUnknown, VaultError."""
        if question.name == DEFAULT and self._task.vendor is not None:
            # Whatever the card says; for one that says nothing, what most cards are delivered with comes first.
            fitting: tuple[ManagementAlgorithm, ...] = (ManagementAlgorithm.TDES, ManagementAlgorithm.AES192)
            if question.told is not None:
                fitting = (question.told,)
        elif question.name == DEFAULT:
            fitting = _FITTING.get(len(await self._initial(SecretName.MANAGEMENT_KEY)), ())
        else:
            recorded = [row.algorithm for row in self._of(Kind.MANAGEMENT_KEY) if row.reference == question.name]
            if not recorded or recorded[-1] is None:
                raise ManagementKeyUnknown
            fitting = (ManagementAlgorithm(recorded[-1]),)
        return Algorithms(tuple(one for one in fitting if question.told in (None, one)))

    async def answer(self, question: AnswerWitness) -> WitnessAnswer:
        """Raises ManagementKeyRefused, ManagementKeyUnknown, MalformedAnswer, VaultError."""
        vendor = self._vendor(question.name)
        if question.name == DEFAULT and vendor is None:
            return WitnessAnswer(*answer_witness(await self._initial_key(question.algorithm), question.witness))
        block = dynamic_authentication(question.witness, TAG_WITNESS)
        if len(block) != question.algorithm.block_octets:
            raise ManagementKeyRefused(f"The card's witness is not one block of {question.algorithm.name}.")
        if vendor is not None:
            made = await self._vault.answer_vendor_key(vendor, question.algorithm, block)
        else:
            made = await self._vault.answer_management_key(self._card(question.name), question.algorithm, block)
        parts = ((TAG_WITNESS, made.response), (TAG_CHALLENGE, made.challenge), (TAG_RESPONSE, b""))
        command: CommandAPDU = general_authenticate(question.algorithm, MANAGEMENT_KEY, *parts)
        return WitnessAnswer(command, made.challenge)

    async def check(self, question: CheckWitness) -> Granted:
        """Raises ManagementKeyRefused, MalformedAnswer, VaultError."""
        vendor = self._vendor(question.name)
        if question.name == DEFAULT and vendor is None:
            check_response(await self._initial_key(question.algorithm), question.challenge, question.answer)
            return Granted()
        answer = dynamic_authentication(question.answer, TAG_RESPONSE, TAG_WITNESS)
        fits = len(answer) == question.algorithm.block_octets
        if not fits or not await self._proved(question, vendor, answer):
            raise ManagementKeyRefused(
                "The card accepted the management key but did not prove that it holds the same one.",
                advice="This is not the card it says it is, or something alters what it sends: do not go on.",
            )
        return Granted()

    async def _proved(self, question: CheckWitness, vendor: VendorCard | None, answer: bytes) -> bool:
        if vendor is not None:
            return await self._vault.check_vendor_key(vendor, question.algorithm, question.challenge, answer)
        card = self._card(question.name)
        return await self._vault.check_management_key(card, question.algorithm, question.challenge, answer)

    async def new_management_key(self, algorithm: ManagementAlgorithm) -> ManagementKeyGiven:
        """A key of a new generation, or the unfinished one. Raises VaultError."""
        rows = [row for row in self._of(Kind.MANAGEMENT_KEY) if row.algorithm == algorithm]
        name = await self._next(MasterPurpose.MANAGEMENT_KEY, Kind.MANAGEMENT_KEY, Kind.MANAGEMENT_KEY_SET, rows)
        value = await self._vault.new_management_key(self._card(name), algorithm, self._authorization)
        return ManagementKeyGiven(name, ManagementKey(algorithm, value))

    # ------------------------------------------------------------------------------------------------------ PUK

    async def puk(self, name: str) -> SecretGiven:
        """The PUK ``name``; "" asks for the one that shall be set. Raises PukUnknown, VaultError."""
        if not name:
            if not self._target_puk:
                self._target_puk = await self._next(
                    MasterPurpose.PUK, Kind.PUK, Kind.PUK_SET, self._of(Kind.PUK)
                )
            name = self._target_puk
        if name == DEFAULT:
            return SecretGiven(name, await self._initial(SecretName.PUK))
        if name == FACTORY:
            return SecretGiven(name, _PUBLISHED[SecretName.PUK])
        purpose = PukPurpose.SET if name == self._target_puk else PukPurpose.UNLOCK
        try:
            card = self._card(name)
        except ManagementKeyUnknown:
            raise PukUnknown from None
        return SecretGiven(name, await self._vault.puk(card, purpose, self._authorization))

    # --------------------------------------------------------------------------------------------------- shared

    def _of(self, *kinds: Kind) -> list[Entry]:
        return [entry for entry in self._ledger.entries if entry.kind in kinds]

    async def _initial(self, name: SecretName) -> Secret:
        """What the card came with: of its lot, else the vendor's published value. Raises VaultError."""
        sealed = self._task.initial.get(name)
        if sealed is None:
            return _PUBLISHED[name]
        if name not in self._opened:
            self._opened[name] = await self._vault.open_data(*sealed, self._authorization)
        return self._opened[name]

    def _vendor(self, name: str) -> VendorCard | None:
        """The card as its vendor delivered it, where ``name`` is the key that it came with."""
        return self._task.vendor if name == DEFAULT else None

    async def _initial_key(self, algorithm: ManagementAlgorithm) -> ManagementKey:
        value = await self._initial(SecretName.MANAGEMENT_KEY)
        if algorithm not in _FITTING.get(len(value), ()):
            raise ManagementKeyRefused(f"The key that this card came with is none of {algorithm.name}.")
        return ManagementKey(algorithm, value)

    def _card(self, name: str) -> VaultCard:
        generation, dot, master = name.partition(".")
        if not (dot and generation.isdecimal() and master.isdecimal()):
            raise ManagementKeyUnknown
        return VaultCard(str(self._task.org), str(self._task.device), int(generation), int(master))

    async def _next(self, purpose: MasterPurpose, begun: Kind, confirmed: Kind, rows: Iterable[Entry]) -> str:
        """The candidate of an unfinished session under the current master key, else a new generation's name."""
        master = (await self._vault.status()).masters[purpose]
        settled = {row.reference for row in self._of(confirmed)}
        for row in reversed(list(rows)):
            if row.reference.endswith(f".{master}") and row.reference not in settled:
                return row.reference
        used = [row.reference.partition(".")[0] for row in self._of(begun)]
        return f"{max((int(number) for number in used if number.isdecimal()), default=0) + 1}.{master}"
