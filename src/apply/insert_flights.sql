-- The flights that are new, in ascending order of their keys, dated on the clock of their origin;
-- see insert_bookings for what a twin sees.
WITH inserted AS (
    INSERT INTO flights (
        flight_id, version, content_hash, deleted_at, delete_reason,
        airline, flight_number, suffix, origin, destination,
        scheduled_departure, scheduled_arrival, estimated_departure, actual_departure, actual_arrival,
        aircraft_type, aircraft_registration, capacity_total, capacity_by_cabin, status,
        data_date, time_zone_known, source, last_event_at)
    SELECT
        s.flight_id, s.version, s.content_hash, s.deleted_at, s.delete_reason,
        s.airline, s.flight_number, s.suffix, s.origin, s.destination,
        s.scheduled_departure, s.scheduled_arrival, s.estimated_departure, s.actual_departure, s.actual_arrival,
        s.aircraft_type, s.aircraft_registration, s.capacity_total, s.capacity_by_cabin::jsonb, s.status,
        local_date(s.scheduled_departure, a.timezone),
        CASE WHEN s.deleted_at IS NULL THEN a.timezone IS NOT NULL END,
        s.source, s.last_event_at
    FROM unnest(
        $1::text[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::text[],
        $6::text[], $7::text[], $8::text[], $9::text[], $10::text[],
        $11::timestamptz[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[], $15::timestamptz[],
        $16::text[], $17::text[], $18::integer[], $19::text[], $20::text[],
        $21::text[], $22::timestamptz[]) AS s (
        flight_id, version, content_hash, deleted_at, delete_reason,
        airline, flight_number, suffix, origin, destination,
        scheduled_departure, scheduled_arrival, estimated_departure, actual_departure, actual_arrival,
        aircraft_type, aircraft_registration, capacity_total, capacity_by_cabin, status,
        source, last_event_at)
    LEFT JOIN airports a ON a.iata_code = s.origin
    ORDER BY s.flight_id COLLATE "C"
    ON CONFLICT (flight_id) DO NOTHING
    RETURNING flight_id
)
SELECT coalesce(array_agg(flight_id), '{}') FROM inserted
