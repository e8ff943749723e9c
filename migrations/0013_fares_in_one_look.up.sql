-- The lowest and the highest fare are looked up together: half of the reading for who asks for both.

CREATE OR REPLACE VIEW market_fares AS
SELECT f.origin, f.destination, f.data_date, d.cabin, d.currency,
       sum(d.booking_count)::bigint AS booking_count,
       sum(d.total_revenue) AS total_revenue,
       sum(d.base_revenue) AS base_revenue,
       sum(d.total_revenue) / sum(d.booking_count) AS average_price,
       min(fare.lowest) AS min_price,
       max(fare.highest) AS max_price,
       sum(d.base_revenue) / sum(d.booking_count) AS average_base_fare
FROM flights f
JOIN flight_demand d ON d.flight_id = f.flight_id
-- Looked up among the bookings of the flight, both in one look, and only if the query reads one of them: a left join of
-- a single row that nobody reads is left out.
LEFT JOIN LATERAL (
    SELECT min(b.price_total) AS lowest, max(b.price_total) AS highest
    FROM bookings b
    WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency AND b.status <> 'cancelled'
) fare ON true
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND d.booking_count > 0
GROUP BY f.origin, f.destination, f.data_date, d.cabin, d.currency;
