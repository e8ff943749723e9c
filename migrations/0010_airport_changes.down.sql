CREATE OR REPLACE FUNCTION airports_date_their_flights() RETURNS trigger
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

COMMENT ON TABLE bookings IS 'The newest known state of every booking (one passenger on one flight). A row is replaced only by a higher version; a deleted booking stays as a tombstone without data. The only table with personal data.';
COMMENT ON COLUMN market_data.last_event_at IS 'Newest event time seen by this row: a freshness mark.';
COMMENT ON COLUMN market_data.updated_at IS 'When this row last changed: a freshness mark.';
COMMENT ON COLUMN pending_bookings.created_at IS 'Since when it waits.';
