"""``OperatorService`` of the contract."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from cardwright_proto.cms.v1 import operators_pb2 as pb
from cardwright_proto.cms.v1 import operators_pb2_grpc

from ..authentication.principal import Principal
from ..joins.connecting import Connected, OperatorConnections
from ..people.model import EVERYWHERE, AccountKind, Grant, Operator, OperatorKey, Reach, Role, Scope
from ..people.naming import LONGEST_DN
from ..people.operators import OperatorService
from ..store.unit import Unit
from . import pages, showing
from . import reading as read
from .calling import Calls, Context
from .choices import Choices

LONGEST_LABEL: Final = 200
LONGEST_CERTIFICATE_REQUEST: Final = 16 * 1024
SHA256: Final = 32
KINDS = Choices(AccountKind, pb.AccountKind, "ACCOUNT_KIND")
ROLES = Choices(Role, pb.Role, "ROLE")


class OperatorServicer(operators_pb2_grpc.OperatorServiceServicer):
    """Decodes, calls the services, encodes."""

    def __init__(self, calls: Calls, operators: OperatorService, connections: OperatorConnections) -> None:
        self._calls = calls
        self._operators = operators
        self._connections = connections

    async def Create(self, request: pb.CreateOperatorRequest, context: Context) -> pb.Operator:
        """An account without keys and rights."""

        async def act(unit: Unit, principal: Principal) -> Operator:
            kind = KINDS.one(request.kind, "kind")
            person = read.optional_identifier(request.person, "person")
            label = read.line(request.label, "label", LONGEST_LABEL, least=1)
            return await self._operators.create(unit, principal, label, person, kind)

        return await self._write(context, act)

    async def AddKey(self, request: pb.AddOperatorKeyRequest, context: Context) -> pb.AddOperatorKeyResponse:
        """Register a key, and certify it."""

        async def act(principal: Principal) -> Connected:
            asked = request.certificate_request
            csr = read.octets(asked, "certificate_request", 1, LONGEST_CERTIFICATE_REQUEST)
            return await self._connections.add_key(principal, read.identifier(request.operator, "operator"), csr)

        made = await self._calls.act(context, act)
        shown = _operator(made.operator, made.keys)
        return pb.AddOperatorKeyResponse(operator=shown, certificate=made.certificate, chain=made.chain)

    async def RemoveKey(self, request: pb.RemoveOperatorKeyRequest, context: Context) -> pb.Operator:
        """Forget a key."""

        async def act(unit: Unit, principal: Principal) -> Operator:
            account = read.identifier(request.operator, "operator")
            spki = read.octets(request.spki, "spki", SHA256, SHA256)
            return await self._operators.remove_key(unit, principal, account, spki)

        return await self._write(context, act)

    async def Grant(self, request: pb.GrantRequest, context: Context) -> pb.Operator:
        """Give a role."""

        async def act(unit: Unit, principal: Principal) -> Operator:
            account = read.identifier(request.operator, "operator")
            return await self._operators.grant(unit, principal, account, _grant(request.grant))

        return await self._write(context, act)

    async def Withdraw(self, request: pb.WithdrawRequest, context: Context) -> pb.Operator:
        """Take a role away."""

        async def act(unit: Unit, principal: Principal) -> Operator:
            account = read.identifier(request.operator, "operator")
            return await self._operators.withdraw(unit, principal, account, _grant(request.grant))

        return await self._write(context, act)

    async def SetActive(self, request: pb.SetOperatorActiveRequest, context: Context) -> pb.Operator:
        """Close an account, or open it again."""

        async def act(unit: Unit, principal: Principal) -> Operator:
            account = read.identifier(request.operator, "operator")
            return await self._operators.set_active(unit, principal, account, request.active)

        return await self._write(context, act)

    async def Find(self, request: pb.FindOperatorsRequest, context: Context) -> pb.FindOperatorsResponse:
        """A page of operators."""

        async def work(unit: Unit, principal: Principal) -> pb.FindOperatorsResponse:
            page = read.page(request.page_size, request.page_token, keys=2)
            after = pages.after_text(page)
            shown, last = page.cut(await self._operators.find(unit, principal, after=after, limit=page.asked))
            token = "" if last is None else read.page_token(last.label, str(last.id))
            return pb.FindOperatorsResponse(operators=await self._shown(unit, shown), next_page_token=token)

        return await self._calls.read(context, work)

    async def _write(self, context: Context, act: Callable[[Unit, Principal], Awaitable[Operator]]) -> pb.Operator:
        async def work(unit: Unit, principal: Principal) -> pb.Operator:
            return (await self._shown(unit, [await act(unit, principal)]))[0]

        return await self._calls.write(context, work)

    async def _shown(self, unit: Unit, found: Sequence[Operator]) -> list[pb.Operator]:
        if not found:
            return []
        keys = await self._operators.keys_of(unit, found[0].org, [one.id for one in found])
        return [_operator(one, keys.get(one.id, ())) for one in found]


def _operator(found: Operator, keys: Sequence[OperatorKey]) -> pb.Operator:
    return pb.Operator(
        id=str(found.id),
        kind=KINDS.number(found.kind),
        person=showing.identifier(found.person),
        label=found.label,
        active=found.active,
        grants=map(_shown_grant, found.grants),
        keys=[
            pb.OperatorKey(spki=key.spki, hardware=key.hardware, device=showing.identifier(key.device)) for key in keys
        ],
    )


def _grant(given: pb.Grant) -> Grant:
    role = ROLES.one(given.role, "grant.role")
    match given.WhichOneof("scope"):
        case "everywhere" if given.everywhere:
            return Grant(role, EVERYWHERE)
        case "group":
            return Grant(role, Scope(Reach.GROUP, read.identifier(given.group, "grant.group")))
        case "branch":
            branch = read.line(given.branch, "grant.branch", LONGEST_DN, least=1)
            return Grant(role, Scope(Reach.BRANCH, branch=branch))
        case _:
            raise read.RequestMalformed("grant.scope is not given.")


def _shown_grant(grant: Grant) -> pb.Grant:
    role, scope = ROLES.number(grant.role), grant.scope
    match scope.reach:
        case Reach.EVERYWHERE:
            return pb.Grant(role=role, everywhere=True)
        case Reach.GROUP:
            return pb.Grant(role=role, group=showing.identifier(scope.group))
        case Reach.BRANCH:
            return pb.Grant(role=role, branch=scope.branch)
