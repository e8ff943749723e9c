-- How many batches of this worker have committed; to be rolled back. One whose COMMIT was not answered may still go
-- through: it holds the row, or its key, and is waited for.
INSERT INTO worker_progress AS w (
    worker_id, started_at, last_commit_at, received, applied, duplicate, stale, folded, quarantined, batches)
VALUES ($1, $2, now(), 0, 0, 0, 0, 0, 0, 0)
ON CONFLICT (worker_id) DO UPDATE SET batches = w.batches
RETURNING batches
