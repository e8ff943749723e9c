"""A worker as a good team writes it, to compare paxflow with.

aio-pika and asyncpg on uvloop: what waits, up to 1,000 messages, is folded by key, committed in one
transaction of set-based SQL and acknowledged at once. The events go to PostgreSQL as the JSON that they are:
for that, Python needs a third of the CPU time that COPY or arrays take, and the whole takes no longer. It reads
DATABASE_URL, AMQP_URL and PAXFLOW_QUEUE, works until SIGTERM, and leaves the tables exactly as paxflow does.

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
import sys
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import aio_pika
import asyncpg
import orjson
import uvloop

PREFETCH = 2000
BATCH_MAX = 1000
# How long a batch that is not full waits for more: PostgreSQL needs half the CPU time for the larger batches.
LINGER_SECS = 0.05
TRIES = 10
# As paxflow sets them: plans made while the tables are small or not analysed would read them whole.
SESSION = {"plan_cache_mode": "force_generic_plan", "enable_seqscan": "off", "jit": "off"}

HERE = Path(__file__).parent
FLIGHTS = (HERE / "batched_flights.sql").read_text()
BOOKINGS = (HERE / "batched_bookings.sql").read_text()
LOCK_BOOKINGS = """
SELECT count(*)
FROM (
    SELECT FROM bookings WHERE booking_id = ANY ($1::text[]) ORDER BY booking_id FOR NO KEY UPDATE
) locked
"""
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
    database = await asyncpg.connect(os.environ["DATABASE_URL"], server_settings=SESSION)
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
        if waiting.qsize() + 1 < BATCH_MAX:
            await asyncio.sleep(LINGER_SECS)
        batch = [event]
        while len(batch) < BATCH_MAX and not waiting.empty() and (event := waiting.get_nowait()):
            batch.append(event)
        await worker.commit(batch)
        await batch[-1].message.ack(multiple=True)
        if event is None:
            break
    if channel.is_closed:
        sys.exit("the connection to the broker is lost")
    await broker.close()
    await database.close()


if __name__ == "__main__":
    uvloop.run(main())
