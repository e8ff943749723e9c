-- The desired schema: what all revisions together build, whole and in one place.
--
-- Edit this file to say what you want; `paxflow db migrate create -m MESSAGE --autogenerate` compares
-- it with what the revisions build and writes the next revision. A test holds the two together.
-- Objects stand in the order in which they need each other; the rows of `airports` are loaded by the
-- program from reference/airports.csv.

-- Reference data that MarketData depends on: which local date a departure falls on is decided by
-- the time zone of its origin airport.

CREATE TABLE airports (
    iata_code    text COLLATE "C" NOT NULL,
    icao_code    text,
    name         text NOT NULL,
    city         text,
    subdivision  text,
    country      text,
    elevation_ft integer,
    latitude     double precision,
    longitude    double precision,
    timezone     text,
    CONSTRAINT airports_pkey PRIMARY KEY (iata_code),
    CONSTRAINT airports_iata_code_form CHECK (iata_code ~ '^[A-Z]{3}$')
);

COMMENT ON TABLE airports IS 'Every airport with an IATA code; origin and destination of flights refer to it by code, unknown codes are allowed there. Source: airportsdata (MIT).';
COMMENT ON COLUMN airports.iata_code IS 'IATA airport code, three capital letters; the key.';
COMMENT ON COLUMN airports.icao_code IS 'ICAO airport code, if it has one.';
COMMENT ON COLUMN airports.name IS 'Name of the airport.';
COMMENT ON COLUMN airports.city IS 'City it serves.';
COMMENT ON COLUMN airports.subdivision IS 'State, province or region.';
COMMENT ON COLUMN airports.country IS 'ISO 3166 alpha-2 country code.';
COMMENT ON COLUMN airports.elevation_ft IS 'Elevation above mean sea level, in feet.';
COMMENT ON COLUMN airports.latitude IS 'Latitude in degrees, north positive.';
COMMENT ON COLUMN airports.longitude IS 'Longitude in degrees, east positive.';
COMMENT ON COLUMN airports.timezone IS 'IANA time zone; NULL where unknown: departures then count on their UTC date and MarketData says is_estimated.';

CREATE TABLE reference_data (
    name      text NOT NULL,
    checksum  text NOT NULL,
    row_count bigint NOT NULL,
    loaded_at timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT reference_data_pkey PRIMARY KEY (name)
);

COMMENT ON TABLE reference_data IS 'Which edition of each shipped data set is loaded, so that a boot loads it once.';
COMMENT ON COLUMN reference_data.name IS 'Name of the data set: airports.';
COMMENT ON COLUMN reference_data.checksum IS 'Hash of the shipped file.';
COMMENT ON COLUMN reference_data.row_count IS 'Rows in the shipped file.';
COMMENT ON COLUMN reference_data.loaded_at IS 'When this edition was loaded.';

-- The newest known state of every flight: one operating leg on one day.

CREATE FUNCTION local_date(at timestamptz, zone text) RETURNS date
    LANGUAGE sql STABLE
    AS $$ SELECT (at AT TIME ZONE coalesce(zone, 'UTC'))::date $$;

COMMENT ON FUNCTION local_date(timestamptz, text) IS 'The calendar date of an instant on the clock of an IANA time zone; the UTC date where the zone is NULL.';

CREATE TABLE flights (
    flight_id             text COLLATE "C" NOT NULL,
    version               bigint NOT NULL,
    content_hash          bytea NOT NULL,
    deleted_at            timestamptz,
    delete_reason         text,
    airline               text COLLATE "C",
    flight_number         text COLLATE "C",
    suffix                text COLLATE "C",
    origin                text COLLATE "C",
    destination           text COLLATE "C",
    scheduled_departure   timestamptz,
    scheduled_arrival     timestamptz,
    estimated_departure   timestamptz,
    actual_departure      timestamptz,
    actual_arrival        timestamptz,
    aircraft_type         text,
    aircraft_registration text,
    capacity_total        integer,
    capacity_by_cabin     jsonb,
    status                text COLLATE "C",
    data_date             date,
    time_zone_known       boolean,
    source                text NOT NULL,
    last_event_at         timestamptz NOT NULL,
    created_at            timestamptz NOT NULL DEFAULT now(),
    updated_at            timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT flights_pkey PRIMARY KEY (flight_id),
    CONSTRAINT flights_version_positive CHECK (version >= 1),
    -- A tombstone keeps its key, version and date and nothing else, so that it is the same row
    -- whether the flight's last state arrived before it, after it or never.
    CONSTRAINT flights_whole_or_tombstone CHECK (
        CASE WHEN deleted_at IS NULL
            THEN airline IS NOT NULL AND flight_number IS NOT NULL
                AND origin IS NOT NULL AND destination IS NOT NULL
                AND scheduled_departure IS NOT NULL AND scheduled_arrival IS NOT NULL
                AND status IS NOT NULL AND data_date IS NOT NULL AND time_zone_known IS NOT NULL
                AND delete_reason IS NULL
            ELSE airline IS NULL AND flight_number IS NULL AND suffix IS NULL
                AND origin IS NULL AND destination IS NULL
                AND scheduled_departure IS NULL AND scheduled_arrival IS NULL
                AND estimated_departure IS NULL AND actual_departure IS NULL AND actual_arrival IS NULL
                AND aircraft_type IS NULL AND aircraft_registration IS NULL
                AND capacity_total IS NULL AND capacity_by_cabin IS NULL
                AND status IS NULL AND data_date IS NULL AND time_zone_known IS NULL
        END),
    CONSTRAINT flights_capacity_range CHECK (capacity_total BETWEEN 1 AND 1000),
    -- Rejects infinity as well, which a client could not read back.
    CONSTRAINT flights_departure_range CHECK (
        scheduled_departure >= '1970-01-01 00:00:00+00' AND scheduled_departure < '2100-01-01 00:00:00+00')
) WITH (fillfactor = 90);

