"""Administration beyond the standard; yubikit, a stranger's library, drives the card in process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from yubikit.core import TRANSPORT, InvalidPinError
from yubikit.core.smartcard import ApduError, SmartCardConnection
from yubikit.core.smartcard.scp import KeyRef, Scp03KeyParams, StaticKeys
from yubikit.management import CAPABILITY, ManagementSession
from yubikit.piv import (
    KEY_TYPE,
    MANAGEMENT_KEY_TYPE,
    OBJECT_ID,
    PIN_POLICY,
    SLOT,
    TOUCH_POLICY,
    PivSession,
)
from yubikit.securitydomain import SecurityDomainSession

from cardwright_cardops.iso7816.tlv import parse_unique
from cardwright_simulators.card import Write
from cardwright_simulators.card.attestation import root, root_pem
from tests.support.raw_card import PIN, POOL, PUK, WRONG_PIN, RawCard, wrap

FACTORY_KEY = bytes.fromhex("0102030405060708" * 3)
NEW = ["yubikey-5.7", "t0-short"]
OLD = ["yubikey-5.4", "tdes-only", "pivapplet"]


class Conn(SmartCardConnection):
    """yubikit's view of a virtual card; over USB it uses extended APDUs, over NFC short ones."""

    def __init__(self, host: RawCard, transport: TRANSPORT) -> None:
        self.host = host
        self._transport = transport

    @property
    def transport(self) -> TRANSPORT:
        return self._transport

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        answer = self.host.card.transmit(bytes(apdu))
        return answer[:-2], int.from_bytes(answer[-2:], "big")

    def close(self) -> None:
        """Nothing to close."""


def connect(name: str, transport: TRANSPORT = TRANSPORT.NFC) -> Conn:
    return Conn(RawCard(name, serial=12345678), transport)


def session(connection: Conn) -> PivSession:
    """A session that is administrator and logged in."""
    piv = PivSession(connection)
    piv.authenticate(FACTORY_KEY)
    piv.verify_pin("123456")
    return piv


def vendor_card(name: str = "yubikey-5.7") -> RawCard:
    host = RawCard(name)
    host.select()
    assert host.admin() == 0x9000
    return host


@pytest.mark.parametrize("transport", [TRANSPORT.USB, TRANSPORT.NFC])
@pytest.mark.parametrize("name", ["yubikey-5.7", "yubikey-5.4", "tdes-only"])
def test_device_information(name: str, transport: TRANSPORT) -> None:
    info = ManagementSession(connect(name, transport)).read_device_info()
    assert info.serial == 12345678
    assert set(info.config.enabled_capabilities.values()) == {CAPABILITY.PIV}
    assert str(info.version) == {"yubikey-5.7": "5.7.4", "yubikey-5.4": "5.4.3", "tdes-only": "5.2.7"}[name]


def use_rsa(piv: PivSession, kind: KEY_TYPE, public: rsa.RSAPublicKey) -> None:
    signature = piv.sign(SLOT.AUTHENTICATION, kind, b"m", hashes.SHA256(), padding.PKCS1v15())
    public.verify(signature, b"m", padding.PKCS1v15(), hashes.SHA256())


def use_curve(piv: PivSession, kind: KEY_TYPE, public: ec.EllipticCurvePublicKey) -> None:
    signature = piv.sign(SLOT.AUTHENTICATION, kind, b"m", hashes.SHA256())
    public.verify(signature, b"m", ec.ECDSA(hashes.SHA256()))
    other = ec.generate_private_key(public.curve)
    assert piv.calculate_secret(SLOT.AUTHENTICATION, other.public_key()) == other.exchange(ec.ECDH(), public)


def use_ed25519(piv: PivSession, kind: KEY_TYPE, public: ed25519.Ed25519PublicKey) -> None:
    public.verify(piv.sign(SLOT.AUTHENTICATION, kind, b"m" * 300, None), b"m" * 300)


