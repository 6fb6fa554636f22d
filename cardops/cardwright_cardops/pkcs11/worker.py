"""Carries out requests against one loaded module. Runs only in the spawned process, on one thread."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final, cast

import msgspec
import pkcs11
from pkcs11 import Attribute, KeyType, ObjectClass, PKCS11Error
from pkcs11._pkcs11 import DeriveMixin, lib  # type: ignore[attr-defined]
from pkcs11.attributes import ALL_CAPABILITIES

from . import templates
from .cryptoki import CKU_SO, CKU_USER, Cryptoki, ReturnValue, text_of
from .faults import SESSION_ENDING, Fault, exception_name
from .messages import (
    AnyRequest,
    Decrypt,
    Delete,
    Derive,
    Generate,
    ImportKey,
    InitPin,
    ListTokens,
    Load,
    Login,
    Logout,
    ObjectRecord,
    ReadLogin,
    ReadObjects,
    ReadToken,
    Reply,
    Request,
    SetSoPin,
    SetUserPin,
    Sign,
    UseKey,
    Write,
    WriteCertificate,
    wipe,
)
from .objects import KINDS, READ, attributes_of, find, find_one, record_of
from .values import (
    LoginState,
    MechanismInfo,
    ModuleInfo,
    PinState,
    TokenIdentity,
    TokenInfo,
    User,
    so_pin_state,
    user_pin_state,
)

_STATES: Final = {1: LoginState.USER, 3: LoginState.USER, 4: LoginState.SO}
# What python-pkcs11 adds to a template unless told not to.
_LIBRARY_DEFAULTS: Final = (
    Attribute.ID,
    Attribute.LABEL,
    Attribute.PRIVATE,
    Attribute.SENSITIVE,
    Attribute.TOKEN,
    Attribute.PUBLIC_EXPONENT,
    Attribute.MODULUS_BITS,
    *ALL_CAPABILITIES,
)


class Worker:
    """One module, its sessions, and a method for each request."""

    def __init__(self) -> None:
        self._module: lib | None = None
        self._calls: Cryptoki | None = None
        self._sessions: dict[int, Any] = {}
        self._actions: dict[type[Request], Callable[[Any], object]] = {
            Load: self._load,
            ListTokens: self._list_tokens,
            ReadToken: self._read_token,
            ReadObjects: self._read_objects,
            ReadLogin: lambda request: self._state(self._slot_of(request.token).slot_id),
            Login: self._login,
            Logout: self._logout,
            SetUserPin: self._set_user_pin,
            SetSoPin: self._set_so_pin,
            InitPin: self._init_pin,
            Generate: self._generate,
            ImportKey: self._import_key,
            WriteCertificate: self._write_certificate,
            Delete: self._delete,
            Sign: self._sign,
            Decrypt: self._decrypt,
            Derive: self._derive,
        }

    def answer(self, request: AnyRequest) -> Reply:
        """Carry out one request; every failure becomes a reply with a fault."""
        fault, detail = "", ""
        try:
            return Reply(body=msgspec.Raw(msgspec.msgpack.encode(self._actions[type(request)](request))))
        except Fault as error:
            fault, detail = error.code, error.detail
        except ReturnValue as error:
            fault = error.name
        except PKCS11Error as error:
            fault = exception_name(error)
        except (ValueError, TypeError, KeyError, IndexError, MemoryError):
            # python-pkcs11 and asn1crypto on values that no module may return; the text could quote them.
            fault = "BAD_ANSWER"
        finally:
            wipe(request)
        if fault in SESSION_ENDING and not isinstance(request, Load | ListTokens):
            self._forget(request.token)
        return Reply(fault=fault, detail=detail)

    def close(self) -> None:
        """C_Finalize, as far as the module still can."""
        if self._module is not None:
            with suppress(PKCS11Error):
                self._module.finalize()

    # Module and tokens.

    def _load(self, request: Load) -> ModuleInfo:
        try:
            module = lib(request.path)
            calls = Cryptoki(request.path)
        except ReturnValue as error:
            raise Fault("NOT_LOADABLE", f"It answered {error.name}.") from None
        except PKCS11Error as error:
            name = exception_name(error)
            raise Fault("NOT_LOADABLE", f"It answered {name}." if name.startswith("CKR_") else "") from None
        except (OSError, AttributeError, ValueError):
            raise Fault("NOT_LOADABLE") from None
        self._module, self._calls = module, calls
        return ModuleInfo(
            module.manufacturer_id, module.library_description, module.cryptoki_version, module.library_version
        )

    @property
    def _loaded(self) -> tuple[lib, Cryptoki]:
        if self._module is None or self._calls is None:
            raise Fault("NOT_LOADABLE")
        return self._module, self._calls

    def _identity(self, slot: Any) -> tuple[TokenIdentity, Any]:
        raw = self._loaded[1].token_info(slot.slot_id)
        identity = TokenIdentity(
            slot.slot_id,
            text_of(bytes(raw.label)),
            text_of(bytes(raw.serial)),
            text_of(bytes(raw.manufacturer)),
            text_of(bytes(raw.model)),
        )
        return identity, raw

    def _present(self, slots: Iterable[Any]) -> list[tuple[Any, TokenIdentity, Any]]:
        found = []
        for slot in slots:
            try:
                found.append((slot, *self._identity(slot)))
            except ReturnValue as error:
                # One dead or foreign card must not hide the others.
                if error.name not in SESSION_ENDING:
                    raise
        return found

    def _slots(self) -> list[Any]:
        return list(self._loaded[0].get_slots(token_present=True))

    def _slot_of(self, token: TokenIdentity) -> Any:
        """The slot the token is in now. Others are asked only if it is no longer where it was."""
        slots = self._slots()
        for here in (True, False):
            asked = self._present(slot for slot in slots if (slot.slot_id == token.slot) is here)
            found = [slot for slot, identity, _ in asked if identity.same_token(token)]
            if len(found) == 1:
                return found[0]
        raise Fault("TOKEN_GONE")

    def _token_info(self, slot: Any, identity: TokenIdentity, raw: Any) -> TokenInfo:
        mechanisms = []
        for number in sorted(int(mechanism) for mechanism in slot.get_mechanisms()):
            with suppress(PKCS11Error):
                info = slot.get_mechanism_info(number)
                mechanisms.append(MechanismInfo(number, info.min_key_length, info.max_key_length, int(info.flags)))
        return TokenInfo(
            identity=identity,
            slot_description=slot.slot_description,
            flags=int(raw.flags),
            min_pin_length=int(raw.min_pin),
            max_pin_length=int(raw.max_pin),
            hardware_version=(raw.hardware[0], raw.hardware[1]),
            firmware_version=(raw.firmware[0], raw.firmware[1]),
            mechanisms=tuple(mechanisms),
        )

    def _list_tokens(self, request: ListTokens) -> list[TokenInfo]:
        return [self._token_info(slot, identity, raw) for slot, identity, raw in self._present(self._slots())]

    def _read_token(self, request: ReadToken) -> TokenInfo:
        slot = self._slot_of(request.token)
        return self._token_info(slot, *self._identity(slot))

    # Sessions and PINs.

    def _session(self, slot: Any) -> Any:
        session = self._sessions.get(slot.slot_id)
        if session is None:
            mapper = templates.total_mapper()
            token = slot.get_token()
            try:
                session = token.open(rw=True, attribute_mapper=mapper)
            except pkcs11.TokenWriteProtected:
                session = token.open(rw=False, attribute_mapper=mapper)
            self._sessions[slot.slot_id] = session
        return session

    def _forget(self, token: TokenIdentity) -> None:
        session = self._sessions.pop(token.slot, None)
        if session is not None:
            with suppress(PKCS11Error):
                session.close()

    def _state(self, slot_id: int) -> LoginState:
        session = self._sessions.get(slot_id)
        if session is None:
            return LoginState.NOBODY
        return _STATES.get(self._loaded[1].session_state(session.handle), LoginState.NOBODY)

    def _guard(self, slot: Any, user: User, spend_last_try: bool) -> None:
        """Asks the flags anew, right before a PIN is sent."""
        flags = int(self._loaded[1].token_info(slot.slot_id).flags)
        state = user_pin_state(flags) if user is User.USER else so_pin_state(flags)
        if state is PinState.LOCKED:
            raise Fault("PIN_IS_LOCKED")
        if state is PinState.FINAL_TRY and not spend_last_try:
            raise Fault("PIN_LAST_TRY")

    def _login(self, request: Login) -> None:
        slot = self._slot_of(request.token)
        session = self._session(slot)
        self._guard(slot, request.user, request.spend_last_try)
        user = CKU_USER if request.user is User.USER else CKU_SO
        self._loaded[1].login(session.handle, user, request.pin)

    def _logout(self, request: Logout) -> None:
        slot = self._slot_of(request.token)
        if self._state(slot.slot_id) is not LoginState.NOBODY:
            self._loaded[1].logout(self._session(slot).handle)

    def _nobody(self, slot: Any, *allowed: LoginState) -> Any:
        session = self._session(slot)
        if self._state(slot.slot_id) not in (LoginState.NOBODY, *allowed):
            raise Fault("LOGGED_IN")
        return session

    def _set_user_pin(self, request: SetUserPin) -> None:
        # With the security officer logged in C_SetPIN would change another secret.
        slot = self._slot_of(request.token)
        session = self._nobody(slot, LoginState.USER)
        if request.guarded:
            self._guard(slot, User.USER, request.spend_last_try)
        self._loaded[1].set_pin(session.handle, request.old, request.new)

    def _as_so(self, token: TokenIdentity, pin: bytearray, spend_last_try: bool, act: Callable[[int], None]) -> None:
        slot = self._slot_of(token)
        session = self._nobody(slot)
        self._guard(slot, User.SO, spend_last_try)
        calls = self._loaded[1]
        calls.login(session.handle, CKU_SO, pin)
        try:
            act(session.handle)
        finally:
            with suppress(ReturnValue):
                calls.logout(session.handle)

    def _set_so_pin(self, request: SetSoPin) -> None:
        def act(session: int) -> None:
            self._loaded[1].set_pin(session, request.old, request.new)

        self._as_so(request.token, request.old, request.spend_last_try, act)

    def _init_pin(self, request: InitPin) -> None:
        def act(session: int) -> None:
            self._loaded[1].init_pin(session, request.new)

        self._as_so(request.token, request.so_pin, request.spend_last_try, act)

    # Objects.

    def _read_objects(self, request: ReadObjects) -> list[ObjectRecord]:
        session = self._session(self._slot_of(request.token))
        records = []
        for entry in find(session, {}):
            values = attributes_of(entry, (Attribute.CLASS,))
            kind = values.get(Attribute.CLASS)
            if kind in KINDS:
                # CKA_VALUE of a private key is never asked for.
                names = (*READ, Attribute.VALUE) if kind == ObjectClass.CERTIFICATE else READ
                records.append(record_of(kind, attributes_of(entry, names)))
        return records

    def _writing(self, request: Write | Delete) -> Any:
        slot = self._slot_of(request.token)
        session = self._session(slot)
        if self._state(slot.slot_id) is not request.login:
            raise Fault("WRONG_LOGIN")
        return session

    def _free(self, session: Any, request: Write, *kinds: ObjectClass) -> None:
        """Refuses, or with ``overwrite`` and a module that keeps several equal ids, deletes the old objects."""
        for kind in kinds:
            old = find(session, {Attribute.CLASS: kind, Attribute.ID: request.id})
            if old and not request.overwrite:
                raise Fault("OBJECT_EXISTS")
            if not request.sparse:
                for entry in old:
                    entry.destroy()

    def _generate(self, request: Generate) -> None:
        session = self._writing(request)
        self._free(session, request, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        public, private = templates.generation(request)
        rsa = request.algorithm.is_rsa
        session.generate_keypair(
            KeyType.RSA if rsa else KeyType.EC,
            key_length=request.algorithm.bits if rsa else None,
            public_template=_exactly(public),
            private_template=_exactly(private),
        )

    def _import_key(self, request: ImportKey) -> None:
        session = self._writing(request)
        self._free(session, request, ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY)
        public, private = templates.imported(request)
        key = session.create_object(private)
        if request.sparse:
            return
        try:
            session.create_object(public)
        except PKCS11Error:
            key.destroy()
            raise

    def _write_certificate(self, request: WriteCertificate) -> None:
        session = self._writing(request)
        self._free(session, request, ObjectClass.CERTIFICATE)
        session.create_object(templates.certificate(request))

    def _delete(self, request: Delete) -> None:
        session = self._writing(request)
        wanted: dict[Attribute, Any] = {Attribute.CLASS: ObjectClass(request.kind), Attribute.ID: request.id}
        found = find(session, wanted)
        if request.value:
            found = [
                entry
                for entry in found
                if attributes_of(entry, (Attribute.VALUE,)).get(Attribute.VALUE) == request.value
            ]
        if not found:
            raise Fault("NO_SUCH_OBJECT")
        if len(found) > 1:
            raise Fault("SEVERAL_OBJECTS")
        found[0].destroy()

    # Use of keys.

    @contextmanager
    def _using(self, request: UseKey) -> Iterator[tuple[Any, str | None]]:
        """The key in a session of its own: what a failed operation leaves active ends with it. The login, which is
        the token's, stays with the other session."""
        slot = self._slot_of(request.token)
        self._session(slot)
        logged_in = self._state(slot.slot_id) is LoginState.USER
        session = slot.get_token().open(attribute_mapper=templates.total_mapper())
        try:
            if not logged_in and not self._is_open(session, request.id):
                raise Fault("WRONG_LOGIN")
            key = find_one(session, ObjectClass.PRIVATE_KEY, request.id)
            pin = None
            if request.pin is not None:
                self._guard(slot, User.USER, request.spend_last_try)
                pin = _pin_text(request.pin)
            yield key, pin
        finally:
            with suppress(PKCS11Error):
                session.close()

    @staticmethod
    def _is_open(session: Any, identifier: bytes) -> bool:
        """Whether the key works without a login: it shows, and says that it is no private object."""
        wanted = {Attribute.CLASS: ObjectClass.PRIVATE_KEY, Attribute.ID: identifier}
        told = [attributes_of(entry, (Attribute.PRIVATE,)) for entry in find(session, wanted)]
        return len(told) == 1 and told[0].get(Attribute.PRIVATE) is False

    def _sign(self, request: Sign) -> bytes:
        parameters = None
        if request.pss is not None:
            parameters = (pkcs11.Mechanism(request.pss[0]), pkcs11.MGF(request.pss[1]), request.pss[2])
        mechanism = pkcs11.Mechanism(request.mechanism)
        with self._using(request) as (key, pin):
            if not isinstance(key, pkcs11.SignMixin):
                raise Fault("KEY_CANNOT")
            signature = key.sign(request.data, mechanism=mechanism, mechanism_param=parameters, pin=pin)
        return bytes(signature)

    def _decrypt(self, request: Decrypt) -> bytes:
        parameters = None
        if request.oaep is not None:
            source = request.oaep[2] or None
            parameters = (pkcs11.Mechanism(request.oaep[0]), pkcs11.MGF(request.oaep[1]), source)
        mechanism = pkcs11.Mechanism(request.mechanism)
        with self._using(request) as (key, pin):
            if not isinstance(key, pkcs11.DecryptMixin):
                raise Fault("KEY_CANNOT")
            plain = key.decrypt(request.data, mechanism=mechanism, mechanism_param=parameters, pin=pin)
        return cast(bytes, plain)

    def _derive(self, request: Derive) -> bytes:
        with self._using(request) as (key, pin):
            if pin is not None:
                # C_DeriveKey has no Init before which a context-specific login could be made.
                key.session.reaffirm_credentials(pin)
            # Called past the key's class: ykcs11 derives with keys whose CKA_DERIVE is false.
            shared = DeriveMixin.derive_key(
                key,
                KeyType.GENERIC_SECRET,
                request.size * 8,
                mechanism_param=(pkcs11.KDF.NULL, None, request.point),
                template={Attribute.SENSITIVE: False, Attribute.EXTRACTABLE: True, Attribute.PRIVATE: False},
            )
            return bytes(shared[Attribute.VALUE])


def _pin_text(pin: bytearray) -> str:
    try:
        return pin.decode("utf-8")
    except UnicodeDecodeError:
        raise Fault("CKR_PIN_INVALID") from None


def _exactly(template: templates.Template) -> templates.Template:
    """Our template and nothing of python-pkcs11's own: some modules refuse attributes they do not know."""
    return {**dict.fromkeys(_LIBRARY_DEFAULTS, pkcs11.constants.DEFAULT), **template}
