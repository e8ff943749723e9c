DROP TABLE verifications;
DROP TABLE worker_progress;
DROP TABLE quarantined_events;
