"""Tables of the escrow: archived keys, how each left the archive, approved recoveries, offers of files."""

from __future__ import annotations

from sqlalchemy import Column, Index, Integer, LargeBinary, String, UniqueConstraint, Uuid

from .retention import Retention
from .tables import moment, reference, table
from .transitions import transition_table

escrowed_key = table(
    "escrow",
    "escrowed_key",
    Column("person", Uuid),
    # The device that it was made for, in which of its lives, for which slot, in which card session.
    Column("device", Uuid, nullable=False),
    Column("life", Integer, nullable=False),
    Column("slot", Integer, nullable=False),
    Column("session", Uuid, nullable=False),
    Column("algorithm", String(20), nullable=False),
    # Hexadecimal SHA-256 of the SubjectPublicKeyInfo.
    Column("fingerprint", String(64), nullable=False, unique=True),
    Column("public_key", LargeBinary, nullable=False),
    # What the vault bound the sealed key to, besides organization, public key and certificate.
    Column("owner", String(128), nullable=False),
    Column("escrow_class", String(20), nullable=False),
    # The private key, sealed by this version of the vault's archive key.
    Column("master", Integer, nullable=False),
    Column("wrapped", LargeBinary, nullable=False),
    # DER; NULL until there is one.
    Column("certificate", LargeBinary),
    moment("certified_at"),
    # A newer key of the same slot got its certificate.
    moment("superseded_at"),
    Column("state", String(20), nullable=False),
    # One key for a slot in a session, however often it is asked for.
    UniqueConstraint("session", "slot"),
    Index("ix_escrowed_key_person", "person"),
    Index("ix_escrowed_key_device", "device", "slot"),
    # What was encrypted to a key may turn up at any time; only a person decides that it is never to be read again.
    retention=Retention.PERMANENT,
)

escrowed_key_transition = transition_table("escrow", escrowed_key)

escrow_release = table(
    "escrow",
    "escrow_release",
    reference(escrowed_key, "key"),
    Column("way", String(20), nullable=False),
    Column("actor", Uuid),
    Column("request", Uuid),
    # For a card: which, in which session, and the slot that it goes to.
    Column("device", Uuid),
    Column("session", Uuid),
    Column("slot", Integer),
    # For a file: the offer that was claimed.
    Column("offer", Uuid),
    UniqueConstraint("key", "session", "slot"),
    retention=Retention.HISTORY,
    counts_from="created_at",
    versioned=False,
)

key_recovery = table(
    "escrow",
    "key_recovery",
    reference(escrowed_key, "key"),
    Column("request", Uuid, nullable=False),
    Column("device", Uuid, nullable=False),
    Column("person", Uuid, nullable=False),
    Column("approved_by", Uuid, nullable=False),
    Column("state", String(20), nullable=False),
    moment("expires_at", nullable=False),
    UniqueConstraint("request", "key"),
    Index("ix_key_recovery_key", "key", "device"),
    Index("ix_key_recovery_device", "device"),
    Index("ix_key_recovery_person", "person", "created_at"),
    Index("ix_key_recovery_approved_by", "approved_by", "created_at"),
    Index("ix_key_recovery_ending", "state", "expires_at"),
    retention=Retention.HISTORY,
    counts_from="expires_at",
)

key_recovery_transition = transition_table("escrow", key_recovery)

pfx_offer = table(
    "escrow",
    "pfx_offer",
    reference(escrowed_key, "key"),
    Column("person", Uuid, nullable=False),
    # Only the proof and the workstation that got the password may claim the file.
    Column("authentication", Uuid, nullable=False),
    Column("workstation", Uuid),
    # Commitment of the vault to the password; NULL as soon as it is worth nothing.
    Column("commitment", LargeBinary(32)),
    Column("attempts", Integer, nullable=False),
    Column("state", String(20), nullable=False),
    moment("expires_at", nullable=False),
    Index("ix_pfx_offer_key", "key"),
    Index("ix_pfx_offer_person", "person", "created_at"),
    Index("ix_pfx_offer_ending", "state", "expires_at"),
    retention=Retention.TRANSIENT,
    counts_from="expires_at",
)

pfx_offer_transition = transition_table("escrow", pfx_offer)
