"""A worker as many teams write it, to compare paxflow with.

pika and SQLAlchemy's ORM: one message is one transaction is one acknowledgement. It reads DATABASE_URL,
AMQP_URL and PAXFLOW_QUEUE, works until SIGTERM, and leaves the tables exactly as paxflow does.

What it leaves out of what paxflow does:
- Only the fields that it reads are looked at; a message without them is rejected to the dead-letter queue,
  not set aside with a reason.
- Two contents for one version are not told apart: the second counts as a duplicate.
- It waits for no outage: a lost connection ends it, and its supervisor has to start it again.
"""

import hashlib
import json
import logging
import os
import signal
import socket
import uuid
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from itertools import repeat

import pika
from sqlalchemy import create_engine, delete, func, make_url, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

PREFETCH = 100
VERDICTS = ("applied", "duplicate", "stale", "folded", "quarantined")
COUNTS = ("gross_booking_count", "booking_count", "cancellation_count", "used_count", "no_show_count")
MEASURES = (*COUNTS, "total_revenue", "base_revenue")

log = logging.getLogger("row_by_row")


class Base(DeferredReflection, DeclarativeBase):
    """Models of the tables that exist: their columns are read from the database at the start."""

    __mapper_args__ = {"eager_defaults": False}


class Airport(Base):
    __tablename__ = "airports"


class Flight(Base):
    __tablename__ = "flights"

    # An absent value is NULL, not the JSON value null.
    capacity_by_cabin: Mapped[dict | None] = mapped_column(JSONB(none_as_null=True))


class Booking(Base):
    __tablename__ = "bookings"


class FlightDemand(Base):
    __tablename__ = "flight_demand"


class WorkerProgress(Base):
    __tablename__ = "worker_progress"


