-- What a worker needs to do and this role may not; and whether its batches need it, or only what it does beside them.
SELECT n.privilege || ' on ' || n.relation, n.for_batches
FROM (VALUES
    ('airports', 'SELECT', true),
    ('reference_data', 'SELECT', true),
    ('_sqlx_migrations', 'SELECT', true),
    ('flights', 'SELECT', true), ('flights', 'INSERT', true), ('flights', 'UPDATE', true),
    ('bookings', 'SELECT', true), ('bookings', 'INSERT', true), ('bookings', 'UPDATE', true),
    ('flight_demand', 'SELECT', true), ('flight_demand', 'INSERT', true), ('flight_demand', 'UPDATE', true),
    ('flight_demand', 'DELETE', true),
    ('quarantined_events', 'SELECT', true), ('quarantined_events', 'INSERT', true),
    ('quarantined_events', 'UPDATE', true), ('quarantined_events', 'DELETE', false),
    ('worker_progress', 'SELECT', true), ('worker_progress', 'INSERT', true), ('worker_progress', 'UPDATE', true),
    ('verifications', 'SELECT', false), ('verifications', 'INSERT', false),
    ('market_data', 'SELECT', false), ('market_fares', 'SELECT', false), ('market_activity', 'SELECT', false)
) AS n (relation, privilege, for_batches)
WHERE NOT has_table_privilege(n.relation, n.privilege)
UNION ALL
SELECT 'EXECUTE on local_date', true
WHERE NOT has_function_privilege('local_date(timestamptz, text)', 'EXECUTE')
