-- What is stored for keys that were not new, locked in ascending order until the commit: whatever a
-- twin had committed is seen here, since this statement starts after insert_bookings has waited for it.
SELECT booking_id, version, content_hash, flight_id, cabin, currency, status, price_base, price_total
FROM bookings
WHERE booking_id = ANY ($1::text[])
ORDER BY booking_id
FOR NO KEY UPDATE
