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
