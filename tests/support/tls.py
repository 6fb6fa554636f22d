"""The client side of one TLS 1.3 handshake (RFC 8446), for keys that Python's ssl module cannot take.

The other side is OpenSSL behind Python's ssl module, over memory buffers. Only what it needs to judge the client's
certificate and signature is here: one suite, one group, no checks of the server.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import struct
from collections.abc import Iterator

from cryptography import x509
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_CHANGE_CIPHER_SPEC, _HANDSHAKE, _APPLICATION = 20, 22, 23
_CERTIFICATE, _CERTIFICATE_REQUEST, _CERTIFICATE_VERIFY, _FINISHED = 11, 13, 15, 20

Signs = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class _Direction:
    """Record protection of one direction (section 5.2)."""

    def __init__(self, secret: bytes) -> None:
        self._key = AESGCM(_expand(secret, b"key", b"", 16))
        self._iv = _expand(secret, b"iv", b"", 12)
        self._number = 0

    def _nonce(self) -> bytes:
        number = self._number.to_bytes(12, "big")
        self._number += 1
        return bytes(a ^ b for a, b in zip(self._iv, number, strict=True))

    def seal(self, kind: int, content: bytes) -> bytes:
        header = struct.pack(">BHH", _APPLICATION, 0x0303, len(content) + 17)
        return header + self._key.encrypt(self._nonce(), content + bytes((kind,)), header)

    def open(self, header: bytes, body: bytes) -> tuple[int, bytes]:
        plain = self._key.decrypt(self._nonce(), body, header).rstrip(b"\0")
        return plain[-1], plain[:-1]


def say_over_tls(
    context: ssl.SSLContext, certificate: x509.Certificate, key: Signs, words: bytes
) -> tuple[bytes, bytes]:
    """Connect to a server of ``context`` as the holder of ``key`` and send ``words``.

    Returns the client's certificate (DER) and the words as the server has them. Raises ssl.SSLError as the server
    does when it does not accept the client.
    """
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context.wrap_bio(incoming, outgoing, server_side=True)
    secret = X25519PrivateKey.generate()
    transcript = _client_hello(secret)
    incoming.write(struct.pack(">BHH", _HANDSHAKE, 0x0301, len(transcript)) + transcript)
    with contextlib.suppress(ssl.SSLWantReadError):
        server.do_handshake()
    records = _records(outgoing.read())
    _, hello = next(records)
    transcript += hello
    early = HKDF.extract(hashes.SHA256(), None, bytes(32))
    shared = secret.exchange(X25519PublicKey.from_public_bytes(_server_share(hello)))
    handshake = HKDF.extract(hashes.SHA256(), _derive(early, b"derived", b""), shared)
    client_secret = _derive(handshake, b"c hs traffic", transcript)
    server_secret = _derive(handshake, b"s hs traffic", transcript)
    reading, writing = _Direction(server_secret), _Direction(client_secret)
    flight = b"".join(reading.open(header, body)[1] for header, body in records)
    kinds = [kind for kind, _ in _messages(flight)]
    assert kinds[-1] == _FINISHED and _CERTIFICATE_REQUEST in kinds, kinds
    transcript += flight
    master = HKDF.extract(hashes.SHA256(), _derive(handshake, b"derived", b""), bytes(32))
    application = _Direction(_derive(master, b"c ap traffic", transcript))
    der = certificate.public_bytes(Encoding.DER)
    entry = len(der).to_bytes(3, "big") + der + b"\0\0"
    mine = [_message(_CERTIFICATE, b"\0" + len(entry).to_bytes(3, "big") + entry)]
    mine.append(_message(_CERTIFICATE_VERIFY, _signed(key, _digest(transcript + mine[0]))))
    finished = _hmac(_expand(client_secret, b"finished", b"", 32), _digest(transcript + b"".join(mine)))
    mine.append(_message(_FINISHED, finished))
    incoming.write(writing.seal(_HANDSHAKE, b"".join(mine)))
    server.do_handshake()
    incoming.write(application.seal(_APPLICATION, words))
    return server.getpeercert(binary_form=True) or b"", server.read()


def _client_hello(secret: X25519PrivateKey) -> bytes:
    share = secret.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    schemes = struct.pack(">4H", 0x0804, 0x0403, 0x0503, 0x0807)
    extensions = b"".join(
        struct.pack(">HH", number, len(value)) + value
        for number, value in (
            (43, b"\x02\x03\x04"),
            (10, b"\x00\x02\x00\x1d"),
            (13, _sized(schemes)),
            (51, _sized(b"\x00\x1d" + _sized(share))),
        )
    )
    return _message(1, b"\x03\x03" + os.urandom(32) + b"\0" + _sized(b"\x13\x01") + b"\x01\0" + _sized(extensions))


def _server_share(hello: bytes) -> bytes:
    """The server's X25519 key: the last 32 octets of its extension key_share."""
    position = 4 + 2 + 32
    position += 1 + hello[position] + 2 + 1 + 2
    while position < len(hello):
        number, size = struct.unpack_from(">HH", hello, position)
        if number == 51:
            return hello[position + 4 + size - 32 : position + 4 + size]
        position += 4 + size
    raise AssertionError("the server chose no key share")


def _records(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Headers and bodies, without the change_cipher_spec that is there for old middleboxes (appendix D.4)."""
    while data:
        size = int.from_bytes(data[3:5], "big")
        if data[0] != _CHANGE_CIPHER_SPEC:
            yield data[:5], data[5 : 5 + size]
        data = data[5 + size :]


def _messages(flight: bytes) -> Iterator[tuple[int, bytes]]:
    while flight:
        size = 4 + int.from_bytes(flight[1:4], "big")
        yield flight[0], flight[:size]
        flight = flight[size:]


def _signed(key: Signs, transcript_hash: bytes) -> bytes:
    """CertificateVerify (section 4.4.3)."""
    content = b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + transcript_hash
    match key:
        case rsa.RSAPrivateKey():
            scheme, pss = 0x0804, padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
            signature = key.sign(content, pss, hashes.SHA256())
        case ec.EllipticCurvePrivateKey():
            large = key.key_size == 384
            scheme = 0x0503 if large else 0x0403
            signature = key.sign(content, ec.ECDSA(hashes.SHA384() if large else hashes.SHA256()))
        case _:
            scheme, signature = 0x0807, key.sign(content)
    return scheme.to_bytes(2, "big") + _sized(signature)


def _sized(value: bytes) -> bytes:
    return len(value).to_bytes(2, "big") + value


def _message(kind: int, body: bytes) -> bytes:
    return bytes((kind,)) + len(body).to_bytes(3, "big") + body


def _digest(data: bytes) -> bytes:
    context = hashes.Hash(hashes.SHA256())
    context.update(data)
    return context.finalize()


def _hmac(key: bytes, data: bytes) -> bytes:
    context = hmac.HMAC(key, hashes.SHA256())
    context.update(data)
    return context.finalize()


def _expand(secret: bytes, label: bytes, context: bytes, size: int) -> bytes:
    """HKDF-Expand-Label (section 7.1)."""
    name = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(name),)) + name + bytes((len(context),)) + context
    return HKDFExpand(hashes.SHA256(), size, info).derive(secret)


def _derive(secret: bytes, label: bytes, messages: bytes) -> bytes:
    return _expand(secret, label, _digest(messages), 32)
