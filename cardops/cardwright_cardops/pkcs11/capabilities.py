"""What a token can do, from what it and its module say; nothing is tried out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from .errors import UnsupportedByToken
from .quirks import Quirks, UnlockBy
from .values import (
    MECHANISM_DECRYPT,
    MECHANISM_DERIVE,
    MECHANISM_GENERATE_KEY_PAIR,
    MECHANISM_SIGN,
    TOKEN_WRITE_PROTECTED,
    KeyAlgorithm,
    Mechanism,
    TokenInfo,
    User,
)


class Ability(Enum):
    """UNKNOWN: no entry for this module; a planner takes it for NO, a single operation may be tried."""

    YES = "yes"
    NO = "no"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Capability:
    """One ability and, unless it is YES, why."""

    able: Ability
    reason: str = ""

    @property
    def sure(self) -> bool:
        """True only for YES."""
        return self.able is Ability.YES


@dataclass(frozen=True, slots=True)
class TokenCapabilities:
    """Everything a planner asks before the first write.

    ``writer`` is the user whose login writes need. ``algorithms`` are those the token generates, ``sign``,
    ``decrypt`` and ``derive`` the mechanisms it has for private keys.
    """

    module: str
    writer: User
    unlock_by: UnlockBy
    fixed_ids: bool
    shows_bare_keys: bool
    generate: Capability
    import_key: Capability
    write_certificate: Capability
    delete_key: Capability
    delete_certificate: Capability
    change_pin: Capability
    unlock: Capability
    so_login: Capability
    change_so_pin: Capability
    change_puk: Capability
    init_token: Capability
    algorithms: tuple[KeyAlgorithm, ...]
    sign: tuple[Mechanism, ...]
    decrypt: tuple[Mechanism, ...]
    derive: tuple[Mechanism, ...]

    def capability(self, operation: str) -> Capability:
        """A capability by the name of its field."""
        value = getattr(self, operation)
        if not isinstance(value, Capability):
            raise KeyError(operation)
        return value

    def require(self, operation: str) -> None:
        """Raises UnsupportedByToken if the operation is known to be impossible."""
        capability = self.capability(operation)
        if capability.able is Ability.NO:
            raise UnsupportedByToken(
                f"The token cannot do this ({operation}): {capability.reason}.", operation=operation
            )

    def describe(self) -> dict[str, object]:
        """JSON form. Names and meanings of existing entries stay."""
        return {
            "back_end": "pkcs11",
            "module": self.module,
            "writer": self.writer.value,
            "unlock_by": self.unlock_by.value,
            "fixed_ids": self.fixed_ids,
            "shows_bare_keys": self.shows_bare_keys,
            "operations": {
                name: {"able": self.capability(name).able.value, "reason": self.capability(name).reason}
                for name in _OPERATIONS
            },
            "algorithms": [algorithm.value for algorithm in self.algorithms],
            "sign": [mechanism.name for mechanism in self.sign],
            "decrypt": [mechanism.name for mechanism in self.decrypt],
            "derive": [mechanism.name for mechanism in self.derive],
        }


_OPERATIONS = (
    "generate",
    "import_key",
    "write_certificate",
    "delete_key",
    "delete_certificate",
    "change_pin",
    "unlock",
    "so_login",
    "change_so_pin",
    "change_puk",
    "init_token",
)
_YES = Capability(Ability.YES)
_NO_SO = "the module has no security officer that can log in"


def _from(known: bool | None, quirks: Quirks) -> Capability:
    if known is None:
        return Capability(Ability.UNKNOWN, quirks.why_not)
    return _YES if known else Capability(Ability.NO, quirks.why_not)


def _algorithms(info: TokenInfo) -> tuple[KeyAlgorithm, ...]:
    found = []
    for algorithm in KeyAlgorithm:
        number = Mechanism.RSA_PKCS_KEY_PAIR_GEN if algorithm.is_rsa else Mechanism.EC_KEY_PAIR_GEN
        entry = info.mechanism(number)
        if (
            entry is not None
            and entry.flags & MECHANISM_GENERATE_KEY_PAIR
            and entry.min_key_size <= algorithm.bits <= entry.max_key_size
        ):
            found.append(algorithm)
    return tuple(found)


def capabilities_of(info: TokenInfo, quirks: Quirks) -> TokenCapabilities:
    """Join what the token says (flags, mechanisms) with what is known of its module."""
    algorithms = _algorithms(info)
    write_protected = bool(info.flags & TOKEN_WRITE_PROTECTED)

    def writing(known: bool | None) -> Capability:
        if write_protected:
            return Capability(Ability.NO, "the token is write-protected")
        return _from(known, quirks)

    generate = writing(quirks.generates)
    if generate.able is not Ability.NO and not algorithms:
        generate = Capability(Ability.NO, "the token has no mechanism that generates key pairs")
        algorithms = ()
    unlock = (
        Capability(Ability.NO, "the module has no way to set a new PIN over a locked one")
        if quirks.unlock_by is UnlockBy.NOTHING
        else _YES
    )

    so_login = Capability(Ability.NO, _NO_SO) if quirks.so_login is False else _from(quirks.so_login, quirks)

    def usable(flag: int, *mechanisms: Mechanism) -> tuple[Mechanism, ...]:
        return tuple(mechanism for mechanism in mechanisms if info.offers(mechanism, flag))

    return TokenCapabilities(
        module=quirks.name,
        writer=quirks.writer,
        unlock_by=quirks.unlock_by,
        fixed_ids=quirks.fixed_ids,
        shows_bare_keys=quirks.shows_bare_keys,
        generate=generate,
        import_key=writing(quirks.creates),
        write_certificate=writing(quirks.creates),
        delete_key=writing(quirks.deletes_keys),
        delete_certificate=writing(quirks.deletes_certificates),
        change_pin=_YES,
        unlock=unlock,
        so_login=so_login,
        change_so_pin=_YES if quirks.so_pin_changes else Capability(Ability.NO, _NO_SO),
        change_puk=_YES if quirks.puk_changes else Capability(Ability.NO, "the module knows no PUK"),
        init_token=Capability(Ability.NO, "tokens are initialized with the module's own tool"),
        algorithms=algorithms if generate.able is not Ability.NO else (),
        sign=usable(MECHANISM_SIGN, Mechanism.RSA_PKCS, Mechanism.RSA_PKCS_PSS, Mechanism.ECDSA),
        decrypt=usable(MECHANISM_DECRYPT, Mechanism.RSA_PKCS, Mechanism.RSA_PKCS_OAEP),
        derive=usable(MECHANISM_DERIVE, Mechanism.ECDH1_DERIVE),
    )
