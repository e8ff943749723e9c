-- The verification of the newest snapshot, since one that began earlier may end later, after a few others; and the newest snapshot
-- that was exact.
SELECT finished_at, row_count, drift_count,
       extract(epoch FROM now() - finished_at)::double precision AS age_secs,
       (SELECT max(started_at)
        FROM (SELECT started_at FROM verifications WHERE drift_count = 0 ORDER BY id DESC LIMIT 100) exact) AS verified_through
FROM (SELECT * FROM verifications ORDER BY id DESC LIMIT 100) latest
ORDER BY started_at DESC
LIMIT 1
