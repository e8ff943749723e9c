-- The views before the indexes, as a reader locks them; and the drop first, since it takes the stronger lock.
CREATE OR REPLACE VIEW market_fares AS
SELECT f.origin, f.destination, f.data_date, d.cabin, d.currency,
       sum(d.booking_count)::bigint AS booking_count,
       sum(d.total_revenue) AS total_revenue,
       sum(d.base_revenue) AS base_revenue,
       sum(d.total_revenue) / sum(d.booking_count) AS average_price,
       -- First and last entry of bookings_active: not computed unless the query reads them.
       min((SELECT b.price_total FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.deleted_at IS NULL AND b.status <> 'cancelled'
            ORDER BY b.price_total LIMIT 1)) AS min_price,
       max((SELECT b.price_total FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.deleted_at IS NULL AND b.status <> 'cancelled'
            ORDER BY b.price_total DESC LIMIT 1)) AS max_price,
       sum(d.base_revenue) / sum(d.booking_count) AS average_base_fare
FROM flights f
JOIN flight_demand d ON d.flight_id = f.flight_id
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND d.booking_count > 0
GROUP BY f.origin, f.destination, f.data_date, d.cabin, d.currency;

CREATE OR REPLACE VIEW market_activity AS
WITH activity AS (
    -- Three branches, each with the partial index of bookings that matches its condition, and each with
    -- its flights, so that the market asked for is all that is read.
    SELECT f.origin, f.destination, f.data_date, (b.booked_at AT TIME ZONE 'UTC')::date AS activity_date,
           b.cabin, b.currency,
           1 AS gross, 0 AS cancelled, b.price_total AS gross_revenue, 0::numeric AS cancelled_revenue
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status <> 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    UNION ALL
    SELECT f.origin, f.destination, f.data_date, (b.booked_at AT TIME ZONE 'UTC')::date,
           b.cabin, b.currency, 1, 0, b.price_total, 0::numeric
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status = 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    UNION ALL
    SELECT f.origin, f.destination, f.data_date, (b.cancelled_at AT TIME ZONE 'UTC')::date,
           b.cabin, b.currency, 0, 1, 0::numeric, b.price_total
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status = 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
)
SELECT origin, destination, data_date, activity_date, cabin, currency,
       sum(gross) AS gross_bookings,
       sum(cancelled) AS cancellations,
       sum(gross_revenue) AS gross_revenue,
       sum(cancelled_revenue) AS cancelled_revenue
FROM activity
GROUP BY origin, destination, data_date, activity_date, cabin, currency;

DROP INDEX bookings_flight;

-- The lowest and highest price of a flight, cabin and currency are its first and last entry, so they
-- are never stored; also finds the active bookings of a flight.
CREATE INDEX bookings_active ON bookings (flight_id, cabin, currency, price_total)
    WHERE deleted_at IS NULL AND status <> 'cancelled';
-- The cancelled bookings of a flight, for the activity of its market; apart from the active ones, so
-- that cancelling the cheapest bookings leaves nothing to step over.
CREATE INDEX bookings_cancelled ON bookings (flight_id)
    WHERE deleted_at IS NULL AND status = 'cancelled';
