-- What all workers have committed since the database began. Before revision 15 events from the future were noted as they came.
SELECT coalesce(sum(received), 0)::bigint AS received,
       coalesce(sum(applied), 0)::bigint AS applied,
       coalesce(sum(duplicate), 0)::bigint AS duplicate,
       coalesce(sum(stale), 0)::bigint AS stale,
       coalesce(sum(folded), 0)::bigint AS folded,
       coalesce(sum(quarantined), 0)::bigint AS quarantined,
       coalesce(sum(batches), 0)::bigint AS batches,
       max(last_commit_at) AS last_commit_at,
       max(CASE WHEN last_event_at > last_commit_at THEN last_commit_at ELSE last_event_at END) AS last_event_at
FROM worker_progress
