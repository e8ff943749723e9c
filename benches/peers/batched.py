"""A worker as a good team writes it, to compare paxflow with.

aio-pika and asyncpg on uvloop: whatever waits, up to 1,000 messages, is folded by key and committed in one
transaction of set-based SQL, then acknowledged at once. The events go to PostgreSQL as the JSON that they are:
json_to_recordset took a third of the CPU time of COPY into a temporary table, and less than unnest of arrays.
It reads DATABASE_URL, AMQP_URL and PAXFLOW_QUEUE, works until SIGTERM, and leaves the tables exactly as
paxflow does.

What it leaves out of what paxflow does:
- Only what it needs to fold is looked at. A message without that is rejected to the dead-letter queue; one
  that the database refuses ends the worker, as every restart does until somebody takes the message away.
- Two contents for one version are not told apart: the second counts as a duplicate.
- It waits for no outage: a lost connection ends it, and its supervisor has to start it again.
"""

import asyncio
import hashlib
import logging
import os
import signal
import socket
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime

import aio_pika
import asyncpg
import orjson
import uvloop

PREFETCH = 2000
BATCH_MAX = 1000
TRIES = 10

FLIGHTS = """
WITH incoming AS MATERIALIZED (
    SELECT e.*, decode(md5, 'hex') AS content_hash, reason AS delete_reason,
           aircraft->>'type' AS aircraft_type, aircraft->>'registration' AS aircraft_registration,
           (capacity->>'total')::integer AS capacity_total, capacity->'by_cabin' AS capacity_by_cabin,
           local_date(scheduled_departure, a.timezone) AS data_date,
           CASE WHEN deleted_at IS NULL THEN a.timezone IS NOT NULL END AS time_zone_known
    FROM json_to_recordset($1) AS e (
        flight_id text, version bigint, md5 text, deleted_at timestamptz, reason text,
        airline text, flight_number text, suffix text, origin text, destination text,
        scheduled_departure timestamptz, scheduled_arrival timestamptz,
        estimated_departure timestamptz, actual_departure timestamptz, actual_arrival timestamptz,
        aircraft jsonb, capacity jsonb, status text, source text, last_event_at timestamptz)
    LEFT JOIN airports a ON a.iata_code = e.origin
),
stored AS MATERIALIZED (
    SELECT flight_id, version FROM flights WHERE flight_id IN (SELECT flight_id FROM incoming)
),
written AS (
    INSERT INTO flights AS f ({columns})
    SELECT {columns} FROM incoming ORDER BY flight_id COLLATE "C"
    ON CONFLICT (flight_id) DO UPDATE SET ({columns}, updated_at) = ROW ({excluded}, now())
    WHERE f.version < excluded.version
    RETURNING flight_id
)
SELECT (SELECT count(*) FROM written) AS applied,
       (SELECT count(*) FROM incoming JOIN stored USING (flight_id, version)) AS duplicate
"""
FLIGHT_COLUMNS = """
    flight_id, version, content_hash, deleted_at, delete_reason, airline, flight_number, suffix, origin,
    destination, scheduled_departure, scheduled_arrival, estimated_departure, actual_departure, actual_arrival,
    aircraft_type, aircraft_registration, capacity_total, capacity_by_cabin, status, data_date, time_zone_known,
    source, last_event_at"""

