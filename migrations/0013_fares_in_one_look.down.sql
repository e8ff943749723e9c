-- The lowest and the highest fare by a look for each.

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
