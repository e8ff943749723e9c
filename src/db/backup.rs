//! Backup and restore of schema `public` with pg_dump's custom format.
//!
//! What a backup holds is counted in the file itself, never noted beside it. A backup is read back
//! as soon as it is written and compared with the snapshot it was taken from. A restore is one
//! transaction, from dropping what is there to counting the rows: it happens as a whole or not at all.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, anyhow, bail, ensure};
use indicatif::ProgressBar;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, BufWriter};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use super::client::{Client, first_complaint, start};
use super::migrate::MIGRATOR;
use super::{revisions, sqlstate};

/// What is backed up and restored.
const SCHEMA: &str = "public";

/// How a file in pg_dump's custom format begins.
pub const MAGIC: &[u8] = b"PGDMP";

/// How long a backup waits for a table that a migration holds.
const LOCK_TIMEOUT: &str = "300s";

/// How long pg_dump then waits for one that somebody else wants to change, and who waits for the backup himself.
const DUMP_LOCK_TIMEOUT: &str = "--lock-wait-timeout=30s";

/// The tables that are backed up, by their names in SQL.
const TABLES: &str = include_str!("backup_tables.sql");

/// pg_restore 17 and later write this whatever the server is; before 17 no server knows it.
const UNKNOWN_BEFORE_17: &[u8] = b"SET transaction_timeout = 0;\n";

/// Bytes of a script that are read ahead.
const READ_AHEAD: usize = 256 * 1024;

/// Rows between two updates of a progress bar.
const ROWS_A_STEP: u64 = 10_000;

/// Rows of each table, by its name in SQL.
pub type Rows = BTreeMap<String, u64>;

/// What a backup was taken of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Revision of the schema.
    pub revision: i64,
    /// Its rows.
    pub rows: Rows,
}

/// A server, and the programs that fit it.
pub struct Server {
    options: PgConnectOptions,
    client: Client,
    major: u32,
}

impl Server {
    /// Looks at a server.
    ///
    /// # Errors
    /// If it does not answer, no programs fit it, or our tables are not those in schema `public`.
    pub async fn look(options: PgConnectOptions) -> Result<Self> {
        let mut connection = super::connect(&options).await.map_err(super::explain)?;
        let version = "SELECT current_setting('server_version_num')::integer / 10000";
        let major: i32 = sqlx::query_scalar(version)
            .fetch_one(&mut connection)
            .await?;
        let schema: Option<String> = sqlx::query_scalar("SELECT current_schema()")
            .fetch_one(&mut connection)
            .await?;
        connection.close().await.ok();
        ensure!(
            schema.as_deref() == Some(SCHEMA),
            "the search_path of this connection leads to schema {}, and a backup is one of schema {SCHEMA}: \
             set search_path = {SCHEMA} for the role, or leave it out of the URL; tables that are in another schema \
             can be moved by ALTER TABLE ... SET SCHEMA {SCHEMA}, or backed up by pg_dump --schema",
            schema.as_deref().unwrap_or("that is not there")
        );
        let major = major.unsigned_abs();
        Ok(Self {
            client: Client::find(major).await?,
            options,
            major,
        })
    }