-- One market-day by key, and the flights of one origin when its time zone changes.
CREATE INDEX flights_market ON flights (origin, destination, data_date) WHERE deleted_at IS NULL;
-- All markets of a range of dates.
CREATE INDEX flights_data_date ON flights (data_date) WHERE deleted_at IS NULL;

COMMENT ON TABLE flights IS 'The newest known state of every flight (one operating leg on one day). A row is replaced only by a higher version; a deleted flight stays as a tombstone without data.';
COMMENT ON COLUMN flights.flight_id IS 'Opaque key given by the producer.';
COMMENT ON COLUMN flights.version IS 'Version of the stored state, given by the producer; grows with every change.';
COMMENT ON COLUMN flights.content_hash IS 'XXH3-128 of the contract fields: tells a repeated event from a conflicting one of the same version.';
COMMENT ON COLUMN flights.deleted_at IS 'When the producer deleted the flight; NULL for a flight that exists.';
COMMENT ON COLUMN flights.delete_reason IS 'Why it was deleted, if the producer said so.';
COMMENT ON COLUMN flights.airline IS 'IATA designator of the operating airline.';
COMMENT ON COLUMN flights.flight_number IS 'Flight number, 1 to 4 digits without leading zeros.';
COMMENT ON COLUMN flights.suffix IS 'Operational suffix letter, if any.';
COMMENT ON COLUMN flights.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN flights.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN flights.scheduled_departure IS 'Scheduled departure.';
COMMENT ON COLUMN flights.scheduled_arrival IS 'Scheduled arrival.';
COMMENT ON COLUMN flights.estimated_departure IS 'Estimated departure, if published.';
COMMENT ON COLUMN flights.actual_departure IS 'Actual departure, once departed.';
COMMENT ON COLUMN flights.actual_arrival IS 'Actual arrival, once arrived.';
COMMENT ON COLUMN flights.aircraft_type IS 'Aircraft type as published.';
COMMENT ON COLUMN flights.aircraft_registration IS 'Aircraft registration (tail number) as published.';
COMMENT ON COLUMN flights.capacity_total IS 'Seats for sale; NULL where the producer does not say.';
COMMENT ON COLUMN flights.capacity_by_cabin IS 'Seats by cabin letter (F, C, W, Y), adding up to capacity_total; NULL where the producer does not say.';
COMMENT ON COLUMN flights.status IS 'scheduled, delayed, boarding, departed, arrived, cancelled or diverted.';
COMMENT ON COLUMN flights.data_date IS 'Local departure date: scheduled_departure on the clock of the origin airport; the UTC date where its time zone is unknown.';
COMMENT ON COLUMN flights.time_zone_known IS 'Whether the time zone of the origin airport is known, i.e. data_date is a local date.';
COMMENT ON COLUMN flights.source IS 'CloudEvents source of the event that this state came with.';
COMMENT ON COLUMN flights.last_event_at IS 'CloudEvents time of the event that this state came with.';
COMMENT ON COLUMN flights.created_at IS 'When the row was first written.';
COMMENT ON COLUMN flights.updated_at IS 'When the row was last written.';

-- data_date is a function of flights and airports; when an airport's time zone changes, its flights
-- follow in the same transaction. The table lock makes the twin safe: a worker that read the old
-- zone commits before the UPDATE below takes its snapshot, and one that comes later reads the new.
CREATE FUNCTION airports_date_their_flights() RETURNS trigger
    LANGUAGE plpgsql
    AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.iata_code = NEW.iata_code AND OLD.timezone IS NOT DISTINCT FROM NEW.timezone THEN
        RETURN NULL;
    END IF;
    -- The snapshot of a longer isolation level lacks the flights that others have committed since.
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE feature_not_supported USING
            MESSAGE = 'airports are changed under READ COMMITTED, so that none of their flights is missed',
            HINT = 'SET TRANSACTION ISOLATION LEVEL READ COMMITTED';
    END IF;
    LOCK TABLE flights IN SHARE ROW EXCLUSIVE MODE;
    IF TG_OP <> 'INSERT' THEN
        UPDATE flights
        SET data_date = local_date(scheduled_departure, NULL), time_zone_known = false, updated_at = now()
        WHERE origin = OLD.iata_code AND deleted_at IS NULL;
    END IF;
    IF TG_OP <> 'DELETE' THEN
        UPDATE flights
        SET data_date = local_date(scheduled_departure, NEW.timezone), time_zone_known = NEW.timezone IS NOT NULL, updated_at = now()
        WHERE origin = NEW.iata_code AND deleted_at IS NULL;
    END IF;
    RETURN NULL;
