"""SCP03 as yubikit does it: against our host byte for byte, and its own sessions with our card.

yubikit knows AES-128 and level 33 only, pads empty commands and leaves the inner length out of PUT KEY.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from yubikit.core import TRANSPORT
from yubikit.core.smartcard import (
    ApduError,
    ApduFormatter,
    ApduProcessor,
    ScpProcessor,
    ShortApduFormatter,
    SmartCardConnection,
)
from yubikit.core.smartcard.scp import KeyRef, Scp03KeyParams, ScpState
from yubikit.core.smartcard.scp import StaticKeys as YubiKeys
from yubikit.securitydomain import SecurityDomainSession as YubiDomain

from cardwright_cardops.globalplatform.channel import Scp03Channel, authenticate
from cardwright_cardops.globalplatform.put_key import put_key
from cardwright_cardops.globalplatform.scp03 import CardAnswer, SecurityLevel, initialize_update
from cardwright_cardops.iso7816.apdu import CommandAPDU, ResponseAPDU
from cardwright_cardops.secret import Secret
from cardwright_simulators.card.answers import Refused
from cardwright_simulators.card.scp03 import SecurityDomainSession
from tests.support.scp03 import AID, VERSION, Domain, raw_keys, static_keys

HOST = bytes.fromhex("0102030405060708")
KEYS = raw_keys()

commands = st.lists(
    st.tuples(
        st.sampled_from([0x00, 0x80]),
        st.integers(0, 255),
        st.integers(0, 255),
        st.integers(0, 255),
        st.one_of(st.binary(max_size=40), st.binary(min_size=220, max_size=700)),
    ),
    max_size=5,
)


def parameters(version: int = VERSION, keys: tuple[bytes, bytes, bytes] = KEYS) -> Scp03KeyParams:
    return Scp03KeyParams(KeyRef(0x01, version), YubiKeys(*keys))


class Recorder(ApduProcessor):
    """Takes yubikit's protected commands down; answers what the test prepared."""

    def __init__(self) -> None:
        self.sent: list[CommandAPDU] = []
        self.answer = ResponseAPDU(b"", 0x9000)

    def send_apdu(self, cla: int, ins: int, p1: int, p2: int, data: bytes, le: int) -> tuple[bytes, int]:
        self.sent.append(CommandAPDU(cla, ins, p1, p2, data, le))
        return self.answer.data, self.answer.sw


def both_hosts(*, extended: bool) -> tuple[ScpProcessor, Recorder, Scp03Channel, SecurityDomainSession]:
    """yubikit's host and ours on one card and one pair of challenges; EXTERNAL AUTHENTICATE is sent."""
    card = SecurityDomainSession(Domain({VERSION: KEYS}), aid=AID)
    data = card.initialize_update(initialize_update(VERSION, HOST))
    state, cryptogram = ScpState.scp03_init(lambda *_: data, parameters(), host_challenge=HOST)
    answer = CardAnswer.parse(ResponseAPDU(data, 0x9000), HOST)
    command, channel = authenticate(static_keys(KEYS), answer, SecurityLevel.ALL, extended=extended, pad_empty=True)
    recorder = Recorder()
    formatter: ApduFormatter = ScpProcessor.extended_formatter if extended else ShortApduFormatter()
    yubikit = ScpProcessor(recorder, formatter, state)
    yubikit.send_apdu(0x84, 0x82, 0x33, 0, cryptogram, 0, encrypt=False)
    assert recorder.sent == [command]
    card.external_authenticate(command, extended=extended)
    return yubikit, recorder, channel, card


@given(rows=commands, extended=st.booleans(), back=st.binary(max_size=60))
def test_same_octets_as_yubikit(rows: list[tuple[int, int, int, int, bytes]], extended: bool, back: bytes) -> None:
    yubikit, recorder, ours, card = both_hosts(extended=extended)
    for cla, ins, p1, p2, data in rows:
        command = CommandAPDU(cla, ins, p1, p2, data)
        wrapped = ours.wrap(command, extended=extended)
        assert card.unwrap(wrapped, extended=extended) == command
        recorder.answer = card.wrap(ResponseAPDU(back, 0x9000))
        assert yubikit.send_apdu(cla, ins, p1, p2, data, 0) == (back, 0x9000)
        assert recorder.sent[-1] == wrapped
        assert ours.unwrap(recorder.answer) == ResponseAPDU(back, 0x9000)


