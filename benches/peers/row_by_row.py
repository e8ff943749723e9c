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
from collections import defaultdict
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from operator import add, sub

import pika
from sqlalchemy import create_engine, delete, func, make_url, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.declarative import DeferredReflection
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

PREFETCH = 100
MEASURES = ("gross_booking_count", "booking_count", "cancellation_count", "used_count", "no_show_count")
REVENUES = ("total_revenue", "base_revenue")

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
    zone = select(Airport.timezone).where(Airport.iata_code == data["origin"]).scalar_subquery()
    departure = instant(data["scheduled_departure"])
    return {
        "airline": data["airline"],
        "flight_number": data["flight_number"],
        "suffix": data.get("suffix"),
        "origin": data["origin"],
        "destination": data["destination"],
        "scheduled_departure": departure,
        "scheduled_arrival": instant(data["scheduled_arrival"]),
        "estimated_departure": instant(data.get("estimated_departure")),
        "actual_departure": instant(data.get("actual_departure")),
        "actual_arrival": instant(data.get("actual_arrival")),
        "aircraft_type": aircraft.get("type"),
        "aircraft_registration": aircraft.get("registration"),
        "capacity_total": capacity.get("total"),
        "capacity_by_cabin": capacity.get("by_cabin"),
        "status": data["status"],
        "data_date": func.local_date(departure, zone),
        "time_zone_known": zone.is_not(None),
    }


def booking_fields(data: dict) -> dict:
    journey = data.get("journey") or {}
    passenger = data.get("passenger") or {}
    travel_date = data.get("travel_date")
    price = data["price"]
    same = ("ticket_number", "coupon", "fare_basis", "seat", "point_of_sale", "channel")
    return {field: data.get(field) for field in same} | {
        "reference": data["reference"],
        "flight_id": data["flight_id"],
        "journey_origin": journey.get("origin"),
        "journey_destination": journey.get("destination"),
        "passenger_name": passenger.get("name"),
        "passenger_email": passenger.get("email"),
        "passenger_phone": passenger.get("phone"),
        "booked_at": instant(data["booked_at"]),
        "travel_date": date.fromisoformat(travel_date) if travel_date else None,
        "cabin": data["cabin"],
        "booking_class": data["booking_class"],
        "price_base": Decimal(price["base"]),
        "price_taxes": Decimal(price["taxes"]),
        "price_total": Decimal(price["total"]),
        "currency": price["currency"],
        "payment_status": data["payment_status"],
        "status": data["status"],
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
    before = demand(row) if change.model is Booking else None
    for name, value in change.columns.items():
        setattr(row, name, value)
    session.add(row)
    session.flush()
    if change.model is Booking:
        count_demand(session, before, demand(row), change.event_at)
    return "applied"


def count_demand(session: Session, before: tuple | None, after: tuple | None, event_at: datetime) -> None:
    """Takes the old state of a booking out of flight_demand and puts the new one in."""
    changes = defaultdict(lambda: dict.fromkeys(MEASURES, 0) | dict.fromkeys(REVENUES, Decimal()))
    for state, step in ((before, sub), (after, add)):
        if state:
            key, measures = state
            for name, value in measures.items():
                changes[key][name] = step(changes[key][name], value)
    # Two rows are always locked in the same order.
    for key in sorted(changes):
        change = changes[key]
        if not any(change.values()):
            continue
        flight_id, cabin, currency = key
        upsert = insert(FlightDemand).values(
            flight_id=flight_id, cabin=cabin, currency=currency, last_event_at=event_at, **change
        )
        sums = {name: getattr(FlightDemand, name) + upsert.excluded[name] for name in change}
        newest = func.greatest(FlightDemand.last_event_at, upsert.excluded.last_event_at)
        session.execute(
            upsert.on_conflict_do_update(
                index_elements=[FlightDemand.flight_id, FlightDemand.cabin, FlightDemand.currency],
                set_=sums | {"last_event_at": newest, "updated_at": func.now()},
            )
        )
        if change["gross_booking_count"] < 0:
            session.execute(
                delete(FlightDemand).filter_by(
                    flight_id=flight_id, cabin=cabin, currency=currency, gross_booking_count=0
                )
            )


def demand(booking: Booking) -> tuple | None:
    """What a booking counts for, and where; nothing if it is deleted."""
    if booking.flight_id is None:
        return None
    active = booking.status != "cancelled"
    return (booking.flight_id, booking.cabin, booking.currency), {
        "gross_booking_count": 1,
        "booking_count": int(active),
        "cancellation_count": int(not active),
        "used_count": int(booking.status == "used"),
        "no_show_count": int(booking.status == "no_show"),
        "total_revenue": booking.price_total * active,
        "base_revenue": booking.price_base * active,
    }


def count(session: Session, worker_id: str, verdict: str, event_at: datetime) -> None:
    verdicts = {name: getattr(WorkerProgress, name) + 1 for name in (verdict, "received", "batches")}
    newest = func.greatest(WorkerProgress.last_event_at, event_at)
    session.execute(
        update(WorkerProgress)
        .filter_by(worker_id=worker_id)
        .values(verdicts | {"last_event_at": newest, "last_commit_at": func.now()})
        .execution_options(synchronize_session=False)
    )


def register(session: Session) -> str:
    """Adds this worker to worker_progress."""
    worker_id = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4()}"
    counts = dict.fromkeys(("received", "applied", "duplicate", "stale", "folded", "quarantined", "batches"), 0)
    session.add(WorkerProgress(worker_id=worker_id, started_at=func.now(), last_commit_at=func.now(), **counts))
    return worker_id


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    logging.getLogger("pika").setLevel(logging.WARNING)
    engine = create_engine(make_url(os.environ["DATABASE_URL"]).set(drivername="postgresql+psycopg"))
    Base.prepare(engine)
    sessions = sessionmaker(engine)
    with sessions.begin() as session:
        worker_id = register(session)

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
            # Another worker was first with the same key, or a deadlock: try again later.
            log.warning("message %s goes back to the queue: %s", properties.message_id, type(error.orig).__name__)
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
