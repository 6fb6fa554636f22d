"""Who the person is, to the server: asked for here, proved there; what was proved stays in this process."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.rpc_status import RemoteError
from cardwright_cardops.secret import Secret

from .asking import while_in
from .link.ports import Method, MethodKind, Proof, Purpose, ServerLink
from .operations import Kind
from .prompts import Asked, Prompter, Value, act_of
from .tokens import Device

KIND_OF: Final = {
    Purpose.ISSUE: Kind.ISSUE,
    Purpose.UPDATE: Kind.UPDATE,
    Purpose.REISSUE: Kind.UPDATE,
    Purpose.UNLOCK: Kind.UNLOCK,
    Purpose.FORGOTTEN_PIN: Kind.FORGOTTEN_PIN,
    Purpose.RECOVER: Kind.RECOVER,
    Purpose.PROVE: Kind.SIGN_IN,
    Purpose.RECYCLE: Kind.RECYCLE,
    Purpose.LOCK: Kind.LOCK,
}
_ASKED: Final = {
    MethodKind.DIRECTORY_PASSWORD: Value.DIRECTORY_PASSWORD,
    MethodKind.INITIAL_PASSWORD: Value.INITIAL_PASSWORD,
    MethodKind.EMERGENCY_PASSWORD: Value.EMERGENCY_PASSWORD,
}


class Proofs:
    """What was proved, for each card that is in and each purpose."""

    def __init__(self, link: ServerLink) -> None:
        self._link = link
        self._kept: dict[tuple[str, Purpose], Proof] = {}
        self._named: dict[tuple[str, Purpose], frozenset[str]] = {}

    def of(self, card: Device, purpose: Purpose) -> Proof | None:
        """What was proved and still holds: a copy, which outlives the card's leaving."""
        found = self._kept.get((card.id, purpose))
        if found is not None and found.until <= datetime.now(UTC):
            self._drop((card.id, purpose))
            return None
        return None if found is None else Proof(Secret(found.token.reveal()), found.until)

    def forget(self, card: Device) -> None:
        """The card is out: what was proved for it is worth nothing any more."""
        for key in [key for key in self._kept if key[0] == card.id]:
            self._drop(key)
        for key in [key for key in self._named if key[0] == card.id]:
            del self._named[key]

    def wanted(self, card: Device, purpose: Purpose, error: CardwrightError) -> None:
        """The server refused with ``error``: it may name the methods that are enough for this."""
        if isinstance(error, RemoteError) and error.methods:
            self._named[card.id, purpose] = error.methods

    async def methods(self, card: Device, purpose: Purpose, account: str) -> tuple[Method, ...]:
        """Ways to prove who the person is: those that the server named when it wanted a proof, else what is enough for
        most cards. Raises as ``ServerLink.methods``.
        """
        named = self._named.get((card.id, purpose))
        if named is None:
            return await self._link.methods(card.identity, purpose, account)
        return tuple(one for one in await self._link.methods(card.identity, None, account) if one.kind.value in named)

    async def prove(
        self, card: Device, purpose: Purpose, kind: MethodKind, account: str, prompter: Prompter
    ) -> datetime:
        """Ask the person and have the server check it; until when it holds. Not for CARD: that is ``KeyActs.prove``.

        Raises NoPin, and what the server says.
        """
        act = act_of(KIND_OF[purpose], card.name)
        values: dict[str, Secret] = {}
        try:
            if kind is MethodKind.SECURITY_ANSWERS:
                methods = await self._link.methods(card.identity, None, account)
                questions = next((method.questions for method in methods if method.kind is kind), ())
                for number, (identifier, _) in enumerate(questions, 1):
                    # The question itself is the server's text: the caller shows it, the prompt counts.
                    what = f"{Value.ANSWER.value} {number} of {len(questions)}"
                    values[identifier] = await while_in(card, prompter.ask(Asked(what, act)))
            else:
                values[""] = await while_in(card, prompter.ask(Asked(_ASKED[kind].value, act)))
            proof = await self._link.prove(card.identity, purpose, account, kind, values)
        finally:
            for value in values.values():
                value.wipe()
        return self.keep(card, purpose, proof)

    def keep(self, card: Device, purpose: Purpose, proof: Proof) -> datetime:
        """What was proved for ``card``; until when it holds."""
        self._drop((card.id, purpose))
        self._kept[card.id, purpose] = proof
        return proof.until

    def _drop(self, key: tuple[str, Purpose]) -> None:
        proof = self._kept.pop(key, None)
        if proof is not None:
            proof.token.wipe()
