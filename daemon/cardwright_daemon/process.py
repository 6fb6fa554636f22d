"""What the process does before it sees a PIN: no core file, no debugger of the same user, private files."""

from __future__ import annotations

import ctypes
import os
import resource
import sys

_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4


def harden() -> None:
    """Not dumpable (Linux), no core file, umask 077. Raises OSError when the kernel refuses."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux" and ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "the process cannot be made undumpable")


def is_hardened() -> bool:
    """Whether ``harden`` took effect, as the kernel says."""
    if resource.getrlimit(resource.RLIMIT_CORE) != (0, 0):
        return False
    return sys.platform != "linux" or int(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0