    /// Writes a backup of one snapshot, also while workers commit. `lock` is a handle of the file that
    /// holds a lock on it: the lock then lasts for as long as anything writes there.
    ///
    /// # Errors
    /// If there is no schema of ours, or pg_dump fails.
    pub async fn dump(&self, path: &Path, lock: &File, progress: &ProgressBar) -> Result<Snapshot> {
        let mut connection = super::connect(&self.options).await?;
        let tables: Vec<String> = sqlx::query_scalar(TABLES)
            .fetch_all(&mut connection)
            .await?;
        let mut shared = connection
            .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        hold(&mut shared, &tables).await?;
        let revision = revisions::standing(&mut shared, &MIGRATOR)
            .await?
            .current_version();
        ensure!(
            revision > 0,
            "there is nothing to back up: the database has no paxflow schema"
        );
        let id: String = sqlx::query_scalar("SELECT pg_export_snapshot()")
            .fetch_one(&mut *shared)
            .await?;
        let mut dumping = start(
            self.client
                .connecting("pg_dump", &self.options)
                .args(["--format=custom", "--schema", SCHEMA, "--verbose"])
                .args([DUMP_LOCK_TIMEOUT, &format!("--snapshot={id}")])
                // By name, not as its stdout: from version 18 on that would leave the table of
                // contents at the end, where nobody looks for it.
                .arg("--file")
                .arg(path)
                // Never read: pg_dump keeps the lock if this process is killed.
                .stdin(lock.try_clone().context("cannot share the lock")?)
                .stderr(Stdio::piped()),
        )?;
        let complaint = listen(&mut dumping, progress)?;
        let rows = count(&mut shared).await?;
        let status = dumping.wait().await.context("cannot wait for pg_dump")?;
        if !status.success() {
            return Err(failure("pg_dump", complaint).await);
        }
        shared.commit().await?;
        connection.close().await.ok();
        Ok(Snapshot { revision, rows })
    }

    /// Compares a written backup with what it was taken of, by reading all of it.
    ///
    /// # Errors
    /// If it cannot be read, or holds other rows.
    pub async fn read_back(
        &self,
        path: &Path,
        snapshot: &Snapshot,
        progress: &ProgressBar,
    ) -> Result<()> {
        let mut script = Script::open(&self.client, path, &["--data-only"])?;
        while script.next().await?.is_some() {
            script.show(progress);
        }
        let rows = script.finish().await?;
        if let Some(difference) = difference(&snapshot.rows, &rows) {
            bail!("the file does not hold what the database did: {difference}");
        }
        Ok(())
    }

    /// The revision of the schema in a backup, as the backup itself has it.
    ///
    /// # Errors
    /// If it cannot be read or is not a backup of ours.
    pub async fn revision(&self, path: &Path) -> Result<i64> {
        let arguments = ["--data-only", "--table=_sqlx_migrations"];
        let mut script = Script::open(&self.client, path, &arguments)?;
        let mut newest = None;
        while let Some(line) = script.next().await? {
            if let Line::Row(row) = line {
                // The version is the first column.
                let version = row.split(|byte| *byte == b'\t').next();
                let version =
                    version.and_then(|version| str::from_utf8(version).ok()?.parse().ok());
                newest = newest.max(version);
            }
        }
        script.finish().await?;
        newest.context("it is no backup of paxflow: it has no schema revisions")
    }

    /// Statements that drop everything in schema `public`, one for each object; none if it is empty.
    ///
    /// # Errors
    /// What the database says.
    pub async fn drops(&self) -> sqlx::Result<Vec<String>> {
        let mut connection = super::connect(&self.options).await?;
        let drops = sqlx::query_scalar(include_str!("drop_objects.sql"))
            .fetch_all(&mut connection)
            .await?;
        connection.close().await.ok();
        Ok(drops)
    }

