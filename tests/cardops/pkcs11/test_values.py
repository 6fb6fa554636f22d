"""The pure parts: flags, capabilities, quirks, inventory from any attributes, return values, messages."""

from __future__ import annotations

import json
from contextlib import suppress

import msgspec
import pkcs11.exceptions
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.pkcs11 import Ability, KeyAlgorithm, Mechanism, ModuleInfo, PinState, User
from cardwright_cardops.pkcs11.capabilities import capabilities_of
from cardwright_cardops.pkcs11.cryptoki import ReturnValue, text_of
from cardwright_cardops.pkcs11.errors import Pkcs11Error, error_of
from cardwright_cardops.pkcs11.faults import exception_name
from cardwright_cardops.pkcs11.inventory import CKO_CERTIFICATE, CKO_PRIVATE_KEY, CKO_PUBLIC_KEY, build_inventory
from cardwright_cardops.pkcs11.messages import AnyRequest, Login, ObjectRecord, Request, wipe
from cardwright_cardops.pkcs11.quirks import (
    KEY_REFERENCES,
    OPENSC,
    SOFTHSM,
    UNKNOWN,
    YKCS11,
    Quirks,
    id_of_key_reference,
    key_reference_of,
    quirks_of,
)
from cardwright_cardops.pkcs11.values import (
    MechanismInfo,
    TokenIdentity,
    TokenInfo,
    so_pin_state,
    user_pin_state,
)
from tests.cardops.pkcs11.support import certificate_for

IDENTITY = TokenIdentity(1, "label", "serial", "manufacturer", "model")
GENERATE = 0x10000


def info(flags: int = 0x40D, *mechanisms: MechanismInfo) -> TokenInfo:
    return TokenInfo(IDENTITY, "slot", flags, 4, 8, (1, 0), (1, 0), mechanisms)


RSA_GENERATION = MechanismInfo(Mechanism.RSA_PKCS_KEY_PAIR_GEN, 1024, 2048, GENERATE)
EC_GENERATION = MechanismInfo(Mechanism.EC_KEY_PAIR_GEN, 256, 256, GENERATE)


@pytest.mark.parametrize(
    ("flags", "user", "so"),
    [
        (0x8, PinState.GOOD, PinState.GOOD),
        (0x0, PinState.NOT_SET, PinState.GOOD),
        (0x10008, PinState.COUNT_LOW, PinState.GOOD),
        (0x30008, PinState.FINAL_TRY, PinState.GOOD),
        (0x70008, PinState.LOCKED, PinState.GOOD),
        (0x40000, PinState.LOCKED, PinState.GOOD),
        (0x20000, PinState.FINAL_TRY, PinState.GOOD),
        (0x100008, PinState.GOOD, PinState.COUNT_LOW),
        (0x300008, PinState.GOOD, PinState.FINAL_TRY),
        (0x700008, PinState.GOOD, PinState.LOCKED),
    ],
)
def test_pin_flags(flags: int, user: PinState, so: PinState) -> None:
    assert (user_pin_state(flags), so_pin_state(flags)) == (user, so)


def test_identity_is_all_but_the_slot() -> None:
    assert IDENTITY.same_token(TokenIdentity(9, "label", "serial", "manufacturer", "model"))
    for place in range(1, 5):
        values: list[str] = ["label", "serial", "manufacturer", "model"]
        values[place - 1] = "other"
        assert not IDENTITY.same_token(TokenIdentity(1, *values))


@pytest.mark.parametrize(
    ("manufacturer", "description", "expected"),
    [
        ("SoftHSM", "Implementation of PKCS11", SOFTHSM),
        ("Yubico (www.yubico.com)", "PKCS#11 PIV Library (SP-800-73)", YKCS11),
        ("Yubico", "YubiHSM PKCS#11 module", UNKNOWN),
        ("OpenSC Project", "OpenSC smartcard framework", OPENSC),
        ("Somebody", "OpenSC", UNKNOWN),
    ],
)
def test_module_is_known_by_what_it_says(manufacturer: str, description: str, expected: Quirks) -> None:
    assert quirks_of(ModuleInfo(manufacturer, description, (2, 40), (1, 0))) is expected