def use_x25519(piv: PivSession, kind: KEY_TYPE, public: x25519.X25519PublicKey) -> None:
    other = x25519.X25519PrivateKey.generate()
    assert piv.calculate_secret(SLOT.AUTHENTICATION, other.public_key()) == other.exchange(public)


USES: dict[KEY_TYPE, Callable[[PivSession, KEY_TYPE, Any], None]] = {
    KEY_TYPE.RSA1024: use_rsa,
    KEY_TYPE.RSA2048: use_rsa,
    KEY_TYPE.RSA4096: use_rsa,
    KEY_TYPE.ECCP256: use_curve,
    KEY_TYPE.ECCP384: use_curve,
    KEY_TYPE.ED25519: use_ed25519,
    KEY_TYPE.X25519: use_x25519,
}
ROOT_FINGERPRINT = "278b754c91a428dcc9a44104c01a9dfc9a326e3019070dedbaf02140f98f7643"
MODERN = {KEY_TYPE.RSA4096, KEY_TYPE.ED25519, KEY_TYPE.X25519}


WAYS = [
    ("yubikey-5.7", TRANSPORT.USB),
    ("yubikey-5.7", TRANSPORT.NFC),
    ("t0-short", TRANSPORT.NFC),
    ("yubikey-5.4", TRANSPORT.USB),
    ("pivapplet", TRANSPORT.NFC),
]


@pytest.mark.parametrize(
    ("name", "transport", "kind"),
    [(name, transport, kind) for name, transport in WAYS for kind in USES if name in NEW or kind not in MODERN],
)
def test_generate_attest_and_use(name: str, transport: TRANSPORT, kind: KEY_TYPE) -> None:
    connection = connect(name, transport)
    piv = session(connection)
    public = piv.generate_key(SLOT.AUTHENTICATION, kind, PIN_POLICY.ONCE, TOUCH_POLICY.CACHED)
    USES[kind](piv, kind, public)
    statement = piv.attest_key(SLOT.AUTHENTICATION)
    assert statement.public_key() == public
    signer = piv.get_certificate(SLOT.ATTESTATION)
    statement.verify_directly_issued_by(signer)
    signer.verify_directly_issued_by(root())
    values = {item.oid.dotted_string: item.value.public_bytes() for item in statement.extensions}
    profile = connection.host.card.profile
    assert values == {
        "1.3.6.1.4.1.41482.3.3": bytes(profile.version),
        "1.3.6.1.4.1.41482.3.7": b"\x02\x04\x00\xbc\x61\x4e",
        "1.3.6.1.4.1.41482.3.8": b"\x02\x03",
        "1.3.6.1.4.1.41482.3.9": b"\x01",
    }


def test_virtual_root_is_always_the_same() -> None:
    assert x509.load_pem_x509_certificate(root_pem()) == root()
    assert root().fingerprint(hashes.SHA256()).hex() == ROOT_FINGERPRINT


@pytest.mark.parametrize("name", ["yubikey-5.7", "yubikey-5.4", "pivapplet"])
def test_imported_keys_work_and_say_so(name: str) -> None:
    piv = session(connect(name))
    for key in (rsa.generate_private_key(65537, 1024), ec.generate_private_key(ec.SECP384R1())):
        piv.put_key(SLOT.AUTHENTICATION, key, PIN_POLICY.NEVER)
        kind = KEY_TYPE.from_public_key(key.public_key())
        USES[kind](piv, kind, key.public_key())
        raw = piv.protocol.send_apdu(0, 0xF7, 0, 0x9A)
        values = parse_unique(raw)
        assert values[0x01] == bytes((kind,))
        assert values[0x02] == b"\x01\x01"
        assert values[0x03] == (b"\x01" if name == "pivapplet" else b"\x02")
        with pytest.raises(ApduError) as caught:
            piv.attest_key(SLOT.AUTHENTICATION)
        assert caught.value.sw == 0x6A80