    /// Executes `drops` and restores a backup, in one transaction; returns the rows restored.
    ///
    /// # Errors
    /// If the file cannot be read to its end or the database refuses something: nothing has changed then.
    pub async fn restore(
        &self,
        path: &Path,
        drops: &[String],
        progress: &ProgressBar,
    ) -> Result<Rows> {
        let arguments = [
            "--schema",
            SCHEMA,
            "--no-owner",
            "--no-privileges",
            "--no-tablespaces",
        ];
        let script = Script::open(&self.client, path, &arguments)?;
        let mut loading = start(
            self.client
                .connecting("psql", &self.options)
                .args(["--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped()),
        )?;
        let complaint = listen(&mut loading, &ProgressBar::hidden())?;
        let stdin = loading.stdin.take().context("psql has no stdin")?;
        let sent = self.send(script, drops, stdin, progress).await;
        let status = loading.wait().await.context("cannot wait for psql")?;
        match sent {
            Ok(rows) if status.success() => Ok(rows),
            // psql went away first, and says why; otherwise the file is to blame.
            Err(error) if !is_broken_pipe(&error) => Err(error),
            _ => Err(failure("psql", complaint).await),
        }
    }

    /// Feeds psql. Without the last line it ends without a commit.
    async fn send(
        &self,
        mut script: Script,
        drops: &[String],
        stdin: ChildStdin,
        progress: &ProgressBar,
    ) -> Result<Rows> {
        let mut psql = BufWriter::with_capacity(READ_AHEAD, stdin);
        psql.write_all(BEGIN.as_bytes()).await?;
        psql.write_all(NOTE_OTHERS.as_bytes()).await?;
        for drop in drops {
            psql.write_all(format!("{drop};\n").as_bytes()).await?;
        }
        psql.write_all(SPARE_OTHERS.as_bytes()).await?;
        while let Some(line) = script.next().await? {
            match line {
                Line::Statement(line) if !is_known(line, self.major) => (),
                Line::Statement(line) | Line::Row(line) => psql.write_all(line).await?,
            }
            script.show(progress);
        }
        let rows = script.finish().await?;
        psql.write_all(check(&rows).as_bytes()).await?;
        psql.write_all(b"COMMIT;\n").await?;
        psql.shutdown().await?;
        Ok(rows)
    }
}

/// Keeps the tables from being rewritten for as long as the transaction lasts, which then may have nothing to do until pg_dump
/// is done. Before its snapshot is taken, which is at its first question: a table that is rewritten after that is empty to it.
async fn hold(transaction: &mut PgConnection, tables: &[String]) -> Result<()> {
    let mut hold = format!(
        "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"
    );
    if !tables.is_empty() {
        hold = format!(
            "{hold}; LOCK TABLE {} IN ACCESS SHARE MODE",
            tables.join(", ")
        );
    }
    let Err(error) = sqlx::raw_sql(AssertSqlSafe(hold))
        .execute(transaction)
        .await
    else {
        return Ok(());
    };
    let what = if sqlstate::is(&error, sqlstate::LOCK_NOT_AVAILABLE) {
        format!("somebody has been changing a table for {LOCK_TIMEOUT}, try again later")
    } else if sqlstate::is(&error, sqlstate::INSUFFICIENT_PRIVILEGE) {
        "cannot read all tables: back up as the owner of the tables".to_owned()
    } else {
        "cannot hold the tables as they are".to_owned()
    };
    Err(super::explain(error).context(what))
}

/// Whether a server knows what pg_restore has written.
fn is_known(statement: &[u8], server_major: u32) -> bool {
    server_major >= 17 || statement != UNKNOWN_BEFORE_17
}

/// While it waits for what somebody uses, everybody waits behind what is dropped already. The script of pg_restore lifts the limit.
const BEGIN: &str = "BEGIN;\nSET LOCAL lock_timeout = '10s';\n";

/// Remembers until the commit what is in other schemas.
const NOTE_OTHERS: &str = concat!(
    "SELECT set_config('paxflow.others', coalesce(jsonb_agg(name), '[]')::text, true) FROM (",
    include_str!("elsewhere.sql"),
    ") AS here;\n"
);

/// Fails if something of that is gone: what depends on a thing is dropped with it, and no backup of ours brings it back.
const SPARE_OTHERS: &str = concat!(
    "DO $others$ DECLARE gone text; BEGIN
     SELECT string_agg(name, ', ') INTO gone FROM (
         SELECT name FROM jsonb_array_elements_text(current_setting('paxflow.others')::jsonb) AS noted (name)
         EXCEPT SELECT name FROM (",
    include_str!("elsewhere.sql"),
    ") AS here ORDER BY name LIMIT 3) AS lost;
     IF gone IS NOT NULL THEN
         RAISE EXCEPTION 'what others have made of schema public would be dropped with it: %', gone;
     END IF;
     END $others$;\n"
);

/// Statements that fail unless every table holds what the backup does.
fn check(rows: &Rows) -> String {
    let mut check = String::from("DO $check$ DECLARE found bigint; BEGIN\n");
    for (table, expected) in rows {
        check += &format!(
            "SELECT count(*) INTO found FROM ONLY {table};
             IF found <> {expected} THEN
                 RAISE EXCEPTION '% rows of % would be restored, the backup holds {expected}', found, $name${table}$name$;
             END IF;\n"
        );
    }
    check + "END $check$;\n"
}

/// What pg_restore makes of a backup, line by line.
struct Script {
    reading: Child,
    lines: BufReader<ChildStdout>,
    line: Vec<u8>,
    complaint: JoinHandle<Option<String>>,
    /// The table whose rows come next.
    table: Option<String>,
    rows: Rows,
    /// Rows of all tables so far.
    passed: u64,
}

enum Line<'a> {
    Statement(&'a [u8]),
    Row(&'a [u8]),
}

impl Script {
    fn open(client: &Client, path: &Path, arguments: &[&str]) -> Result<Self> {
        let mut reading = start(
            client
                .command("pg_restore")
                .args(arguments)
                .args(["--file=-", "--"])
                .arg(path)
                .stdout(Stdio::piped())
                .stderr(Stdio::piped()),
        )?;
        let complaint = listen(&mut reading, &ProgressBar::hidden())?;
        let stdout = reading.stdout.take().context("pg_restore has no stdout")?;
        Ok(Self {
            reading,
            lines: BufReader::with_capacity(READ_AHEAD, stdout),
            line: Vec::new(),
            complaint,
            table: None,
            rows: Rows::new(),
            passed: 0,
        })
    }

    /// The next line, with its end.
    async fn next(&mut self) -> Result<Option<Line<'_>>> {
        self.line.clear();
        let read = self.lines.read_until(b'\n', &mut self.line).await;
        if read.context("cannot read from pg_restore")? == 0 {
            return Ok(None);
        }
        let line = self.line.as_slice();
        if let Some(table) = &self.table {
            if line == b"\\.\n" {
                self.table = None;
                return Ok(Some(Line::Statement(line)));
            }
            // A row is a line: COPY escapes the ends of lines inside values.
            if let Some(count) = self.rows.get_mut(table) {
                *count += 1;
            }
            self.passed += 1;
            return Ok(Some(Line::Row(line)));
        }
        if let Some(table) = copied_table(line) {
            self.rows.entry(table.clone()).or_default();
            self.table = Some(table);
        }
        Ok(Some(Line::Statement(line)))
    }

    fn show(&self, progress: &ProgressBar) {
        if self.passed.is_multiple_of(ROWS_A_STEP) {
            progress.set_position(self.passed);
            if let Some(table) = &self.table {
                progress.set_message(table.clone());
            }
        }
    }

    /// After the last line: whether pg_restore could read the file to its end.
    async fn finish(mut self) -> Result<Rows> {
        let status = self.reading.wait().await;
        if status.context("cannot wait for pg_restore")?.success() {
            Ok(self.rows)
        } else {
            Err(failure("pg_restore", self.complaint).await)
        }
    }
}

/// The table in `COPY public.flights (flight_id, version) FROM stdin;`.
fn copied_table(line: &[u8]) -> Option<String> {
    let rest = line
        .strip_prefix(b"COPY ")?
        .strip_suffix(b") FROM stdin;\n")?;
    let (table, _) = str::from_utf8(rest).ok()?.split_once(" (")?;
    Some(table.to_owned())
}

/// Shows what a program says it is doing, and keeps what it complains about.
fn listen(child: &mut Child, progress: &ProgressBar) -> Result<JoinHandle<Option<String>>> {
    let stderr = child.stderr.take().context("no stderr to listen to")?;
    let progress = progress.clone();
    Ok(tokio::spawn(async move {
        first_complaint(stderr, |line| {
            if let Some((_, table)) = line.split_once("dumping contents of table ") {
                progress.set_message(table.trim_matches('"').to_owned());
            }
        })
        .await
    }))
}

async fn failure(program: &str, complaint: JoinHandle<Option<String>>) -> anyhow::Error {
    match complaint.await {
        Ok(Some(complaint)) if complaint.contains("lock timeout") => anyhow!(
            "{program}: {complaint}: somebody is at work on what would be dropped, stop the workers and end such sessions \
             (pg_stat_activity) or try again later"
        ),
        // That is how pg_dump limits its waits for locks.
        Ok(Some(complaint)) if complaint.contains("statement timeout") => anyhow!(
            "{program}: {complaint}: somebody wants to change a table and waits for this backup, try again"
        ),
        Ok(Some(complaint)) => anyhow!("{program}: {complaint}"),
        _ => anyhow!("{program} failed without saying why"),
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == std::io::ErrorKind::BrokenPipe)
}

async fn count(connection: &mut PgConnection) -> Result<Rows> {
    let tables: Vec<String> = sqlx::query_scalar(TABLES)
        .fetch_all(&mut *connection)
        .await?;
    let mut rows = Rows::new();
    for table in tables {
        // The name is quoted by the database; what inherits from it is a table of its own.
        let count: i64 =
            sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM ONLY {table}")))
                .fetch_one(&mut *connection)
                .await
                .with_context(|| {
                    format!("cannot read {table}: back up as the owner of the tables")
                })?;
        rows.insert(table, count.unsigned_abs());
    }
    Ok(rows)
}

/// The first table whose rows are not as many as they should be.
fn difference(expected: &Rows, found: &Rows) -> Option<String> {
    let tables = expected.keys().chain(found.keys());
    let mut different = tables.filter(|table| expected.get(*table) != found.get(*table));
    different.next().map(|table| {
        let rows = |side: &Rows| side.get(table).map_or("no".to_owned(), u64::to_string);
        format!(
            "{table} has {} rows, should have {}",
            rows(found),
            rows(expected)
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(tables: &[(&str, u64)]) -> Rows {
        tables
            .iter()
            .map(|(table, count)| ((*table).to_owned(), *count))
            .collect()
    }

    #[test]
    fn a_missing_row_and_a_missing_table_are_told_apart_from_the_same() {
        let whole = rows(&[("a", 1), ("b", 0)]);
        assert_eq!(difference(&whole, &whole), None);
        for (found, said) in [
            (rows(&[("a", 2), ("b", 0)]), "a has 2 rows, should have 1"),
            (rows(&[("a", 1)]), "b has no rows, should have 0"),
            (
                rows(&[("a", 1), ("b", 0), ("c", 3)]),
                "c has 3 rows, should have no",
            ),
        ] {
            assert_eq!(difference(&whole, &found).as_deref(), Some(said));
        }
    }

    #[test]
    fn an_older_server_is_spared_what_a_newer_pg_restore_writes() {
        let statement = b"SET transaction_timeout = 0;\n";
        assert!(!is_known(statement, 16) && is_known(statement, 17));
        assert!(is_known(b"SET lock_timeout = 0;\n", 12));
    }

    #[test]
    fn rows_are_found_by_the_statement_before_them() {
        let line = b"COPY public.\"odd (name\" (a, b) FROM stdin;\n";
        assert_eq!(
            copied_table(b"COPY public.a (b, c) FROM stdin;\n").as_deref(),
            Some("public.a")
        );
        assert_eq!(copied_table(b"COPY public.a (b, c) TO stdout;\n"), None);
        assert!(copied_table(line).is_some());
    }
}
