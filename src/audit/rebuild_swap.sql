-- Puts what was built into the place of what differs from it. The table itself stays, with its views,
-- grants and indexes; readers see all of it or nothing. The caller holds it against writers.
WITH wrong AS (
    SELECT flight_id, cabin, currency, n.gross_booking_count IS NOT NULL AS exists
    FROM flight_demand_next n
    FULL JOIN flight_demand d USING (flight_id, cabin, currency)
    WHERE (n.gross_booking_count, n.booking_count, n.cancellation_count, n.used_count, n.no_show_count,
           n.total_revenue, n.base_revenue)
        IS DISTINCT FROM
          (d.gross_booking_count, d.booking_count, d.cancellation_count, d.used_count, d.no_show_count,
           d.total_revenue, d.base_revenue)
),
removed AS (
    DELETE FROM flight_demand d USING wrong w
    WHERE d.flight_id = w.flight_id AND d.cabin = w.cabin AND d.currency = w.currency AND NOT w.exists
    RETURNING 1
),
replaced AS (
    INSERT INTO flight_demand (
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at)
    SELECT n.flight_id, n.cabin, n.currency,
           n.gross_booking_count, n.booking_count, n.cancellation_count, n.used_count, n.no_show_count,
           n.total_revenue, n.base_revenue, n.last_event_at
    FROM flight_demand_next n
    JOIN wrong w USING (flight_id, cabin, currency)
    WHERE w.exists
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
SELECT (SELECT count(*) FROM removed) + (SELECT count(*) FROM replaced)
