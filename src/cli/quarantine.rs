//! `paxflow quarantine`: what was set aside.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use chrono::{DateTime, Utc};
use clap::Subcommand;
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;

use super::say;
use crate::apply::{self, CellChange, Committer, Preview, Replayed, StillRejected};
use crate::batch::VerdictCounts;
use crate::config::{Config, Pooler};
use crate::event::Reason;

/// A dry run holds its messages in memory and their rows locked while it looks.
const DRY_RUN_MAX: usize = 1000;
/// Lines of a table that a person still reads; `--json` has them all.
const SHOWN_MAX: usize = 100;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List what is open, newest first; never the bodies
    #[command(after_help = "Example:\n  paxflow quarantine list --reason total_mismatch")]
    List {
        /// Only what was set aside for this reason code
        #[arg(long)]
        reason: Option<String>,
        /// Also what was replayed or discarded
        #[arg(long)]
        all: bool,
        /// Most rows
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
        limit: u32,
        /// Print them as JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one message: why, where, since when; its body only with --raw, since it may hold personal data
    #[command(
        after_help = "Example:\n  paxflow quarantine show 7\n  paxflow quarantine show 7 --raw > message.json"
    )]
    Show {
        /// Number of the message
        id: i64,
        /// Write the body to stdout, byte for byte as it was received, and nothing else
        #[arg(long, conflicts_with = "json")]
        raw: bool,
        /// Print it as JSON
        #[arg(long)]
        json: bool,
    },
    /// Apply messages again: exit 0 if all pass, 1 if one is still rejected or unknown
    ///
    /// All open ones, unless some are named. One that passes is applied and marked in one transaction; one that
    /// does not stays, with what is wrong with it now. One that was replayed before is left alone.
    #[command(
        after_help = "Example:\n  paxflow quarantine replay --reason refused_by_database --dry-run\n  paxflow quarantine replay 7 8"
    )]
    Replay {
        /// Numbers of messages; discarded ones are taken as well
        #[arg(conflicts_with = "reason")]
        ids: Vec<i64>,
        /// All open messages of this reason code
        #[arg(long)]
        reason: Option<String>,
        /// Change nothing: show which would pass and which cells of market_data, market_fares and market_activity would change
        #[arg(long)]
        dry_run: bool,
        /// Print the result as JSON
        #[arg(long)]
        json: bool,
    },
    /// Settle messages without applying them; unless they are erased they can still be shown, and replayed by number
    ///
    /// One that comes again is counted there and stays discarded; one that was erased is a new open message then.
    #[command(
        after_help = "Example:\n  paxflow quarantine discard 7 8 --why 'sent twice by the old adapter'\n  paxflow quarantine discard 9 --why 'asked for by the passenger' --erase"
    )]
    Discard {
        /// Numbers of open messages, with --erase of any
        #[arg(required = true)]
        ids: Vec<i64>,
        /// Take body, headers and message id away for ever, as a passenger may ask for: a hash is left
        #[arg(long)]
        erase: bool,
        /// Why they are not needed; is kept with them
        #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
        why: String,
    },
}

pub(super) async fn run(command: &Command, config: &Config) -> Result<ExitCode> {
    let mut connection = super::database_with_schema(config, "quarantine").await?;
    match command {
        Command::List {
            reason,
            all,
            limit,
            json,
        } => list(&mut connection, reason.as_deref(), *all, *limit, *json).await,
        Command::Show { id, raw: true, .. } => raw(&mut connection, *id).await,
        Command::Show { id, json, .. } => show(&mut connection, *id, *json).await,
        Command::Replay {
            ids,
            reason,
            dry_run,
            json,
        } => {
            // A message that is named is taken whatever it is.
            let are_named = !ids.is_empty();
            let ids = selected(&mut connection, ids, reason.as_deref()).await?;
            if *dry_run {
                dry_run_of(&mut connection, &ids, *json).await
            } else {
                replay(&mut connection, &ids, are_named, *json).await
            }
        }
        Command::Discard { ids, erase, why } => discard(&mut connection, ids, why, *erase).await,
    }
}

#[derive(Debug, Serialize, FromRow)]
struct Listed {
    id: i64,
    state: String,
    reason: String,
    path: String,
    times_received: i64,
    first_received_at: DateTime<Utc>,
    last_received_at: DateTime<Utc>,
    /// Of how many this is one, whatever the limit.
    #[serde(skip)]
    total: i64,
}