def test_key_references_and_ids_are_each_others_inverse() -> None:
    assert sorted(KEY_REFERENCES.values()) == [*range(0x82, 0x96), 0x9A, 0x9C, 0x9D, 0x9E]
    for identifier, reference in KEY_REFERENCES.items():
        assert id_of_key_reference(YKCS11, reference) == bytes([identifier])
        assert key_reference_of(YKCS11, bytes([identifier])) == reference
    assert key_reference_of(SOFTHSM, b"\x01") is None
    assert key_reference_of(YKCS11, b"\x00\x01") is None
    with pytest.raises(ValueError, match="F9"):
        id_of_key_reference(YKCS11, 0xF9)


def test_capabilities_join_token_and_module() -> None:
    mechanisms = (RSA_GENERATION, EC_GENERATION, MechanismInfo(Mechanism.ECDSA, 256, 384, 0x800))
    able = capabilities_of(info(0x40D, *mechanisms), SOFTHSM)
    assert able.algorithms == (KeyAlgorithm.RSA_1024, KeyAlgorithm.RSA_2048, KeyAlgorithm.P256)
    assert (able.sign, able.decrypt, able.derive) == ((Mechanism.ECDSA,), (), ())
    assert able.generate.sure and able.writer is User.USER
    protected = capabilities_of(info(0x40F, *mechanisms), SOFTHSM)
    assert protected.generate.able is Ability.NO
    assert "write-protected" in protected.import_key.reason
    assert protected.algorithms == ()
    bare = capabilities_of(info(), SOFTHSM)
    assert (bare.generate.able, bare.import_key.able) == (Ability.NO, Ability.YES)
    unknown = capabilities_of(info(0x40D, *mechanisms), UNKNOWN)
    assert (unknown.generate.able, unknown.import_key.sure) == (Ability.UNKNOWN, False)
    unknown.require("import_key")
    with pytest.raises(KeyError):
        able.require("writer")


@pytest.mark.parametrize("quirks", [SOFTHSM, YKCS11, OPENSC, UNKNOWN])
def test_capabilities_have_a_stable_json_form(quirks: Quirks) -> None:
    described = capabilities_of(info(0x40D, RSA_GENERATION), quirks).describe()
    assert json.loads(json.dumps(described)) == described
    assert list(described) == [
        *("back_end", "module", "writer", "unlock_by", "fixed_ids", "shows_bare_keys", "operations"),
        *("algorithms", "sign", "decrypt", "derive"),
    ]
    operations = described["operations"]
    assert isinstance(operations, dict)
    assert sorted(operations) == [
        *("change_pin", "change_puk", "change_so_pin", "delete_certificate", "delete_key", "generate"),
        *("import_key", "init_token", "so_login", "unlock", "write_certificate"),
    ]
    for value in operations.values():
        assert (value["able"] == "yes") is (value["reason"] == "")


def record_of(
    kind: int, key: ec.EllipticCurvePublicKey, identifier: bytes = b"\x01", *, wrapped: bool = True
) -> ObjectRecord:
    point = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return ObjectRecord(
        kind=kind,
        id=identifier,
        key_type=3,
        ec_params=bytes.fromhex("06082A8648CE3D030107"),
        ec_point=bytes([0x04, len(point)]) + point if wrapped else point,
        sign=kind == CKO_PRIVATE_KEY,
    )


def certificate_record(key: ec.EllipticCurvePrivateKey, identifier: bytes = b"\x01", label: str = "") -> ObjectRecord:
    der = certificate_for(key.public_key(), key).public_bytes(Encoding.DER)
    return ObjectRecord(kind=CKO_CERTIFICATE, id=identifier, label=label, value=der)


