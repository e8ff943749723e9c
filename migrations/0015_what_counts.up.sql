-- Says what counts among the bookings, whose days a curve has, and what a producer with a clock that is ahead does to the lag.

COMMENT ON COLUMN market_data.booking_count IS 'Active bookings: passengers boarded or to board on this segment, and those who did not show up; who is known to have flown is used_count.';

COMMENT ON VIEW market_data_history IS 'The market as it stood at the end of each UTC day with activity, as far as today''s rows tell: one row per (origin, destination, data_date, collection_date, currency) of operating flights.';

COMMENT ON VIEW booking_curve IS 'Bookings on hand by days before departure: 366 rows for each (origin, destination, data_date, cabin) with a booking of an operating flight. Days are UTC days and data_date is a local one, so the last hours before a departure may lie behind day 0, or the first ones after it within.';

COMMENT ON COLUMN worker_progress.last_event_at IS 'Newest CloudEvents time it has committed; of an event from the future the time of the commit.';
