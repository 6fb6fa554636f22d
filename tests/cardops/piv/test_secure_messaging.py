"""The host's side of PIV secure messaging: proof of the card, refusals, what is never let through."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.iso7816 import tlv
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.status import (
    SecureMessagingBroken,
    SecureMessagingNotSupported,
    StatusError,
    WrongParameters,
)
from cardwright_cardops.piv.cvc import ContentSigner, Cvc, CvcMalformed, CvcUntrusted, SmError, verify_cvc
from cardwright_cardops.piv.secure_messaging import (
    SmAnswerMalformed,
    SmCommandUnfit,
    SmCryptogramMismatch,
    SmHandshake,
    SmResponseInvalid,
    SmSessionClosed,
    SmSessionLost,
    SmSuite,
)
from cardwright_simulators.card.secure_messaging import ROLE_SIGNER, CardSession, intermediate_subject, make_cvc
from tests.support.secure_messaging import (
    GUID,
    NOW,
    SmTestCard,
    answer_to,
    genuine_cryptogram,
    genuine_mac,
    issuer_id,
    open_session,
    signer_certificate,
    sm_card,
)

SUITES = list(SmSuite)
GET_CHUID = CommandAPDU(0x00, 0xCB, 0x3F, 0xFF, bytes.fromhex("5C035FC102"), 256)


def finish(card: SmTestCard, signer: ContentSigner | None) -> str:
    """``ok`` or the code of the error that setting up a session with ``card`` ends in."""
    handshake = SmHandshake(card.suite)
    try:
        handshake.finish(answer_to(handshake, card, CardSession()), signer, at=NOW)
    except SmError as error:
        return error.code
    return "ok"


class TestProofOfTheCard:
    @pytest.mark.parametrize("suite", SUITES)
    @pytest.mark.parametrize("through", [False, True])
    def test_genuine(self, suite: SmSuite, through: bool) -> None:
        host, card = open_session(suite, through_intermediate=through)
        assert host.card.guid == GUID
        assert host.card.proven
        assert host.card.signer == sm_card(suite, through_intermediate=through).signer.certificate
        assert card.active

    def test_without_signer_nobody_vouches(self) -> None:
        card, handshake = sm_card(SmSuite.CS2), SmHandshake(SmSuite.CS2)
        session = handshake.finish(answer_to(handshake, card, CardSession()), None)
        assert not session.card.proven

    @pytest.mark.parametrize("suite", SUITES)
    def test_a_copy_without_the_private_key(self, suite: SmSuite) -> None:
        card = sm_card(suite)
        copy = replace(card, key=ec.generate_private_key(suite.parameters.curve))
        assert finish(copy, card.signer) == "SM_CRYPTOGRAM_MISMATCH"
        assert finish(copy, None) == "SM_CRYPTOGRAM_MISMATCH"

    def test_a_certificate_of_the_cards_own_making(self) -> None:
        card = sm_card(SmSuite.CS2)
        issuer = issuer_id(card.signer.certificate)
        forged = make_cvc(card.key.public_key(), GUID, issuer, ec.generate_private_key(ec.SECP256R1()))
        assert finish(replace(card, cvc=forged), card.signer) == "SM_CVC_UNTRUSTED"

    @pytest.mark.parametrize("through", [False, True])
    def test_another_signer(self, through: bool) -> None:
        card = sm_card(SmSuite.CS2, through_intermediate=through)
        assert finish(card, sm_card(SmSuite.CS2, through_intermediate=not through).signer) == "SM_CVC_UNTRUSTED"
        assert finish(card, sm_card(SmSuite.CS7).signer) == "SM_CVC_UNTRUSTED"

    def test_a_weaker_hash_is_not_accepted(self) -> None:
        """A P-384 signer whose certificate claims SHA-256, and an ECDSA signature held against an RSA key."""
        card = sm_card(SmSuite.CS7)
        altered = card.cvc.replace(bytes.fromhex("2A8648CE3D040303"), bytes.fromhex("2A8648CE3D040302"))
        assert altered != card.cvc
        assert finish(replace(card, cvc=altered), card.signer) == "SM_CVC_UNTRUSTED"
        with pytest.raises(CvcUntrusted):
            Cvc.parse(card.cvc).verify(rsa.generate_private_key(65537, 2048).public_key())

    def test_the_algorithm_named_is_the_one_used(self) -> None:
        """The name stands outside of what is signed: an RSA signature under another name is refused."""
        signer = sm_card(SmSuite.CS2, through_intermediate=True).signer
        assert signer.intermediate is not None
        items = tlv.parse_all(tlv.parse_one(signer.intermediate.raw, 0x7F21).value)
        _, octets = tlv.parse_all(tlv.parse_one(items[-1].value, 0x30).value)
        other = tlv.encode(0x30, bytes.fromhex("06082A8648CE3D040302"))
        renamed = tlv.encode(0x5F37, tlv.encode(0x30, other + octets.encode()))
        intermediate = Cvc.parse(tlv.encode(0x7F21, tlv.join(items[:-1]) + renamed))
        card = sm_card(SmSuite.CS2, through_intermediate=True)
        with pytest.raises(CvcUntrusted, match="kind"):
            verify_cvc(Cvc.parse(card.cvc), ContentSigner(signer.certificate, intermediate), at=NOW)

    def test_the_signers_certificate(self) -> None:
        card = sm_card(SmSuite.CS2)
        key = card.signing_key
        cvc = Cvc.parse(card.cvc)
        good = ContentSigner(signer_certificate(key))
        verify_cvc(cvc, good, at=NOW)
        for bad in (
            signer_certificate(key, usage=None),
            signer_certificate(key, usage=ExtendedKeyUsageOID.CLIENT_AUTH),
            signer_certificate(key, key_identifier=False),
            signer_certificate(key, not_after=NOW - timedelta(days=1)),
        ):
            with pytest.raises(CvcUntrusted):
                verify_cvc(cvc, ContentSigner(bad), at=NOW)
        for when in (NOW - timedelta(days=31), NOW + timedelta(days=401)):
            with pytest.raises(CvcUntrusted):
                verify_cvc(cvc, good, at=when)

    def test_intermediate_rules(self) -> None:
        card = sm_card(SmSuite.CS2, through_intermediate=True)
        cvc, certificate = Cvc.parse(card.cvc), card.signer.certificate
        intermediate = card.signer.intermediate
        assert intermediate is not None
        verify_cvc(cvc, card.signer, at=NOW)
        root, middle = rsa.generate_private_key(65537, 2048), ec.generate_private_key(ec.SECP256R1())
        own = signer_certificate(root)
        subject = intermediate_subject(middle.public_key())
        point = middle.public_key()

        def chain(raw: bytes, *, issuer: bytes = subject) -> None:
            end = Cvc.parse(make_cvc(card.key.public_key(), GUID, issuer, middle))
            verify_cvc(end, ContentSigner(own, Cvc.parse(raw)), at=NOW)

        chain(make_cvc(point, subject, issuer_id(own), root, role=ROLE_SIGNER))
        for raw in (
            make_cvc(point, GUID, issuer_id(own), root),
            make_cvc(point, subject, bytes(8), root, role=ROLE_SIGNER),
            make_cvc(point, subject, issuer_id(own), middle, role=ROLE_SIGNER),
        ):
            with pytest.raises(CvcUntrusted):
                chain(raw)
        with pytest.raises(CvcUntrusted):
            chain(make_cvc(point, subject, issuer_id(own), root, role=ROLE_SIGNER), issuer=bytes(8))
        with pytest.raises(CvcUntrusted):
            chain(make_cvc(point, bytes(8), issuer_id(own), root, role=ROLE_SIGNER), issuer=bytes(8))
        with pytest.raises(CvcUntrusted):
            verify_cvc(intermediate, ContentSigner(certificate), at=NOW)
        with pytest.raises(CvcUntrusted):
            verify_cvc(cvc, ContentSigner(certificate), at=NOW)

    def test_intermediate_of_another_strength(self) -> None:
        key, root = ec.generate_private_key(ec.SECP384R1()), ec.generate_private_key(ec.SECP384R1())
        middle = ec.generate_private_key(ec.SECP256R1())
        certificate, subject = signer_certificate(root), intermediate_subject(middle.public_key())
        raw = make_cvc(middle.public_key(), subject, issuer_id(certificate), root, role=ROLE_SIGNER)
        with pytest.raises(CvcUntrusted):
            verify_cvc(
                Cvc.parse(make_cvc(key.public_key(), GUID, subject, middle)),
                ContentSigner(certificate, Cvc.parse(raw)),
                at=NOW,
            )

    def test_a_signer_is_no_card(self) -> None:
        card = sm_card(SmSuite.CS2)
        cvc = make_cvc(
            card.key.public_key(),
            bytes(8),
            issuer_id(card.signer.certificate),
            ec.generate_private_key(ec.SECP256R1()),
            role=ROLE_SIGNER,
        )
        assert finish(replace(card, cvc=cvc), None) == "SM_CVC_MALFORMED"


class TestEstablishing:
    @given(bit=st.integers(0, 1 << 16))
    def test_any_flipped_bit_of_the_answer_is_refused(self, bit: int) -> None:
        card, handshake = sm_card(SmSuite.CS2), SmHandshake(SmSuite.CS2)
        octets = bytearray(answer_to(handshake, card, CardSession()).data)
        at = bit % (8 * len(octets))
        octets[at // 8] ^= 1 << at % 8
        with pytest.raises(SmError):
            handshake.finish(ResponseAPDU(bytes(octets), 0x9000), card.signer, at=NOW)

    @given(data=st.binary(max_size=300))
    def test_hostile_answers(self, data: bytes) -> None:
        wrapped = tlv.encode(0x7C, tlv.encode(0x82, b"\0" + bytes(32) + data))
        for answer in (data, wrapped):
            with pytest.raises((SmAnswerMalformed, CvcMalformed)):
                SmHandshake(SmSuite.CS2).finish(ResponseAPDU(answer, 0x9000), None)

    def test_status_words(self) -> None:
        with pytest.raises(WrongParameters):
            SmHandshake(SmSuite.CS7).finish(ResponseAPDU(b"", 0x6A86), None)
        with pytest.raises(StatusError):
            SmHandshake(SmSuite.CS7).finish(ResponseAPDU(b"", 0x6A80), None)

    def test_used_once(self) -> None:
        card, handshake = sm_card(SmSuite.CS2), SmHandshake(SmSuite.CS2)
        answer = answer_to(handshake, card, CardSession())
        handshake.finish(answer, card.signer, at=NOW)
        with pytest.raises(SmSessionClosed):
            handshake.finish(answer, card.signer, at=NOW)

    def test_an_answer_to_another_host(self) -> None:
        card = sm_card(SmSuite.CS2)
        answer = answer_to(SmHandshake(SmSuite.CS2), card, CardSession())
        with pytest.raises(SmCryptogramMismatch):
            SmHandshake(SmSuite.CS2).finish(answer, card.signer, at=NOW)

    def test_host_id_counts(self) -> None:
        card, key = sm_card(SmSuite.CS2), ec.generate_private_key(ec.SECP256R1())
        one = SmHandshake(SmSuite.CS2, host_id=b"12345678", ephemeral=key)
        other = SmHandshake(SmSuite.CS2, host_id=b"12345679", ephemeral=key)
        answer = answer_to(one, card, CardSession())
        with pytest.raises(SmCryptogramMismatch):
            other.finish(answer, card.signer, at=NOW)
        one.finish(answer, card.signer, at=NOW)

    def test_control_octet_and_curve_of_the_card(self) -> None:
        card, handshake = sm_card(SmSuite.CS2), SmHandshake(SmSuite.CS2)
        value = tlv.parse_one(tlv.parse_one(answer_to(handshake, card, CardSession()).data, 0x7C).value).value
        other = sm_card(SmSuite.CS7).cvc
        for altered in (b"\x01" + value[1:], value[:33] + other):
            with pytest.raises(SmAnswerMalformed):
                SmHandshake(SmSuite.CS2).finish(ResponseAPDU(tlv.encode(0x7C, tlv.encode(0x82, altered)), 0x9000), None)

    @pytest.mark.parametrize(("suite", "whole"), [(SmSuite.CS2, 1 + 16 + 16), (SmSuite.CS7, 1 + 24 + 16)])
    def test_an_answer_has_to_reach_beyond_the_cryptogram(self, suite: SmSuite, whole: int) -> None:
        card, handshake = sm_card(suite), SmHandshake(suite)
        value = tlv.parse_one(tlv.parse_one(answer_to(handshake, card, CardSession()).data, 0x7C).value).value
        for size in range(whole + 1):
            cut = ResponseAPDU(tlv.encode(0x7C, tlv.encode(0x82, value[:size])), 0x9000)
            with pytest.raises(SmAnswerMalformed):
                SmHandshake(suite).finish(cut, card.signer, at=NOW)
        with pytest.raises(CvcMalformed):
            SmHandshake(suite).finish(
                ResponseAPDU(tlv.encode(0x7C, tlv.encode(0x82, value[: whole + 1])), 0x9000), card.signer, at=NOW
            )

    def test_bad_arguments(self) -> None:
        with pytest.raises(SmCommandUnfit):
            SmHandshake(SmSuite.CS2, host_id=bytes(7))
        with pytest.raises(SmCommandUnfit):
            SmHandshake(SmSuite.CS7, ephemeral=ec.generate_private_key(ec.SECP256R1()))

    @pytest.mark.parametrize(
        ("suite", "head"), [(SmSuite.CS2, "00872704507c4e814a00"), (SmSuite.CS7, "00872e04707c6e816a00")]
    )
    def test_lengths_of_the_request(self, suite: SmSuite, head: str) -> None:
        assert SmHandshake(suite).command.encode().hex().startswith(head)


class TestCertificates:
    @pytest.mark.parametrize("suite", SUITES)
    def test_read_back(self, suite: SmSuite) -> None:
        card = sm_card(suite)
        cvc = Cvc.parse(card.cvc)
        assert cvc.raw == card.cvc
        assert (cvc.subject, cvc.issuer) == (GUID, issuer_id(card.signer.certificate))

    @given(bit=st.integers(0, 1 << 16), through=st.booleans())
    def test_any_flipped_bit_is_refused(self, bit: int, through: bool) -> None:
        card = sm_card(SmSuite.CS2, through_intermediate=through)
        octets = bytearray(card.cvc)
        at = bit % (8 * len(octets))
        octets[at // 8] ^= 1 << at % 8
        with pytest.raises((CvcMalformed, CvcUntrusted)):
            verify_cvc(Cvc.parse(bytes(octets)), card.signer, at=NOW)

    @given(data=st.binary(max_size=200))
    def test_hostile_octets(self, data: bytes) -> None:
        for raw in (data, tlv.encode(0x7F21, data)):
            with pytest.raises(CvcMalformed):
                Cvc.parse(raw)

    def test_damage(self) -> None:
        items = tlv.parse_all(tlv.parse_one(sm_card(SmSuite.CS2).cvc, 0x7F21).value)
        assert [item.tag for item in items] == [0x5F29, 0x42, 0x5F20, 0x7F49, 0x5F4C, 0x5F37]

        first, signature = tlv.parse_all(tlv.parse_one(items[5].value, 0x30).value)
        algorithm = first.encode()

        def changed(index: int, value: bytes) -> bytes:
            kept = [*items]
            kept[index] = tlv.Tlv(items[index].tag, value)
            return tlv.encode(0x7F21, tlv.join(kept))

        bad = [
            changed(0, b"\x81"),
            changed(0, b"\x7f"),
            changed(0, b""),
            changed(1, bytes(7)),
            changed(2, bytes(15)),
            changed(2, bytes(8)),
            changed(2, bytes(17)),
            changed(1, bytes(9)),
            changed(3, b""),
            changed(3, items[3].value[:10]),
            changed(3, items[3].value + b"\x86\x00"),
            changed(3, items[3].value.replace(b"\x03\x01\x07", b"\x03\x01\x08")),
            changed(3, items[3].value[:-1] + bytes((items[3].value[-1] ^ 1,))),
            changed(4, b"\x01"),
            changed(4, b"\x00\x00"),
            changed(5, b""),
            changed(5, items[5].value.replace(b"\x04\x03\x02", b"\x04\x03\x04")),
            changed(5, tlv.encode(0x30, algorithm + b"\x03\x00")),
            changed(5, tlv.encode(0x30, algorithm + b"\x03\x02\x04\x30")),
            changed(5, tlv.encode(0x30, algorithm + b"\x04" + signature.encode()[1:])),
            changed(5, tlv.encode(0x30, b"\x31" + algorithm[1:] + signature.encode())),
            changed(5, tlv.encode(0x31, algorithm + signature.encode())),
            changed(5, tlv.encode(0x30, algorithm + signature.encode() + b"\x05\x00")),
            tlv.encode(0x7F21, tlv.join(reversed(items))),
            tlv.encode(0x7F21, tlv.join(items[:-1])),
            tlv.encode(0x7F21, tlv.join([*items, items[0]])),
            tlv.encode(0x7F21, tlv.join(items)) + b"\0",
            tlv.encode(0x7F21, tlv.join(items[:-1]) + b"\x5f\x37\x81" + items[-1].encode()[2:]),
            changed(5, bytes(2000)),
        ]
        for raw in bad:
            with pytest.raises(CvcMalformed):
                Cvc.parse(raw)

    def test_loading_a_signer(self) -> None:
        card = sm_card(SmSuite.CS2, through_intermediate=True)
        assert card.signer.intermediate is not None
        der = card.signer.certificate.public_bytes(serialization.Encoding.DER)
        assert ContentSigner.load(der, card.signer.intermediate.raw) == card.signer
        assert ContentSigner.load(der).intermediate is None
        with pytest.raises(CvcMalformed):
            ContentSigner.load(der[:-1])
        with pytest.raises(CvcMalformed):
            ContentSigner.load(der, b"\x7f\x21\x00")


class TestSession:
    @pytest.mark.parametrize(
        "command",
        [
            CommandAPDU(0x0C, 0xCB, 0x3F, 0xFF),
            CommandAPDU(0x10, 0xCB, 0x3F, 0xFF),
            CommandAPDU(0x00, 0xA4, 0x04, 0x00),
            CommandAPDU(0x00, 0xDB, 0x3F, 0xFF),
            CommandAPDU(0x00, 0x2C, 0x00, 0x80),
            CommandAPDU(0x00, 0xC0, 0x00, 0x00),
            CommandAPDU(0x00, 0x87, 0x11, 0x9A, bytes(65520)),
        ],
    )
    def test_commands_that_are_not_protected(self, command: CommandAPDU) -> None:
        session, _ = open_session(SmSuite.CS2)
        state = session.snapshot()
        with pytest.raises(SmCommandUnfit):
            session.wrap(command)
        assert session.snapshot() == state

    @pytest.mark.parametrize(
        ("sw", "error"),
        [
            (0x6882, SecureMessagingNotSupported),
            (0x6987, SecureMessagingBroken),
            (0x6988, SecureMessagingBroken),
            (0x6982, SmSessionLost),
            (0x6A82, SmResponseInvalid),
            (0x6700, SmResponseInvalid),
            (0x6110, SmResponseInvalid),
        ],
    )
    def test_answers_in_clear_close_the_session(self, sw: int, error: type[Exception]) -> None:
        session, _ = open_session(SmSuite.CS2)
        session.wrap(GET_CHUID)
        with pytest.raises(error):
            session.unwrap(ResponseAPDU(b"", sw))
        assert session.closed
        for act in (lambda: session.wrap(GET_CHUID), lambda: session.unwrap(ResponseAPDU(b"", 0x9000))):
            with pytest.raises(SmSessionClosed):
                act()

    @given(data=st.binary(max_size=80))
    def test_hostile_answers(self, data: bytes) -> None:
        for body in (data, tlv.encode(0x99, b"\x90\x00") + data, tlv.encode(0x87, data) + b"\x99\x02\x90\x00"):
            session, _ = open_session(SmSuite.CS2)
            session.wrap(GET_CHUID)
            with pytest.raises(SmResponseInvalid):
                session.unwrap(ResponseAPDU(body, 0x9000))

    @pytest.mark.parametrize(
        "body",
        [
            tlv.encode(0x99, b"\x90"),
            tlv.encode(0x99, b""),
            tlv.encode(0x87, b"") + tlv.encode(0x99, b"\x90\x00"),
            tlv.encode(0x87, b"\x01") + tlv.encode(0x99, b"\x90\x00"),
            tlv.encode(0x87, b"\x02" + bytes(16)) + tlv.encode(0x99, b"\x90\x00"),
            tlv.encode(0x87, b"\x01" + bytes(15)) + tlv.encode(0x99, b"\x90\x00"),
            tlv.encode(0x87, b"\x01" + bytes(16)) + tlv.encode(0x99, b"\x90\x00"),
        ],
    )
    def test_genuine_mac_over_wrong_content(self, body: bytes) -> None:
        """A card that MACs right but codes wrong."""
        session, _ = open_session(SmSuite.CS2)
        session.wrap(GET_CHUID)
        with pytest.raises(SmResponseInvalid):
            session.unwrap(ResponseAPDU(body + genuine_mac(session._keys.rmac, body), 0x9000))
        assert session.closed

    @pytest.mark.parametrize(
        ("indicator", "padded", "good"),
        [
            (0x01, b"\x80" + bytes(15), True),
            (0x02, b"\x80" + bytes(15), False),
            (0x01, bytes(16), False),
            (0x01, b"x" * 16, False),
            (0x01, b"\x80" + bytes(31), False),
            (0x01, b"x" * 15 + b"\x80" + bytes(16), False),
        ],
    )
    def test_genuine_mac_over_wrong_padding(self, indicator: int, padded: bytes, good: bool) -> None:
        session, _ = open_session(SmSuite.CS2)
        session.wrap(GET_CHUID)
        cryptogram = genuine_cryptogram(session, b"\x80" + bytes(14) + b"\x01", padded)
        body = tlv.encode(0x87, bytes((indicator,)) + cryptogram) + b"\x99\x02\x90\x00"
        answer = ResponseAPDU(body + genuine_mac(session._keys.rmac, body), 0x9000)
        if good:
            assert session.unwrap(answer) == ResponseAPDU(b"", 0x9000)
        else:
            with pytest.raises(SmResponseInvalid):
                session.unwrap(answer)

    def test_lengths_have_their_shortest_form(self) -> None:
        session, card = open_session(SmSuite.CS2)
        card.unwrap(session.wrap(GET_CHUID))
        data = card.wrap(ResponseAPDU(b"", 0x9000)).data
        assert data[4:6] == b"\x8e\x08"
        with pytest.raises(SmResponseInvalid):
            session.unwrap(ResponseAPDU(data[:5] + b"\x81" + data[5:], 0x9000))

    def test_nothing_secret_shows(self) -> None:
        session, _ = open_session(SmSuite.CS2)
        session.wrap(GET_CHUID)
        secrets = [key.reveal() for key in (session._keys.mac, session._keys.enc, session._keys.rmac)]
        shown = f"{session!r} {session.snapshot()!r} {session.card!r} {session._keys!r}"
        for secret in [*secrets, session.snapshot().chaining]:
            assert secret.hex() not in shown
            assert repr(secret) not in shown
        session.close()
        assert not any(session._keys.enc.reveal())
