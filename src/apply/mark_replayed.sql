-- Marks a message as replayed, in the transaction of its effect, unless its state has changed since it
-- was read: then a twin was first.
UPDATE quarantined_events
SET state = 'replayed', state_reason = NULL, state_changed_at = now()
WHERE id = $1 AND state = $2
