-- The newest known state of every booking: one passenger on one flight. The only place of personal data.

CREATE TABLE bookings (
    booking_id          text COLLATE "C" NOT NULL,
    version             bigint NOT NULL,
    content_hash        bytea NOT NULL,
    deleted_at          timestamptz,
    delete_reason       text,
    reference           text COLLATE "C",
    ticket_number       text COLLATE "C",
    coupon              smallint,
    flight_id           text COLLATE "C",
    journey_origin      text COLLATE "C",
    journey_destination text COLLATE "C",
    passenger_name      text,
    passenger_email     text,
    passenger_phone     text,
    booked_at           timestamptz,
    travel_date         date,
    cabin               text COLLATE "C",
    booking_class       text COLLATE "C",
    fare_basis          text,
    seat                text,
    point_of_sale       text COLLATE "C",
    channel             text,
    price_base          numeric,
    price_taxes         numeric,
    price_total         numeric,
    currency            text COLLATE "C",
    payment_status      text COLLATE "C",
    status              text COLLATE "C",
    cancelled_at        timestamptz,
    source              text NOT NULL,
    last_event_at       timestamptz NOT NULL,
    created_at          timestamptz NOT NULL DEFAULT now(),
    updated_at          timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT bookings_pkey PRIMARY KEY (booking_id),
    CONSTRAINT bookings_version_positive CHECK (version >= 1),
    -- As for flights: a tombstone is the same row whatever came before it. It also forgets the passenger.
    CONSTRAINT bookings_whole_or_tombstone CHECK (
        CASE WHEN deleted_at IS NULL
            THEN reference IS NOT NULL AND flight_id IS NOT NULL AND booked_at IS NOT NULL
                AND cabin IS NOT NULL AND booking_class IS NOT NULL
                AND price_base IS NOT NULL AND price_taxes IS NOT NULL AND price_total IS NOT NULL
                AND currency IS NOT NULL AND payment_status IS NOT NULL AND status IS NOT NULL
                AND (cancelled_at IS NOT NULL) = (status = 'cancelled')
                AND delete_reason IS NULL
            ELSE reference IS NULL AND ticket_number IS NULL AND coupon IS NULL AND flight_id IS NULL
                AND journey_origin IS NULL AND journey_destination IS NULL
                AND passenger_name IS NULL AND passenger_email IS NULL AND passenger_phone IS NULL
                AND booked_at IS NULL AND travel_date IS NULL AND cabin IS NULL AND booking_class IS NULL
                AND fare_basis IS NULL AND seat IS NULL AND point_of_sale IS NULL AND channel IS NULL
                AND price_base IS NULL AND price_taxes IS NULL AND price_total IS NULL AND currency IS NULL
                AND payment_status IS NULL AND status IS NULL AND cancelled_at IS NULL
        END),
    -- The upper bound is what keeps NaN out: NaN is greater than every number.
    CONSTRAINT bookings_price_range CHECK (
        price_base >= 0 AND price_taxes >= 0 AND price_total < 1000000000000
        AND price_total = price_base + price_taxes),
    CONSTRAINT bookings_booked_range CHECK (
        booked_at >= '1970-01-01 00:00:00+00' AND booked_at < '2100-01-01 00:00:00+00'),
    CONSTRAINT bookings_cancelled_range CHECK (
        cancelled_at >= booked_at AND cancelled_at < '2100-01-01 00:00:00+00')
) WITH (fillfactor = 90);

-- The lowest and highest price of a flight, cabin and currency are its first and last entry, so they
-- are never stored; also finds the active bookings of a flight.
CREATE INDEX bookings_active ON bookings (flight_id, cabin, currency, price_total)
    WHERE deleted_at IS NULL AND status <> 'cancelled';
-- The cancelled bookings of a flight, for the activity of its market; apart from the active ones, so
-- that cancelling the cheapest bookings leaves nothing to step over.
CREATE INDEX bookings_cancelled ON bookings (flight_id)
    WHERE deleted_at IS NULL AND status = 'cancelled';

