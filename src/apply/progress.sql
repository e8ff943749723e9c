-- The verdict counts of this worker, in the transaction of the events they count; tells which of its batches this is.
INSERT INTO worker_progress AS w (
    worker_id, started_at, last_commit_at, last_event_at,
    received, applied, duplicate, stale, folded, quarantined, batches)
VALUES ($1, $2, now(), $3, $4, $5, $6, $7, $8, $9, 1)
ON CONFLICT (worker_id) DO UPDATE
SET last_commit_at = now(),
    last_event_at = greatest(w.last_event_at, excluded.last_event_at),
    received = w.received + excluded.received,
    applied = w.applied + excluded.applied,
    duplicate = w.duplicate + excluded.duplicate,
    stale = w.stale + excluded.stale,
    folded = w.folded + excluded.folded,
    quarantined = w.quarantined + excluded.quarantined,
    batches = w.batches + 1
RETURNING batches
