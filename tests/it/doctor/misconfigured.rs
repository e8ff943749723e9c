//! Databases that are not as they should be.

/// What to do to a database, what doctor then finds, and how to undo it. `{db}` is its name.
pub const DATABASES: [(&str, &str, &str, &str); 21] = [
    (
        "ALTER DATABASE {db} SET synchronous_commit = off",
        "synchronous_commit",
        "off",
        "ALTER DATABASE {db} RESET ALL",
    ),
    (
        "ALTER DATABASE {db} SET default_transaction_read_only = on",
        "read_only",
        "default_transaction_read_only is on",
        "SET default_transaction_read_only = off; ALTER DATABASE {db} RESET ALL",
    ),
    (
        "ALTER DATABASE {db} SET statement_timeout = '1ms'",
        "statement_timeout",
        "statement_timeout is 1 ms",
        "ALTER DATABASE {db} RESET ALL",
    ),
    // From PostgreSQL 17 on there is such a setting; whichever this one is, it seems to have it.
    (
        "CREATE SCHEMA later; \
         CREATE VIEW later.pg_settings AS SELECT name, setting, reset_val FROM pg_catalog.pg_settings \
             WHERE name <> 'transaction_timeout' UNION ALL SELECT 'transaction_timeout', '2000', '2000'; \
         ALTER DATABASE {db} SET search_path = later, pg_catalog, public",
        "statement_timeout",
        "transaction_timeout is 2000 ms",
        "ALTER DATABASE {db} RESET ALL; DROP SCHEMA later CASCADE",
    ),
    (
        "ALTER DATABASE {db} SET lock_timeout = '50ms'",
        "lock_timeout",
        "50 ms",
        "ALTER DATABASE {db} RESET ALL",
    ),
    (
        "ALTER DATABASE {db} SET session_replication_role = replica",
        "session_replication_role",
        "replica",
        "ALTER DATABASE {db} RESET ALL",
    ),
    (
        "ALTER DATABASE {db} CONNECTION LIMIT 7",
        "connections",
        "7 offered",
        "ALTER DATABASE {db} CONNECTION LIMIT -1",
    ),
    (
        "ALTER TABLE bookings SET (autovacuum_enabled = off)",
        "table_autovacuum",
        "bookings",
        "ALTER TABLE bookings RESET (autovacuum_enabled)",
    ),
    (
        "ALTER TABLE flight_demand SET UNLOGGED",
        "unlogged",
        "flight_demand",
        "ALTER TABLE flight_demand SET LOGGED",
    ),
    (
        "ALTER TABLE flights ENABLE ROW LEVEL SECURITY",
        "row_security",
        "flights",
        "ALTER TABLE flights DISABLE ROW LEVEL SECURITY",
    ),
    (
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'bookings_flight'::regclass",
        "invalid_index",
        "bookings_flight",
        "REINDEX INDEX bookings_flight",
    ),
    (
        "ALTER TABLE airports DISABLE TRIGGER airports_date_their_flights",
        "trigger",
        "airports_date_their_flights is disabled",
        "ALTER TABLE airports ENABLE TRIGGER airports_date_their_flights",
    ),
    (
        "ALTER TRIGGER airports_date_their_flights ON airports RENAME TO away",
        "trigger",
        "airports_date_their_flights is missing",
        "ALTER TRIGGER away ON airports RENAME TO airports_date_their_flights",
    ),
    (
        "CREATE TRIGGER meddle BEFORE UPDATE ON bookings FOR EACH ROW \
             EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "foreign_trigger",
        "meddle on bookings",
        "DROP TRIGGER meddle ON bookings",
    ),
    (
        "CREATE RULE meddle AS ON UPDATE TO flights DO INSTEAD NOTHING",
        "foreign_trigger",
        "rule meddle on flights",
        "DROP RULE meddle ON flights",
    ),
    (
        "CREATE TABLE away AS TABLE airports; DELETE FROM airports WHERE iata_code BETWEEN 'JFA' AND 'JFZ'",
        "airports",
        "airports are missing",
        "INSERT INTO airports SELECT * FROM away ON CONFLICT DO NOTHING",
    ),
    (
        "UPDATE airports SET timezone = NULL WHERE iata_code = 'KBP'",
        "time_zones",
        "airports without a time zone: 1, such as KBP",
        "UPDATE airports SET timezone = 'Europe/Kyiv' WHERE iata_code = 'KBP'",
    ),
    (
        "UPDATE airports SET timezone = 'Mars/Olympus' WHERE iata_code = 'JFK'",
        "time_zones",
        "airport JFK is in Mars/Olympus",
        "UPDATE airports SET timezone = 'America/New_York' WHERE iata_code = 'JFK'",
    ),
    (
        "UPDATE reference_data SET checksum = 'x'",
        "schema",
        "airports of this version are not loaded",
        "UPDATE reference_data SET checksum = (SELECT checksum FROM kept)",
    ),
    (
        "UPDATE _sqlx_migrations SET checksum = '\\x00' WHERE version = 2",
        "schema",
        "revision 2 was edited",
        "UPDATE _sqlx_migrations m SET checksum = k.checksum FROM kept_migrations k WHERE k.version = m.version",
    ),
    (
        "DELETE FROM _sqlx_migrations WHERE version > 3",
        "schema",
        "revision 3, this program knows ",
        "INSERT INTO _sqlx_migrations SELECT * FROM kept_migrations ON CONFLICT DO NOTHING",
    ),
];