def test_recovered_keys_import_into_retired_slots_up_to_4096() -> None:
    piv = session(connect("yubikey-5.7", TRANSPORT.USB))
    p, q, e = (int.from_bytes(part, "big") for part in POOL.take(4096))
    d = pow(e, -1, (p - 1) * (q - 1))
    public = rsa.RSAPublicNumbers(e, p * q)
    key = rsa.RSAPrivateNumbers(p, q, d, d % (p - 1), d % (q - 1), pow(q, -1, p), public).private_key(
        unsafe_skip_rsa_key_validation=True
    )
    assert piv.put_key(SLOT.RETIRED20, key) == KEY_TYPE.RSA4096
    assert piv.get_slot_metadata(SLOT.RETIRED20).public_key == key.public_key()


def test_move_and_delete() -> None:
    connection = connect("yubikey-5.7")
    piv = session(connection)
    public = piv.generate_key(SLOT.KEY_MANAGEMENT, KEY_TYPE.ECCP256)
    piv.move_key(SLOT.KEY_MANAGEMENT, SLOT.RETIRED3)
    assert piv.get_slot_metadata(SLOT.RETIRED3).public_key == public
    with pytest.raises(ApduError) as caught:
        piv.get_slot_metadata(SLOT.KEY_MANAGEMENT)
    assert caught.value.sw == 0x6A88
    piv.generate_key(SLOT.KEY_MANAGEMENT, KEY_TYPE.ECCP256)
    before = connection.host.card.state_hash()
    for to, source in ((0x84, 0x9D), (0x84, 0x9A), (0xF9, 0x9D), (0x9D, 0xF9), (0x84, 0x84), (0x50, 0x9D)):
        assert connection.host.sw(f"00F6{to:02X}{source:02X}") in (0x6985, 0x6A88, 0x6A86)
    assert connection.host.card.state_hash() == before
    piv.delete_key(SLOT.RETIRED3)
    assert connection.host.sw("00F70084") == 0x6A88
    assert connection.host.card.log[-1] == Write("key deleted", 0x84)


@pytest.mark.parametrize("name", OLD)
def test_older_cards_do_not_move(name: str) -> None:
    assert vendor_card(name).sw("00F6829A") == 0x6D00


@pytest.mark.parametrize("ins", ["F6", "F7", "F8", "F9", "FA", "FB", "FD", "FE", "FF"])
@pytest.mark.parametrize("name", ["sp800-73-5", "secure-messaging", "globalplatform"])
def test_standard_cards_have_no_vendor_command(name: str, ins: str) -> None:
    assert RawCard(name).sw(f"00{ins}0000") == 0x6D00


@pytest.mark.parametrize("name", NEW + OLD)
def test_reset_only_when_both_are_blocked(name: str) -> None:
    connection = connect(name)
    piv = session(connection)
    piv.generate_key(SLOT.AUTHENTICATION, KEY_TYPE.ECCP256)
    piv.put_object(OBJECT_ID.CHUID, b"x")
    piv.set_management_key(MANAGEMENT_KEY_TYPE.TDES, bytes(range(24)))
    piv.change_pin("123456", "654321")
    attestation = connection.host.get("5FFF01")
    assert connection.host.sw("00FB0000") == 0x6985
    piv.reset()
    assert connection.host.get("5FC102")[1] == 0x6A82
    assert connection.host.get("5FFF01") == attestation
    assert connection.host.verify(PIN) == 0x9000
    assert connection.host.admin() == 0x9000
    assert connection.host.card.serial == 12345678
    assert connection.host.sw("00F9" + "9A00") == 0x6A80


