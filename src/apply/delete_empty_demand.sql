-- Rows that the batch has emptied, so that the table is the same whatever passed through it. They are
-- locked by conclude already; a twin that waits for one of them inserts it anew.
DELETE FROM flight_demand d
USING unnest($1::text[], $2::text[], $3::text[]) AS s (flight_id, cabin, currency)
WHERE d.flight_id = s.flight_id AND d.cabin = s.cabin AND d.currency = s.currency
  AND d.gross_booking_count = 0
