-- MarketData: what analysts read. Every relation is a view, so a reader sees one snapshot of flights,
-- bookings and flight_demand and never a market half moved.
--
-- A market is a directional pair of airports on a local departure date: (origin, destination, data_date).
-- An operating flight is neither deleted nor cancelled; an active booking is a booking of an operating
-- flight that is neither deleted nor cancelled itself.

CREATE VIEW market_data AS
WITH flight AS (
    SELECT f.origin, f.destination, f.data_date, f.flight_id,
           f.status <> 'cancelled' AS operating,
           f.capacity_total AS capacity,
           f.time_zone_known,
           coalesce(sum(d.booking_count), 0) AS active,
           coalesce(sum(d.gross_booking_count), 0) AS gross,
           coalesce(sum(d.cancellation_count), 0) AS cancelled,
           coalesce(sum(d.used_count), 0) AS used,
           coalesce(sum(d.no_show_count), 0) AS no_show,
           greatest(f.last_event_at, max(d.last_event_at)) AS last_event_at,
           greatest(f.updated_at, max(d.updated_at)) AS updated_at
    FROM flights f
    LEFT JOIN flight_demand d ON d.flight_id = f.flight_id AND f.status <> 'cancelled'
    WHERE f.deleted_at IS NULL
    GROUP BY f.origin, f.destination, f.data_date, f.flight_id
),
market AS (
    SELECT origin, destination, data_date,
           count(*) FILTER (WHERE operating) AS flight_count,
           count(*) FILTER (WHERE NOT operating) AS cancelled_flight_count,
           count(*) FILTER (WHERE operating AND capacity IS NULL) AS unknown_capacity_count,
           coalesce(sum(capacity) FILTER (WHERE operating), 0) AS known_capacity,
           coalesce(sum(greatest(capacity - active, 0)) FILTER (WHERE operating AND capacity IS NOT NULL), 0) AS known_available,
           sum(active)::bigint AS booking_count,
           sum(gross)::bigint AS gross_booking_count,
           sum(cancelled)::bigint AS cancellation_count,
           sum(used)::bigint AS used_count,
           sum(no_show)::bigint AS no_show_count,
           count(*) FILTER (WHERE operating AND active >= capacity) AS closed_flight_count,
           bool_or(NOT time_zone_known) AS time_zone_unknown,
           max(last_event_at) AS last_event_at,
           max(updated_at) AS updated_at
    FROM flight
    GROUP BY origin, destination, data_date
)
SELECT origin, destination, data_date,
       flight_count,
       cancelled_flight_count,
       CASE WHEN unknown_capacity_count = 0 THEN known_capacity::bigint END AS seat_capacity,
       booking_count,
       gross_booking_count,
       cancellation_count,
       used_count,
       no_show_count,
       CASE WHEN unknown_capacity_count = 0 THEN known_available::bigint END AS available_seats,
       closed_flight_count,
       -- Capped where numeric(6,4) ends: one absurd flight must not fail everybody's query.
       CASE WHEN unknown_capacity_count = 0 AND known_capacity > 0
           THEN least(booking_count::numeric / known_capacity, 99.9999)
       END::numeric(6, 4) AS load_factor,
       unknown_capacity_count > 0 OR time_zone_unknown AS is_estimated,
       last_event_at,
       updated_at
FROM market;

COMMENT ON VIEW market_data IS 'One row per (origin, destination, data_date) that has a not-deleted flight, cancelled ones included.';
COMMENT ON COLUMN market_data.origin IS 'IATA code of the origin airport of the flights.';
COMMENT ON COLUMN market_data.destination IS 'IATA code of their destination airport.';
COMMENT ON COLUMN market_data.data_date IS 'Local departure date at the origin airport; the UTC date where its time zone is unknown (see is_estimated).';
COMMENT ON COLUMN market_data.flight_count IS 'Operating flights: neither deleted nor cancelled.';
COMMENT ON COLUMN market_data.cancelled_flight_count IS 'Cancelled flights.';
COMMENT ON COLUMN market_data.seat_capacity IS 'Seats of the operating flights; NULL if the capacity of any of them is unknown, 0 if there is none.';
COMMENT ON COLUMN market_data.booking_count IS 'Active bookings: passengers boarded or to board on this segment.';
COMMENT ON COLUMN market_data.gross_booking_count IS 'All not-deleted bookings of operating flights.';
COMMENT ON COLUMN market_data.cancellation_count IS 'The cancelled ones among gross_booking_count.';
COMMENT ON COLUMN market_data.used_count IS 'Active bookings with status used.';
COMMENT ON COLUMN market_data.no_show_count IS 'Active bookings with status no_show.';
COMMENT ON COLUMN market_data.available_seats IS 'Sum over operating flights of max(capacity - active bookings of that flight, 0); NULL if any capacity is unknown.';
COMMENT ON COLUMN market_data.closed_flight_count IS 'Operating flights of known capacity with at least as many active bookings as seats: demand there is censored.';
COMMENT ON COLUMN market_data.load_factor IS 'booking_count / seat_capacity, four decimals; may exceed 1 and is capped at 99.9999; NULL if seat_capacity is NULL or 0.';
COMMENT ON COLUMN market_data.is_estimated IS 'True if the capacity of an operating flight is unknown, or the time zone of the origin is.';
COMMENT ON COLUMN market_data.last_event_at IS 'Newest event time seen by this row: a freshness mark.';
COMMENT ON COLUMN market_data.updated_at IS 'When this row last changed: a freshness mark.';

