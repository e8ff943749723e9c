-- Ends the sessions of workers that stand in copy_bookings and have heard nothing of their client for 15 s: a process that is
-- frozen, or a path that is lost, with locks that twins wait for. Elsewhere idle_in_transaction_session_timeout does so; a
-- COPY is a statement under way, and waits for its rows whatever time limit it has.
SELECT count(pg_terminate_backend(pid))
FROM pg_stat_activity
WHERE datname = current_database() AND usename = current_user AND application_name = 'paxflow worker'
  AND state = 'active' AND wait_event = 'ClientRead' AND query LIKE '%COPY bookings (%'
  AND query_start < now() - interval '15 s'
