-- What is stored for keys that were not new, locked until the commit: first the flights, then the bookings, each in ascending
-- order. Whatever a twin had committed is seen here, since this statement starts after insert_new has waited for it.
WITH stored_flights AS (
    SELECT flight_id, version, content_hash
    FROM flights
    WHERE flight_id = ANY ($1::text[])
    ORDER BY flight_id
    FOR NO KEY UPDATE
),
stored_bookings AS (
    SELECT booking_id, version, content_hash, flight_id, cabin, currency, status, price_base, price_total
    FROM bookings
    WHERE booking_id = ANY ($2::text[])
    ORDER BY booking_id
    FOR NO KEY UPDATE
)
SELECT flight_id AS key, version, content_hash, true AS is_flight,
       NULL AS flight_id, NULL AS cabin, NULL AS currency, NULL AS status, NULL AS price_base, NULL AS price_total
FROM stored_flights
UNION ALL
SELECT booking_id, version, content_hash, false,
       flight_id, cabin, currency, status, price_base, price_total
FROM stored_bookings
