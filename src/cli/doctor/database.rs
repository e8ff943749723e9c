//! What could be wrong with the database: a table of checks.

use anyhow::{Context, Result};
use sqlx::Connection;
use sqlx::postgres::{PgConnectOptions, PgConnection};

use super::Finding;
use crate::cli::told;
use crate::config::{Config, Pooler};
use crate::db::migrate::MIGRATOR;
use crate::db::{self, Fault, fault_of, reference, revisions, rights};

/// A query whose every row is something found.
struct Check {
    name: &'static str,
    finds: &'static str,
    danger: &'static str,
    remedy: &'static str,
}

/// The tables of this program, those that there are.
macro_rules! tables {
    () => {
        "SELECT to_regclass(name) FROM unnest(ARRAY['airports', 'flights', 'bookings', 'flight_demand',
             'quarantined_events', 'worker_progress', 'verifications', 'reference_data', 'users',
             'user_api_keys', 'user_sessions', '_sqlx_migrations']) AS t (name)"
    };
}

const READ_ONLY: Check = Check {
    name: "read_only",
    finds: "SELECT CASE WHEN pg_is_in_recovery() THEN 'the server is a standby'
                   ELSE 'default_transaction_read_only is on' END
            WHERE current_setting('transaction_read_only') = 'on'",
    danger: "workers hold their batches and commit nothing, or nothing is verified",
    remedy: "point DATABASE_URL and DATABASE_DIRECT_URL to the primary, or reset default_transaction_read_only",
};

/// Checks of the server, the database and the role.
const SETTINGS: &[Check] = &[
    Check {
        name: "fsync",
        finds: "SELECT 'off' WHERE current_setting('fsync') = 'off'",
        danger: "a crash of the machine corrupts the database, after the messages were acknowledged",
        remedy: "fsync = on in postgresql.conf, then reload",
    },
    Check {
        name: "full_page_writes",
        finds: "SELECT 'off' WHERE current_setting('full_page_writes') = 'off'",
        danger: "a crash of the machine can leave torn pages that nothing mends",
        remedy: "full_page_writes = on in postgresql.conf, then reload",
    },
    Check {
        name: "synchronous_commit",
        finds: "SELECT 'off' WHERE current_setting('synchronous_commit') = 'off'",
        danger: "a crash loses the last commits, whose messages were acknowledged",
        remedy: "set synchronous_commit to on for the server, the database and the role",
    },
    Check {
        name: "synchronous_standby_names",
        // Who may not see which of those that are connected is synchronous counts them all.
        finds: "SELECT format('%s: of %s that commits wait for, %s connected', s.names, s.wanted, c.connected)
                FROM (SELECT current_setting('synchronous_standby_names'),
                             coalesce(substring(current_setting('synchronous_standby_names') FROM '(?i)^[[:space:]]*(?:FIRST|ANY)?[[:space:]]*([0-9]+)[[:space:]]*[(]'), '1')::integer
                     ) AS s (names, wanted),
                     (SELECT count(*) FROM pg_stat_replication
                      WHERE sync_state IS NULL OR sync_state IN ('sync', 'quorum')) AS c (connected)
                WHERE s.names <> '' AND c.connected < s.wanted
                  AND current_setting('synchronous_commit') NOT IN ('off', 'local')",
        danger: "every commit waits for a standby that is not there",
        remedy: "start the standby, or take it out of synchronous_standby_names",
    },
    READ_ONLY,
    Check {
        name: "statement_timeout",
        finds: "SELECT name || ' is ' || reset_val || ' ms'
                FROM pg_settings
                WHERE name IN ('statement_timeout', 'transaction_timeout') AND reset_val::bigint BETWEEN 1 AND 59999",
        danger: "a large batch, a repair or a verification is cut off and tried again for ever",
        remedy: "at least 60s, or 0, for the role of the workers: ALTER ROLE ... SET statement_timeout = 0",
    },
    Check {
        name: "lock_timeout",
        finds: "SELECT reset_val || ' ms'
                FROM pg_settings
                WHERE name = 'lock_timeout' AND reset_val::bigint BETWEEN 1 AND 4999",
        danger: "batches that wait for one another or for a repair give up and start anew",
        remedy: "at least 5s, or 0, for the role of the workers: ALTER ROLE ... SET lock_timeout = 0",
    },
    Check {
        name: "session_replication_role",
        finds: "SELECT current_setting('session_replication_role')
                WHERE current_setting('session_replication_role') <> 'origin'",
        danger: "triggers do not fire: flights keep their old dates when the time zone of an airport changes",
        remedy: "reset session_replication_role for the database and the role",
    },
    Check {
        name: "autovacuum",
        finds: "SELECT name || ' is off' FROM pg_settings WHERE name IN ('autovacuum', 'track_counts') AND setting = 'off'",
        danger: "tables bloat until every batch is slow, and in the end the server refuses to write",
        remedy: "autovacuum = on and track_counts = on in postgresql.conf, then reload",
    },
    Check {
        name: "encoding",
        finds: "SELECT pg_encoding_to_char(encoding) FROM pg_database
                WHERE datname = current_database() AND pg_encoding_to_char(encoding) <> 'UTF8'",
        danger: "names that the encoding does not have are quarantined, or stored as bytes that mean nothing",
        remedy: "make a database with ENCODING 'UTF8' TEMPLATE template0 and move to it",
    },
];