LOCK_BOOKINGS = """
SELECT count(*)
FROM (
    SELECT FROM bookings WHERE booking_id = ANY ($1::text[]) ORDER BY booking_id FOR NO KEY UPDATE
) locked
"""
# Every part sees the bookings as they stood before the statement, and flight_demand is written last.
BOOKINGS = """
WITH incoming AS MATERIALIZED (
    SELECT e.*, decode(md5, 'hex') AS content_hash, reason AS delete_reason,
           journey->>'origin' AS journey_origin, journey->>'destination' AS journey_destination,
           passenger->>'name' AS passenger_name, passenger->>'email' AS passenger_email,
           passenger->>'phone' AS passenger_phone, price->>'currency' AS currency,
           (price->>'base')::numeric AS price_base, (price->>'taxes')::numeric AS price_taxes,
           (price->>'total')::numeric AS price_total
    FROM json_to_recordset($1) AS e (
        booking_id text, version bigint, md5 text, deleted_at timestamptz, reason text,
        reference text, ticket_number text, coupon smallint, flight_id text, journey jsonb,
        passenger jsonb, booked_at timestamptz, travel_date date, cabin text, booking_class text,
        fare_basis text, seat text, point_of_sale text, channel text, price jsonb,
        payment_status text, status text, cancelled_at timestamptz, source text, last_event_at timestamptz)
),
stored AS MATERIALIZED (
    SELECT booking_id, b.version, b.flight_id, b.cabin, b.currency, b.status, b.price_base, b.price_total,
           i.last_event_at
    FROM incoming i
    JOIN bookings b USING (booking_id)
),
written AS (
    INSERT INTO bookings AS b ({columns})
    SELECT {columns} FROM incoming ORDER BY booking_id COLLATE "C"
    ON CONFLICT (booking_id) DO UPDATE SET ({columns}, updated_at) = ROW ({excluded}, now())
    WHERE b.version < excluded.version
    RETURNING booking_id, b.xmax = 0 AS is_new
),
change AS (
    SELECT 1 AS step, flight_id, cabin, currency, status, price_base, price_total, last_event_at
    FROM incoming JOIN written USING (booking_id)
    UNION ALL
    SELECT -1, flight_id, cabin, currency, status, price_base, price_total, last_event_at
    FROM stored JOIN written USING (booking_id)
),
demand AS (
    INSERT INTO flight_demand AS d (
        flight_id, cabin, currency, gross_booking_count, booking_count, cancellation_count, used_count,
        no_show_count, total_revenue, base_revenue, last_event_at)
    SELECT flight_id, cabin, currency, sum(step), sum(step * active), sum(step * (1 - active)),
           sum(step * (status = 'used')::integer), sum(step * (status = 'no_show')::integer),
           sum(step * active * price_total), sum(step * active * price_base), max(last_event_at)
    FROM change
    CROSS JOIN LATERAL (SELECT (status <> 'cancelled')::integer AS active) a
    WHERE flight_id IS NOT NULL
    GROUP BY flight_id, cabin, currency
    HAVING sum(step) <> 0 OR sum(step * active) <> 0
        OR sum(step * (status = 'used')::integer) <> 0 OR sum(step * (status = 'no_show')::integer) <> 0
        OR sum(step * active * price_total) <> 0 OR sum(step * active * price_base) <> 0
    ORDER BY flight_id COLLATE "C", cabin COLLATE "C", currency COLLATE "C"
    ON CONFLICT (flight_id, cabin, currency) DO UPDATE
    SET gross_booking_count = d.gross_booking_count + excluded.gross_booking_count,
        booking_count = d.booking_count + excluded.booking_count,
        cancellation_count = d.cancellation_count + excluded.cancellation_count,
        used_count = d.used_count + excluded.used_count,
        no_show_count = d.no_show_count + excluded.no_show_count,
        total_revenue = d.total_revenue + excluded.total_revenue,
        base_revenue = d.base_revenue + excluded.base_revenue,
        last_event_at = greatest(d.last_event_at, excluded.last_event_at),
        updated_at = now()
    RETURNING flight_id, gross_booking_count
)
SELECT (SELECT count(*) FROM written) AS applied,
       (SELECT count(*) FROM incoming JOIN stored USING (booking_id, version)) AS duplicate,
       (SELECT count(*) FROM (
           SELECT booking_id FROM stored UNION SELECT booking_id FROM written WHERE NOT is_new) k) AS known,
       ARRAY(SELECT flight_id FROM demand WHERE gross_booking_count = 0) AS emptied
"""
BOOKING_COLUMNS = """
    booking_id, version, content_hash, deleted_at, delete_reason, reference, ticket_number, coupon, flight_id,
    journey_origin, journey_destination, passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
    cabin, booking_class, fare_basis, seat, point_of_sale, channel, price_base, price_taxes, price_total, currency,
    payment_status, status, cancelled_at, source, last_event_at"""

DELETE_EMPTY = "DELETE FROM flight_demand WHERE flight_id = ANY ($1::text[]) AND gross_booking_count = 0"

PROGRESS = """
INSERT INTO worker_progress AS w (
    worker_id, started_at, last_commit_at, last_event_at,
    received, applied, duplicate, stale, folded, quarantined, batches)
VALUES ($1, $2, now(), $3, $4, $5, $6, $7, $8, 0, $9)
ON CONFLICT (worker_id) DO UPDATE
SET last_commit_at = now(), last_event_at = greatest(w.last_event_at, excluded.last_event_at),
    received = w.received + excluded.received, applied = w.applied + excluded.applied,
    duplicate = w.duplicate + excluded.duplicate, stale = w.stale + excluded.stale,
    folded = w.folded + excluded.folded, batches = w.batches + excluded.batches
"""


def with_columns(statement: str, columns: str) -> str:
    excluded = ", ".join(f"excluded.{column.strip()}" for column in columns.split(","))
    return statement.format(columns=columns, excluded=excluded)


