-- Rows of flight_demand that are not what was built.
SELECT count(*)
FROM flight_demand_next n
FULL JOIN flight_demand d USING (flight_id, cabin, currency)
WHERE (n.gross_booking_count, n.booking_count, n.cancellation_count, n.used_count, n.no_show_count,
       n.total_revenue, n.base_revenue)
    IS DISTINCT FROM
      (d.gross_booking_count, d.booking_count, d.cancellation_count, d.used_count, d.no_show_count,
       d.total_revenue, d.base_revenue)