async fn list(
    connection: &mut PgConnection,
    reason: Option<&str>,
    all: bool,
    limit: u32,
    json: bool,
) -> Result<ExitCode> {
    check_reason(reason)?;
    let rows =
        "SELECT id, state, reason, path, times_received, first_received_at, last_received_at,
                       count(*) OVER () AS total
                FROM quarantined_events
                WHERE (state = 'open' OR $1) AND reason = coalesce($2, reason)
                ORDER BY id DESC
                LIMIT $3";
    let rows: Vec<Listed> = sqlx::query_as(rows)
        .bind(all)
        .bind(reason)
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await
        .context("cannot read quarantined_events")?;
    let cut = match rows.first() {
        Some(newest) if newest.total > rows.len() as i64 => {
            format!(
                "{} of {}: --limit shows more, --reason those of one kind",
                rows.len(),
                newest.total
            )
        }
        _ => String::new(),
    };
    if json {
        say!("{}", serde_json::to_string_pretty(&rows)?);
        if !cut.is_empty() {
            complain(&cut);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if rows.is_empty() {
        say!("nothing");
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["id", "state", "reason", "where", "times", "last received"]);
    for row in &rows {
        table.add_row([
            &row.id.to_string(),
            &row.state,
            &row.reason,
            &row.path,
            &row.times_received.to_string(),
            &super::utc(row.last_received_at),
        ]);
    }
    say!("{table}");
    if !cut.is_empty() {
        say!("{cut}");
    }
    Ok(ExitCode::SUCCESS)
}

#[derive(Debug, Serialize, FromRow)]
struct Shown {
    id: i64,
    state: String,
    state_reason: Option<String>,
    state_changed_at: DateTime<Utc>,
    reason: String,
    path: String,
    detail: String,
    sqlstate: Option<String>,
    contract_version: String,
    exchange: String,
    routing_key: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    message_id: Option<String>,
    headers: String,
    body_bytes: i32,
    times_received: i64,
    first_received_at: DateTime<Utc>,
    last_received_at: DateTime<Utc>,
}

async fn show(connection: &mut PgConnection, id: i64, json: bool) -> Result<ExitCode> {
    let row = "SELECT id, state, state_reason, state_changed_at, reason, path, detail, sqlstate, contract_version,
                      exchange, routing_key, content_type, content_encoding, message_id, headers::text AS headers,
                      length(body) AS body_bytes, times_received, first_received_at, last_received_at
               FROM quarantined_events
               WHERE id = $1";
    let shown: Option<Shown> = sqlx::query_as(row)
        .bind(id)
        .fetch_optional(connection)
        .await
        .context("cannot read quarantined_events")?;
    let shown = shown.with_context(|| no_such(id))?;
    if json {
        let mut value = serde_json::to_value(&shown)?;
        value["headers"] = serde_json::from_str(&shown.headers)?;
        say!("{value:#}");
        return Ok(ExitCode::SUCCESS);
    }
    print(&shown)?;
    Ok(ExitCode::SUCCESS)
}

fn print(shown: &Shown) -> std::io::Result<()> {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
    let rule = Reason::from_code(&shown.reason).map_or("", Reason::description);
    let reason = match &shown.sqlstate {
        Some(sqlstate) => format!("{} (SQLSTATE {sqlstate}): {rule}", shown.reason),
        None => format!("{}: {rule}", shown.reason),
    };
    let state = match &shown.state_reason {
        Some(why) => format!("{}: {why}", shown.state),
        None => shown.state.clone(),
    };
    for (name, value) in [
        ("id", shown.id.to_string()),
        ("state", state),
        ("since", super::utc(shown.state_changed_at)),
        ("reason", reason),
        ("where", shown.path.clone()),
        ("expected", shown.detail.clone()),
        ("contract", shown.contract_version.clone()),
        ("exchange", shown.exchange.clone()),
        ("routing key", shown.routing_key.clone()),
        ("content type", text(&shown.content_type)),
        ("encoding", text(&shown.content_encoding)),
        ("message id", text(&shown.message_id)),
        ("headers", shown.headers.clone()),
        ("body", format!("{} bytes", shown.body_bytes)),
        (
            "received",
            match shown.times_received {
                1 => "once".to_owned(),
                times => format!("{times} times"),
            },
        ),
        ("  first", super::utc(shown.first_received_at)),
        ("  last", super::utc(shown.last_received_at)),
    ] {
        say!("{name:<13} {}", printable(&value));
    }
    let id = shown.id;
    say!(
        "\nThe body may hold personal data: paxflow quarantine show {id} --raw\n\
         What a replay would do:           paxflow quarantine replay {id} --dry-run"
    );
    Ok(())
}

/// A terminal obeys what producers may have put between the letters: control characters, and those that turn the direction.
fn printable(text: &str) -> String {
    let is_obeyed =
        |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if is_obeyed(c) {
            printable.extend(c.escape_default());
        } else {
            printable.push(c);
        }
    }
    printable
}

async fn raw(connection: &mut PgConnection, id: i64) -> Result<ExitCode> {
    let body: Option<Vec<u8>> =
        sqlx::query_scalar("SELECT body FROM quarantined_events WHERE id = $1")
            .bind(id)
            .fetch_optional(connection)
            .await
            .context("cannot read quarantined_events")?;
    let body = body.with_context(|| no_such(id))?;
    let mut stdout = std::io::stdout();
    stdout.write_all(&body)?;
    stdout.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Says beside the answer, on stderr, what is wrong with the question.
fn complain(problem: &str) {
    writeln!(std::io::stderr(), "paxflow: {problem}").ok();
}

fn no_such(id: i64) -> String {
    format!("no message {id} is set aside: paxflow quarantine list --all names them")
}

fn check_reason(reason: Option<&str>) -> Result<()> {
    match reason {
        Some(reason) if Reason::from_code(reason).is_none() => {
            let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
            bail!(
                "{reason} is no reason code: those there are: {}",
                codes.join(", ")
            )
        }
        _ => Ok(()),
    }
}

/// The messages to replay, oldest first; each once.
async fn selected(
    connection: &mut PgConnection,
    ids: &[i64],
    reason: Option<&str>,
) -> Result<Vec<i64>> {
    if !ids.is_empty() {
        let mut ids = ids.to_vec();
        ids.sort_unstable();
        ids.dedup();
        return Ok(ids);
    }
    check_reason(reason)?;
    let open = "SELECT id FROM quarantined_events WHERE state = 'open' AND reason = coalesce($1, reason) ORDER BY id";
    sqlx::query_scalar(open)
        .bind(reason)
        .fetch_all(connection)
        .await
        .context("cannot read quarantined_events")
}

/// What a replay came to.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    passed: Vec<i64>,
    verdicts: VerdictCounts,
    rejected: Vec<StillRejected>,
    replayed_before: Vec<i64>,
    unknown: Vec<i64>,
}

/// Who commits what is replayed.
fn replaying() -> Committer {
    let mut committer = super::run::committer(Pooler::None);
    committer.id = format!("replay-{}", committer.id);
    committer
}

async fn replay(
    connection: &mut PgConnection,
    ids: &[i64],
    are_named: bool,
    json: bool,
) -> Result<ExitCode> {
    let committer = replaying();
    let mut outcome = Outcome::default();
    for id in ids.iter().copied() {
        let replayed = apply::replay(connection, &committer, id, are_named)
            .await
            .with_context(|| {
                let count = outcome.passed.len();
                format!("stopped at message {id}, after {count} have passed; run it again")
            })?;
        match replayed {
            Replayed::Passed(verdict) => {
                outcome.verdicts.count(verdict);
                outcome.passed.push(id);
            }
            Replayed::Rejected(rejected) => outcome.rejected.push(StillRejected { id, rejected }),
            Replayed::Before => outcome.replayed_before.push(id),
            // By somebody else, since the open ones were listed.
            Replayed::Discarded => {}
            Replayed::Unknown => outcome.unknown.push(id),
        }
    }
    for id in &outcome.unknown {
        complain(&no_such(*id));
    }
    if json {
        say!("{}", serde_json::to_string_pretty(&outcome)?);
    } else {
        print_outcome(&outcome)?;
    }
    Ok(super::exit_code(
        outcome.rejected.is_empty() && outcome.unknown.is_empty(),
    ))
}

fn print_outcome(outcome: &Outcome) -> std::io::Result<()> {
    for message in outcome.rejected.iter().take(SHOWN_MAX) {
        say!("{} stays: {}", message.id, message.rejected);
    }
    say_more(outcome.rejected.len(), "messages")?;
    let counts = outcome.verdicts;
    say!(
        "{} passed ({} applied, {} duplicate, {} stale), {} still rejected, {} replayed before",
        outcome.passed.len(),
        counts.applied,
        counts.duplicate,
        counts.stale,
        outcome.rejected.len(),
        outcome.replayed_before.len()
    );
    Ok(())
}

async fn dry_run_of(connection: &mut PgConnection, ids: &[i64], json: bool) -> Result<ExitCode> {
    let looked_at = &ids[..ids.len().min(DRY_RUN_MAX)];
    let preview = apply::preview(connection, &replaying(), looked_at)
        .await
        .context("cannot try the replay")?;
    let left_out = ids.len() - looked_at.len();
    for id in &preview.unknown {
        complain(&no_such(*id));
    }
    if json {
        let mut value = serde_json::to_value(&preview)?;
        value["left_out"] = json!(left_out);
        say!("{value:#}");
    } else {
        print_preview(&preview, left_out)?;
    }
    Ok(super::exit_code(
        preview.rejected.is_empty() && preview.unknown.is_empty(),
    ))
}

fn print_preview(preview: &Preview, left_out: usize) -> std::io::Result<()> {
    for message in preview.rejected.iter().take(SHOWN_MAX) {
        say!("{} would stay: {}", message.id, message.rejected);
    }
    say_more(preview.rejected.len(), "messages")?;
    if !preview.cells.is_empty() {
        say!("{}", cells_table(&preview.cells));
    }
    say_more(preview.cells.len(), "cells")?;
    if left_out > 0 {
        say!("{left_out} left out: a dry run takes {DRY_RUN_MAX}");
    }
    let counts = preview.verdicts;
    say!(
        "dry run, nothing has changed: {} would pass ({} applied, {} duplicate, {} stale, {} folded), \
         {} would still be rejected, {} replayed before, {} cells would change",
        preview.passing.len(),
        counts.applied,
        counts.duplicate,
        counts.stale,
        counts.folded,
        preview.rejected.len(),
        preview.replayed_before.len(),
        preview.cells.len()
    );
    Ok(())
}

/// Tells how many of `all` were not shown.
fn say_more(all: usize, what: &str) -> std::io::Result<()> {
    if let Some(more @ 1..) = all.checked_sub(SHOWN_MAX) {
        say!("and {more} more {what}: --json lists them all");
    }
    Ok(())
}

fn cells_table(cells: &[CellChange]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    table.set_header(["relation", "row", "cell", "now", "then"]);
    for cell in cells.iter().take(SHOWN_MAX) {
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        table.add_row([
            &cell.relation,
            &cell.key.join(" "),
            &cell.column,
            &text(&cell.before),
            &text(&cell.after),
        ]);
    }
    table
}

async fn discard(
    connection: &mut PgConnection,
    ids: &[i64],
    why: &str,
    erase: bool,
) -> Result<ExitCode> {
    let discarded = apply::discard(connection, ids, why, erase)
        .await
        .context("cannot write quarantined_events")?;
    let is_left = |id: &i64| !discarded.contains(id);
    let mut left: Vec<_> = ids.iter().copied().filter(is_left).collect();
    left.sort_unstable();
    left.dedup();
    let known = states(connection, &left).await?;
    for id in &left {
        let problem = match known.get(id) {
            Some(state) => format!("{id} is {state} already: left as it is"),
            None => no_such(*id),
        };
        complain(&problem);
    }
    say!("{} discarded", discarded.len());
    Ok(super::exit_code(left.is_empty()))
}

async fn states(connection: &mut PgConnection, ids: &[i64]) -> Result<BTreeMap<i64, String>> {
    let states = "SELECT id, state FROM quarantined_events WHERE id = ANY ($1::bigint[])";
    let states: Vec<(i64, String)> = sqlx::query_as(states)
        .bind(ids)
        .fetch_all(connection)
        .await
        .context("cannot read quarantined_events")?;
    Ok(states.into_iter().collect())
}