class DomainConnection(SmartCardConnection):
    """A YubiKey's security domain: our card behind yubikit's connection, short (NFC) or extended (USB)."""

    def __init__(self, domain: Domain, transport: TRANSPORT) -> None:
        self._transport = transport
        self._session = SecurityDomainSession(domain, aid=AID, initial_version=0xFF)
        self._chain = b""
        self.extended_seen = 0

    @property
    def transport(self) -> TRANSPORT:
        return self._transport

    def send_and_receive(self, apdu: bytes) -> tuple[bytes, int]:
        # yubikit spells "no data" as Lc 00.
        extended = len(apdu) > 7 and apdu[4] == 0
        self.extended_seen += extended
        command = CommandAPDU.parse(apdu)
        if command.cla & 0x10:
            self._chain += command.data
            return b"", 0x9000
        command = CommandAPDU(command.cla, command.ins, command.p1, command.p2, self._chain + command.data, command.le)
        self._chain = b""
        try:
            answer = self._run(command, extended)
        except Refused as refused:
            return b"", refused.sw
        return answer.data, answer.sw

    def _run(self, command: CommandAPDU, extended: bool) -> ResponseAPDU:
        session = self._session
        if command.ins == 0xA4:
            session.reset()
            return ResponseAPDU(b"", 0x9000)
        if command.ins == 0x50:
            return ResponseAPDU(session.initialize_update(command), 0x9000)
        if command.ins == 0x82:
            session.external_authenticate(command, extended=extended)
            return ResponseAPDU(b"", 0x9000)
        protected = session.takes(command)
        if protected:
            command = session.unwrap(command, extended=extended)
        data = session.put_key(command) if command.ins == 0xD8 else session.key_information()
        answer = ResponseAPDU(data, 0x9000)
        return session.wrap(answer) if protected else answer


@pytest.mark.parametrize("transport", [TRANSPORT.NFC, TRANSPORT.USB])
def test_yubikit_replaces_the_initial_keys_of_our_card(transport: TRANSPORT) -> None:
    initial = bytes(range(0x40, 0x50))
    domain = Domain({0xFF: (initial,) * 3})
    connection = DomainConnection(domain, transport)
    session = YubiDomain(connection)
    assert session.get_key_information() == {KeyRef(kid, 0xFF): {0x88: 16} for kid in (1, 2, 3)}
    session.authenticate(Scp03KeyParams())
    assert list(session.get_key_information()) == [KeyRef(kid, 0xFF) for kid in (1, 2, 3)]
    session.put_key(KeyRef(0x01, 0x02), YubiKeys(*KEYS))
    assert domain.channel_keys == {0x02: KEYS}

    session = YubiDomain(connection)
    with pytest.raises(ValueError, match="Incorrect SCP parameters"):
        session.authenticate(Scp03KeyParams())
    session.authenticate(parameters(0x02))
    session.put_key(KeyRef(0x01, 0x03), YubiKeys(*raw_keys(seed=9)), replace_kvn=0x02)
    assert domain.channel_keys == {0x03: raw_keys(seed=9)}
    assert bool(connection.extended_seen) == (transport is TRANSPORT.USB)


def test_our_card_wants_authentication_of_yubikit() -> None:
    session = YubiDomain(DomainConnection(Domain({0xFF: KEYS}), TRANSPORT.USB))
    session.authenticate(parameters(0xFF))
    session.protocol.select(AID)
    with pytest.raises(ApduError) as caught:
        session.protocol.send_apdu(0x80, 0xD8, 0, 0x81, b"\x01")
    assert caught.value.sw == 0x6982


def test_put_key_without_inner_length_is_yubikits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data that yubikit's session sends, taken down before protection."""
    connection = DomainConnection(Domain({0xFF: KEYS}), TRANSPORT.USB)
    session = YubiDomain(connection)
    session.authenticate(parameters(0xFF))
    taken: list[bytes] = []
    send = session.protocol.send_apdu

    def listen(cla: int, ins: int, p1: int, p2: int, data: bytes = b"", le: int = 0) -> bytes:
        taken.append(CommandAPDU(cla, ins, p1, p2, data).encode())
        return send(cla, ins, p1, p2, data, le)

    monkeypatch.setattr(session.protocol, "send_apdu", listen)
    new = raw_keys(seed=33)
    session.put_key(KeyRef(0x01, 0x07), YubiKeys(*new), replace_kvn=0xFF)
    ours = put_key(0x07, static_keys(new), Secret(KEYS[2]), replaces=0xFF, inner_length=False).command
    assert [row + b"\x00" for row in taken] == [ours.encode()]
