-- Everything that flight_demand must hold, beside it and in one snapshot, with the version of the row that
-- stands there now. Temporary: whatever ends the session removes it.
CREATE TEMPORARY TABLE flight_demand_next AS
SELECT flight_id, cabin, currency,
       t.gross_booking_count, t.booking_count, t.cancellation_count, t.used_count, t.no_show_count,
       t.total_revenue, t.base_revenue, t.last_event_at,
       d.xmin AS seen
FROM (
    SELECT flight_id, cabin, currency,
           count(*) AS gross_booking_count,
           count(*) FILTER (WHERE status <> 'cancelled') AS booking_count,
           count(*) FILTER (WHERE status = 'cancelled') AS cancellation_count,
           count(*) FILTER (WHERE status = 'used') AS used_count,
           count(*) FILTER (WHERE status = 'no_show') AS no_show_count,
           -- Zero times a price keeps the currency's decimals, but of a price of zero, which is stored without.
           sum(price_total * (status <> 'cancelled')::integer) AS total_revenue,
           sum(price_base * (status <> 'cancelled')::integer) AS base_revenue,
           max(last_event_at) AS last_event_at
    FROM bookings
    WHERE deleted_at IS NULL
    GROUP BY flight_id, cabin, currency
) t
FULL JOIN flight_demand d USING (flight_id, cabin, currency)
