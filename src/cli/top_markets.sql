-- The markets with the most passengers, over all their dates.
SELECT m.origin || '-' || m.destination AS market,
       sum(m.flight_count)::bigint AS flights,
       sum(m.booking_count)::bigint AS bookings,
       sum(m.cancellation_count)::bigint AS cancelled,
       (sum(m.booking_count) FILTER (WHERE m.seat_capacity > 0) / nullif(sum(m.seat_capacity), 0))::numeric(6, 4)::text AS load_factor,
       (SELECT round(sum(f.total_revenue) / sum(f.booking_count), 2)::text
        FROM market_fares f
        WHERE f.origin = m.origin AND f.destination = m.destination AND f.currency = 'USD') AS average_usd
FROM market_data m
GROUP BY m.origin, m.destination
ORDER BY bookings DESC, market
LIMIT 10
