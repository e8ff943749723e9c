-- What is stored beside the base data, recomputed from it: a difference here explains one in MarketData,
-- and is what a repair rebuilds.

-- relation: flights key: flight_id
SELECT f.flight_id,
       (f.scheduled_departure AT TIME ZONE coalesce(a.timezone, 'UTC'))::date AS data_date,
       CASE WHEN f.deleted_at IS NULL THEN a.timezone IS NOT NULL END AS time_zone_known
FROM flights f
LEFT JOIN airports a ON a.iata_code = f.origin;

-- relation: flight_demand key: flight_id, cabin, currency
SELECT flight_id, cabin, currency,
       count(*) AS gross_booking_count,
       count(*) FILTER (WHERE status <> 'cancelled') AS booking_count,
       count(*) FILTER (WHERE status = 'cancelled') AS cancellation_count,
       count(*) FILTER (WHERE status = 'used') AS used_count,
       count(*) FILTER (WHERE status = 'no_show') AS no_show_count,
       coalesce(sum(price_total) FILTER (WHERE status <> 'cancelled'), 0) AS total_revenue,
       coalesce(sum(price_base) FILTER (WHERE status <> 'cancelled'), 0) AS base_revenue
FROM bookings
WHERE deleted_at IS NULL
GROUP BY flight_id, cabin, currency;
