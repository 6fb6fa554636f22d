"""Retries, done by gRPC itself: a service config that names the calls that may be repeated.

Only calls that change nothing are in it, and only UNAVAILABLE is retried: the other end was not there.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

_POLICY: Final = {
    "maxAttempts": 4,
    "initialBackoff": "0.2s",
    "maxBackoff": "2s",
    "backoffMultiplier": 2,
    "retryableStatusCodes": ["UNAVAILABLE"],
}


def options(calls: Iterable[tuple[str, str]]) -> tuple[tuple[str, Any], ...]:
    """Channel options by which these calls, (full name of the service, name of the call), are retried."""
    names = [{"service": service, "method": call} for service, call in calls]
    config = {"methodConfig": [{"name": names, "retryPolicy": _POLICY}]}
    return (("grpc.enable_retries", 1), ("grpc.service_config", json.dumps(config)))
