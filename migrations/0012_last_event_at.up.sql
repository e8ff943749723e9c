-- Says of which bookings the newest event counts.

COMMENT ON COLUMN market_data.last_event_at IS 'Newest time of the events about the flights that make up this row now and about the bookings of those that operate, deleted ones included: a freshness mark, which goes back when a flight, or the last booking of a cabin and currency, leaves.';