def test_set_retries_needs_both_proofs_and_resets_both_secrets() -> None:
    connection = connect("yubikey-5.7")
    piv = session(connection)
    piv.change_pin("123456", "654321")
    piv.change_puk("12345678", "87654321")
    fresh = vendor_card()
    assert fresh.sw("00FA0505") == 0x6982
    piv.set_pin_attempts(5, 17)
    assert connection.host.verify() == 0x63C5
    assert connection.host.sw("002C0080", "00" * 8 + PIN) == 0x63CF
    piv.unblock_pin("12345678", "123456")
    metadata = piv.get_puk_metadata()
    assert (metadata.default_value, metadata.total_attempts, metadata.attempts_remaining) == (True, 17, 17)
    assert not piv.get_pin_metadata().default_value
    piv.verify_pin("123456")
    piv.authenticate(FACTORY_KEY)
    assert connection.host.sw("00FA0005") == 0x6A86


def test_metadata_of_secrets() -> None:
    host = vendor_card()
    assert host.send("00F70080") == ("0101FF05010106020303", 0x9000)
    host.verify(WRONG_PIN)
    assert host.send("00F70080") == ("0101FF05010106020302", 0x9000)
    assert host.send("00F7009B") == ("01010A02020001050101", 0x9000)
    assert host.sw("002C0080", PUK + PIN) == 0x9000
    assert host.send("00F70080") == ("0101FF05010006020303", 0x9000)
    assert {host.sw(f"00F700{p2:02X}") for p2 in (0x00, 0x04, 0x50, 0x82, 0x96, 0x98, 0x9A, 0xFF)} == {0x6A88}
    assert host.sw("00F7019B") == 0x6A86


def test_management_key_change() -> None:
    connection = connect("yubikey-5.7")
    piv = session(connection)
    for kind in MANAGEMENT_KEY_TYPE:
        key = bytes(range(kind.key_len))
        piv.set_management_key(kind, key, require_touch=True)
        piv.authenticate(key)
        metadata = piv.get_management_key_metadata()
        assert (metadata.key_type, metadata.default_value, metadata.touch_policy) == (kind, False, TOUCH_POLICY.ALWAYS)
    connection.host.card.touch_given = False
    with pytest.raises(ApduError) as caught:
        piv.authenticate(key)
    assert caught.value.sw == 0x6982


@pytest.mark.parametrize(
    ("header", "data", "sw"),
    [
        ("00FF0000", "039B18" + "00" * 24, 0x6A86),
        ("00FFFFFF", "0A9B18" + "00" * 24, 0x6A80),
        ("00FFFFFF", "039B17" + "00" * 23, 0x6A80),
        ("00FFFFFF", "039A18" + "00" * 24, 0x6A80),
        ("00FFFFFF", "03", 0x6A80),
        ("00FE119B", "0620" + "01" * 32, 0x6A86),
        ("00FE059A", "0101FF", 0x6A86),
        ("00FE119A", "0620" + "00" * 32, 0x6A80),
        ("00FE119A", "0620" + "FF" * 32, 0x6A80),
        ("00FE119A", "061F" + "01" * 31, 0x6A80),
        ("00FE119A", "0620" + "01" * 32 + "AA0104", 0x6A80),
        ("00FE119A", "0620" + "01" * 32 + "AC0101", 0x6A80),
        ("00FE069A", "010103020103030103040103050103", 0x6A80),
        ("00F90000", "", 0x6A86),
        ("00F99A00", "", 0x6A80),
    ],
)
def test_vendor_refusals(header: str, data: str, sw: int) -> None:
    host = vendor_card("tdes-only")
    before = host.card.state_hash()
    assert host.sw(header, data) == sw
    assert host.card.state_hash() == before


@pytest.mark.parametrize("header", ["00F6829A", "00FA0505", "00FE119A", "00FFFFFF"])
def test_vendor_commands_that_need_the_management_key(header: str) -> None:
    host = RawCard("yubikey-5.7")
    host.select()
    host.verify(PIN)
    assert host.sw(header, "" if header[2:4] in ("F6", "FA") else "00") == 0x6982