END
$$;

COMMENT ON FUNCTION airports_date_their_flights() IS 'Keeps flights.data_date equal to its definition when an airport or its time zone changes.';

CREATE TRIGGER airports_date_their_flights
    AFTER INSERT OR UPDATE OR DELETE ON airports
    FOR EACH ROW EXECUTE FUNCTION airports_date_their_flights();

COMMENT ON TRIGGER airports_date_their_flights ON airports IS 'Moves the flights of an airport to other dates when its time zone changes.';

-- The newest known state of every booking: one passenger on one flight. The only place of personal data,
-- but for bodies that were set aside (quarantined_events).

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

-- The bookings of a flight. Neither price nor status stands in it: what changes nothing else writes no index (HOT).
CREATE INDEX bookings_flight ON bookings (flight_id, cabin, currency);

COMMENT ON TABLE bookings IS 'The newest known state of every booking (one passenger on one flight). A row is replaced only by a higher version; a deleted booking stays as a tombstone without data. Holds personal data, as the bodies of quarantined_events may.';
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

-- MarketData: what analysts read. Every relation is a view, so a reader sees one snapshot of flights,
-- bookings and flight_demand and never a market half moved.
--
-- A market is a directional pair of airports on a local departure date: (origin, destination, data_date).
-- An operating flight is neither deleted nor cancelled; an active booking is a booking of an operating
-- flight that is neither deleted nor cancelled itself.

CREATE VIEW market_data AS
WITH flight AS (
    SELECT f.origin, f.destination, f.data_date, f.flight_id,
           f.status <> 'cancelled' AS operating,
           f.capacity_total AS capacity,
           f.time_zone_known,
           coalesce(sum(d.booking_count), 0) AS active,
           coalesce(sum(d.gross_booking_count), 0) AS gross,
           coalesce(sum(d.cancellation_count), 0) AS cancelled,
           coalesce(sum(d.used_count), 0) AS used,
           coalesce(sum(d.no_show_count), 0) AS no_show,
           greatest(f.last_event_at, max(d.last_event_at)) AS last_event_at,
           greatest(f.updated_at, max(d.updated_at)) AS updated_at
    FROM flights f
    LEFT JOIN flight_demand d ON d.flight_id = f.flight_id AND f.status <> 'cancelled'
    WHERE f.deleted_at IS NULL
    GROUP BY f.origin, f.destination, f.data_date, f.flight_id
),
market AS (
    SELECT origin, destination, data_date,
           count(*) FILTER (WHERE operating) AS flight_count,
           count(*) FILTER (WHERE NOT operating) AS cancelled_flight_count,
           count(*) FILTER (WHERE operating AND capacity IS NULL) AS unknown_capacity_count,
           coalesce(sum(capacity) FILTER (WHERE operating), 0) AS known_capacity,
           coalesce(sum(greatest(capacity - active, 0)) FILTER (WHERE operating AND capacity IS NOT NULL), 0) AS known_available,
           sum(active)::bigint AS booking_count,
           sum(gross)::bigint AS gross_booking_count,
           sum(cancelled)::bigint AS cancellation_count,
           sum(used)::bigint AS used_count,
           sum(no_show)::bigint AS no_show_count,
           count(*) FILTER (WHERE operating AND active >= capacity) AS closed_flight_count,
           bool_or(NOT time_zone_known) AS time_zone_unknown,
           max(last_event_at) AS last_event_at,
           max(updated_at) AS updated_at
    FROM flight
    GROUP BY origin, destination, data_date
)
SELECT origin, destination, data_date,
       flight_count,
       cancelled_flight_count,
       CASE WHEN unknown_capacity_count = 0 THEN known_capacity::bigint END AS seat_capacity,
       booking_count,
       gross_booking_count,
       cancellation_count,
       used_count,
       no_show_count,
       CASE WHEN unknown_capacity_count = 0 THEN known_available::bigint END AS available_seats,
       closed_flight_count,
       -- Capped where numeric(6,4) ends: one absurd flight must not fail everybody's query.
       CASE WHEN unknown_capacity_count = 0 AND known_capacity > 0
           THEN least(booking_count::numeric / known_capacity, 99.9999)
       END::numeric(6, 4) AS load_factor,
       unknown_capacity_count > 0 OR time_zone_unknown AS is_estimated,
       last_event_at,
       updated_at
FROM market;