FLIGHTS = with_columns(FLIGHTS, FLIGHT_COLUMNS)
BOOKINGS = with_columns(BOOKINGS, BOOKING_COLUMNS)
KEYS = {
    "airline.flight.upserted.v1": "flight_id",
    "airline.flight.deleted.v1": "flight_id",
    "airline.booking.upserted.v1": "booking_id",
    "airline.booking.deleted.v1": "booking_id",
}

log = logging.getLogger("batched")


@dataclass
class Event:
    """A message, as far as folding has to know it."""

    message: aio_pika.abc.AbstractIncomingMessage
    kind: str
    key: str
    version: int
    record: dict


class Raced(Exception):
    """Another worker inserted a booking of the batch between the lock and the write."""


def parse(message: aio_pika.abc.AbstractIncomingMessage) -> Event:
    event = orjson.loads(message.body)
    kind = KEYS[event["type"]]
    record = event["data"]
    record["source"] = event["source"]
    record["last_event_at"] = event["time"]
    record["md5"] = hashlib.md5(message.body).hexdigest()
    return Event(message, kind, record[kind], record["version"], record)


def fold(batch: list[Event]) -> tuple[dict[str, dict[str, Event]], Counter]:
    """The newest state of each flight and booking, and what became of the others."""
    newest = {"flight_id": {}, "booking_id": {}}
    verdicts = Counter(received=len(batch))
    for event in batch:
        states = newest[event.kind]
        kept = states.setdefault(event.key, event)
        if kept is not event:
            verdicts["duplicate" if event.version == kept.version else "folded"] += 1
            if event.version > kept.version:
                states[event.key] = event
    return newest, verdicts


def as_json(states: dict[str, Event]) -> str:
    return orjson.dumps([event.record for event in states.values()]).decode()


class Worker:
    def __init__(self, connection: asyncpg.Connection):
        self.connection = connection
        self.id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4()}"
        self.started_at = datetime.now().astimezone()

    async def commit(self, batch: list[Event]) -> None:
        newest, verdicts = fold(batch)
        for left in reversed(range(TRIES)):
            try:
                async with self.connection.transaction():
                    written = await self.write(newest["flight_id"], newest["booking_id"])
                    await self.count(batch, verdicts + written)
                return
            except (Raced, asyncpg.DeadlockDetectedError):
                if not left:
                    raise

    async def write(self, flights: dict[str, Event], bookings: dict[str, Event]) -> Counter:
        verdicts = Counter(stale=len(flights) + len(bookings))
        if flights:
            settled = await self.connection.fetchrow(FLIGHTS, as_json(flights))
            verdicts.update(applied=settled["applied"], duplicate=settled["duplicate"])
        if bookings:
            locked = await self.connection.fetchval(LOCK_BOOKINGS, list(bookings))
            settled = await self.connection.fetchrow(BOOKINGS, as_json(bookings))
            if settled["known"] != locked:
                raise Raced
            if settled["emptied"]:
                await self.connection.execute(DELETE_EMPTY, settled["emptied"])
            verdicts.update(applied=settled["applied"], duplicate=settled["duplicate"])
        verdicts["stale"] -= verdicts["applied"] + verdicts["duplicate"]
        return verdicts

    async def count(self, batch: list[Event], verdicts: Counter) -> None:
        newest = max(datetime.fromisoformat(event.record["last_event_at"]) for event in batch)
        names = ("received", "applied", "duplicate", "stale", "folded")
        counts = [verdicts[name] for name in names]
        await self.connection.execute(PROGRESS, self.id, self.started_at, newest, *counts, 1)


async def main() -> None:
    logging.basicConfig(level=logging.INFO)
    database = await asyncpg.connect(os.environ["DATABASE_URL"])
    broker = await aio_pika.connect(os.environ["AMQP_URL"])
    channel = await broker.channel(publisher_confirms=False)
    await channel.set_qos(prefetch_count=PREFETCH)
    queue = await channel.get_queue(os.environ["PAXFLOW_QUEUE"])
    # None is the end: what came before it is still worked on.
    waiting: asyncio.Queue[Event | None] = asyncio.Queue()

    async def on_message(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        try:
            waiting.put_nowait(parse(message))
        except (KeyError, TypeError, ValueError):
            log.error("message %s has not the form of an event: rejected", message.message_id)
            await message.reject()

    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, waiting.put_nowait, None)
    channel.close_callbacks.add(lambda *_: waiting.put_nowait(None))
    await queue.consume(on_message)
    worker = Worker(database)
    while event := await waiting.get():
        batch = [event]
        while len(batch) < BATCH_MAX and not waiting.empty() and (event := waiting.get_nowait()):
            batch.append(event)
        await worker.commit(batch)
        await batch[-1].message.ack(multiple=True)
        if event is None:
            break
    await broker.close()
    await database.close()


if __name__ == "__main__":
    uvloop.run(main())