def instant(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def flight_fields(data: dict) -> dict:
    aircraft = data.get("aircraft") or {}
    capacity = data.get("capacity") or {}
    texts = ("airline", "flight_number", "suffix", "origin", "destination", "status")
    instants = ("scheduled_arrival", "estimated_departure", "actual_departure", "actual_arrival")
    departure = instant(data["scheduled_departure"])
    zone = select(Airport.timezone).where(Airport.iata_code == data["origin"]).scalar_subquery()
    return {
        **{name: data.get(name) for name in texts},
        **{name: instant(data.get(name)) for name in instants},
        "scheduled_departure": departure,
        "aircraft_type": aircraft.get("type"),
        "aircraft_registration": aircraft.get("registration"),
        "capacity_total": capacity.get("total"),
        "capacity_by_cabin": capacity.get("by_cabin"),
        "data_date": func.local_date(departure, zone),
        "time_zone_known": zone.is_not(None),
    }


def booking_fields(data: dict) -> dict:
    journey = data.get("journey") or {}
    passenger = data.get("passenger") or {}
    price = data["price"]
    needed = ("reference", "flight_id", "cabin", "booking_class", "payment_status", "status")
    others = ("ticket_number", "coupon", "travel_date", "fare_basis", "seat", "point_of_sale", "channel")
    return {
        **{name: data[name] for name in needed},
        **{name: data.get(name) for name in others},
        **{f"journey_{name}": journey.get(name) for name in ("origin", "destination")},
        **{f"passenger_{name}": passenger.get(name) for name in ("name", "email", "phone")},
        **{f"price_{name}": Decimal(price[name]) for name in ("base", "taxes", "total")},
        "currency": price["currency"],
        "booked_at": instant(data["booked_at"]),
        "cancelled_at": instant(data.get("cancelled_at")),
    }


# What each type of event is the state of, and how its fields are read; a tombstone has none.
TYPES = {
    "airline.flight.upserted.v1": (Flight, "flight_id", flight_fields),
    "airline.flight.deleted.v1": (Flight, "flight_id", None),
    "airline.booking.upserted.v1": (Booking, "booking_id", booking_fields),
    "airline.booking.deleted.v1": (Booking, "booking_id", None),
}


@dataclass
class Change:
    """The state of a flight or a booking that a message brings."""

    model: type[Base]
    key: str
    version: int
    event_at: datetime
    columns: dict


def parse(body: bytes) -> Change:
    event = json.loads(body)
    data = event["data"]
    model, key, fields = TYPES[event["type"]]
    columns = dict.fromkeys(model.__table__.columns.keys())
    del columns["created_at"]
    columns |= fields(data) if fields else {}
    columns |= {
        key: data[key],
        "version": int(data["version"]),
        "content_hash": hashlib.md5(body).digest(),
        "deleted_at": instant(data.get("deleted_at")),
        "delete_reason": data.get("reason"),
        "source": event["source"],
        "last_event_at": instant(event["time"]),
        "updated_at": func.now(),
    }
    return Change(model, data[key], columns["version"], columns["last_event_at"], columns)


def apply(session: Session, change: Change) -> str:
    """Writes the state if it is newer than what is stored; says what became of it."""
    stored = session.get(change.model, change.key, with_for_update=True)
    if stored and change.version <= stored.version:
        return "duplicate" if change.version == stored.version else "stale"
    row = stored or change.model()
    demands = demand(row, -1) if change.model is Booking else []
    for name, value in change.columns.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    if change.model is Booking:
        add_demand(session, demands + demand(row, 1), change.event_at)
    return "applied"


def demand(booking: Booking, sign: int) -> list[tuple]:
    """Where a booking counts, and what it adds there or, with -1, takes away; nothing if it is deleted."""
    if booking.flight_id is None:
        return []
    active = booking.status != "cancelled"
    states = (True, active, not active, booking.status == "used", booking.status == "no_show")
    revenues = (booking.price_total * active, booking.price_base * active)
    return [((booking.flight_id, booking.cabin, booking.currency), [sign * n for n in states + revenues])]


def add_demand(session: Session, demands: list[tuple], event_at: datetime) -> None:
    changes = {}
    for key, measures in demands:
        changes[key] = [a + b for a, b in zip(measures, changes.get(key, repeat(0)))]
    # Two rows are always locked in the same order.
    for key, change in sorted(changes.items()):
        if not any(change):
            continue
        where = dict(zip(("flight_id", "cabin", "currency"), key))
        upsert = insert(FlightDemand).values(last_event_at=event_at, **where, **dict(zip(MEASURES, change)))
        values = {name: getattr(FlightDemand, name) + upsert.excluded[name] for name in MEASURES}
        values["last_event_at"] = func.greatest(FlightDemand.last_event_at, event_at)
        values["updated_at"] = func.now()
        session.execute(upsert.on_conflict_do_update(index_elements=list(where), set_=values))
        if change[0] < 0:
            session.execute(delete(FlightDemand).filter_by(gross_booking_count=0, **where))


def count(session: Session, worker_id: str, verdict: str, event_at: datetime) -> None:
    verdicts = {name: getattr(WorkerProgress, name) + 1 for name in (verdict, "received", "batches")}
    newest = func.greatest(WorkerProgress.last_event_at, event_at)
    session.execute(
        update(WorkerProgress)
        .filter_by(worker_id=worker_id)
        .values(verdicts | {"last_event_at": newest, "last_commit_at": func.now()})
        .execution_options(synchronize_session=False)
    )


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.WARNING)
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    engine = create_engine(url, hide_parameters=True)
    Base.prepare(engine)
    sessions = sessionmaker(engine)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4()}"
    now, counts = func.now(), dict.fromkeys((*VERDICTS, "received", "batches"), 0)
    with sessions.begin() as session:
        session.add(WorkerProgress(worker_id=worker_id, started_at=now, last_commit_at=now, **counts))

    def on_message(channel, method, properties, body) -> None:
        try:
            change = parse(body)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            log.error("message %s has not the form of an event: rejected", properties.message_id)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        try:
            with sessions.begin() as session:
                verdict = apply(session, change)
                count(session, worker_id, verdict, change.event_at)
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            # Another worker was first with the same key, or held what it waits for.
            log.warning("message %s is tried again: %s", properties.message_id, type(error.orig).__name__)
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        channel.basic_ack(method.delivery_tag)

    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=PREFETCH)
    channel.basic_consume(os.environ["PAXFLOW_QUEUE"], on_message)
    signal.signal(signal.SIGTERM, lambda *_: connection.add_callback_threadsafe(channel.stop_consuming))
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    main()