@pytest.mark.parametrize("wrapped", [True, False])
def test_point_is_read_with_and_without_its_wrapping(wrapped: bool) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    (entry,) = build_inventory([record_of(CKO_PUBLIC_KEY, key.public_key(), wrapped=wrapped)], SOFTHSM).keys
    assert entry.algorithm is KeyAlgorithm.P256
    assert entry.public_key == key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert not entry.private


def test_public_half_comes_from_the_certificate_if_nothing_else_tells_it() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    private = ObjectRecord(kind=CKO_PRIVATE_KEY, id=b"\x01", key_type=3, sign=True)
    inventory = build_inventory([private, certificate_record(key)], SOFTHSM)
    (entry,) = inventory.keys
    assert (entry.algorithm, entry.certificates, inventory.problems) == (KeyAlgorithm.P256, (0,), ())
    (alone,) = build_inventory([private], SOFTHSM).keys
    assert (alone.algorithm, alone.public_key) == (None, None)


def test_attestation_certificates_are_set_apart() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    label = "X.509 Certificate for PIV Attestation 9a"
    inventory = build_inventory([certificate_record(key, label=label), certificate_record(key)], YKCS11)
    assert [entry.attestation for entry in inventory.certificates] == [False, True]
    assert inventory.certificate(b"\x01") is inventory.certificates[0]
    assert not any(
        entry.attestation for entry in build_inventory([certificate_record(key, label=label)], SOFTHSM).certificates
    )


def test_a_damaged_certificate_hides_nothing() -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    broken = ObjectRecord(kind=CKO_CERTIFICATE, id=b"\x02", value=b"\x30\x03\x02\x01")
    inventory = build_inventory([broken, certificate_record(key)], SOFTHSM)
    assert [entry.problem for entry in inventory.certificates] == ["", "the certificate cannot be read"]
    assert inventory.problems == ("certificate 02: the certificate cannot be read",)


def test_equal_ids_are_reported() -> None:
    keys = [ec.generate_private_key(ec.SECP256R1()).public_key() for _ in range(2)]
    inventory = build_inventory([record_of(CKO_PUBLIC_KEY, key) for key in keys], SOFTHSM)
    assert inventory.problems == ("several public keys share an id",)


def test_huge_modulus_is_not_computed_with() -> None:
    record = ObjectRecord(
        kind=CKO_PUBLIC_KEY, id=b"\x01", key_type=0, modulus=b"\xff" * 60_000, exponent=b"\x01\x00\x01"
    )
    (entry,) = build_inventory([record], SOFTHSM).keys
    assert entry.public_key is None


RECORDS = st.builds(
    ObjectRecord,
    kind=st.sampled_from([1, 2, 3]),
    id=st.binary(max_size=2),
    label=st.text(max_size=5),
    key_type=st.none() | st.sampled_from([0, 3, 64]) | st.integers(0, 2**64 - 1),
    ec_params=st.sampled_from([b"", bytes.fromhex("06082A8648CE3D030107"), b"\x06\x01"]) | st.binary(max_size=12),
    ec_point=st.binary(max_size=70),
    modulus=st.binary(max_size=300),
    exponent=st.binary(max_size=4),
    value=st.binary(max_size=300),
    sign=st.booleans(),
)


@given(st.lists(RECORDS, max_size=6))
def test_any_attributes_make_an_inventory(records: list[ObjectRecord]) -> None:
    inventory = build_inventory(records, YKCS11)
    assert len(inventory.certificates) == sum(record.kind == CKO_CERTIFICATE for record in records)
    assert {entry.id for entry in inventory.keys} == {record.id for record in records if record.kind != 1}
    described = inventory.describe()
    assert json.loads(json.dumps(described)) == described


@given(st.binary(max_size=40))
def test_any_text_of_a_module_is_read(raw: bytes) -> None:
    assert not text_of(raw).endswith((" ", "\0"))


