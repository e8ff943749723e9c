-- The messages set aside, one row for the same body and reason, in an order that every batch keeps.
INSERT INTO quarantined_events AS q (
    reason, path, detail, exchange, routing_key, content_type, content_encoding, message_id,
    headers, body, sqlstate, contract_version, times_received)
SELECT s.reason, s.path, s.detail, s.exchange, s.routing_key, s.content_type, s.content_encoding, s.message_id,
       s.headers::jsonb, s.body, s.sqlstate, $13::text, s.times_received
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::text[], $10::bytea[], $11::text[], $12::bigint[]) WITH ORDINALITY AS s (
    reason, path, detail, exchange, routing_key, content_type, content_encoding, message_id,
    headers, body, sqlstate, times_received, place)
ORDER BY s.place
ON CONFLICT (reason, sha256(body)) DO UPDATE
SET times_received = q.times_received + excluded.times_received,
    last_received_at = now(),
    -- One that comes again after its replay is open again; what was discarded stays so.
    state = CASE q.state WHEN 'replayed' THEN 'open' ELSE q.state END,
    state_changed_at = CASE q.state WHEN 'replayed' THEN now() ELSE q.state_changed_at END
