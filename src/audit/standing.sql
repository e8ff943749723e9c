-- The newest exact snapshot, and what the verification of the newest snapshot found: one that began earlier may end later,
-- after a few others.
SELECT (SELECT max(started_at)
        FROM (SELECT started_at FROM verifications WHERE drift_count = 0 ORDER BY id DESC LIMIT 100) exact) AS verified_through,
       newest.drift_count,
       newest.age_secs
FROM (SELECT) one
LEFT JOIN (
    SELECT drift_count, extract(epoch FROM now() - finished_at)::double precision AS age_secs
    FROM (SELECT * FROM verifications ORDER BY id DESC LIMIT 100) latest
    ORDER BY started_at DESC
    LIMIT 1
) newest ON true
