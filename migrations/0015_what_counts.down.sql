COMMENT ON COLUMN worker_progress.last_event_at IS 'Newest CloudEvents time it has committed.';

COMMENT ON VIEW booking_curve IS 'Bookings on hand by days before departure: 366 rows for each (origin, destination, data_date, cabin) with a booking.';

COMMENT ON VIEW market_data_history IS 'The market as it stood at the end of each UTC day with activity, as far as today''s rows tell: one row per (origin, destination, data_date, collection_date, currency).';

COMMENT ON COLUMN market_data.booking_count IS 'Active bookings: passengers boarded or to board on this segment.';