COMMENT ON VIEW market_data IS 'One row per (origin, destination, data_date) that has a not-deleted flight, cancelled ones included.';
COMMENT ON COLUMN market_data.origin IS 'IATA code of the origin airport of the flights.';
COMMENT ON COLUMN market_data.destination IS 'IATA code of their destination airport.';
COMMENT ON COLUMN market_data.data_date IS 'Local departure date at the origin airport; the UTC date where its time zone is unknown (see is_estimated).';
COMMENT ON COLUMN market_data.flight_count IS 'Operating flights: neither deleted nor cancelled.';
COMMENT ON COLUMN market_data.cancelled_flight_count IS 'Cancelled flights.';
COMMENT ON COLUMN market_data.seat_capacity IS 'Seats of the operating flights; NULL if the capacity of any of them is unknown, 0 if there is none.';
COMMENT ON COLUMN market_data.booking_count IS 'Active bookings: passengers boarded or to board on this segment, and those who did not show up; who is known to have flown is used_count.';
COMMENT ON COLUMN market_data.gross_booking_count IS 'All not-deleted bookings of operating flights.';
COMMENT ON COLUMN market_data.cancellation_count IS 'The cancelled ones among gross_booking_count.';
COMMENT ON COLUMN market_data.used_count IS 'Active bookings with status used.';
COMMENT ON COLUMN market_data.no_show_count IS 'Active bookings with status no_show.';
COMMENT ON COLUMN market_data.available_seats IS 'Sum over operating flights of max(capacity - active bookings of that flight, 0); NULL if any capacity is unknown.';
COMMENT ON COLUMN market_data.closed_flight_count IS 'Operating flights of known capacity with at least as many active bookings as seats: demand there is censored.';
COMMENT ON COLUMN market_data.load_factor IS 'booking_count / seat_capacity, four decimals; may exceed 1 and is capped at 99.9999; NULL if seat_capacity is NULL or 0.';
COMMENT ON COLUMN market_data.is_estimated IS 'True if the capacity of an operating flight is unknown, or the time zone of the origin is.';
COMMENT ON COLUMN market_data.last_event_at IS 'Newest time of the events about the flights that make up this row now, and of those about the bookings of operating flights that changed a figure, deleted ones included: a freshness mark, which goes back when a flight, or the last booking of a cabin and currency, leaves.';
COMMENT ON COLUMN market_data.updated_at IS 'When the newest of the flights and sums that make up this row now was written: a freshness mark, which goes back when one of them leaves, so not for incremental loads.';

CREATE VIEW market_fares AS
SELECT f.origin, f.destination, f.data_date, d.cabin, d.currency,
       sum(d.booking_count)::bigint AS booking_count,
       sum(d.total_revenue) AS total_revenue,
       sum(d.base_revenue) AS base_revenue,
       sum(d.total_revenue) / sum(d.booking_count) AS average_price,
       min(fare.lowest) AS min_price,
       max(fare.highest) AS max_price,
       sum(d.base_revenue) / sum(d.booking_count) AS average_base_fare
FROM flights f
JOIN flight_demand d ON d.flight_id = f.flight_id
-- Looked up among the bookings of the flight, both in one look, and only if the query reads one of them: a left join of
-- a single row that nobody reads is left out.
LEFT JOIN LATERAL (
    SELECT min(b.price_total) AS lowest, max(b.price_total) AS highest
    FROM bookings b
    WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency AND b.status <> 'cancelled'
) fare ON true
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND d.booking_count > 0
GROUP BY f.origin, f.destination, f.data_date, d.cabin, d.currency;

COMMENT ON VIEW market_fares IS 'One row per (origin, destination, data_date, cabin, currency) with an active booking. Money is never added across currencies.';
COMMENT ON COLUMN market_fares.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_fares.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_fares.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_fares.cabin IS 'F first, C business, W premium economy, Y economy.';
COMMENT ON COLUMN market_fares.currency IS 'ISO 4217 code of every amount in the row.';
COMMENT ON COLUMN market_fares.booking_count IS 'Active bookings.';
COMMENT ON COLUMN market_fares.total_revenue IS 'Sum of their total prices.';
COMMENT ON COLUMN market_fares.base_revenue IS 'Sum of their base fares.';
COMMENT ON COLUMN market_fares.average_price IS 'total_revenue / booking_count.';
COMMENT ON COLUMN market_fares.min_price IS 'Lowest total price among them.';
COMMENT ON COLUMN market_fares.max_price IS 'Highest total price among them.';
COMMENT ON COLUMN market_fares.average_base_fare IS 'base_revenue / booking_count.';

CREATE VIEW market_activity AS
SELECT f.origin, f.destination, f.data_date, (happened.at AT TIME ZONE 'UTC')::date AS activity_date,
       b.cabin, b.currency,
       sum(happened.gross) AS gross_bookings,
       sum(happened.cancelled) AS cancellations,
       sum(happened.gross_revenue) AS gross_revenue,
       sum(happened.cancelled_revenue) AS cancelled_revenue
