-- Which of the keys are stored. No row is locked: what a twin inserts meanwhile fails copy_bookings, and what is stored
-- stays, since bookings are never deleted. The update of nothing takes a writer's lock of the table at once: with a
-- reader's lock first, copy_bookings could end in a deadlock with a revision that builds one index and drops another.
WITH nothing AS (
    UPDATE bookings SET version = version WHERE false
)
SELECT coalesce(array_agg(booking_id), '{}')
FROM bookings
WHERE booking_id = ANY ($1::text[])
