"""What goes wrong with simulated workstations."""

from __future__ import annotations

import grpc

from cardwright_cardops.errors import CardwrightError
from cardwright_cardops.rpc_status import DETAILS, error_of


class LoadRefused(CardwrightError):
    """What the workstations are to do is not written as it has to be."""

    code = "LOAD_REFUSED"
    default_effect = "Nothing was sent to the server."
    default_advice = "See docs/workstations.md for what the files hold."


def code_of(error: BaseException) -> str:
    """The stable code of what went wrong: ours where there is one, else the status of the call."""
    if isinstance(error, CardwrightError):
        return error.code
    if isinstance(error, grpc.aio.AioRpcError):
        for name, value in error.trailing_metadata() or ():
            if name == DETAILS and isinstance(value, bytes) and (told := error_of(value)) is not None:
                return told.code
        return str(error.code().name)
    return type(error).__name__
