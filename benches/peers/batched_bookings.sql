-- Writes the bookings that are newer than what is stored, and what that changes in flight_demand. Every part
-- sees the bookings as they stood before the statement. What is known is more than what was locked before it if
-- another worker inserted one of the bookings meanwhile: then the caller has to start anew.
WITH incoming AS MATERIALIZED (
    SELECT e.*, decode(md5, 'hex') AS content_hash, reason AS delete_reason,
           journey->>'origin' AS journey_origin, journey->>'destination' AS journey_destination,
           passenger->>'name' AS passenger_name, passenger->>'email' AS passenger_email,
           passenger->>'phone' AS passenger_phone, price->>'currency' AS currency,
           (price->>'base')::numeric AS price_base, (price->>'taxes')::numeric AS price_taxes,
           (price->>'total')::numeric AS price_total
    FROM json_to_recordset($1) AS e (
        booking_id text, version bigint, md5 text, deleted_at timestamptz, reason text,
        reference text, ticket_number text, coupon smallint, flight_id text, journey jsonb,
        passenger jsonb, booked_at timestamptz, travel_date date, cabin text, booking_class text,
        fare_basis text, seat text, point_of_sale text, channel text, price jsonb,
        payment_status text, status text, cancelled_at timestamptz, source text, last_event_at timestamptz)
),
stored AS MATERIALIZED (
    SELECT booking_id, b.version, b.flight_id, b.cabin, b.currency, b.status, b.price_base, b.price_total,
           i.last_event_at
    FROM incoming i
    JOIN bookings b USING (booking_id)
),
written AS (
    INSERT INTO bookings AS b (
        booking_id, version, content_hash, deleted_at, delete_reason, reference, ticket_number, coupon,
        flight_id, journey_origin, journey_destination, passenger_name, passenger_email, passenger_phone,
        booked_at, travel_date, cabin, booking_class, fare_basis, seat, point_of_sale, channel, price_base,
        price_taxes, price_total, currency, payment_status, status, cancelled_at, source, last_event_at)
    SELECT
        booking_id, version, content_hash, deleted_at, delete_reason, reference, ticket_number, coupon,
        flight_id, journey_origin, journey_destination, passenger_name, passenger_email, passenger_phone,
        booked_at, travel_date, cabin, booking_class, fare_basis, seat, point_of_sale, channel, price_base,
        price_taxes, price_total, currency, payment_status, status, cancelled_at, source, last_event_at
    FROM incoming
    ORDER BY booking_id COLLATE "C"
    ON CONFLICT (booking_id) DO UPDATE
    SET version = excluded.version, content_hash = excluded.content_hash, deleted_at = excluded.deleted_at,
        delete_reason = excluded.delete_reason, reference = excluded.reference,
        ticket_number = excluded.ticket_number, coupon = excluded.coupon, flight_id = excluded.flight_id,
        journey_origin = excluded.journey_origin, journey_destination = excluded.journey_destination,
        passenger_name = excluded.passenger_name, passenger_email = excluded.passenger_email,
        passenger_phone = excluded.passenger_phone, booked_at = excluded.booked_at,
        travel_date = excluded.travel_date, cabin = excluded.cabin, booking_class = excluded.booking_class,
        fare_basis = excluded.fare_basis, seat = excluded.seat, point_of_sale = excluded.point_of_sale,
        channel = excluded.channel, price_base = excluded.price_base, price_taxes = excluded.price_taxes,
        price_total = excluded.price_total, currency = excluded.currency,
        payment_status = excluded.payment_status, status = excluded.status,
        cancelled_at = excluded.cancelled_at, source = excluded.source, last_event_at = excluded.last_event_at,
        updated_at = now()
    WHERE b.version < excluded.version
    RETURNING booking_id, b.xmax = 0 AS is_new
),
change AS (
    SELECT 1 AS step, flight_id, cabin, currency, status, price_base, price_total, last_event_at
    FROM incoming JOIN written USING (booking_id)
    UNION ALL
    SELECT -1, flight_id, cabin, currency, status, price_base, price_total, last_event_at
    FROM stored JOIN written USING (booking_id)
),
demand AS (
    INSERT INTO flight_demand AS d (
        flight_id, cabin, currency, gross_booking_count, booking_count, cancellation_count, used_count,
        no_show_count, total_revenue, base_revenue, last_event_at)
    SELECT flight_id, cabin, currency, sum(step), sum(step * active), sum(step * (1 - active)),
           sum(step * (status = 'used')::integer), sum(step * (status = 'no_show')::integer),
           sum(step * active * price_total), sum(step * active * price_base), max(last_event_at)
    FROM change
    CROSS JOIN LATERAL (SELECT (status <> 'cancelled')::integer AS active) a
    WHERE flight_id IS NOT NULL
    GROUP BY flight_id, cabin, currency
    HAVING sum(step) <> 0 OR sum(step * active) <> 0
        OR sum(step * (status = 'used')::integer) <> 0 OR sum(step * (status = 'no_show')::integer) <> 0
        OR sum(step * active * price_total) <> 0 OR sum(step * active * price_base) <> 0
    ORDER BY flight_id COLLATE "C", cabin COLLATE "C", currency COLLATE "C"
    ON CONFLICT (flight_id, cabin, currency) DO UPDATE
    SET gross_booking_count = d.gross_booking_count + excluded.gross_booking_count,
        booking_count = d.booking_count + excluded.booking_count,
        cancellation_count = d.cancellation_count + excluded.cancellation_count,
        used_count = d.used_count + excluded.used_count,
        no_show_count = d.no_show_count + excluded.no_show_count,
        total_revenue = d.total_revenue + excluded.total_revenue,
        base_revenue = d.base_revenue + excluded.base_revenue,
        last_event_at = greatest(d.last_event_at, excluded.last_event_at),
        updated_at = now()
    RETURNING flight_id, gross_booking_count
)
SELECT (SELECT count(*) FROM written) AS applied,
       (SELECT count(*) FROM incoming JOIN stored USING (booking_id, version)) AS duplicate,
       (SELECT count(*) FROM (
           SELECT booking_id FROM stored UNION SELECT booking_id FROM written WHERE NOT is_new) k) AS known,
       ARRAY(SELECT flight_id FROM demand WHERE gross_booking_count = 0) AS emptied
