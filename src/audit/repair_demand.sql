-- Rebuilds the rows of flight_demand that are not the sum of their bookings. The caller holds the table
-- against writers: a batch under way has either committed both its bookings and its sums, or neither.
WITH truth AS (
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
),
wrong AS (
    SELECT flight_id, cabin, currency, t.gross_booking_count IS NOT NULL AS exists
    FROM truth t
    FULL JOIN flight_demand d USING (flight_id, cabin, currency)
    WHERE (t.gross_booking_count, t.booking_count, t.cancellation_count, t.used_count, t.no_show_count,
           t.total_revenue, t.base_revenue)
        IS DISTINCT FROM
          (d.gross_booking_count, d.booking_count, d.cancellation_count, d.used_count, d.no_show_count,
           d.total_revenue, d.base_revenue)
),
removed AS (
    DELETE FROM flight_demand d USING wrong w
    WHERE d.flight_id = w.flight_id AND d.cabin = w.cabin AND d.currency = w.currency AND NOT w.exists
    RETURNING 1
),
rebuilt AS (
    INSERT INTO flight_demand (
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at)
    SELECT t.*
    FROM truth t
    JOIN wrong w USING (flight_id, cabin, currency)
    ON CONFLICT (flight_id, cabin, currency) DO UPDATE
    SET gross_booking_count = excluded.gross_booking_count,
        booking_count = excluded.booking_count,
        cancellation_count = excluded.cancellation_count,
        used_count = excluded.used_count,
        no_show_count = excluded.no_show_count,
        total_revenue = excluded.total_revenue,
        base_revenue = excluded.base_revenue,
        last_event_at = excluded.last_event_at,
        updated_at = now()
    RETURNING 1
)
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM rebuilt)