FROM flights f
JOIN bookings b ON b.flight_id = f.flight_id
-- What a booking did, so that the bookings of the market are read once.
CROSS JOIN LATERAL (VALUES
    (b.booked_at, 1, 0, b.price_total, 0::numeric),
    (b.cancelled_at, 0, 1, 0::numeric, b.price_total)
) AS happened (at, gross, cancelled, gross_revenue, cancelled_revenue)
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND happened.at IS NOT NULL
GROUP BY f.origin, f.destination, f.data_date, activity_date, b.cabin, b.currency;

COMMENT ON VIEW market_activity IS 'What happened on a UTC day, over the not-deleted bookings of operating flights: one row per (origin, destination, data_date, activity_date, cabin, currency).';
COMMENT ON COLUMN market_activity.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_activity.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_activity.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_activity.activity_date IS 'UTC date of booked_at or cancelled_at.';
COMMENT ON COLUMN market_activity.cabin IS 'Cabin letter.';
COMMENT ON COLUMN market_activity.currency IS 'ISO 4217 code of the amounts.';
COMMENT ON COLUMN market_activity.gross_bookings IS 'Bookings made on that day, cancelled since or not.';
COMMENT ON COLUMN market_activity.cancellations IS 'Bookings cancelled on that day.';
COMMENT ON COLUMN market_activity.gross_revenue IS 'Total price of gross_bookings.';
COMMENT ON COLUMN market_activity.cancelled_revenue IS 'Total price of cancellations.';

CREATE VIEW market_data_history AS
WITH day AS (
    SELECT origin, destination, data_date, activity_date, currency,
           sum(gross_bookings - cancellations) AS net_bookings,
           sum(gross_revenue - cancelled_revenue) AS net_revenue
    FROM market_activity
    GROUP BY origin, destination, data_date, activity_date, currency
),
-- How the market stood at the end of the day, and at the end of the day 1, 7 and 30 days earlier,
-- whether or not anything happened on that earlier day.
standing AS (
    SELECT origin, destination, data_date, activity_date, currency,
           sum(net_bookings) OVER w AS bookings,
           sum(net_revenue) OVER w AS revenue,
           sum(net_bookings) OVER w1 AS bookings_1d,
           sum(net_bookings) OVER w7 AS bookings_7d,
           sum(net_revenue) OVER w7 AS revenue_7d,
           sum(net_bookings) OVER w30 AS bookings_30d,
           sum(net_revenue) OVER w30 AS revenue_30d
    FROM day
    WINDOW w AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                 RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
           w1 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                  RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '1 day' PRECEDING),
           w7 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                  RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '7 days' PRECEDING),
           w30 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                   RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '30 days' PRECEDING)
),
priced AS (
    SELECT origin, destination, data_date, activity_date, currency, bookings,
           bookings - coalesce(bookings_1d, 0) AS pickup_1d,
           bookings - coalesce(bookings_7d, 0) AS pickup_7d,
           revenue / nullif(bookings, 0) AS price,
           revenue_7d / nullif(bookings_7d, 0) AS price_7d,
           revenue_30d / nullif(bookings_30d, 0) AS price_30d
    FROM standing
)
SELECT origin, destination, data_date,
       activity_date AS collection_date,
       currency,
       bookings::bigint AS booking_count,
       price AS average_price,
       pickup_1d::bigint AS pickup_1d,
       pickup_7d::bigint AS pickup_7d,
       100 * (price / nullif(price_7d, 0) - 1) AS price_change_7d,
       100 * (price / nullif(price_30d, 0) - 1) AS price_change_30d
FROM priced;

COMMENT ON VIEW market_data_history IS 'The market as it stood at the end of each UTC day with activity, as far as today''s rows tell: one row per (origin, destination, data_date, collection_date, currency) of operating flights.';
COMMENT ON COLUMN market_data_history.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_data_history.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_data_history.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_data_history.collection_date IS 'The UTC day at whose end the market stood so.';
COMMENT ON COLUMN market_data_history.currency IS 'ISO 4217 code.';
COMMENT ON COLUMN market_data_history.booking_count IS 'Bookings made and not cancelled by then.';
COMMENT ON COLUMN market_data_history.average_price IS 'Their average total price; NULL if there are none.';
COMMENT ON COLUMN market_data_history.pickup_1d IS 'Net bookings gained since the end of the day before.';
COMMENT ON COLUMN market_data_history.pickup_7d IS 'Net bookings gained since the end of the day 7 days earlier.';
COMMENT ON COLUMN market_data_history.price_change_7d IS '100 * (average_price / the one 7 days earlier - 1); NULL if either is missing or the earlier one is 0.';
COMMENT ON COLUMN market_data_history.price_change_30d IS '100 * (average_price / the one 30 days earlier - 1); NULL if either is missing or the earlier one is 0.';

CREATE VIEW booking_curve AS
WITH curve AS (
    -- One row for each curve, with the days of its bookings in arrays, so that the bookings of the market are read once.
    SELECT f.origin, f.destination, f.data_date, b.cabin,
           -- What happened earlier than a year before departure stands at day 365 already.
           array_agg(least(f.data_date - (b.booked_at AT TIME ZONE 'UTC')::date, 365)) AS booked,
           array_agg(least(f.data_date - (b.cancelled_at AT TIME ZONE 'UTC')::date, 365))
               FILTER (WHERE b.cancelled_at IS NOT NULL) AS cancelled
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    GROUP BY f.origin, f.destination, f.data_date, b.cabin
)
SELECT c.origin, c.destination, c.data_date, c.cabin, d.days_before_departure,
       d.gross_bookings - d.cancellations AS bookings_on_hand,
       d.gross_bookings,
       d.cancellations
