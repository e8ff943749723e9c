-- Bookings that stored_bookings did not find, in ascending order of their keys, the lock order of insert_new. A twin
-- that inserts one of them at this moment makes us wait for its commit, and then fails the statement (23505): the batch
-- begins anew, with insert_new.
COPY bookings (
    booking_id, version, content_hash, deleted_at, delete_reason,
    reference, ticket_number, coupon, flight_id, journey_origin, journey_destination,
    passenger_name, passenger_email, passenger_phone, booked_at, travel_date,
    cabin, booking_class, fare_basis, seat, point_of_sale, channel,
    price_base, price_taxes, price_total, currency, payment_status, status, cancelled_at,
    source, last_event_at)
FROM STDIN (FORMAT binary)
