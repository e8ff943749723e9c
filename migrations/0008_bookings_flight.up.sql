-- One index of bookings in place of two, without what changes most: a new price or a cancellation writes the row alone.
-- On a big table, build it beforehand: CREATE INDEX CONCURRENTLY bookings_flight ON bookings (flight_id, cabin, currency),
-- and see that it was built to its end (paxflow doctor).

CREATE INDEX IF NOT EXISTS bookings_flight ON bookings (flight_id, cabin, currency);

-- The views before the indexes: a reader locks its view, then bookings.
CREATE OR REPLACE VIEW market_fares AS
SELECT f.origin, f.destination, f.data_date, d.cabin, d.currency,
       sum(d.booking_count)::bigint AS booking_count,
       sum(d.total_revenue) AS total_revenue,
       sum(d.base_revenue) AS base_revenue,
       sum(d.total_revenue) / sum(d.booking_count) AS average_price,
       -- Looked up among the bookings of the flight, and only if the query reads them.
       min((SELECT min(b.price_total) FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.status <> 'cancelled')) AS min_price,
       max((SELECT max(b.price_total) FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.status <> 'cancelled')) AS max_price,
       sum(d.base_revenue) / sum(d.booking_count) AS average_base_fare
FROM flights f
JOIN flight_demand d ON d.flight_id = f.flight_id
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND d.booking_count > 0
GROUP BY f.origin, f.destination, f.data_date, d.cabin, d.currency;

CREATE OR REPLACE VIEW market_activity AS
SELECT f.origin, f.destination, f.data_date, (happened.at AT TIME ZONE 'UTC')::date AS activity_date,
       b.cabin, b.currency,
       sum(happened.gross) AS gross_bookings,
       sum(happened.cancelled) AS cancellations,
       sum(happened.gross_revenue) AS gross_revenue,
       sum(happened.cancelled_revenue) AS cancelled_revenue
FROM flights f
JOIN bookings b ON b.flight_id = f.flight_id
-- What a booking did, so that the bookings of the market are read once.
CROSS JOIN LATERAL (VALUES
    (b.booked_at, 1, 0, b.price_total, 0::numeric),
    (b.cancelled_at, 0, 1, 0::numeric, b.price_total)
) AS happened (at, gross, cancelled, gross_revenue, cancelled_revenue)
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND happened.at IS NOT NULL
GROUP BY f.origin, f.destination, f.data_date, activity_date, b.cabin, b.currency;

DROP INDEX bookings_active;
DROP INDEX bookings_cancelled;
