CREATE OR REPLACE VIEW booking_curve AS
WITH activity AS NOT MATERIALIZED (  -- so that the market asked for is all that is read
    -- What happened earlier than a year before departure stands at day 365 already.
    SELECT origin, destination, data_date, cabin,
           least(data_date - activity_date, 365) AS days_before_departure,
           sum(gross_bookings) AS gross,
           sum(cancellations) AS cancelled
    FROM market_activity
    GROUP BY 1, 2, 3, 4, 5
),
curve AS (
    SELECT origin, destination, data_date, cabin, generate_series(0, 365) AS days_before_departure
    FROM (SELECT DISTINCT origin, destination, data_date, cabin FROM activity) c
)
SELECT c.origin, c.destination, c.data_date, c.cabin, c.days_before_departure,
       coalesce(sum(a.gross - a.cancelled) OVER w, 0)::bigint AS bookings_on_hand,
       coalesce(sum(a.gross) OVER w, 0)::bigint AS gross_bookings,
       coalesce(sum(a.cancelled) OVER w, 0)::bigint AS cancellations
FROM curve c
LEFT JOIN activity a
    ON a.origin = c.origin AND a.destination = c.destination AND a.data_date = c.data_date
    AND a.cabin = c.cabin AND a.days_before_departure = c.days_before_departure
WINDOW w AS (PARTITION BY c.origin, c.destination, c.data_date, c.cabin ORDER BY c.days_before_departure DESC);
