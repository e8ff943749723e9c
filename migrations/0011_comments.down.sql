COMMENT ON TABLE _sqlx_migrations IS NULL;
COMMENT ON COLUMN _sqlx_migrations.version IS NULL;
COMMENT ON COLUMN _sqlx_migrations.description IS NULL;
COMMENT ON COLUMN _sqlx_migrations.installed_on IS NULL;
COMMENT ON COLUMN _sqlx_migrations.success IS NULL;
COMMENT ON COLUMN _sqlx_migrations.checksum IS NULL;
COMMENT ON COLUMN _sqlx_migrations.execution_time IS NULL;
COMMENT ON COLUMN market_data.last_event_at IS 'Newest event time among the flights and bookings that make up this row now: a freshness mark, which goes back when one of them leaves.';
