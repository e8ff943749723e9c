-- Who holds the locks that a session waits for. Their statements are not shown: they may name passengers.
SELECT string_agg(
    format('pid %s (%s, user %s%s)', pid, coalesce(nullif(application_name, ''), backend_type, 'unknown program'),
        coalesce(usename, 'unknown'),
        -- Not for everybody to see.
        ', ' || state || ' since ' || to_char(state_change AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS') || ' UTC'),
    ', ' ORDER BY pid)
FROM pg_stat_activity
WHERE pid = ANY (pg_blocking_pids($1))
