-- Airports are changed under READ COMMITTED only: under a longer isolation level the flights that others commit meanwhile
-- would keep the old date. And some comments say more exactly what they are about.

CREATE OR REPLACE FUNCTION airports_date_their_flights() RETURNS trigger
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

COMMENT ON TABLE bookings IS 'The newest known state of every booking (one passenger on one flight). A row is replaced only by a higher version; a deleted booking stays as a tombstone without data. Holds personal data, as the bodies of quarantined_events may.';
COMMENT ON COLUMN market_data.last_event_at IS 'Newest event time among the flights and bookings that make up this row now: a freshness mark, which goes back when one of them leaves.';
COMMENT ON COLUMN market_data.updated_at IS 'When the newest of the flights and sums that make up this row now was written: a freshness mark, which goes back when one of them leaves, so not for incremental loads.';
COMMENT ON COLUMN pending_bookings.created_at IS 'When the booking was first stored.';
