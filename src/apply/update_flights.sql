-- The newer states of flights that lock_flights holds. A flight that moves to another date or route
-- takes its bookings along: flight_demand is keyed by the flight.
UPDATE flights f
SET version = s.version, content_hash = s.content_hash, deleted_at = s.deleted_at, delete_reason = s.delete_reason,
    airline = s.airline, flight_number = s.flight_number, suffix = s.suffix, origin = s.origin, destination = s.destination,
    scheduled_departure = s.scheduled_departure, scheduled_arrival = s.scheduled_arrival,
    estimated_departure = s.estimated_departure, actual_departure = s.actual_departure, actual_arrival = s.actual_arrival,
    aircraft_type = s.aircraft_type, aircraft_registration = s.aircraft_registration,
    capacity_total = s.capacity_total, capacity_by_cabin = s.capacity_by_cabin::jsonb, status = s.status,
    data_date = local_date(s.scheduled_departure, a.timezone),
    time_zone_known = CASE WHEN s.deleted_at IS NULL THEN a.timezone IS NOT NULL END,
    source = s.source, last_event_at = s.last_event_at, updated_at = now()
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
WHERE f.flight_id = s.flight_id
