-- What a worker needs to do and this role may not.
SELECT n.privilege || ' on ' || n.relation
FROM (VALUES
    ('airports', 'SELECT'),
    ('reference_data', 'SELECT'),
    ('_sqlx_migrations', 'SELECT'),
    ('flights', 'SELECT'), ('flights', 'INSERT'), ('flights', 'UPDATE'),
    ('bookings', 'SELECT'), ('bookings', 'INSERT'), ('bookings', 'UPDATE'),
    ('flight_demand', 'SELECT'), ('flight_demand', 'INSERT'), ('flight_demand', 'UPDATE'), ('flight_demand', 'DELETE'),
    ('quarantined_events', 'SELECT'), ('quarantined_events', 'INSERT'), ('quarantined_events', 'UPDATE'),
    ('quarantined_events', 'DELETE'),
    ('worker_progress', 'SELECT'), ('worker_progress', 'INSERT'), ('worker_progress', 'UPDATE'),
    ('verifications', 'SELECT'), ('verifications', 'INSERT'),
    ('market_data', 'SELECT'), ('market_fares', 'SELECT'), ('market_activity', 'SELECT')
) AS n (relation, privilege)
WHERE NOT has_table_privilege(n.relation, n.privilege)
