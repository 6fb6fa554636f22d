"""Which gRPC services there are, each over the domain that it stands before."""

from __future__ import annotations

import sys
from collections.abc import Callable

import grpc

from .api.audit import AuditServicer
from .api.authentication import AuthenticationServicer
from .api.calling import Calls
from .api.certificates import CertificateServicer
from .api.devices import DeviceServicer
from .api.escrow import EscrowServicer
from .api.notify import NotifyServicer
from .api.operators import OperatorServicer
from .api.people import GroupServicer, PersonServicer
from .api.policies import PolicyServicer
from .api.requests import RequestServicer
from .api.sessions import SessionServicer
from .api.system import SystemServicer
from .api.workstations import WorkstationServicer
from .app import Domains
from .authentication.principal import Principal
from .issuance.model import Certificate
from .system import SystemService


def register(
    server: grpc.aio.Server,
    calls: Calls,
    domains: Domains,
    system: SystemService,
    busy: Callable[[], tuple[int, int]],
) -> tuple[str, ...]:
    """Add every servicer to a server. Gives the full names of the services."""

    async def rotate(principal: Principal) -> Certificate:
        return await domains.own.rotate_signer(domains.database, domains.authorize, principal)

    made: list[object] = [
        SystemServicer(calls, system, busy),
        PersonServicer(calls, domains.people, domains.importing, domains.erasure),
        GroupServicer(calls, domains.people),
        OperatorServicer(calls, domains.operators, domains.connections),
        AuthenticationServicer(calls, domains.authentication, domains.enrolment, domains.handing),
        WorkstationServicer(calls, domains.workstations),
        AuditServicer(calls, domains.audit),
        NotifyServicer(calls, domains.notify),
        PolicyServicer(calls, domains.policies),
        DeviceServicer(calls, domains.database, domains.devices, domains.stock, domains.secrets, domains.puks),
        RequestServicer(calls, domains.requests),
        CertificateServicer(calls, domains.certificates, rotate),
        EscrowServicer(calls, domains.escrow),
        SessionServicer(calls, domains.sessions, domains.proofs, domains.checks, domains.hints, domains.watch),
    ]
    return tuple(_add(server, one) for one in made)


def _add(server: grpc.aio.Server, servicer: object) -> str:
    """Register a servicer by the function that was generated with its base class. Gives the service's full name."""
    for base in type(servicer).__mro__:
        if base.__module__.endswith("_pb2_grpc") and base.__name__.endswith("Servicer"):
            generated = sys.modules[base.__module__]
            getattr(generated, f"add_{base.__name__}_to_server")(servicer, server)
            descriptors = sys.modules[base.__module__.removesuffix("_grpc")]
            return str(descriptors.DESCRIPTOR.services_by_name[base.__name__.removesuffix("Servicer")].full_name)
    raise TypeError(f"{type(servicer).__name__} is no servicer")