FROM curve c
CROSS JOIN LATERAL (
    -- Each day counts, then all days from it on. Counted as integers: a sum of bigint is a numeric, and slower.
    SELECT days AS days_before_departure,
           sum(sum(gross)::integer) OVER w AS gross_bookings,
           sum(sum(cancelled)::integer) OVER w AS cancellations
    FROM (
        SELECT day, 0, 0 FROM generate_series(0, 365) AS day
        UNION ALL
        SELECT day, 1, 0 FROM unnest(c.booked) AS day
        UNION ALL
        SELECT day, 0, 1 FROM unnest(c.cancelled) AS day
    ) AS change (days, gross, cancelled)
    -- What happened after that day is on no curve.
    WHERE days >= 0
    GROUP BY days
    WINDOW w AS (ORDER BY days DESC ROWS UNBOUNDED PRECEDING)
) d;

COMMENT ON VIEW booking_curve IS 'Bookings on hand by days before departure: 366 rows for each (origin, destination, data_date, cabin) with a booking of an operating flight. Days are UTC days and data_date is a local one, so the last hours before a departure may lie behind day 0, or the first ones after it within.';
COMMENT ON COLUMN booking_curve.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN booking_curve.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN booking_curve.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN booking_curve.cabin IS 'Cabin letter.';
COMMENT ON COLUMN booking_curve.days_before_departure IS '0 to 365: data_date minus the UTC day at whose end the bookings are counted.';
COMMENT ON COLUMN booking_curve.bookings_on_hand IS 'Bookings made and not cancelled by then.';
COMMENT ON COLUMN booking_curve.gross_bookings IS 'Bookings made by then.';
COMMENT ON COLUMN booking_curve.cancellations IS 'Bookings cancelled by then.';

CREATE VIEW market_capacity_by_cabin AS
SELECT f.origin, f.destination, f.data_date, c.cabin,
       count(*) AS flight_count,
       sum(c.seats::integer) AS seat_capacity
FROM flights f
CROSS JOIN LATERAL jsonb_each_text(f.capacity_by_cabin) AS c (cabin, seats)
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
GROUP BY f.origin, f.destination, f.data_date, c.cabin;

COMMENT ON VIEW market_capacity_by_cabin IS 'Seats by cabin over the operating flights that say it: one row per (origin, destination, data_date, cabin).';
COMMENT ON COLUMN market_capacity_by_cabin.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_capacity_by_cabin.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_capacity_by_cabin.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_capacity_by_cabin.cabin IS 'Cabin letter.';
COMMENT ON COLUMN market_capacity_by_cabin.flight_count IS 'Operating flights that say how many seats this cabin has.';
COMMENT ON COLUMN market_capacity_by_cabin.seat_capacity IS 'Their seats in this cabin.';

CREATE VIEW pending_bookings AS
SELECT b.booking_id, b.version, b.flight_id, b.booked_at, b.cabin, b.currency, b.status,
       b.source, b.last_event_at, b.created_at
FROM bookings b
WHERE b.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM flights f WHERE f.flight_id = b.flight_id);

COMMENT ON VIEW pending_bookings IS 'Not-deleted bookings whose flight has never been seen (a deleted flight has); they count in no market yet.';
COMMENT ON COLUMN pending_bookings.booking_id IS 'Key of the booking.';
COMMENT ON COLUMN pending_bookings.version IS 'Its version.';
COMMENT ON COLUMN pending_bookings.flight_id IS 'The flight it waits for.';
COMMENT ON COLUMN pending_bookings.booked_at IS 'When the booking was made.';
COMMENT ON COLUMN pending_bookings.cabin IS 'Cabin letter.';
COMMENT ON COLUMN pending_bookings.currency IS 'ISO 4217 code of its price.';
COMMENT ON COLUMN pending_bookings.status IS 'confirmed, cancelled, used or no_show.';
COMMENT ON COLUMN pending_bookings.source IS 'Producer it came from.';
COMMENT ON COLUMN pending_bookings.last_event_at IS 'Time of the event it came with.';
COMMENT ON COLUMN pending_bookings.created_at IS 'When the booking was first stored.';

-- What operators need: the events set aside, what every worker has committed, and what verify found.

