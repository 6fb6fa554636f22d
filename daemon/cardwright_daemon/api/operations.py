"""``OperationService``."""

from __future__ import annotations

from cardwright_proto.agent.v1 import agent_pb2 as pb
from cardwright_proto.agent.v1 import agent_pb2_grpc

from ..desk import Desk
from . import encoding as to
from .edge import Context


class OperationServicer(agent_pb2_grpc.OperationServiceServicer):
    """What is under way."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    async def ListOperations(self, request: pb.ListOperationsRequest, context: Context) -> pb.ListOperationsResponse:
        """Those that run and the last that ended."""
        return pb.ListOperationsResponse(operations=[to.operation(one) for one in self._desk.operations.all])

    async def WaitOperation(self, request: pb.WaitOperationRequest, context: Context) -> pb.WaitOperationResponse:
        """Until it is over."""
        operation = await self._desk.operations.wait(request.operation)
        return pb.WaitOperationResponse(operation=to.operation(operation))

    async def CancelOperation(
        self, request: pb.CancelOperationRequest, context: Context
    ) -> pb.CancelOperationResponse:
        """Where that is safe."""
        operation = self._desk.operations.cancel(request.operation)
        await self._desk.operations.wait(request.operation)
        return pb.CancelOperationResponse(operation=to.operation(operation))
