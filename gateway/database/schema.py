"""The tables. Times are seconds since the epoch, money is in micro-dollars (millionths of a US dollar).

A change here needs a migration in `migrations/versions/`: a test compares the two.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)
from sqlalchemy.sql.schema import SchemaItem

METADATA = MetaData()


def _table(name: str, *items: SchemaItem) -> Table:
    return Table(name, METADATA, *items)


def _text(name: str, *, null: bool = False, primary_key: bool = False) -> Column[str]:
    return Column(name, String, nullable=null, primary_key=primary_key)


def _time(name: str, *, null: bool = True) -> Column[float]:
    return Column(name, Double, nullable=null)


def _json(name: str) -> Column[Any]:
    # None is stored as SQL NULL, not JSON null, so that queries can test for it.
    return Column(name, JSON(none_as_null=True), nullable=True)


JOBS = _table(
    "jobs",
    _text("id", primary_key=True),
    # The id of the client's API key; "" if the server has none.
    _text("key"),
    _text("idempotency_key", null=True),
    _text("fingerprint"),
    _text("request_id", null=True),
    _text("model"),
    _text("mode"),
    # The request without images, and the form of the response.
    _json("params"),
    _json("delivery"),
    _text("state"),
    Column("wanted", Integer, nullable=False),
    Column("estimate", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    _time("created_at", null=False),
    _time("deadline_at", null=False),
    _time("ended_at"),
    _time("delivered_at"),
    Column("progress", Double, nullable=True),
    # The process that runs it, and the one in which a client waits for it.
    _text("owner", null=True),
    _text("caller", null=True),
    # The SDK's retry count of the request that started it; 0 for a first request.
    Column("retry", Integer, nullable=False, server_default="0"),
    # How many repeated requests have joined it without an idempotency key.
    Column("joins", Integer, nullable=False),
    # How many processes ended abnormally while running it.
    Column("kills", Integer, nullable=False, server_default="0"),
    Column("cancel_asked", Boolean, nullable=False),
    _json("result"),
    _json("error"),
    _text("webhook_url", null=True),
    _json("webhook_events"),
    # The amount reserved in the key's budget, and its period; NULL until something is sent.
    Column("charged", BigInteger, nullable=True),
    _text("charged_to", null=True),
    Index("jobs_by_idempotency_key", "key", "idempotency_key", unique=True),
    Index("jobs_by_fingerprint", "key", "fingerprint", "created_at"),
    Index("jobs_by_time", "created_at", "id"),
    Index("jobs_by_state", "state", "owner"),
    Index("jobs_by_key", "key", "created_at"),
    Index("jobs_by_key_and_state", "key", "state"),
)

ATTEMPTS = _table(
    "attempts",
    _text("id", primary_key=True),
    Column("job", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    # The number of the call whose images it produces.
    Column("number", Integer, nullable=False),
    _text("provider"),
    _text("route"),
    _text("model"),
    _json("upstream"),
    # How its images are finished by the gateway.
    _json("making"),
    # submitting, submitted, unknown or ended; the outcome says how it ended.
    _text("state"),
    _text("outcome", null=True),
    _json("sent"),
    _text("heard", null=True),
    _json("handle"),
    # The provider's job id, which belongs to a single attempt.
    _text("upstream_id", null=True),
    Column("estimate", BigInteger, nullable=False),
    Column("cost", BigInteger, nullable=False),
    Column("actual", Boolean, nullable=False),
    _time("sent_at", null=False),
    _time("submitted_at"),
    _time("ended_at"),
    Column("message", Text, nullable=True),
    _json("notes"),
    _json("files"),
    Index("attempts_by_job", "job", "sent_at"),
    Index("attempts_by_upstream_id", "provider", "upstream_id", unique=True),
    Index("attempts_by_time", "provider", "sent_at"),
)

# The processes that share this database. One whose lease has expired counts as dead, as do its clients.
PROCESSES = _table(
    "processes",
    _text("id", primary_key=True),
    _time("beat_at", null=False),
    _time("lease_until", null=False),
)

# Webhook messages to clients.
DELIVERIES = _table(
    "deliveries",
    _text("id", primary_key=True),
    Column("job", String, ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    _text("url"),
    _text("event"),
    Column("body", Text, nullable=False),
    _text("state"),
    Column("tries", Integer, nullable=False),
    _time("created_at", null=False),
    # Not tried before this time; a process that tries it first moves this on, so that no other one does.
    _time("next_at", null=False),
    _text("answer", null=True),
    # The job's API key, so that the messages of one key are found without reading the others.
    Column("key", String, nullable=False, server_default=""),
    Index("deliveries_by_key", "state", "key", "next_at"),
    Index("deliveries_by_job", "job"),
)

# The secret that signs webhooks, generated once if the operator has set none.
SECRETS = _table("secrets", _text("name", primary_key=True), _text("value"))

# The stored API keys: never deleted, so that their jobs remain attributable.
KEYS = _table(
    "keys",
    _text("id", primary_key=True),
    _text("name"),
    # SHA-256 of the key, in hexadecimal digits.
    _text("digest"),
    Column("admin", Boolean, nullable=False),
    _json("models"),
    _json("providers"),
    Column("rpm", Integer, nullable=True),
    Column("concurrency", Integer, nullable=True),
    Column("budget", BigInteger, nullable=True),
    # day, week, month or total.
    _text("budget_every", null=True),
    _time("created_at", null=False),
    _time("expires_at"),
    _time("revoked_at"),
)

# What keys with a budget have spent in each period: the cost of ended jobs and the reservations of running ones.
SPENDING = _table(
    "spending",
    _text("key", primary_key=True),
    _text("period", primary_key=True),
    Column("spent", BigInteger, nullable=False),
)
