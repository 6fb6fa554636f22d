"""Tables of the installation itself: leases by which one process of several does what must be done once."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, String, Uuid

from .columns import UtcTime
from .retention import Retention
from .tables import bare_table

lease = bare_table(
    "store",
    "lease",
    Column("name", String(60), primary_key=True),
    Column("holder", Uuid, nullable=False),
    Column("until", UtcTime, nullable=False),
    # Grows with every change of holder, so that a holder that slept too long can be told from its successor.
    Column("fence", BigInteger, nullable=False),
    retention=Retention.PERMANENT,
)

counter = bare_table(
    "store",
    "counter",
    Column("name", String(60), primary_key=True),
    Column("value", BigInteger, nullable=False),
    retention=Retention.PERMANENT,
)