CREATE VIEW market_fares AS
SELECT f.origin, f.destination, f.data_date, d.cabin, d.currency,
       sum(d.booking_count)::bigint AS booking_count,
       sum(d.total_revenue) AS total_revenue,
       sum(d.base_revenue) AS base_revenue,
       sum(d.total_revenue) / sum(d.booking_count) AS average_price,
       -- First and last entry of bookings_active: not computed unless the query reads them.
       min((SELECT b.price_total FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.deleted_at IS NULL AND b.status <> 'cancelled'
            ORDER BY b.price_total LIMIT 1)) AS min_price,
       max((SELECT b.price_total FROM bookings b
            WHERE b.flight_id = d.flight_id AND b.cabin = d.cabin AND b.currency = d.currency
              AND b.deleted_at IS NULL AND b.status <> 'cancelled'
            ORDER BY b.price_total DESC LIMIT 1)) AS max_price,
       sum(d.base_revenue) / sum(d.booking_count) AS average_base_fare
FROM flights f
JOIN flight_demand d ON d.flight_id = f.flight_id
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled' AND d.booking_count > 0
GROUP BY f.origin, f.destination, f.data_date, d.cabin, d.currency;

COMMENT ON VIEW market_fares IS 'One row per (origin, destination, data_date, cabin, currency) with an active booking. Money is never added across currencies.';
COMMENT ON COLUMN market_fares.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_fares.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_fares.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_fares.cabin IS 'F first, C business, W premium economy, Y economy.';
COMMENT ON COLUMN market_fares.currency IS 'ISO 4217 code of every amount in the row.';
COMMENT ON COLUMN market_fares.booking_count IS 'Active bookings.';
COMMENT ON COLUMN market_fares.total_revenue IS 'Sum of their total prices.';
COMMENT ON COLUMN market_fares.base_revenue IS 'Sum of their base fares.';
COMMENT ON COLUMN market_fares.average_price IS 'total_revenue / booking_count.';
COMMENT ON COLUMN market_fares.min_price IS 'Lowest total price among them.';
COMMENT ON COLUMN market_fares.max_price IS 'Highest total price among them.';
COMMENT ON COLUMN market_fares.average_base_fare IS 'base_revenue / booking_count.';

CREATE VIEW market_activity AS
WITH activity AS (
    -- Three branches, each with the partial index of bookings that matches its condition, and each with
    -- its flights, so that the market asked for is all that is read.
    SELECT f.origin, f.destination, f.data_date, (b.booked_at AT TIME ZONE 'UTC')::date AS activity_date,
           b.cabin, b.currency,
           1 AS gross, 0 AS cancelled, b.price_total AS gross_revenue, 0::numeric AS cancelled_revenue
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status <> 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    UNION ALL
    SELECT f.origin, f.destination, f.data_date, (b.booked_at AT TIME ZONE 'UTC')::date,
           b.cabin, b.currency, 1, 0, b.price_total, 0::numeric
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status = 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
    UNION ALL
    SELECT f.origin, f.destination, f.data_date, (b.cancelled_at AT TIME ZONE 'UTC')::date,
           b.cabin, b.currency, 0, 1, 0::numeric, b.price_total
    FROM flights f
    JOIN bookings b ON b.flight_id = f.flight_id AND b.deleted_at IS NULL AND b.status = 'cancelled'
    WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
)
SELECT origin, destination, data_date, activity_date, cabin, currency,
       sum(gross) AS gross_bookings,
       sum(cancelled) AS cancellations,
       sum(gross_revenue) AS gross_revenue,
       sum(cancelled_revenue) AS cancelled_revenue
FROM activity
GROUP BY origin, destination, data_date, activity_date, cabin, currency;

