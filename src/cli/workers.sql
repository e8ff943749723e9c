-- What all workers have committed since the database began.
SELECT coalesce(sum(received), 0)::bigint AS received,
       coalesce(sum(applied), 0)::bigint AS applied,
       coalesce(sum(duplicate), 0)::bigint AS duplicate,
       coalesce(sum(stale), 0)::bigint AS stale,
       coalesce(sum(folded), 0)::bigint AS folded,
       coalesce(sum(quarantined), 0)::bigint AS quarantined,
       coalesce(sum(batches), 0)::bigint AS batches,
       max(last_commit_at) AS last_commit_at,
       max(last_event_at) AS last_event_at
FROM worker_progress