/// Checks of what the schema holds.
const SCHEMA: &[Check] = &[
    Check {
        name: "table_autovacuum",
        finds: concat!(
            "SELECT c.relname::text FROM pg_class c, pg_options_to_table(c.reloptions) o
             WHERE c.oid IN (",
            tables!(),
            ") AND o.option_name = 'autovacuum_enabled' AND NOT o.option_value::boolean"
        ),
        danger: "the table bloats until every batch is slow",
        remedy: "ALTER TABLE ... RESET (autovacuum_enabled)",
    },
    Check {
        name: "unlogged",
        finds: concat!(
            "SELECT relname::text FROM pg_class WHERE relpersistence <> 'p' AND oid IN (",
            tables!(),
            ")"
        ),
        danger: "the table is empty after a crash of the server",
        remedy: "ALTER TABLE ... SET LOGGED",
    },
    Check {
        name: "row_security",
        finds: concat!(
            "SELECT relname::text FROM pg_class WHERE relrowsecurity AND oid IN (",
            tables!(),
            ")"
        ),
        danger: "rows that the worker does not see are counted wrong",
        remedy: "ALTER TABLE ... DISABLE ROW LEVEL SECURITY",
    },
    Check {
        name: "invalid_index",
        finds: concat!(
            "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid AND indrelid IN (",
            tables!(),
            ")"
        ),
        danger: "queries go without it and read whole tables",
        remedy: "REINDEX INDEX CONCURRENTLY ...",
    },
    Check {
        name: "trigger",
        finds: "SELECT n.name || CASE WHEN t.oid IS NULL THEN ' is missing' ELSE ' is disabled' END
                FROM (VALUES ('airports_date_their_flights')) AS n (name)
                LEFT JOIN pg_trigger t ON t.tgname = n.name AND t.tgrelid = to_regclass('airports')
                WHERE t.oid IS NULL OR t.tgenabled NOT IN ('O', 'A')",
        danger: "flights keep their old dates when the time zone of an airport changes",
        remedy: "ALTER TABLE airports ENABLE TRIGGER airports_date_their_flights, then paxflow verify --repair",
    },
    Check {
        name: "foreign_trigger",
        finds: concat!(
            "SELECT tgname || ' on ' || tgrelid::regclass FROM pg_trigger
             WHERE NOT tgisinternal AND tgenabled <> 'D' AND tgtype & 3 = 3 AND tgrelid IN (",
            tables!(),
            ")
             UNION ALL
             SELECT 'rule ' || rulename || ' on ' || ev_class::regclass FROM pg_rewrite WHERE ev_class IN (",
            tables!(),
            ")"
        ),
        danger: "it can change or keep back a row before it is stored: batches fail, or MarketData drifts",
        remedy: "DROP TRIGGER or DROP RULE, or have the trigger fire AFTER",
    },
    Check {
        name: "airports",
        finds: "SELECT (r.row_count - a.count) || ' airports are missing'
                FROM reference_data r, (SELECT count(*) FROM airports) a
                WHERE r.name = 'airports' AND a.count < r.row_count",
        danger: "flights from there count on their UTC date",
        remedy: "DELETE FROM reference_data WHERE name = 'airports', then paxflow db migrate upgrade, which loads them",
    },
    Check {
        name: "time_zones",
        finds: "SELECT 'airports without a time zone: ' || count(*) || ', such as ' || min(iata_code)
                FROM airports
                WHERE timezone IS NULL
                HAVING count(*) > 0",
        danger: "flights from there count on their UTC date: nobody said the zone, or this server did not know it when the airports were loaded",
        remedy: "UPDATE airports SET timezone = ...; or update the time zone data of the server, then DELETE FROM reference_data WHERE name = 'airports', then paxflow db migrate upgrade, which loads them",
    },
    Check {
        name: "time_zones",
        finds: "SELECT 'airport ' || a.iata_code || ' is in ' || a.timezone || ', which this server does not know'
                FROM airports a
                LEFT JOIN pg_timezone_names z ON lower(z.name) = lower(a.timezone)
                WHERE a.timezone IS NOT NULL AND z.name IS NULL
                ORDER BY a.iata_code
                LIMIT 5",
        danger: "every flight from there is refused and quarantined",
        remedy: "update the time zone data of the server, or correct the airport",
    },
];

/// What would cut off a batch would cut off these questions; and behind a pooler a session lasts as long as a transaction.
/// That somebody holds a table for long is found by the last.
const BEGIN: &str = "BEGIN; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '10s'";
/// Tells databases apart, but not a primary from its standbys, or from a server that was made of a copy of its files.
const IDENTITY: &str = "SELECT format('%s of server %s', current_database(), system_identifier) FROM pg_control_system()";

/// The findings: of the settings and rights that a worker's batches have, and of the schema.
pub(super) async fn examine(config: &Config, consumers: u32) -> Result<Vec<Finding>> {
    let worker = config
        .pool
        .pooler
        .options(config.database_url()?, "doctor")?;
    let direct = db::options(config.direct_url()?, "doctor")?;
    let mut findings = Vec::new();
    match (db::connect(&worker).await, db::connect(&direct).await) {
        (Ok(mut worker), Ok(mut direct)) => {
            let asked = ask(&mut worker, &mut direct, config, consumers, &mut findings).await;
            // What was found by then stands.
            findings.extend(asked.err().map(|error| Finding {
                server: "database",
                check: "examination",
                found: told(&error),
                danger: "nobody knows what else is wrong",
                remedy: "mend that, then ask again",
            }));
        }
        (Err(error), _) => findings.push(unreachable(&worker, error)),
        (_, Err(error)) => findings.push(unreachable(&direct, error)),
    }
    Ok(findings)
}

/// Asks everything. Where the schema is not what this program needs, nothing is asked of it.
async fn ask(
    worker: &mut PgConnection,
    direct: &mut PgConnection,
    config: &Config,
    consumers: u32,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    let mut settings = worker
        .begin_with(BEGIN)
        .await
        .context("cannot ask the database")?;
    run_checks(&mut settings, SETTINGS, findings).await?;
    findings.extend(too_few_connections(&mut settings, config, consumers).await?);
    let mut schema = direct
        .begin_with(BEGIN)
        .await
        .context("cannot ask the database")?;
    if config.database_direct_url.is_some() {
        compare(&mut settings, &mut schema, findings).await?;
    }
    if let Some(problem) = schema_problem(&mut schema).await? {
        findings.push(problem);
        return Ok(());
    }
    run_checks(&mut schema, SCHEMA, findings).await?;
    let missing = rights::missing(&mut settings)
        .await
        .context("cannot check privileges")?;
    findings.extend(missing.into_iter().map(|(found, _)| Finding {
        server: "database",
        check: "privileges",
        found,
        danger: "workers do not start, or do not verify and tidy up",
        remedy: "GRANT it to the role of DATABASE_URL",
    }));
    Ok(())
}

/// Whether both URLs lead to one database that takes what is written.
async fn compare(
    worker: &mut PgConnection,
    direct: &mut PgConnection,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    if findings.iter().all(|found| found.check != READ_ONLY.name) {
        run_checks(direct, &[READ_ONLY], findings).await?;
    }
    let mut identities = Vec::new();
    for connection in [worker, direct] {
        let identity: String = sqlx::query_scalar(IDENTITY)
            .persistent(false)
            .fetch_one(connection)
            .await
            .context("cannot ask which database it is")?;
        identities.push(identity);
    }
    if identities[0] != identities[1] {
        findings.push(Finding {
            server: "database",
            check: "direct_url",
            found: format!(
                "DATABASE_URL leads to database {}, DATABASE_DIRECT_URL to {}",
                identities[0], identities[1]
            ),
            danger: "what is migrated, verified and backed up is not what the batches write",
            remedy: "correct DATABASE_DIRECT_URL, or DATABASE_URL",
        });
    }
    Ok(())
}

fn unreachable(options: &PgConnectOptions, error: sqlx::Error) -> Finding {
    let danger = match fault_of(&error) {
        Fault::Transient => "workers wait and apply nothing",
        Fault::Data { .. } | Fault::Permanent => "workers do not start",
    };
    let problem = told(&db::explain(error));
    Finding {
        server: "database",
        check: "reachable",
        found: format!("{}: {problem}", db::address(options)),
        danger,
        remedy: "start the database, create it, or correct DATABASE_URL (or DATABASE_DIRECT_URL, if that leads there)",
    }
}

async fn run_checks(
    connection: &mut PgConnection,
    checks: &[Check],
    findings: &mut Vec<Finding>,
) -> Result<()> {
    for check in checks {
        let found: Vec<String> = sqlx::query_scalar(check.finds)
            .persistent(false)
            .fetch_all(&mut *connection)
            .await
            .with_context(|| format!("cannot check {}", check.name))?;
        findings.extend(found.into_iter().map(|found| Finding {
            server: "database",
            check: check.name,
            found,
            danger: check.danger,
            remedy: check.remedy,
        }));
    }
    Ok(())
}

/// Every worker may open its whole pool, which ends at a pooler where there is one, and a connection to verify.
async fn too_few_connections(
    connection: &mut PgConnection,
    config: &Config,
    consumers: u32,
) -> Result<Option<Finding>> {
    let offered: i32 = sqlx::query_scalar(include_str!("connections.sql"))
        .persistent(false)
        .fetch_one(connection)
        .await
        .context("cannot check the connections")?;
    let workers = consumers.max(1);
    let of_the_pool = match config.pool.pooler {
        Pooler::None => config.pool.size + config.pool.max_overflow,
        Pooler::Transaction => 0,
    };
    let each = of_the_pool + 1;
    let needed = u64::from(workers) * u64::from(each);
    Ok((needed > offered.max(0) as u64).then(|| Finding {
        server: "database",
        check: "connections",
        found: format!("{offered} offered, {workers} workers of {each} connections need {needed}"),
        danger: "workers that get no connection hold their batches",
        remedy: "raise max_connections or the limit of the role or database, or lower DATABASE_POOL_SIZE and DATABASE_MAX_OVERFLOW, or run fewer workers",
    }))
}

async fn schema_problem(connection: &mut PgConnection) -> Result<Option<Finding>> {
    let standing = revisions::standing(connection, &MIGRATOR).await?;
    let (found, danger, remedy) = if let Err(unsound) = standing.refuse_unsound(&MIGRATOR) {
        (
            unsound.to_string(),
            "no worker of this version starts",
            "do what it says; paxflow db migrate show lists the revisions",
        )
    } else if !standing.in_sync() {
        let (current, latest) = (standing.current_version(), revisions::latest(&MIGRATOR));
        (
            format!("revision {current}, this program knows {latest}"),
            "a worker of this version cannot run on it",
            "paxflow db migrate upgrade",
        )
    } else if !reference::is_loaded(connection).await? {
        (
            "the airports of this version are not loaded".to_owned(),
            "flights count on their UTC date, or on that of another edition",
            "paxflow db migrate upgrade, which loads them",
        )
    } else {
        return Ok(None);
    };
    Ok(Some(Finding {
        server: "database",
        check: "schema",
        found,
        danger,
        remedy,
    }))
}
