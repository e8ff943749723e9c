-- The newer states of bookings that lock_bookings holds.
UPDATE bookings b
SET version = s.version, content_hash = s.content_hash, deleted_at = s.deleted_at, delete_reason = s.delete_reason,
    reference = s.reference, ticket_number = s.ticket_number, coupon = s.coupon, flight_id = s.flight_id,
    journey_origin = s.journey_origin, journey_destination = s.journey_destination,
    passenger_name = s.passenger_name, passenger_email = s.passenger_email, passenger_phone = s.passenger_phone,
    booked_at = s.booked_at, travel_date = s.travel_date, cabin = s.cabin, booking_class = s.booking_class,
    fare_basis = s.fare_basis, seat = s.seat, point_of_sale = s.point_of_sale, channel = s.channel,
    price_base = s.price_base, price_taxes = s.price_taxes, price_total = s.price_total, currency = s.currency,
    payment_status = s.payment_status, status = s.status, cancelled_at = s.cancelled_at,
    source = s.source, last_event_at = s.last_event_at, updated_at = now()
FROM unnest(
    $1::text[], $2::bigint[], $3::bytea[], $4::timestamptz[], $5::text[],
    $6::text[], $7::text[], $8::smallint[], $9::text[], $10::text[], $11::text[],
    $12::text[], $13::text[], $14::text[], $15::timestamptz[], $16::date[],
    $17::text[], $18::text[], $19::text[], $20::text[], $21::text[], $22::text[],
    $23::numeric[], $24::numeric[], $25::numeric[], $26::text[], $27::text[], $28::text[], $29::timestamptz[],
    $30::text[], $31::timestamptz[]) AS s (
    booking_id, version, content_hash, deleted_at, delete_reason,
    reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
    passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
    cabin, booking_class, fare_basis, seat, point_of_sale, channel,
    price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
    source, last_event_at)
WHERE b.booking_id = s.booking_id