COMMENT ON VIEW market_activity IS 'What happened on a UTC day, over the not-deleted bookings of operating flights: one row per (origin, destination, data_date, activity_date, cabin, currency).';
COMMENT ON COLUMN market_activity.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_activity.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_activity.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_activity.activity_date IS 'UTC date of booked_at or cancelled_at.';
COMMENT ON COLUMN market_activity.cabin IS 'Cabin letter.';
COMMENT ON COLUMN market_activity.currency IS 'ISO 4217 code of the amounts.';
COMMENT ON COLUMN market_activity.gross_bookings IS 'Bookings made on that day, cancelled since or not.';
COMMENT ON COLUMN market_activity.cancellations IS 'Bookings cancelled on that day.';
COMMENT ON COLUMN market_activity.gross_revenue IS 'Total price of gross_bookings.';
COMMENT ON COLUMN market_activity.cancelled_revenue IS 'Total price of cancellations.';

CREATE VIEW market_data_history AS
WITH day AS (
    SELECT origin, destination, data_date, activity_date, currency,
           sum(gross_bookings - cancellations) AS net_bookings,
           sum(gross_revenue - cancelled_revenue) AS net_revenue
    FROM market_activity
    GROUP BY origin, destination, data_date, activity_date, currency
),
-- How the market stood at the end of the day, and at the end of the day 1, 7 and 30 days earlier,
-- whether or not anything happened on that earlier day.
standing AS (
    SELECT origin, destination, data_date, activity_date, currency,
           sum(net_bookings) OVER w AS bookings,
           sum(net_revenue) OVER w AS revenue,
           sum(net_bookings) OVER w1 AS bookings_1d,
           sum(net_bookings) OVER w7 AS bookings_7d,
           sum(net_revenue) OVER w7 AS revenue_7d,
           sum(net_bookings) OVER w30 AS bookings_30d,
           sum(net_revenue) OVER w30 AS revenue_30d
    FROM day
    WINDOW w AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                 RANGE BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW),
           w1 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                  RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '1 day' PRECEDING),
           w7 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                  RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '7 days' PRECEDING),
           w30 AS (PARTITION BY origin, destination, data_date, currency ORDER BY activity_date
                   RANGE BETWEEN UNBOUNDED PRECEDING AND INTERVAL '30 days' PRECEDING)
),
priced AS (
    SELECT origin, destination, data_date, activity_date, currency, bookings,
           bookings - coalesce(bookings_1d, 0) AS pickup_1d,
           bookings - coalesce(bookings_7d, 0) AS pickup_7d,
           revenue / nullif(bookings, 0) AS price,
           revenue_7d / nullif(bookings_7d, 0) AS price_7d,
           revenue_30d / nullif(bookings_30d, 0) AS price_30d
    FROM standing
)
SELECT origin, destination, data_date,
       activity_date AS collection_date,
       currency,
       bookings::bigint AS booking_count,
       price AS average_price,
       pickup_1d::bigint AS pickup_1d,
       pickup_7d::bigint AS pickup_7d,
       100 * (price / nullif(price_7d, 0) - 1) AS price_change_7d,
       100 * (price / nullif(price_30d, 0) - 1) AS price_change_30d
FROM priced;

COMMENT ON VIEW market_data_history IS 'The market as it stood at the end of each UTC day with activity, as far as today''s rows tell: one row per (origin, destination, data_date, collection_date, currency).';
COMMENT ON COLUMN market_data_history.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_data_history.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_data_history.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_data_history.collection_date IS 'The UTC day at whose end the market stood so.';
COMMENT ON COLUMN market_data_history.currency IS 'ISO 4217 code.';
COMMENT ON COLUMN market_data_history.booking_count IS 'Bookings made and not cancelled by then.';
COMMENT ON COLUMN market_data_history.average_price IS 'Their average total price; NULL if there are none.';
COMMENT ON COLUMN market_data_history.pickup_1d IS 'Net bookings gained since the end of the day before.';
COMMENT ON COLUMN market_data_history.pickup_7d IS 'Net bookings gained since the end of the day 7 days earlier.';
COMMENT ON COLUMN market_data_history.price_change_7d IS '100 * (average_price / the one 7 days earlier - 1); NULL if either is missing or the earlier one is 0.';
COMMENT ON COLUMN market_data_history.price_change_30d IS '100 * (average_price / the one 30 days earlier - 1); NULL if either is missing or the earlier one is 0.';

