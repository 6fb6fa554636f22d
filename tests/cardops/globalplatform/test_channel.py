"""Opening an SCP03 channel and what the host refuses, without a card."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CBC, ECB
from hypothesis import given
from hypothesis import strategies as st

from cardwright_cardops.globalplatform.channel import (
    Scp03Channel,
    Scp03ChannelClosed,
    Scp03CommandUnfit,
    Scp03ResponseInvalid,
    authenticate,
)
from cardwright_cardops.globalplatform.scp03 import (
    CardAnswer,
    ChannelOptions,
    Scp03AnswerMalformed,
    Scp03CryptogramMismatch,
    Scp03KeyInvalid,
    Scp03LevelUnsupported,
    SecurityLevel,
    StaticKeys,
    check_authenticated,
    external_authenticate,
    initialize_update,
    mac,
    match_candidates,
    new_host_challenge,
)
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.iso7816.status import ReferenceNotFound, StatusError, VerificationFailed
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.scp03 import SecurityDomainSession
from tests.support.scp03 import AID, VERSION, Domain, begin, open_channel, raw_keys, static_keys

HOST = bytes(range(8))


def answer_of(keys: tuple[bytes, bytes, bytes], options: int = 0x70, *, s16: bool = False) -> CardAnswer:
    card = SecurityDomainSession(Domain({VERSION: keys}), aid=AID, options=options, s16=s16)
    return begin(card, s16=s16)


def opened(level: SecurityLevel = SecurityLevel.ALL) -> Scp03Channel:
    return open_channel(SecurityDomainSession(Domain(), aid=AID), raw_keys(), level)


class TestOpening:
    @pytest.mark.parametrize("s16", [False, True])
    def test_candidates_are_told_apart(self, s16: bool) -> None:
        sets = [raw_keys(16, 1), raw_keys(32, 1), raw_keys(16, 2), raw_keys(24, 2)]
        candidates = [static_keys(keys) for keys in sets]
        for index, keys in enumerate(sets):
            assert match_candidates(candidates, answer_of(keys, s16=s16)) == index
        assert match_candidates(candidates, answer_of(raw_keys(16, 3), s16=s16)) is None
        assert match_candidates([], answer_of(sets[0])) is None
        assert match_candidates([candidates[2], candidates[0], candidates[0]], answer_of(sets[0])) == 1

    @given(bit=st.integers(0, 63))
    def test_nothing_is_sent_after_a_mismatch(self, bit: int) -> None:
        keys = raw_keys()
        good = answer_of(keys)
        octets = bytearray(good.card_cryptogram)
        octets[bit // 8] ^= 1 << bit % 8
        altered = CardAnswer(
            good.host_challenge,
            good.diversification,
            good.key_version,
            good.options,
            good.card_challenge,
            bytes(octets),
            good.sequence_counter,
        )
        for build in (external_authenticate, authenticate):
            with pytest.raises(Scp03CryptogramMismatch) as caught:
                build(static_keys(keys), altered, SecurityLevel.ALL)
            assert caught.value.code == "SCP03_CRYPTOGRAM_MISMATCH"

    def test_another_host_challenge_does_not_match(self) -> None:
        response = ResponseAPDU(
            SecurityDomainSession(Domain(), aid=AID).initialize_update(initialize_update(VERSION, HOST)), 0x9000
        )
        assert match_candidates([static_keys(raw_keys())], CardAnswer.parse(response, HOST)) == 0
        assert match_candidates([static_keys(raw_keys())], CardAnswer.parse(response, HOST[::-1])) is None

    @pytest.mark.parametrize(
        ("options", "level", "possible"),
        [
            (0x60, SecurityLevel.ALL, True),
            (0x20, SecurityLevel.C_MAC_C_ENC_R_MAC, True),
            (0x20, SecurityLevel.ALL, False),
            (0x10, SecurityLevel.C_MAC_R_MAC, False),
            (0x00, SecurityLevel.C_MAC_C_ENC, True),
        ],
    )
    def test_level_must_be_announced(self, options: int, level: SecurityLevel, possible: bool) -> None:
        keys = raw_keys()
        if possible:
            assert external_authenticate(static_keys(keys), answer_of(keys, options), level).level is level
        else:
            with pytest.raises(Scp03LevelUnsupported):
                external_authenticate(static_keys(keys), answer_of(keys, options), level)

    def test_answer_is_read_completely(self) -> None:
        card = SecurityDomainSession(Domain(sequence=0x010203), aid=AID, diversification=b"0123456789")
        answer = begin(card, challenge=HOST)
        assert (answer.diversification, answer.key_version, answer.sequence_counter) == (
            b"0123456789",
            VERSION,
            0x010204,
        )
        assert answer.options == (
            ChannelOptions.PSEUDO_RANDOM_CHALLENGE | ChannelOptions.R_MAC | ChannelOptions.R_ENCRYPTION
        )
        assert answer.context == HOST + answer.card_challenge

    @pytest.mark.parametrize("size", [0, 12, 28, 30, 31, 33, 45, 48, 64])
    def test_answers_of_other_lengths(self, size: int) -> None:
        data = (bytes(10) + b"\x30\x03\x70" + bytes(64))[:size]
        with pytest.raises(Scp03AnswerMalformed):
            CardAnswer.parse(ResponseAPDU(data, 0x9000), HOST)

    @given(data=st.binary(max_size=60), s16=st.booleans())
    def test_hostile_answers(self, data: bytes, s16: bool) -> None:
        try:
            answer = CardAnswer.parse(ResponseAPDU(data, 0x9000), bytes(16 if s16 else 8))
        except Scp03AnswerMalformed:
            return
        with pytest.raises(Scp03CryptogramMismatch):
            external_authenticate(static_keys(raw_keys()), answer, SecurityLevel.ALL)

    def test_other_protocol_and_mode(self) -> None:
        for head in (b"\x30\x02\x70", b"\x30\x03\x71"):
            with pytest.raises(Scp03AnswerMalformed):
                CardAnswer.parse(ResponseAPDU(bytes(10) + head + bytes(16), 0x9000), HOST)

    def test_status_words(self) -> None:
        with pytest.raises(ReferenceNotFound):
            CardAnswer.parse(ResponseAPDU(b"", 0x6A88), HOST)
        with pytest.raises(VerificationFailed):
            check_authenticated(ResponseAPDU(b"", 0x6300))
        with pytest.raises(StatusError):
            check_authenticated(ResponseAPDU(b"", 0x6985))
        check_authenticated(ResponseAPDU(b"", 0x9000))

    def test_bad_keys_and_challenges(self) -> None:
        good = Secret(bytes(16))
        for other in (Secret(bytes(24)), Secret(bytes(15)), Secret(b"")):
            with pytest.raises(Scp03KeyInvalid):
                StaticKeys(good, good, other)
        with pytest.raises(Scp03KeyInvalid):
            StaticKeys(Secret(bytes(20)), Secret(bytes(20)), Secret(bytes(20)))
        for version, challenge in ((-1, HOST), (0x80, HOST), (0xFE, HOST), (0, bytes(9)), (0, b"")):
            with pytest.raises(Scp03KeyInvalid):
                initialize_update(version, challenge)
        assert initialize_update(0xFF, HOST).encode().hex() == "8050ff0008" + HOST.hex() + "00"
        assert len({new_host_challenge() for _ in range(20)}) == 20
        assert (len(new_host_challenge()), len(new_host_challenge(s16=True))) == (8, 16)


class TestChannel:
    @pytest.mark.parametrize("cla", [0x04, 0x84, 0x08, 0x0C, 0x40, 0xE0])
    def test_classes_that_cannot_be_protected(self, cla: int) -> None:
        channel = opened()
        state = channel.snapshot()
        with pytest.raises(Scp03CommandUnfit):
            channel.wrap(CommandAPDU(cla, 0xCA, 0, 0))
        assert channel.snapshot() == state

    def test_too_much_data(self) -> None:
        channel = opened(SecurityLevel.C_MAC)
        state = channel.snapshot()
        with pytest.raises(Scp03CommandUnfit):
            channel.wrap(CommandAPDU(0x80, 0xE2, 0, 0, bytes(65528)))
        assert channel.snapshot() == state
        assert len(channel.wrap(CommandAPDU(0x80, 0xE2, 0, 0, bytes(65527))).data) == 65535

    def test_closed_channel(self) -> None:
        channel = opened()
        state = channel.snapshot()
        channel.close()
        channel.close()
        assert channel.closed
        with pytest.raises(Scp03ChannelClosed):
            channel.wrap(CommandAPDU(0x80, 0xCA, 0, 0))
        with pytest.raises(Scp03ChannelClosed):
            channel.unwrap(ResponseAPDU(b"", 0x9000))
        with pytest.raises(Scp03ChannelClosed):
            channel.restore(state)

    @pytest.mark.parametrize(
        "response",
        [
            ResponseAPDU(b"", 0x9000),
            ResponseAPDU(bytes(7), 0x9000),
            ResponseAPDU(b"", 0x6282),
            ResponseAPDU(b"", 0x63C2),
            ResponseAPDU(bytes(8), 0x6A82),
        ],
    )
    def test_unprotected_responses(self, response: ResponseAPDU) -> None:
        channel = opened()
        channel.wrap(CommandAPDU(0x80, 0xCA, 0, 0))
        with pytest.raises(Scp03ResponseInvalid):
            channel.unwrap(response)
        assert channel.closed

    @pytest.mark.parametrize(
        "plain",
        [
            bytes(16),
            b"\x80" + bytes(31),
            b"x" * 15 + b"\x80" + bytes(16),
            b"x" * 16,
        ],
    )
    def test_genuine_mac_over_wrong_padding(self, plain: bytes) -> None:
        """A card that MACs right but pads wrong: none, only zeros, or a block too much."""
        channel = opened()
        channel.wrap(CommandAPDU(0x80, 0xCA, 0, 0))
        key = AES(channel._keys.enc.reveal())
        icv = Cipher(key, ECB()).encryptor().update(b"\x80" + bytes(14) + b"\x01")
        data = Cipher(key, CBC(icv)).encryptor().update(plain)
        rmac = mac(channel._keys.rmac, channel.snapshot().chaining, data, b"\x90\x00")
        with pytest.raises(Scp03ResponseInvalid, match="padding"):
            channel.unwrap(ResponseAPDU(data + rmac[:8], 0x9000))

    def test_genuine_mac_over_a_broken_block(self) -> None:
        channel = opened()
        channel.wrap(CommandAPDU(0x80, 0xCA, 0, 0))
        rmac = mac(channel._keys.rmac, channel.snapshot().chaining, bytes(15), b"\x90\x00")
        with pytest.raises(Scp03ResponseInvalid, match="blocks"):
            channel.unwrap(ResponseAPDU(bytes(15) + rmac[:8], 0x9000))

    def test_nothing_secret_shows(self) -> None:
        channel = opened()
        secrets = [key.reveal() for key in (channel._keys.enc, channel._keys.mac, channel._keys.rmac)]
        shown = f"{channel!r} {channel.snapshot()!r} {static_keys(raw_keys())!r}"
        for secret in [*secrets, *raw_keys(), channel.snapshot().chaining]:
            assert secret.hex() not in shown
            assert repr(secret) not in shown
        channel.close()
        assert not any(channel._keys.enc.reveal())
