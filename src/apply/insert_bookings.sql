-- The bookings that are new. One that is stored already is left alone and not returned: no lock, no
-- write. A twin that inserts the same key at this moment makes us wait for its commit. The keys come in
-- ascending order of their bytes, the lock order that every batch keeps; the place in the array says so
-- without a sort.
WITH inserted AS (
    INSERT INTO bookings (
        booking_id, version, content_hash, deleted_at, delete_reason,
        reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
        passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
        cabin, booking_class, fare_basis, seat, point_of_sale, channel,
        price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
        source, last_event_at)
    SELECT
        booking_id, version, content_hash, deleted_at, delete_reason,
        reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
        passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
        cabin, booking_class, fare_basis, seat, point_of_sale, channel,
        price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
        source, last_event_at
    FROM unnest(
        $1::text[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::text[],
        $6::text[], $7::text[], $8::smallint[], $9::text[], $10::text[], $11::text[],
        $12::text[], $13::text[], $14::text[], $15::timestamptz[], $16::date[],
        $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[],
        $23::numeric[], $24::numeric[], $25::numeric[], $26::text[], $27::text[], $28::text[], $29::timestamptz[],
        $30::text[], $31::timestamptz[]) WITH ORDINALITY AS s (
        booking_id, version, content_hash, deleted_at, delete_reason,
        reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
        passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
        cabin, booking_class, fare_basis, seat, point_of_sale, channel,
        price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
        source, last_event_at,
        place)
    ORDER BY s.place
    ON CONFLICT (booking_id) DO NOTHING
    RETURNING booking_id
)
SELECT coalesce(array_agg(booking_id), '{}') FROM inserted
