-- The connections that this role may have in this database.
SELECT least(
    current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(nullif(current_setting('reserved_connections', true), '')::integer, 0),
    nullif(d.datconnlimit, -1),
    nullif(r.rolconnlimit, -1))
FROM pg_database d, pg_roles r
WHERE d.datname = current_database() AND r.rolname = current_user