def test_f9_can_be_replaced() -> None:
    piv = session(connect("yubikey-5.7"))
    key = ec.generate_private_key(ec.SECP384R1())
    name = x509.Name([x509.NameAttribute(x509.oid.NameOID.COMMON_NAME, "Own attestation")])
    template = piv.get_certificate(SLOT.ATTESTATION)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), 5)
        .not_valid_before(template.not_valid_before_utc)
        .not_valid_after(template.not_valid_after_utc)
        .sign(key, hashes.SHA256())
    )
    piv.put_key(SLOT.ATTESTATION, key)
    piv.put_certificate(SLOT.ATTESTATION, certificate)
    piv.generate_key(SLOT.SIGNATURE, KEY_TYPE.ECCP256)
    piv.attest_key(SLOT.SIGNATURE).verify_directly_issued_by(certificate)
    der = certificate.public_bytes(serialization.Encoding.DER)
    assert piv.get_certificate(SLOT.ATTESTATION).public_bytes(serialization.Encoding.DER) == der


def test_wrong_pin_is_understood() -> None:
    piv = PivSession(connect("yubikey-5.7"))
    with pytest.raises(InvalidPinError) as caught:
        piv.verify_pin("000000")
    assert caught.value.attempts_remaining == 2


@pytest.mark.parametrize("transport", [TRANSPORT.USB, TRANSPORT.NFC])
@pytest.mark.parametrize("name", ["yubikey-5.7", "yubikey-5.4"])
def test_piv_inside_scp03(name: str, transport: TRANSPORT) -> None:
    connection = connect(name, transport)
    piv = PivSession(connection, Scp03KeyParams())
    piv.authenticate(FACTORY_KEY)
    piv.verify_pin("123456")
    public = piv.generate_key(SLOT.AUTHENTICATION, KEY_TYPE.RSA2048)
    assert isinstance(public, rsa.RSAPublicKey)
    use_rsa(piv, KEY_TYPE.RSA2048, public)
    statement = piv.attest_key(SLOT.AUTHENTICATION)
    piv.put_certificate(SLOT.AUTHENTICATION, statement)
    assert piv.get_certificate(SLOT.AUTHENTICATION) == statement
    with pytest.raises(ApduError) as caught:
        piv.get_slot_metadata(SLOT.SIGNATURE)
    assert caught.value.sw == 0x6A88
    # A command without protection ends the channel, and any SELECT ends it with all statuses.
    assert connection.host.get("5FC105")[1] == 0x6982
    connection.host.select()
    assert connection.host.raw("04CB3FFF055C035FC10500") == "6982"


def test_new_channel_keys() -> None:
    connection = connect("yubikey-5.7")
    domain = SecurityDomainSession(connection)
    assert list(domain.get_key_information()) == [KeyRef(1, 0xFF), KeyRef(2, 0xFF), KeyRef(3, 0xFF)]
    assert domain.get_card_recognition_data()
    domain.authenticate(Scp03KeyParams())
    keys = StaticKeys(b"1" * 16, b"2" * 16, b"3" * 16)
    domain.put_key(KeyRef(1, 5), keys)
    assert list(domain.get_key_information()) == [KeyRef(1, 5), KeyRef(2, 5), KeyRef(3, 5)]
    assert connection.host.card.log[-1] == Write("channel keys", 5)
    assert PivSession(connection, Scp03KeyParams(KeyRef(1, 5), keys)).get_serial() == 12345678
    with pytest.raises(ValueError, match="SCP"):
        PivSession(connection, Scp03KeyParams())


def test_put_key_outside_a_channel() -> None:
    host = RawCard("yubikey-5.7")
    host.select("A000000151000000")
    assert host.sw("80D80081", wrap(0x88, bytes(16))) == 0x6982
    assert host.sw("80E60081", "00") == 0x6D00
    assert host.sw("80CA0042") == 0x6A88
