"""Jobs that begin where another one was broken off for good: what was recorded of it has to be known to this one."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_der_public_key

from cardwright_proto.cms.v1 import sessions_pb2
from cardwright_server.issuance.authorities import add_foreign
from cardwright_server.issuance.backend import BackendAnswer, Later, Signed
from cardwright_server.issuance.model import Order, Purpose
from cardwright_simulators.card import VirtualCard
from cardwright_simulators.reader.faults import FaultyCard
from tests.support.fault_world import JOBS, FaultWorld, Job, issuance, issued
from tests.support.sessions import Station

_ISSUER = x509.Name.from_rfc4514_string("CN=Elsewhere,O=Somebody")


async def issued_again(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """An issuance that was cut once the card had its card UUID, and taken back; another request issues the card."""
    job, card = await issuance(here)
    people = here.world.world
    async with here.serving(job.principal) as socket:
        faulty = FaultyCard(card, "ins=DB@4:remove")
        await here.session(job, Station(faulty), socket)
    assert faulty.struck
    card.power_off()
    wanted = job.request
    assert wanted is not None
    await here.database.transact(lambda unit: people.services.requests.cancel(unit, people.issuer, wanted))
    # A number that was given since the request was made is given for it again: this one is made later.
    here.clock.now += timedelta(minutes=1)
    return await issuance(here, card)


async def update_after_a_reissue(here: FaultWorld, cut_at: int | None = None) -> tuple[Job, VirtualCard]:
    """A re-issue that was cut when the card had made its first new key, and taken back; then an update.

    ``cut_at``: the workstation hung up before this message instead.
    """
    card = await issued(here)
    people = here.world.world
    opened = await here.database.transact(
        lambda unit: people.services.requests.create_reissue(unit, people.issuer, here.device)
    )
    request = opened.request.id
    cut = Job("re-issue", here.moment(card), sessions_pb2.PURPOSE_REISSUE, people.issuer, request=request)
    async with here.serving(cut.principal) as socket:
        faulty = FaultyCard(card, "ins=47@1:remove-after")
        await here.session(cut, Station(faulty), socket, cut_at)
    assert cut_at is not None or faulty.struck
    card.power_off()
    await here.released()
    await here.database.transact(lambda unit: people.services.requests.cancel(unit, people.issuer, request))
    return Job("update", here.moment(card), sessions_pb2.PURPOSE_UPDATE, people.issuer), card


async def issuance_by_a_late_authority(here: FaultWorld) -> tuple[Job, VirtualCard]:
    """An issuance whose first certificate another authority did not issue at once; now it has."""
    slow, service = Slow(), here.world.issuing.service
    profile = service.profiles.pick("piv-authentication", strict=False).name
    service.settings = replace(service.settings, routes={profile: slow.name})
    service._backends[slow.name] = slow
    certificate = slow.signed(_ISSUER, slow.key.public_key(), 3000)
    await here.database.transact(
        lambda unit: add_foreign(unit, here.world.org, slow.name, Purpose.CARDS, certificate)
    )
    job, card = await issuance(here)
    async with here.serving(job.principal) as socket:
        trip = await here.session(job, Station(card), socket)
    assert trip.outcome == sessions_pb2.OUTCOME_PENDING, trip
    card.power_off()
    slow.ready = True
    return replace(job, start=here.moment(card)), card


@dataclass
class Slow:
    """An authority that answers once it is ``ready``, and never at once."""

    name: str = "elsewhere"
    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))
    ready: bool = False

    async def submit(self, order: Order) -> BackendAnswer:
        """See ``AuthorityBackend``."""
        return Later(f"ticket-{order.request}")

    async def collect(self, order: Order) -> BackendAnswer:
        """See ``AuthorityBackend``."""
        if not self.ready:
            return Later(order.reference)
        public = load_der_public_key(order.public_key)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        return Signed(self.signed(_ISSUER, public, 300).public_bytes(Encoding.DER))

    def signed(self, subject: x509.Name, public: ec.EllipticCurvePublicKey, days: int) -> x509.Certificate:
        """A certificate by its key."""
        now = datetime.now(UTC)
        builder = x509.CertificateBuilder(_ISSUER, subject, public, x509.random_serial_number())
        builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=days))
        return builder.sign(self.key, hashes.SHA256())


ASIDE = {
    "issue again": issued_again,
    "update after a re-issue": update_after_a_reissue,
    "issue, late": issuance_by_a_late_authority,
}
"""Beside those of ``make faults``: each begins where the records of a session that nobody goes on with matter."""
EVERY = {**JOBS, **ASIDE}
