-- Says of which events about bookings the newest counts: one that leaves all figures as they are does not touch the row.

COMMENT ON COLUMN market_data.last_event_at IS 'Newest time of the events about the flights that make up this row now, and of those about the bookings of operating flights that changed a figure, deleted ones included: a freshness mark, which goes back when a flight, or the last booking of a cabin and currency, leaves.';