@given(st.binary(max_size=200))
def test_any_frame_is_a_request_or_refused(raw: bytes) -> None:
    with suppress(msgspec.MsgspecError):
        assert isinstance(msgspec.msgpack.decode(raw, type=AnyRequest), Request)


def test_requests_show_no_secret_and_are_wiped() -> None:
    request = Login(IDENTITY, User.USER, bytearray(b"8c4n4ry7"), False)
    assert repr(request) == str(request) == "Login(…)"
    wipe(request)
    assert request.pin == bytes(8)


def test_every_exception_of_the_binding_has_its_return_value() -> None:
    kinds = [
        kind
        for kind in vars(pkcs11.exceptions).values()
        if isinstance(kind, type) and issubclass(kind, pkcs11.exceptions.PKCS11Error)
    ]
    names = {kind.__name__: exception_name(kind()) for kind in kinds}
    assert names["PinIncorrect"] == "CKR_PIN_INCORRECT"
    assert names["SlotIDInvalid"] == "CKR_SLOT_ID_INVALID"
    assert names["SessionReadWriteSOExists"] == "CKR_SESSION_READ_WRITE_SO_EXISTS"
    assert names["AnotherUserAlreadyLoggedIn"] == "CKR_USER_ANOTHER_ALREADY_LOGGED_IN"
    assert names["TokenNotRecognised"] == "CKR_TOKEN_NOT_RECOGNIZED"
    assert names["PKCS11Error"] == "MODULE_FAILED"


@pytest.mark.parametrize(
    ("number", "name", "code"),
    [
        (0xA0, "CKR_PIN_INCORRECT", "PKCS11_PIN_INCORRECT"),
        (0xA4, "CKR_PIN_LOCKED", "PKCS11_PIN_LOCKED"),
        (0xA2, "CKR_PIN_LEN_RANGE", "PKCS11_PIN_LENGTH"),
        (0x32, "CKR_DEVICE_REMOVED", "PKCS11_TOKEN_REMOVED"),
        (0x30, "CKR_DEVICE_ERROR", "PKCS11_DEVICE_ERROR"),
        (0x54, "CKR_FUNCTION_NOT_SUPPORTED", "UNSUPPORTED_BY_TOKEN"),
        (0xB3, "CKR_SESSION_HANDLE_INVALID", "PKCS11_SESSION"),
        (0x101, "CKR_USER_NOT_LOGGED_IN", "PKCS11_NOT_LOGGED_IN"),
        (0x80001234, "CKR_0x80001234", "PKCS11_FAILED"),
    ],
)
def test_return_values_become_typed_errors(number: int, name: str, code: str) -> None:
    assert ReturnValue(number).name == name
    error = error_of(name)
    assert (error.code, error.ckr) == (code, name)
    assert isinstance(error, Pkcs11Error) and error.message and error.effect and error.advice


def test_our_own_refusals_carry_no_return_value() -> None:
    error = error_of("PIN_LAST_TRY")
    assert (error.code, error.ckr) == ("PKCS11_PIN_LAST_TRY", "")


def test_algorithms_know_their_sizes() -> None:
    assert [(algorithm.is_rsa, algorithm.bits) for algorithm in KeyAlgorithm] == [
        *((True, bits) for bits in (1024, 2048, 3072, 4096)),
        (False, 256),
        (False, 384),
    ]


def test_rsa_attributes_are_read() -> None:
    key = rsa.generate_private_key(65537, 2048).public_key()
    numbers = key.public_numbers()
    record = ObjectRecord(
        kind=CKO_PRIVATE_KEY,
        id=b"\x01",
        key_type=0,
        modulus=numbers.n.to_bytes(256, "big"),
        exponent=b"\x01\x00\x01",
        decrypt=True,
    )
    (entry,) = build_inventory([record], OPENSC).keys
    assert (entry.algorithm, entry.key_reference, entry.private, entry.decrypt) == (
        KeyAlgorithm.RSA_2048,
        0x9A,
        True,
        True,
    )
