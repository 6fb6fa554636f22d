"""A token behind a PKCS#11 module as a device."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from asn1crypto.core import Integer
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ..secret import Secret
from .capabilities import TokenCapabilities, capabilities_of
from .errors import ObjectExists, ObjectNotFound, ObjectRejected, PinLength, UnsupportedByToken
from .inventory import (
    CKO_CERTIFICATE,
    CKO_PRIVATE_KEY,
    CKO_PUBLIC_KEY,
    CertificateEntry,
    KeyEntry,
    TokenInventory,
    algorithm_of,
    build_inventory,
    spki,
)
from .keys import TokenEcKey, TokenRsaKey
from .messages import (
    Decrypt,
    Delete,
    Derive,
    Generate,
    ImportKey,
    InitPin,
    Login,
    Logout,
    ObjectRecord,
    ReadLogin,
    ReadObjects,
    ReadToken,
    Request,
    SetSoPin,
    SetUserPin,
    Sign,
    WriteCertificate,
)
from .process import ModuleProcess
from .quirks import Quirks, UnlockBy, id_of_key_reference
from .values import KeyAlgorithm, LoginState, PinState, TokenInfo, User

T = TypeVar("T")

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey


class Token:
    """One token. Remembers no PIN; who is logged in is the module's knowledge and ends with its process.

    Methods raise Pkcs11Error subclasses. A PIN is sent once per call, after the token was found again by label,
    serial number, manufacturer and model, and after its flags were read anew: never to a locked PIN, and not for
    the last try unless ``spend_last_try`` is given.
    """

    def __init__(self, module: ModuleProcess, info: TokenInfo, quirks: Quirks) -> None:
        self._module = module
        self._quirks = quirks
        self.info = info
        self.capabilities: TokenCapabilities = capabilities_of(info, quirks)

    def __repr__(self) -> str:
        identity = self.info.identity
        return f"Token(label={identity.label!r}, serial={identity.serial!r})"

    def describe(self) -> dict[str, object]:
        """JSON form of identity, PIN states and capabilities, as last read."""
        identity = self.info.identity
        return {
            "label": identity.label,
            "serial": identity.serial,
            "manufacturer": identity.manufacturer,
            "model": identity.model,
            "slot": self.info.slot_description,
            "pin": self.info.user_pin_state.value,
            "so_pin": self.info.so_pin_state.value,
            "min_pin_length": self.info.min_pin_length,
            "max_pin_length": self.info.max_pin_length,
            "capabilities": self.capabilities.describe(),
        }

    def refresh(self) -> TokenInfo:
        """Read flags and mechanisms again."""
        info = self._ask(ReadToken(self.info.identity), TokenInfo)
        self.info = info
        self.capabilities = capabilities_of(info, self._quirks)
        return info

    def pin_state(self) -> PinState:
        """State of the user PIN, read now, without a try."""
        return self.refresh().user_pin_state

    def inventory(self) -> TokenInventory:
        """Keys and certificates. Private keys are mostly hidden until the user is logged in."""
        records = self._ask(ReadObjects(self.info.identity), list[ObjectRecord])
        return build_inventory(records, self._quirks)

    def id_of(self, key_reference: int) -> bytes:
        """The CKA_ID to use for a PIV key reference on this token. Raises ValueError for one it cannot have."""
        return id_of_key_reference(self._quirks, key_reference)

    # Login and PINs.

    def login_state(self) -> LoginState:
        """Who is logged in, as the module says."""
        return self._ask(ReadLogin(self.info.identity), LoginState)

    def login(self, pin: Secret, user: User = User.USER, *, spend_last_try: bool = False) -> None:
        """C_Login; lasts until ``logout``, removal of the token or end of the module's process."""
        if user is User.SO:
            self.capabilities.require("so_login")
        request = Login(self.info.identity, user, bytearray(pin.reveal()), spend_last_try)
        self._ask(request, type(None), changes=True)

    def logout(self) -> None:
        """C_Logout. Nothing happens if nobody is logged in."""
        self._ask(Logout(self.info.identity), type(None))

    def change_pin(self, old: Secret, new: Secret, *, spend_last_try: bool = False) -> None:
        """C_SetPIN for the user. Raises PinLength before the old PIN is sent if the new one does not fit."""
        self.capabilities.require("change_pin")
        self._fits(new)
        request = SetUserPin(self.info.identity, bytearray(old.reveal()), bytearray(new.reveal()), True, spend_last_try)
        self._ask(request, type(None), changes=True)

    def unlock(self, unlocker: Secret, new_pin: Secret, *, spend_last_try: bool = False) -> None:
        """Set a new user PIN over a forgotten or locked one.

        ``unlocker`` is what ``capabilities.unlock_by`` names. Nobody may be logged in. Of ykcs11 the process is
        ended afterwards, and with it the logins to its other tokens.
        """
        self.capabilities.require("unlock")
        self._fits(new_pin)
        token = self.info.identity
        if self._quirks.unlock_by is UnlockBy.SO_PIN:
            request: Request = InitPin(token, bytearray(unlocker.reveal()), bytearray(new_pin.reveal()), spend_last_try)
        else:
            request = self._with_puk(unlocker, b"pin:", new_pin)
        self._ask(request, type(None), changes=True)
        if self._quirks.stale_after_unlock:
            self._module.close()

    def change_so_pin(self, old: Secret, new: Secret, *, spend_last_try: bool = False) -> None:
        """C_SetPIN as security officer. Nobody may be logged in before; nobody is afterwards."""
        self.capabilities.require("change_so_pin")
        request = SetSoPin(self.info.identity, bytearray(old.reveal()), bytearray(new.reveal()), spend_last_try)
        self._ask(request, type(None), changes=True)

    def change_puk(self, old: Secret, new: Secret) -> None:
        """Change the PUK, where the module knows one. Its tries cannot be asked; one is spent if it is wrong."""
        self.capabilities.require("change_puk")
        self._ask(self._with_puk(old, b"puk:", new), type(None), changes=True)

    def _with_puk(self, puk: Secret, prefix: bytes, new: Secret) -> SetUserPin:
        return SetUserPin(
            self.info.identity,
            bytearray(b"puk:" + puk.reveal()),
            bytearray(prefix + new.reveal()),
            False,
            False,
        )

    def _fits(self, pin: Secret) -> None:
        least, most = self.info.min_pin_length, self.info.max_pin_length
        if not least <= len(pin) <= most:
            raise PinLength(f"The new PIN must have {least} to {most} characters.")

    # Writes.

    def generate(
        self,
        identifier: bytes,
        algorithm: KeyAlgorithm,
        *,
        label: str = "",
        overwrite: bool = False,
        always_authenticate: bool = False,
        open: bool = False,
    ) -> KeyEntry:
        """Make a key pair on the token and read it back. ``open``: the private key works without a login.

        Raises UnsupportedByToken, NotLoggedIn or ObjectExists before anything is changed. Without ``overwrite`` an
        id that is in use is refused. ykcs11 also writes a certificate in place of the old one, and shows no key
        that has none: where ``capabilities.shows_bare_keys`` is False, such a key is overwritten unseen.
        """
        self.capabilities.require("generate")
        if algorithm not in self.capabilities.algorithms:
            raise UnsupportedByToken(f"The token does not generate {algorithm.value} keys.", operation="generate")
        self._can_mark(always_authenticate)
        self._id_fits(identifier)
        if self._quirks.overwrites_silently and not overwrite:
            self._free(identifier)
        request = Generate(
            token=self.info.identity,
            login=self._writer,
            id=identifier,
            label=label,
            overwrite=overwrite,
            sparse=self._quirks.sparse,
            algorithm=algorithm,
            always_authenticate=always_authenticate,
            open=open,
        )
        self._ask(request, type(None), self._module.deadlines.generation, changes=True)
        return self._written(identifier)

    def import_key(
        self,
        identifier: bytes,
        key: PrivateKey,
        certificate: x509.Certificate | None = None,
        *,
        label: str = "",
        overwrite: bool = False,
        always_authenticate: bool = False,
    ) -> None:
        """Write a private key, its public key and, if given, its certificate.

        Raises UnsupportedByToken, ObjectRejected (certificate of another key), NotLoggedIn or ObjectExists before
        anything is changed. Some modules show an imported key only beside its certificate.
        """
        self.capabilities.require("import_key")
        algorithm = algorithm_of(key)
        if algorithm is None:
            raise UnsupportedByToken("Keys of this kind are not imported.", operation="import_key")
        public = spki(key.public_key())
        if certificate is not None:
            self.capabilities.require("write_certificate")
            beside = certificate.public_key()
            if not isinstance(beside, rsa.RSAPublicKey | ec.EllipticCurvePublicKey) or spki(beside) != public:
                raise ObjectRejected("The certificate is for another key.", effect="The token was not changed.")
        self._can_mark(always_authenticate)
        self._id_fits(identifier)
        if self._quirks.overwrites_silently and not overwrite:
            self._free(identifier)
        private = bytearray(key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()))
        request = ImportKey(
            token=self.info.identity,
            login=self._writer,
            id=identifier,
            label=label,
            overwrite=overwrite,
            sparse=self._quirks.sparse,
            algorithm=algorithm,
            private=private,
            public=public,
            always_authenticate=always_authenticate,
        )
        self._ask(request, type(None), changes=True)
        if certificate is not None:
            self.write_certificate(identifier, certificate, label=label, overwrite=overwrite)

    def write_certificate(
        self, identifier: bytes, certificate: x509.Certificate, *, label: str = "", overwrite: bool = False
    ) -> None:
        """Write a certificate beside the key with that id.

        Raises UnsupportedByToken, NotLoggedIn or ObjectExists before anything is changed.
        """
        self.capabilities.require("write_certificate")
        self._id_fits(identifier)
        request = WriteCertificate(
            token=self.info.identity,
            login=self._writer,
            id=identifier,
            label=label,
            overwrite=overwrite,
            sparse=self._quirks.sparse,
            der=certificate.public_bytes(Encoding.DER),
            subject=certificate.subject.public_bytes(),
            issuer=certificate.issuer.public_bytes(),
            serial=_der_integer(certificate.serial_number),
        )
        self._ask(request, type(None), changes=True)

    def delete_key(self, identifier: bytes) -> None:
        """Delete the private key and the public key with that id; certificates stay."""
        self.capabilities.require("delete_key")
        records = self._ask(ReadObjects(self.info.identity), list[ObjectRecord])
        present = {record.kind for record in records if record.id == identifier}
        kinds = [kind for kind in (CKO_PRIVATE_KEY, CKO_PUBLIC_KEY) if kind in present]
        if not kinds:
            raise ObjectNotFound("No key has that id.")
        for kind in kinds:
            self._delete(kind, identifier, b"")

    def delete_certificate(self, entry: CertificateEntry) -> None:
        """Delete exactly this certificate, found by id and content."""
        self.capabilities.require("delete_certificate")
        if entry.attestation:
            raise UnsupportedByToken(
                "Attestation certificates are made when asked for and cannot be deleted.",
                operation="delete_certificate",
            )
        self._delete(CKO_CERTIFICATE, entry.id, entry.der)

    def _delete(self, kind: int, identifier: bytes, value: bytes) -> None:
        request = Delete(self.info.identity, self._writer, kind, identifier, value)
        self._ask(request, type(None), changes=True)

    @property
    def _writer(self) -> LoginState:
        return LoginState.USER if self._quirks.writer is User.USER else LoginState.SO

    def _can_mark(self, always_authenticate: bool) -> None:
        if always_authenticate and self._quirks.sparse:
            raise UnsupportedByToken(
                "The module sets the PIN rule of a key by its slot.", operation="always_authenticate"
            )

    def _id_fits(self, identifier: bytes) -> None:
        if not identifier or len(identifier) > 255:
            raise ObjectRejected("An id has 1 to 255 bytes.", effect="The token was not changed.")
        if self._quirks.fixed_ids and (len(identifier) != 1 or not 1 <= identifier[0] <= 24):
            raise UnsupportedByToken("The token has no slot for this id.", operation="id")

    def _free(self, identifier: bytes) -> None:
        inventory = self.inventory()
        if inventory.key(identifier) is not None or inventory.certificate(identifier) is not None:
            raise ObjectExists("An object with that id is already on the token.")

    def _written(self, identifier: bytes) -> KeyEntry:
        entry = self.inventory().key(identifier)
        if entry is None:
            raise ObjectNotFound("The new key cannot be read back.", effect="The key was made.")
        return entry

    # Use of keys.

    def private_key(
        self, identifier: bytes, *, pin: Callable[[], Secret] | None = None, spend_last_try: bool = False
    ) -> TokenEcKey | TokenRsaKey:
        """The key as a ``cryptography`` private key. The user must be logged in to use it, unless it is an open one.

        ``pin`` is asked before each use of a key that wants the PIN every time, and never else. Raises
        ObjectNotFound if there is no such key or nothing on the token tells its public half.
        """
        entry = self.inventory().key(identifier)
        if entry is None or not entry.private:
            raise ObjectNotFound("No private key with that id can be seen.", advice="Log in and try again.")
        if entry.public_key is None:
            raise ObjectNotFound("Nothing on the token tells the public half of this key.")
        if entry.algorithm is not None and entry.algorithm.is_rsa:
            return TokenRsaKey(self, entry, pin, spend_last_try)
        return TokenEcKey(self, entry, pin, spend_last_try)

    def use_key(self, request: Sign | Decrypt | Derive) -> bytes:
        """One private-key operation. For TokenEcKey and TokenRsaKey, not for callers."""
        return self._ask(request, bytes, changes=request.pin is not None)

    def _ask(self, request: Request, answer: type[T], seconds: float | None = None, *, changes: bool = False) -> T:
        deadline = self._module.deadlines.operation if seconds is None else seconds
        return self._module.ask(request, answer, deadline, changes=changes)


def _der_integer(value: int) -> bytes:
    return bytes(Integer(value).dump())
