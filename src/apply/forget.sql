-- Removes messages that are settled for longer than some days, a few at a time. What is open is never
-- removed. Twins skip what another one is removing.
DELETE FROM quarantined_events
WHERE id IN (
    SELECT id
    FROM quarantined_events
    WHERE state <> 'open' AND state_changed_at < now() - make_interval(days => $1)
    ORDER BY id
    LIMIT $2
    FOR UPDATE SKIP LOCKED)