CREATE VIEW booking_curve AS
WITH activity AS NOT MATERIALIZED (  -- so that the market asked for is all that is read
    -- What happened earlier than a year before departure stands at day 365 already.
    SELECT origin, destination, data_date, cabin,
           least(data_date - activity_date, 365) AS days_before_departure,
           sum(gross_bookings) AS gross,
           sum(cancellations) AS cancelled
    FROM market_activity
    GROUP BY 1, 2, 3, 4, 5
),
curve AS (
    SELECT origin, destination, data_date, cabin, generate_series(0, 365) AS days_before_departure
    FROM (SELECT DISTINCT origin, destination, data_date, cabin FROM activity) c
)
SELECT c.origin, c.destination, c.data_date, c.cabin, c.days_before_departure,
       coalesce(sum(a.gross - a.cancelled) OVER w, 0)::bigint AS bookings_on_hand,
       coalesce(sum(a.gross) OVER w, 0)::bigint AS gross_bookings,
       coalesce(sum(a.cancelled) OVER w, 0)::bigint AS cancellations
FROM curve c
LEFT JOIN activity a
    ON a.origin = c.origin AND a.destination = c.destination AND a.data_date = c.data_date
    AND a.cabin = c.cabin AND a.days_before_departure = c.days_before_departure
WINDOW w AS (PARTITION BY c.origin, c.destination, c.data_date, c.cabin ORDER BY c.days_before_departure DESC);

COMMENT ON VIEW booking_curve IS 'Bookings on hand by days before departure: 366 rows for each (origin, destination, data_date, cabin) with a booking.';
COMMENT ON COLUMN booking_curve.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN booking_curve.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN booking_curve.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN booking_curve.cabin IS 'Cabin letter.';
COMMENT ON COLUMN booking_curve.days_before_departure IS '0 to 365: data_date minus the UTC day at whose end the bookings are counted.';
COMMENT ON COLUMN booking_curve.bookings_on_hand IS 'Bookings made and not cancelled by then.';
COMMENT ON COLUMN booking_curve.gross_bookings IS 'Bookings made by then.';
COMMENT ON COLUMN booking_curve.cancellations IS 'Bookings cancelled by then.';

CREATE VIEW market_capacity_by_cabin AS
SELECT f.origin, f.destination, f.data_date, c.cabin,
       count(*) AS flight_count,
       sum(c.seats::integer) AS seat_capacity
FROM flights f
CROSS JOIN LATERAL jsonb_each_text(f.capacity_by_cabin) AS c (cabin, seats)
WHERE f.deleted_at IS NULL AND f.status <> 'cancelled'
GROUP BY f.origin, f.destination, f.data_date, c.cabin;

COMMENT ON VIEW market_capacity_by_cabin IS 'Seats by cabin over the operating flights that say it: one row per (origin, destination, data_date, cabin).';
COMMENT ON COLUMN market_capacity_by_cabin.origin IS 'IATA code of the origin airport.';
COMMENT ON COLUMN market_capacity_by_cabin.destination IS 'IATA code of the destination airport.';
COMMENT ON COLUMN market_capacity_by_cabin.data_date IS 'Local departure date at the origin airport.';
COMMENT ON COLUMN market_capacity_by_cabin.cabin IS 'Cabin letter.';
COMMENT ON COLUMN market_capacity_by_cabin.flight_count IS 'Operating flights that say how many seats this cabin has.';
COMMENT ON COLUMN market_capacity_by_cabin.seat_capacity IS 'Their seats in this cabin.';

CREATE VIEW pending_bookings AS
SELECT b.booking_id, b.version, b.flight_id, b.booked_at, b.cabin, b.currency, b.status,
       b.source, b.last_event_at, b.created_at
FROM bookings b
WHERE b.deleted_at IS NULL
  AND NOT EXISTS (SELECT FROM flights f WHERE f.flight_id = b.flight_id);

COMMENT ON VIEW pending_bookings IS 'Not-deleted bookings whose flight has never been seen (a deleted flight has); they count in no market yet.';
COMMENT ON COLUMN pending_bookings.booking_id IS 'Key of the booking.';
COMMENT ON COLUMN pending_bookings.version IS 'Its version.';
COMMENT ON COLUMN pending_bookings.flight_id IS 'The flight it waits for.';
COMMENT ON COLUMN pending_bookings.booked_at IS 'When the booking was made.';
COMMENT ON COLUMN pending_bookings.cabin IS 'Cabin letter.';
COMMENT ON COLUMN pending_bookings.currency IS 'ISO 4217 code of its price.';
COMMENT ON COLUMN pending_bookings.status IS 'confirmed, cancelled, used or no_show.';
COMMENT ON COLUMN pending_bookings.source IS 'Producer it came from.';
COMMENT ON COLUMN pending_bookings.last_event_at IS 'Time of the event it came with.';
COMMENT ON COLUMN pending_bookings.created_at IS 'Since when it waits.';
