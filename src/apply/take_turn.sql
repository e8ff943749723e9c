-- One at a time, until the commit: of those who have met at new bookings, before they lock any booking. The key is the
-- table itself, in the space of advisory locks that has two numbers.
SELECT pg_advisory_xact_lock('bookings'::regclass::oid::integer, 0)
