"""A certification authority of somebody else, which answers late."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from cardwright_server.issuance.backend import BackendAnswer, Declined, Later, Signed
from cardwright_server.issuance.model import Order
from tests.support.issuance import new_key

NAME = x509.Name.from_rfc4514_string("CN=Elsewhere,O=Somebody")


@dataclass
class Slow:
    """Answers when the test has ``ready`` it; ``wrong_key`` certifies another key than was asked for."""

    name: str = "elsewhere"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ready: bool = False
    declines: bool = False
    wrong_key: bool = False
    submitted: int = 0
    collected: int = 0

    def certificate(self) -> x509.Certificate:
        return self._sign(NAME, self.key.public_key(), 3000)

    async def submit(self, order: Order) -> BackendAnswer:
        self.submitted += 1
        return self.signed(order) if self.ready else Later(f"ticket-{order.request}")

    async def collect(self, order: Order) -> BackendAnswer:
        self.collected += 1
        assert order.reference == f"ticket-{order.request}"
        if self.declines:
            return Declined("not-today")
        return self.signed(order) if self.ready else Later(order.reference)

    def signed(self, order: Order) -> Signed:
        """A certificate for what was ordered."""
        public = new_key().public_key() if self.wrong_key else load_der_public_key(order.public_key)
        subject = x509.Name.from_rfc4514_string("CN=Ada")
        return Signed(self._sign(subject, public, 300).public_bytes(Encoding.DER))  # type: ignore[arg-type]

    def _sign(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, days: int) -> x509.Certificate:
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(NAME, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
        return builder.sign(self.key, hashes.SHA256())
