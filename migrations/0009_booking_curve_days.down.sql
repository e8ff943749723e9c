CREATE OR REPLACE VIEW booking_curve AS
WITH curve AS (
    -- One row for each curve, with all that happened in arrays, so that the bookings of the market are read once.
    SELECT origin, destination, data_date, cabin,
           -- What happened earlier than a year before departure stands at day 365 already.
           array_agg(least(data_date - activity_date, 365)) AS days,
           array_agg(gross_bookings) AS gross,
           array_agg(cancellations) AS cancelled
    FROM market_activity
    GROUP BY origin, destination, data_date, cabin
)
SELECT c.origin, c.destination, c.data_date, c.cabin, d.days_before_departure,
       (sum(d.gross - d.cancelled) OVER w)::bigint AS bookings_on_hand,
       (sum(d.gross) OVER w)::bigint AS gross_bookings,
       (sum(d.cancelled) OVER w)::bigint AS cancellations
FROM curve c
CROSS JOIN LATERAL (
    SELECT days AS days_before_departure, sum(gross) AS gross, sum(cancelled) AS cancelled
    FROM (
        SELECT day, 0, 0 FROM generate_series(0, 365) AS day
        UNION ALL
        SELECT * FROM unnest(c.days, c.gross, c.cancelled)
    ) AS change (days, gross, cancelled)
    -- What happened after departure is on no curve.
    WHERE days >= 0
    GROUP BY days
) d
WINDOW w AS (PARTITION BY c.origin, c.destination, c.data_date, c.cabin ORDER BY d.days_before_departure DESC);