CREATE TABLE quarantined_events (
    id                bigint GENERATED ALWAYS AS IDENTITY,
    reason            text NOT NULL,
    path              text NOT NULL,
    detail            text NOT NULL,
    exchange          text NOT NULL,
    routing_key       text NOT NULL,
    content_type      text,
    content_encoding  text,
    message_id        text,
    headers           jsonb NOT NULL,
    body              bytea NOT NULL,
    sqlstate          text,
    contract_version  text NOT NULL,
    first_received_at timestamptz NOT NULL DEFAULT now(),
    last_received_at  timestamptz NOT NULL DEFAULT now(),
    times_received    bigint NOT NULL DEFAULT 1,
    state             text NOT NULL DEFAULT 'open',
    state_reason      text,
    state_changed_at  timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT quarantined_events_pkey PRIMARY KEY (id),
    CONSTRAINT quarantined_events_state CHECK (state IN ('open', 'replayed', 'discarded'))
);

-- The same body for the same reason is one row. Hashed, since a body may be larger than an index entry.
CREATE UNIQUE INDEX quarantined_events_reason_body ON quarantined_events (reason, sha256(body));

COMMENT ON TABLE quarantined_events IS 'Events set aside because they break a rule of the contract: nothing is lost, each can be looked at and replayed. May hold personal data inside body.';
COMMENT ON COLUMN quarantined_events.id IS 'Number to name it by.';
COMMENT ON COLUMN quarantined_events.reason IS 'Reason code of the broken rule.';
COMMENT ON COLUMN quarantined_events.path IS 'JSON path of the offending place in the body.';
COMMENT ON COLUMN quarantined_events.detail IS 'What the contract expects there; never the offending value.';
COMMENT ON COLUMN quarantined_events.exchange IS 'Exchange it was published to.';
COMMENT ON COLUMN quarantined_events.routing_key IS 'Routing key it was published with.';
COMMENT ON COLUMN quarantined_events.content_type IS 'AMQP content_type, if set.';
COMMENT ON COLUMN quarantined_events.content_encoding IS 'AMQP content_encoding, if set.';
COMMENT ON COLUMN quarantined_events.message_id IS 'AMQP message_id, if set.';
COMMENT ON COLUMN quarantined_events.headers IS 'AMQP headers.';
COMMENT ON COLUMN quarantined_events.body IS 'The body exactly as received.';
COMMENT ON COLUMN quarantined_events.sqlstate IS 'SQLSTATE, where the database refused the row.';
COMMENT ON COLUMN quarantined_events.contract_version IS 'Version of the contract it was judged by.';
COMMENT ON COLUMN quarantined_events.first_received_at IS 'When it was first received.';
COMMENT ON COLUMN quarantined_events.last_received_at IS 'When it was last received.';
COMMENT ON COLUMN quarantined_events.times_received IS 'How often it was received.';
COMMENT ON COLUMN quarantined_events.state IS 'open, replayed or discarded.';
COMMENT ON COLUMN quarantined_events.state_reason IS 'Why it was discarded.';
COMMENT ON COLUMN quarantined_events.state_changed_at IS 'When state last changed.';

CREATE TABLE worker_progress (
    worker_id         text NOT NULL,
    started_at        timestamptz NOT NULL,
    last_commit_at    timestamptz NOT NULL,
    last_event_at     timestamptz,
    received          bigint NOT NULL,
    applied           bigint NOT NULL,
    duplicate         bigint NOT NULL,
    stale             bigint NOT NULL,
    folded            bigint NOT NULL,
    quarantined       bigint NOT NULL,
    batches           bigint NOT NULL,
    CONSTRAINT worker_progress_pkey PRIMARY KEY (worker_id),
    CONSTRAINT worker_progress_balances CHECK (received = applied + duplicate + stale + folded + quarantined)
) WITH (fillfactor = 10);

COMMENT ON TABLE worker_progress IS 'What every worker has committed, written in the same transaction as the events it counts: the verdict counts are exact over crashes.';
COMMENT ON COLUMN worker_progress.worker_id IS 'Host, process and start of the worker.';
COMMENT ON COLUMN worker_progress.started_at IS 'When the worker started.';
COMMENT ON COLUMN worker_progress.last_commit_at IS 'When its last batch was committed.';
COMMENT ON COLUMN worker_progress.last_event_at IS 'Newest CloudEvents time it has committed; of an event from the future the time of the commit.';
COMMENT ON COLUMN worker_progress.received IS 'Deliveries settled by a commit: the sum of the verdicts.';
COMMENT ON COLUMN worker_progress.applied IS 'Events that changed a row.';
COMMENT ON COLUMN worker_progress.duplicate IS 'Events whose version was stored already with the same content.';
COMMENT ON COLUMN worker_progress.stale IS 'Events of a lower version than the stored one.';
COMMENT ON COLUMN worker_progress.folded IS 'Events whose key had a newer version in the same batch.';
COMMENT ON COLUMN worker_progress.quarantined IS 'Events set aside.';
COMMENT ON COLUMN worker_progress.batches IS 'Committed batches.';

CREATE TABLE verifications (
    id             bigint GENERATED ALWAYS AS IDENTITY,
    started_at     timestamptz NOT NULL,
    finished_at    timestamptz NOT NULL DEFAULT now(),
    row_count      bigint NOT NULL,
    drift_count    bigint NOT NULL,
    repaired_count bigint NOT NULL DEFAULT 0,
    CONSTRAINT verifications_pkey PRIMARY KEY (id)
);

