-- A booking curve counts the days of its bookings directly, without their activity by currency first.

CREATE OR REPLACE VIEW booking_curve AS
WITH curve AS (
    -- One row for each curve, with the days of its bookings in arrays, so that the bookings of the market are read once.
    SELECT f.origin, f.destination, f.data_date, b.cabin,
           -- What happened earlier than a year before departure stands at day 365 already.
           array_agg(least(f.data_date - (b.booked_at AT TIME ZONE 'UTC')::date, 365)) AS booked,
           array_agg(least(f.data_date - (b.cancelled_at AT TIME ZONE 'UTC')::date, 365))
               FILTER (WHERE b.cancelled_at IS NOT NULL) AS cancelled
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    GROUP BY f.origin, f.destination, f.data_date, b.cabin
)
SELECT c.origin, c.destination, c.data_date, c.cabin, d.days_before_departure,
       d.gross_bookings - d.cancellations AS bookings_on_hand,
       d.gross_bookings,
       d.cancellations
FROM curve c
CROSS JOIN LATERAL (
    -- Each day counts, then all days from it on. Counted as integers: a sum of bigint is a numeric, and slower.
    SELECT days AS days_before_departure,
           sum(sum(gross)::integer) OVER w AS gross_bookings,
           sum(sum(cancelled)::integer) OVER w AS cancellations
    FROM (
        SELECT day, 0, 0 FROM generate_series(0, 365) AS day
        UNION ALL
        SELECT day, 1, 0 FROM unnest(c.booked) AS day
        UNION ALL
        SELECT day, 0, 1 FROM unnest(c.cancelled) AS day
    ) AS change (days, gross, cancelled)
    -- What happened after departure is on no curve.
    WHERE days >= 0
    GROUP BY days
    WINDOW w AS (ORDER BY days DESC ROWS UNBOUNDED PRECEDING)
) d;
