-- Messages that are settled without being applied. They are locked in the order in which a batch sets messages aside, see
-- quarantine: one that meets the same messages would wait for us, and we for it. What is erased keeps a hash, with the number
-- of its row: the same body for the same reason is one row, and may come again and be erased again.
WITH locked AS (
    SELECT id
    FROM quarantined_events
    WHERE id = ANY ($1::bigint[]) AND (state = 'open' OR $3)
    ORDER BY reason COLLATE "C", body
    FOR NO KEY UPDATE
)
UPDATE quarantined_events q
SET state = 'discarded', state_reason = $2, state_changed_at = now(),
    body = CASE WHEN $3 THEN sha256(body || convert_to(q.id::text, 'UTF8')) ELSE body END,
    headers = CASE WHEN $3 THEN '{}' ELSE headers END,
    message_id = CASE WHEN $3 THEN NULL ELSE message_id END
FROM locked
WHERE q.id = locked.id
RETURNING q.id