COMMENT ON TABLE bookings IS 'The newest known state of every booking (one passenger on one flight). A row is replaced only by a higher version; a deleted booking stays as a tombstone without data. The only table with personal data.';
COMMENT ON COLUMN bookings.booking_id IS 'Opaque key given by the producer.';
COMMENT ON COLUMN bookings.version IS 'Version of the stored state, given by the producer; grows with every change.';
COMMENT ON COLUMN bookings.content_hash IS 'XXH3-128 of the contract fields: tells a repeated event from a conflicting one of the same version.';
COMMENT ON COLUMN bookings.deleted_at IS 'When the producer deleted the booking; NULL for a booking that exists.';
COMMENT ON COLUMN bookings.delete_reason IS 'Why it was deleted, if the producer said so.';
COMMENT ON COLUMN bookings.reference IS 'Record locator; not unique, re-used by airlines.';
COMMENT ON COLUMN bookings.ticket_number IS 'Ticket number, 13 digits, once ticketed.';
COMMENT ON COLUMN bookings.coupon IS 'Coupon of the ticket, 1 to 4.';
COMMENT ON COLUMN bookings.flight_id IS 'Key of the flight; the flight may not be known yet, so no foreign key.';
COMMENT ON COLUMN bookings.journey_origin IS 'IATA code where the whole trip begins, if known.';
COMMENT ON COLUMN bookings.journey_destination IS 'IATA code where the whole trip ends, if known.';
COMMENT ON COLUMN bookings.passenger_name IS 'Personal data: name of the passenger.';
COMMENT ON COLUMN bookings.passenger_email IS 'Personal data: e-mail address of the passenger.';
COMMENT ON COLUMN bookings.passenger_phone IS 'Personal data: telephone number of the passenger.';
COMMENT ON COLUMN bookings.booked_at IS 'When the booking was made.';
COMMENT ON COLUMN bookings.travel_date IS 'Date of travel as ticketed; informative.';
COMMENT ON COLUMN bookings.cabin IS 'F first, C business, W premium economy, Y economy.';
COMMENT ON COLUMN bookings.booking_class IS 'Booking class (RBD), a capital letter; the cabin is never inferred from it.';
COMMENT ON COLUMN bookings.fare_basis IS 'Fare basis code.';
COMMENT ON COLUMN bookings.seat IS 'Assigned seat.';
COMMENT ON COLUMN bookings.point_of_sale IS 'ISO 3166 alpha-2 country of sale.';
COMMENT ON COLUMN bookings.channel IS 'Sales channel as published.';
COMMENT ON COLUMN bookings.price_base IS 'Base fare, in currency.';
COMMENT ON COLUMN bookings.price_taxes IS 'Taxes and fees, in currency.';
COMMENT ON COLUMN bookings.price_total IS 'Base fare plus taxes, in currency.';
COMMENT ON COLUMN bookings.currency IS 'ISO 4217 code of the three prices.';
COMMENT ON COLUMN bookings.payment_status IS 'pending, paid, refunded or cancelled.';
COMMENT ON COLUMN bookings.status IS 'confirmed, cancelled, used or no_show.';
COMMENT ON COLUMN bookings.cancelled_at IS 'When it was cancelled; present exactly when status is cancelled.';
COMMENT ON COLUMN bookings.source IS 'CloudEvents source of the event that this state came with.';
COMMENT ON COLUMN bookings.last_event_at IS 'CloudEvents time of the event that this state came with.';
COMMENT ON COLUMN bookings.created_at IS 'When the row was first written.';
COMMENT ON COLUMN bookings.updated_at IS 'When the row was last written.';

CREATE TABLE flight_demand (
    flight_id          text COLLATE "C" NOT NULL,
    cabin              text COLLATE "C" NOT NULL,
    currency           text COLLATE "C" NOT NULL,
    gross_booking_count bigint NOT NULL,
    booking_count      bigint NOT NULL,
    cancellation_count bigint NOT NULL,
    used_count         bigint NOT NULL,
    no_show_count      bigint NOT NULL,
    total_revenue      numeric NOT NULL,
    base_revenue       numeric NOT NULL,
    last_event_at      timestamptz NOT NULL,
    updated_at         timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT flight_demand_pkey PRIMARY KEY (flight_id, cabin, currency),
    -- Holds for changes as well as for sums: the row that an upsert proposes is a change, with any sign.
    CONSTRAINT flight_demand_balances CHECK (gross_booking_count = booking_count + cancellation_count)
) WITH (fillfactor = 70);

COMMENT ON TABLE flight_demand IS 'The stored part of MarketData: what the not-deleted bookings of a flight add up to, by cabin and currency. Keyed by what a booking names itself, so neither a flight that moves nor a booking that comes before its flight changes a row here. No row for nothing.';
COMMENT ON COLUMN flight_demand.flight_id IS 'Key of the flight, known or not.';
COMMENT ON COLUMN flight_demand.cabin IS 'Cabin letter.';
COMMENT ON COLUMN flight_demand.currency IS 'ISO 4217 currency.';
COMMENT ON COLUMN flight_demand.gross_booking_count IS 'All not-deleted bookings.';
COMMENT ON COLUMN flight_demand.booking_count IS 'Bookings that are not cancelled.';
COMMENT ON COLUMN flight_demand.cancellation_count IS 'Cancelled bookings.';
COMMENT ON COLUMN flight_demand.used_count IS 'Bookings with status used.';
COMMENT ON COLUMN flight_demand.no_show_count IS 'Bookings with status no_show.';
COMMENT ON COLUMN flight_demand.total_revenue IS 'Sum of price_total over booking_count.';
COMMENT ON COLUMN flight_demand.base_revenue IS 'Sum of price_base over booking_count.';
COMMENT ON COLUMN flight_demand.last_event_at IS 'Newest CloudEvents time that changed this row; a freshness mark.';
COMMENT ON COLUMN flight_demand.updated_at IS 'When this row was last written; a freshness mark.';
