-- Adds the changes of the batch, one for each row. They come in ascending order of the key's bytes, see
-- insert_bookings: the last locks that a batch takes on shared rows, so that twins wait for each other
-- shortly and never in a circle. Tells how many rows it came to, and whether one was emptied.
WITH added AS (
    INSERT INTO flight_demand AS d (
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at)
    SELECT
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at
    FROM unnest(
        $1::text[], $2::text[], $3::text[],
        $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[],
        $9::text[]::numeric[], $10::text[]::numeric[], $11::timestamptz[]) WITH ORDINALITY AS s (
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at,
        place)
    ORDER BY s.place
    ON CONFLICT (flight_id, cabin, currency) DO UPDATE
    SET gross_booking_count = d.gross_booking_count + excluded.gross_booking_count,
        booking_count = d.booking_count + excluded.booking_count,
        cancellation_count = d.cancellation_count + excluded.cancellation_count,
        used_count = d.used_count + excluded.used_count,
        no_show_count = d.no_show_count + excluded.no_show_count,
        total_revenue = d.total_revenue + excluded.total_revenue,
        base_revenue = d.base_revenue + excluded.base_revenue,
        last_event_at = greatest(d.last_event_at, excluded.last_event_at),
        updated_at = now()
    RETURNING d.gross_booking_count
)
SELECT count(*), coalesce(bool_or(gross_booking_count = 0), false) FROM added
