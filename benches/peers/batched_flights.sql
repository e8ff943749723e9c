-- Writes the flights that are newer than what is stored; counts those and the duplicates.
WITH incoming AS MATERIALIZED (
    SELECT e.*, decode(md5, 'hex') AS content_hash, reason AS delete_reason,
           aircraft->>'type' AS aircraft_type, aircraft->>'registration' AS aircraft_registration,
           (capacity->>'total')::integer AS capacity_total, capacity->'by_cabin' AS capacity_by_cabin,
           local_date(scheduled_departure, a.timezone) AS data_date,
           CASE WHEN deleted_at IS NULL THEN a.timezone IS NOT NULL END AS time_zone_known
    FROM json_to_recordset($1) AS e (
        flight_id text, version bigint, md5 text, deleted_at timestamptz, reason text,
        airline text, flight_number text, suffix text, origin text, destination text,
        scheduled_departure timestamptz, scheduled_arrival timestamptz,
        estimated_departure timestamptz, actual_departure timestamptz, actual_arrival timestamptz,
        aircraft jsonb, capacity jsonb, status text, source text, last_event_at timestamptz)
    LEFT JOIN airports a ON a.iata_code = e.origin
),
stored AS MATERIALIZED (
    SELECT flight_id, version FROM flights WHERE flight_id IN (SELECT flight_id FROM incoming)
),
written AS (
    INSERT INTO flights AS f (
        flight_id, version, content_hash, deleted_at, delete_reason, airline, flight_number, suffix, origin,
        destination, scheduled_departure, scheduled_arrival, estimated_departure, actual_departure,
        actual_arrival, aircraft_type, aircraft_registration, capacity_total, capacity_by_cabin, status,
        data_date, time_zone_known, source, last_event_at)
    SELECT
        flight_id, version, content_hash, deleted_at, delete_reason, airline, flight_number, suffix, origin,
        destination, scheduled_departure, scheduled_arrival, estimated_departure, actual_departure,
        actual_arrival, aircraft_type, aircraft_registration, capacity_total, capacity_by_cabin, status,
        data_date, time_zone_known, source, last_event_at
    FROM incoming
    ORDER BY flight_id COLLATE "C"
    ON CONFLICT (flight_id) DO UPDATE
    SET version = excluded.version, content_hash = excluded.content_hash, deleted_at = excluded.deleted_at,
        delete_reason = excluded.delete_reason, airline = excluded.airline,
        flight_number = excluded.flight_number, suffix = excluded.suffix, origin = excluded.origin,
        destination = excluded.destination, scheduled_departure = excluded.scheduled_departure,
        scheduled_arrival = excluded.scheduled_arrival, estimated_departure = excluded.estimated_departure,
        actual_departure = excluded.actual_departure, actual_arrival = excluded.actual_arrival,
        aircraft_type = excluded.aircraft_type, aircraft_registration = excluded.aircraft_registration,
        capacity_total = excluded.capacity_total, capacity_by_cabin = excluded.capacity_by_cabin,
        status = excluded.status, data_date = excluded.data_date, time_zone_known = excluded.time_zone_known,
        source = excluded.source, last_event_at = excluded.last_event_at, updated_at = now()
    WHERE f.version < excluded.version
    RETURNING flight_id
)
SELECT (SELECT count(*) FROM written) AS applied,
       (SELECT count(*) FROM incoming JOIN stored USING (flight_id, version)) AS duplicate
