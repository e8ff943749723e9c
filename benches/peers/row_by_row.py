"""A worker as many teams write it, to compare paxflow with.

pika and SQLAlchemy: one message is one transaction is one acknowledgement. Flights and bookings are ORM models;
the two sums are plain SQL, which took half the CPU time of the same statements built by SQLAlchemy. It reads
DATABASE_URL, AMQP_URL and PAXFLOW_QUEUE, works until SIGTERM, and leaves the tables exactly as paxflow does.

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
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

import pika
from sqlalchemy import create_engine, func, make_url, select, text
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

ADD_DEMAND = text("""
INSERT INTO flight_demand AS d (
    flight_id, cabin, currency, gross_booking_count, booking_count, cancellation_count, used_count,
    no_show_count, total_revenue, base_revenue, last_event_at)
VALUES (
    :flight_id, :cabin, :currency, :gross, :bookings, :cancellations, :used, :no_show, :total, :base, :event_at)
ON CONFLICT (flight_id, cabin, currency) DO UPDATE
SET gross_booking_count = d.gross_booking_count + excluded.gross_booking_count,
    booking_count = d.booking_count + excluded.booking_count,
    cancellation_count = d.cancellation_count + excluded.cancellation_count,
    used_count = d.used_count + excluded.used_count, no_show_count = d.no_show_count + excluded.no_show_count,
    total_revenue = d.total_revenue + excluded.total_revenue,
    base_revenue = d.base_revenue + excluded.base_revenue,
    last_event_at = greatest(d.last_event_at, excluded.last_event_at), updated_at = now()
""")
DELETE_EMPTY = text("""
DELETE FROM flight_demand
WHERE flight_id = :flight_id AND cabin = :cabin AND currency = :currency AND gross_booking_count = 0
""")
COUNT = text("""
INSERT INTO worker_progress AS w (
    worker_id, started_at, last_commit_at, last_event_at,
    received, applied, duplicate, stale, folded, quarantined, batches)
VALUES (:worker_id, :started_at, now(), :event_at, 1, :applied, :duplicate, :stale, 0, 0, 1)
ON CONFLICT (worker_id) DO UPDATE
SET last_commit_at = now(), last_event_at = greatest(w.last_event_at, excluded.last_event_at),
    received = w.received + 1, applied = w.applied + excluded.applied,
    duplicate = w.duplicate + excluded.duplicate, stale = w.stale + excluded.stale, batches = w.batches + 1
""")


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


def instant(value: str | None) -> datetime | None:
    return datetime.fromisoformat(value) if value else None


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
        **{f"aircraft_{name}": aircraft.get(name) for name in ("type", "registration")},
        **{f"capacity_{name}": capacity.get(name) for name in ("total", "by_cabin")},
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
    return Change(model, data[key], columns["last_event_at"], columns)


def apply(session: Session, change: Change) -> str:
    """Writes the state if it is newer than what is stored; says what became of it."""
    stored = session.get(change.model, change.key, with_for_update=True)
    version = change.columns["version"]
    if stored and version <= stored.version:
        return "duplicate" if version == stored.version else "stale"
    row = stored or change.model()
    old = demand(row, -1) if change.model is Booking else {}
    for name, value in change.columns.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    if change.model is Booking:
        add_demand(session, old, demand(row, 1), change.event_at)
    return "applied"


def demand(booking: Booking, sign: int) -> dict[tuple, dict]:
    """Where a booking counts, and what it adds there or, with -1, takes away; nothing if it is deleted."""
    if booking.flight_id is None:
        return {}
    active = sign * (booking.status != "cancelled")
    measures = {
        "gross": sign,
        "bookings": active,
        "cancellations": sign - active,
        "used": sign * (booking.status == "used"),
        "no_show": sign * (booking.status == "no_show"),
        "total": active * booking.price_total,
        "base": active * booking.price_base,
    }
    return {(booking.flight_id, booking.cabin, booking.currency): measures}


def add_demand(session: Session, old: dict, new: dict, event_at: datetime) -> None:
    # Two rows are always locked in the same order.
    for key in sorted(old | new):
        change = Counter(old.get(key, {}))
        change.update(new.get(key, {}))
        if any(change.values()):
            row = dict(zip(("flight_id", "cabin", "currency"), key))
            session.execute(ADD_DEMAND, row | change | {"event_at": event_at})
            if change["gross"] < 0:
                session.execute(DELETE_EMPTY, row)


def main() -> None:
    url = make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg")
    engine = create_engine(url, hide_parameters=True)
    Base.prepare(engine)
    sessions = sessionmaker(engine)
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4()}"
    worker = {"worker_id": worker_id, "started_at": datetime.now(UTC)}

    def on_message(channel, method, properties, body) -> None:
        try:
            change = parse(body)
        except (KeyError, TypeError, ValueError, ArithmeticError):
            logging.error("message %s has not the form of an event: rejected", properties.message_id)
            channel.basic_reject(method.delivery_tag, requeue=False)
            return
        try:
            with sessions.begin() as session:
                verdict = apply(session, change)
                verdicts = dict.fromkeys(("applied", "duplicate", "stale"), 0) | {verdict: 1}
                session.execute(COUNT, worker | verdicts | {"event_at": change.event_at})
        except DBAPIError as error:
            if error.connection_invalidated:
                raise
            # Another worker was first with the same key, or held what it waits for.
            logging.warning("message %s is tried again: %s", properties.message_id, type(error.orig).__name__)
            channel.basic_nack(method.delivery_tag, requeue=True)
        else:
            channel.basic_ack(method.delivery_tag)

    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.basic_qos(prefetch_count=100)
    channel.basic_consume(os.environ["PAXFLOW_QUEUE"], on_message)
    signal.signal(signal.SIGTERM, lambda *_: connection.add_callback_threadsafe(channel.stop_consuming))
    channel.start_consuming()
    connection.close()


if __name__ == "__main__":
    main()
