-- All that is left to write of a batch once it is known what is stored. Tells which of the worker's batches this is, how many
-- flights, bookings and rows of flight_demand were written, and whether one of these was emptied.
--
-- The newer states of flights that lock_stored holds. A flight that moves to another date or route takes its bookings along:
-- flight_demand is keyed by the flight.
WITH updated_flights AS (
    UPDATE flights f
    SET version = s.version, content_hash = s.content_hash, deleted_at = s.deleted_at, delete_reason = s.delete_reason,
        airline = s.airline, flight_number = s.flight_number, suffix = s.suffix, origin = s.origin, destination = s.destination,
        scheduled_departure = s.scheduled_departure, scheduled_arrival = s.scheduled_arrival,
        estimated_departure = s.estimated_departure, actual_departure = s.actual_departure, actual_arrival = s.actual_arrival,
        aircraft_type = s.aircraft_type, aircraft_registration = s.aircraft_registration,
        capacity_total = s.capacity_total, capacity_by_cabin = s.capacity_by_cabin::jsonb, status = s.status,
        data_date = local_date(s.scheduled_departure, a.timezone),
        time_zone_known = CASE WHEN s.deleted_at IS NULL THEN a.timezone IS NOT NULL END,
        source = s.source, last_event_at = s.last_event_at, updated_at = now()
    FROM (
        SELECT unnest($10::text[]) AS flight_id, unnest($11::bigint[]) AS version, unnest($12::bytea[]) AS content_hash,
               unnest($13::timestamptz[]) AS deleted_at, unnest($14::text[]) AS delete_reason, unnest($15::text[]) AS airline,
               unnest($16::text[]) AS flight_number, unnest($17::text[]) AS suffix, unnest($18::text[]) AS origin,
               unnest($19::text[]) AS destination, unnest($20::timestamptz[]) AS scheduled_departure,
               unnest($21::timestamptz[]) AS scheduled_arrival, unnest($22::timestamptz[]) AS estimated_departure,
               unnest($23::timestamptz[]) AS actual_departure, unnest($24::timestamptz[]) AS actual_arrival,
               unnest($25::text[]) AS aircraft_type, unnest($26::text[]) AS aircraft_registration,
               unnest($27::integer[]) AS capacity_total, unnest($28::text[]) AS capacity_by_cabin, unnest($29::text[]) AS status,
               unnest($30::text[]) AS source, unnest($31::timestamptz[]) AS last_event_at) AS s
    LEFT JOIN airports a ON a.iata_code = s.origin
    WHERE f.flight_id = s.flight_id
    RETURNING 1
),
-- The newer states of bookings that lock_stored holds.
updated_bookings AS (
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
    FROM (
        SELECT unnest($32::text[]) AS booking_id, unnest($33::bigint[]) AS version, unnest($34::bytea[]) AS content_hash,
               unnest($35::timestamptz[]) AS deleted_at, unnest($36::text[]) AS delete_reason, unnest($37::text[]) AS reference,
               unnest($38::text[]) AS ticket_number, unnest($39::smallint[]) AS coupon, unnest($40::text[]) AS flight_id,
               unnest($41::text[]) AS journey_origin, unnest($42::text[]) AS journey_destination,
               unnest($43::text[]) AS passenger_name, unnest($44::text[]) AS passenger_email, unnest($45::text[]) AS passenger_phone,
               unnest($46::timestamptz[]) AS booked_at, unnest($47::date[]) AS travel_date, unnest($48::text[]) AS cabin,
               unnest($49::text[]) AS booking_class, unnest($50::text[]) AS fare_basis, unnest($51::text[]) AS seat,
               unnest($52::text[]) AS point_of_sale, unnest($53::text[]) AS channel, unnest($54::numeric[]) AS price_base,
               unnest($55::numeric[]) AS price_taxes, unnest($56::numeric[]) AS price_total, unnest($57::text[]) AS currency,
               unnest($58::text[]) AS payment_status, unnest($59::text[]) AS status, unnest($60::timestamptz[]) AS cancelled_at,
               unnest($61::text[]) AS source, unnest($62::timestamptz[]) AS last_event_at) AS s
    WHERE b.booking_id = s.booking_id
    RETURNING 1
),
-- The changes of the batch, one for each row. They are sent in ascending order of the key's bytes, and come so, see insert_new: locks
-- on rows that many batches want, taken this late so that twins wait for each other shortly, and never in a circle.
added AS (
    INSERT INTO flight_demand AS d (
        flight_id, cabin, currency,
        gross_booking_count, booking_count, cancellation_count, used_count, no_show_count,
        total_revenue, base_revenue, last_event_at)
    SELECT
        unnest($63::text[]), unnest($64::text[]), unnest($65::text[]), unnest($66::bigint[]), unnest($67::bigint[]),
        unnest($68::bigint[]), unnest($69::bigint[]), unnest($70::bigint[]), unnest($71::text[]::numeric[]),
        unnest($72::text[]::numeric[]), unnest($73::timestamptz[])
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
    RETURNING d.gross_booking_count
),
-- The verdict counts of this worker, in the transaction of the events they count. An event from the future hides how far behind the
-- others are for as long as this batch is the newest, and not until then.
progress AS (
    INSERT INTO worker_progress AS w (
        worker_id, started_at, last_commit_at, last_event_at,
        received, applied, duplicate, stale, folded, quarantined, batches)
    VALUES ($1, $2, now(), CASE WHEN $3 > now() THEN now() ELSE $3 END, $4, $5, $6, $7, $8, $9, 1)
    ON CONFLICT (worker_id) DO UPDATE
    SET last_commit_at = now(),
        last_event_at = greatest(w.last_event_at, excluded.last_event_at),
        received = w.received + excluded.received,
        applied = w.applied + excluded.applied,
        duplicate = w.duplicate + excluded.duplicate,
        stale = w.stale + excluded.stale,
        folded = w.folded + excluded.folded,
        quarantined = w.quarantined + excluded.quarantined,
        batches = w.batches + 1
    RETURNING batches
)
SELECT (SELECT batches FROM progress),
       (SELECT count(*) FROM updated_flights),
       (SELECT count(*) FROM updated_bookings),
       (SELECT count(*) FROM added),
       (SELECT coalesce(bool_or(gross_booking_count = 0), false) FROM added)
