-- The table of revisions says what it is as well, and a comment says more exactly what it is about.

COMMENT ON TABLE _sqlx_migrations IS 'The revisions of this schema that were applied, one row each. Written by the migrator alone.';
COMMENT ON COLUMN _sqlx_migrations.version IS 'Number of the revision.';
COMMENT ON COLUMN _sqlx_migrations.description IS 'What it is about.';
COMMENT ON COLUMN _sqlx_migrations.installed_on IS 'When it was applied.';
COMMENT ON COLUMN _sqlx_migrations.success IS 'Whether it ran to its end.';
COMMENT ON COLUMN _sqlx_migrations.checksum IS 'SHA-384 of its file, which tells one that was edited afterwards.';
COMMENT ON COLUMN _sqlx_migrations.execution_time IS 'How long it took, in nanoseconds.';
COMMENT ON COLUMN market_data.last_event_at IS 'Newest time of the events about the flights that make up this row now and about their bookings, deleted ones included: a freshness mark, which goes back when a flight, or the last booking of a cabin and currency, leaves.';
