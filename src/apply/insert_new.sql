-- The flights and the bookings that are new. One that is stored already is left alone and not returned: no lock, no write. A
-- twin that inserts the same key at this moment makes us wait for its commit. First the flights, which are dated on the clock of
-- their origin, then the bookings, since how many flights are new is asked before. Keys are inserted in ascending order of their
-- bytes, the lock order that every batch keeps: that in which bookings are sent, and their rows come, as nothing is joined to them.
-- An unnest for each column costs a fifth of one in FROM with all of them, which stores each column apart.
WITH new_flights AS (
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
    FROM (
        SELECT unnest($1::text[]) AS flight_id, unnest($2::bigint[]) AS version, unnest($3::bytea[]) AS content_hash,
               unnest($4::timestamptz[]) AS deleted_at, unnest($5::text[]) AS delete_reason, unnest($6::text[]) AS airline,
               unnest($7::text[]) AS flight_number, unnest($8::text[]) AS suffix, unnest($9::text[]) AS origin,
               unnest($10::text[]) AS destination, unnest($11::timestamptz[]) AS scheduled_departure,
               unnest($12::timestamptz[]) AS scheduled_arrival, unnest($13::timestamptz[]) AS estimated_departure,
               unnest($14::timestamptz[]) AS actual_departure, unnest($15::timestamptz[]) AS actual_arrival,
               unnest($16::text[]) AS aircraft_type, unnest($17::text[]) AS aircraft_registration,
               unnest($18::integer[]) AS capacity_total, unnest($19::text[]) AS capacity_by_cabin, unnest($20::text[]) AS status,
               unnest($21::text[]) AS source, unnest($22::timestamptz[]) AS last_event_at) AS s
    LEFT JOIN airports a ON a.iata_code = s.origin
    ORDER BY s.flight_id COLLATE "C"
    ON CONFLICT (flight_id) DO NOTHING
    RETURNING flight_id
),
new_bookings AS (
    INSERT INTO bookings (
        booking_id, version, content_hash, deleted_at, delete_reason,
        reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
        passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
        cabin, booking_class, fare_basis, seat, point_of_sale, channel,
        price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
        source, last_event_at)
    SELECT
        unnest($23::text[]), unnest($24::bigint[]), unnest($25::bytea[]), unnest($26::timestamptz[]),
        unnest($27::text[]), unnest($28::text[]), unnest($29::text[]), unnest($30::smallint[]), unnest($31::text[]),
        unnest($32::text[]), unnest($33::text[]), unnest($34::text[]), unnest($35::text[]), unnest($36::text[]),
        unnest($37::timestamptz[]), unnest($38::date[]), unnest($39::text[]), unnest($40::text[]), unnest($41::text[]),
        unnest($42::text[]), unnest($43::text[]), unnest($44::text[]), unnest($45::numeric[]), unnest($46::numeric[]),
        unnest($47::numeric[]), unnest($48::text[]), unnest($49::text[]), unnest($50::text[]),
        unnest($51::timestamptz[]), unnest($52::text[]), unnest($53::timestamptz[])
    WHERE (SELECT count(*) FROM new_flights) >= 0
    ON CONFLICT (booking_id) DO NOTHING
    RETURNING booking_id
)
SELECT (SELECT coalesce(array_agg(flight_id), '{}') FROM new_flights),
       (SELECT coalesce(array_agg(booking_id), '{}') FROM new_bookings)
