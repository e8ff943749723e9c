-- What is stored for flights that were not new; see lock_bookings.
SELECT flight_id, version, content_hash
FROM flights
WHERE flight_id = ANY ($1::text[])
ORDER BY flight_id
FOR NO KEY UPDATE
