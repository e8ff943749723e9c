-- Which of the keys are stored. Nothing is locked: what a twin inserts meanwhile fails copy_bookings, and what is
-- stored stays, since bookings are never deleted.
SELECT coalesce(array_agg(booking_id), '{}')
FROM bookings
WHERE booking_id = ANY ($1::text[])
