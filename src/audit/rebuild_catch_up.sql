-- Recomputes the rows whose version in flight_demand is not the one that was seen: a batch that changes
-- what the bookings of a row add up to writes the row in the same transaction. All others are still what
-- their bookings add up to, but for those that were not there and are not there now, which may have come and gone: $1 asks
-- for them as well.
WITH moved AS (
    SELECT flight_id, cabin, currency, d.xmin AS seen
    FROM flight_demand d
    FULL JOIN flight_demand_next n USING (flight_id, cabin, currency)
    WHERE d.xmin IS DISTINCT FROM n.seen OR ($1::boolean AND d.xmin IS NULL)
)
INSERT INTO flight_demand_next
SELECT m.flight_id, m.cabin, m.currency,
       t.gross_booking_count, t.booking_count, t.cancellation_count, t.used_count, t.no_show_count,
       t.total_revenue, t.base_revenue, t.last_event_at,
       m.seen
FROM moved m
LEFT JOIN LATERAL (
    SELECT count(*) AS gross_booking_count,
           count(*) FILTER (WHERE status <> 'cancelled') AS booking_count,
           count(*) FILTER (WHERE status = 'cancelled') AS cancellation_count,
           count(*) FILTER (WHERE status = 'used') AS used_count,
           count(*) FILTER (WHERE status = 'no_show') AS no_show_count,
           sum(price_total * (status <> 'cancelled')::integer) AS total_revenue,
           sum(price_base * (status <> 'cancelled')::integer) AS base_revenue,
           max(last_event_at) AS last_event_at
    FROM bookings
    WHERE flight_id = m.flight_id AND cabin = m.cabin AND currency = m.currency
    HAVING count(*) > 0
) t ON true
ON CONFLICT (flight_id, cabin, currency) DO UPDATE
SET gross_booking_count = excluded.gross_booking_count,
    booking_count = excluded.booking_count,
    cancellation_count = excluded.cancellation_count,
    used_count = excluded.used_count,
    no_show_count = excluded.no_show_count,
    total_revenue = excluded.total_revenue,
    base_revenue = excluded.base_revenue,
    last_event_at = excluded.last_event_at,
    seen = excluded.seen