COMMENT ON TABLE verifications IS 'What each verify found.';
COMMENT ON COLUMN verifications.id IS 'Number of the run.';
COMMENT ON COLUMN verifications.started_at IS 'Moment of the snapshot that was verified.';
COMMENT ON COLUMN verifications.finished_at IS 'When it ended.';
COMMENT ON COLUMN verifications.row_count IS 'Rows of MarketData compared.';
COMMENT ON COLUMN verifications.drift_count IS 'Rows that differed.';
COMMENT ON COLUMN verifications.repaired_count IS 'Rows that were rebuilt.';

-- People and programs that read MarketData through an application. Secrets are stored as hashes only.

CREATE TABLE users (
    user_id       bigint GENERATED ALWAYS AS IDENTITY,
    email         text NOT NULL,
    display_name  text NOT NULL,
    password_hash text,
    role          text NOT NULL DEFAULT 'analyst',
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    disabled_at   timestamptz,
    CONSTRAINT users_pkey PRIMARY KEY (user_id),
    CONSTRAINT users_role CHECK (role IN ('analyst', 'operator', 'admin'))
);
-- One account per address, however it is capitalised.
CREATE UNIQUE INDEX users_email ON users (lower(email));

COMMENT ON TABLE users IS 'People who may sign in.';
COMMENT ON COLUMN users.user_id IS 'Key.';
COMMENT ON COLUMN users.email IS 'Address to sign in with; unique without regard to case.';
COMMENT ON COLUMN users.display_name IS 'Name to show.';
COMMENT ON COLUMN users.password_hash IS 'Argon2id hash in PHC string form; NULL for accounts without a password.';
COMMENT ON COLUMN users.role IS 'analyst, operator or admin.';
COMMENT ON COLUMN users.created_at IS 'When the account was made.';
COMMENT ON COLUMN users.updated_at IS 'When it was last changed.';
COMMENT ON COLUMN users.disabled_at IS 'Since when it may not sign in; NULL while it may.';

CREATE TABLE user_api_keys (
    api_key_id    bigint GENERATED ALWAYS AS IDENTITY,
    user_id       bigint NOT NULL,
    name          text NOT NULL,
    prefix        text NOT NULL,
    secret_sha256 bytea NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    expires_at    timestamptz,
    last_used_at  timestamptz,
    revoked_at    timestamptz,
    CONSTRAINT user_api_keys_pkey PRIMARY KEY (api_key_id),
    CONSTRAINT user_api_keys_prefix UNIQUE (prefix),
    CONSTRAINT user_api_keys_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
-- The keys of a user.
CREATE INDEX user_api_keys_user_id ON user_api_keys (user_id);

COMMENT ON TABLE user_api_keys IS 'Keys with which programs act for a user.';
COMMENT ON COLUMN user_api_keys.api_key_id IS 'Key.';
COMMENT ON COLUMN user_api_keys.user_id IS 'Whose key it is.';
COMMENT ON COLUMN user_api_keys.name IS 'What the user calls it.';
COMMENT ON COLUMN user_api_keys.prefix IS 'Public part, to find the key by.';
COMMENT ON COLUMN user_api_keys.secret_sha256 IS 'SHA-256 of the secret part.';
COMMENT ON COLUMN user_api_keys.created_at IS 'When it was made.';
COMMENT ON COLUMN user_api_keys.expires_at IS 'When it ends; NULL for never.';
COMMENT ON COLUMN user_api_keys.last_used_at IS 'When it was last used.';
COMMENT ON COLUMN user_api_keys.revoked_at IS 'When it was revoked; NULL while it is good.';

CREATE TABLE user_sessions (
    session_id   bigint GENERATED ALWAYS AS IDENTITY,
    user_id      bigint NOT NULL,
    token_sha256 bytea NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT now(),
    last_seen_at timestamptz NOT NULL DEFAULT now(),
    expires_at   timestamptz NOT NULL,
    revoked_at   timestamptz,
    CONSTRAINT user_sessions_pkey PRIMARY KEY (session_id),
    CONSTRAINT user_sessions_token UNIQUE (token_sha256),
    CONSTRAINT user_sessions_user FOREIGN KEY (user_id) REFERENCES users (user_id) ON DELETE CASCADE
);
-- The sessions of a user.
CREATE INDEX user_sessions_user_id ON user_sessions (user_id);

COMMENT ON TABLE user_sessions IS 'Signed-in sessions.';
COMMENT ON COLUMN user_sessions.session_id IS 'Key.';
COMMENT ON COLUMN user_sessions.user_id IS 'Who is signed in.';
COMMENT ON COLUMN user_sessions.token_sha256 IS 'SHA-256 of the session token.';
COMMENT ON COLUMN user_sessions.created_at IS 'When it began.';
COMMENT ON COLUMN user_sessions.last_seen_at IS 'When it was last used.';
COMMENT ON COLUMN user_sessions.expires_at IS 'When it ends by itself.';
COMMENT ON COLUMN user_sessions.revoked_at IS 'When it was ended; NULL while it is good.';
