-- Which of the keys are stored. No row is locked: what a twin inserts meanwhile fails copy_bookings, and what is stored
-- stays, since bookings are never deleted. The updates of nothing take a writer's lock of the tables at once, in the
-- order of insert_new: with a reader's lock first, copy_bookings could end in a deadlock with a revision that builds one index
-- and drops another.
WITH no_flight AS (
    UPDATE flights SET version = version WHERE false
),
no_booking AS (
    UPDATE bookings SET version = version WHERE false
)
SELECT coalesce(array_agg(booking_id), '{}')
FROM bookings
WHERE booking_id = ANY ($1::text[])
