-- The newest exact snapshot, and the newest verification.
SELECT (SELECT started_at FROM verifications WHERE drift_count = 0 ORDER BY id DESC LIMIT 1) AS verified_through,
       newest.drift_count,
       newest.age_secs
FROM (SELECT) one
LEFT JOIN (
    SELECT drift_count, extract(epoch FROM now() - finished_at)::double precision AS age_secs
    FROM verifications
    ORDER BY id DESC
    LIMIT 1
) newest ON true
