//! What was set aside: looked at, replayed, discarded, forgotten.

use std::collections::BTreeMap;

use paxflow::apply::{self, Replayed};
use paxflow::event::Delivery;
use serde_json::{Value, json};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use tokio::process::Command;
use tokio::task::JoinHandle;

use crate::events::{booking, booking_deleted, deliver, flight, price};
use crate::process::{Place, output, place, ran, until};
use crate::support::{
    Applier, Database, assert_exact, assert_same_rows, dump, execute, holding, table_rows,
};

/// What keeps some bookings out until an operator has mended it.
const BLOCK: &str =
    "ALTER TABLE bookings ADD CONSTRAINT no_seat_13 CHECK (seat IS DISTINCT FROM '13F')";
const UNBLOCK: &str = "ALTER TABLE bookings DROP CONSTRAINT no_seat_13";

const STATES: &str = "SELECT id, reason, state FROM quarantined_events ORDER BY id";

/// A booking that the database refuses while it is blocked.
fn refused(mut data: Value) -> Value {
    data["seat"] = json!("13F");
    booking(data)
}

/// Runs `paxflow quarantine` and reads its JSON.
async fn as_json(place: &Place, arguments: &[&str]) -> (i32, Value) {
    let arguments = [&["quarantine"], arguments, &["--json"]].concat();
    let (code, out, err) = ran(place.paxflow(&arguments)).await;
    (
        code,
        serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}")),
    )
}

async fn said(place: &Place, arguments: &[&str]) -> (i32, String) {
    let arguments = [&["quarantine"], arguments].concat();
    let (code, out, err) = ran(place.paxflow(&arguments)).await;
    (code, out + &err)
}

async fn progress(place: &Place) -> String {
    let sums = "SELECT sum(received), sum(applied), sum(duplicate), sum(stale), sum(quarantined),
                       (SELECT sum(times_received) FROM quarantined_events)
                FROM worker_progress";
    dump(&mut place.connect().await, sums).await
}

/// Bookings on two flights, a few more that the database has refused, and nothing that blocks them now.
async fn with_refused(applier: &mut Applier) {
    applier
        .apply(&[
            flight(json!({})),
            flight(json!({ "flight_id": "F2", "destination": "LAX" })),
            booking(json!({})),
            booking(json!({ "booking_id": "B2", "flight_id": "F2" })),
        ])
        .await;
    execute(&mut applier.connection, BLOCK).await;
    let counts = applier
        .apply(&[
            // From one market to another, at another price.
            refused(json!({ "version": 2, "flight_id": "F2", "price": price("90.10", "9.90", "100.00", "USD") })),
            refused(json!({ "booking_id": "B3", "price": price("0.10", "0.00", "0.10", "USD") })),
            refused(json!({ "booking_id": "B4", "flight_id": "UNKNOWN" })),
        ])
        .await;
    assert_eq!(counts.quarantined, 3);
    execute(&mut applier.connection, UNBLOCK).await;
}

/// Has three messages set aside: one that is no text, whose body it returns, one with an unknown cabin, and one whose
/// content type a terminal would obey.
async fn set_aside(applier: &mut Applier) -> Vec<u8> {
    let mut body = b"canary@example.com \x00\xff\xfe\r\n".to_vec();
    body.extend(0..=255);
    let delivery = Delivery {
        body: body.clone(),
        routing_key: "airline.booking.upserted.v1".to_owned(),
        content_type: Some("application/json".to_owned()),
        ..Delivery::default()
    };
    let mut good = deliver(&booking(json!({ "cabin": "Z" })));
    good.headers.insert("trace".to_owned(), json!("abc"));
    let title = "text/json\nstate         replayed\u{1b}]0;title\u{7}\u{202e}";
    let obeyed = Delivery {
        content_type: Some(title.to_owned()),
        ..deliver(&booking(json!({})))
    };
    apply::apply(
        &mut applier.connection,
        &applier.committer,
        &[delivery, good, obeyed],
    )
    .await
    .unwrap();
    body
}

#[tokio::test]
async fn list_and_show_keep_the_body_and_raw_gives_it_back_byte_for_byte() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let body = set_aside(&mut applier).await;
    let (code, rows) = as_json(&place, &["list"]).await;
    assert_eq!((code, rows.as_array().unwrap().len()), (0, 3));
    let (_, rows) = as_json(&place, &["list", "--reason", "unsupported_content_type"]).await;
    let (_, shown) = said(&place, &["show", &rows[0]["id"].to_string()]).await;
    let escaped = r"content type  text/json\nstate         replayed\u{1b}]0;title\u{7}\u{202e}";
    assert!(shown.contains(escaped), "{shown}");
    let (code, rows) = as_json(&place, &["list", "--reason", "invalid_utf8"]).await;
    assert_eq!((code, rows.as_array().unwrap().len()), (0, 1), "{rows}");
    let id = rows[0]["id"].to_string();
    let (_, listed) = said(&place, &["list"]).await;
    assert!(
        listed.contains("invalid_utf8") && listed.contains("unknown_value"),
        "{listed}"
    );
    let (code, shown) = said(&place, &["show", &id]).await;
    assert!(
        code == 0 && shown.contains("not UTF-8") && shown.contains("--raw"),
        "{shown}"
    );
    let (_, shown_json) = as_json(&place, &["show", &id]).await;
    assert_eq!(shown_json["body_bytes"], body.len());
    for text in [&listed, &shown, &shown_json.to_string()] {
        assert!(!text.contains("canary"), "{text}");
    }

    let raw = output(place.paxflow(&["quarantine", "show", &id, "--raw"])).await;
    assert!(raw.status.success());
    assert_eq!(raw.stdout, body);
}

#[tokio::test]
async fn list_says_what_it_leaves_out_and_what_is_not_there_is_refused() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    set_aside(&mut applier).await;
    let (_, limited) = said(&place, &["list", "--limit", "1"]).await;
    assert!(
        limited.ends_with("1 of 3: --limit shows more, --reason those of one kind\n"),
        "{limited}"
    );
    let (_, limited) = said(&place, &["list", "--json", "--limit", "1"]).await;
    assert!(
        limited.ends_with("]\npaxflow: 1 of 3: --limit shows more, --reason those of one kind\n"),
        "{limited}"
    );
    let (code, err) = said(&place, &["list", "--reason", "nonsense"]).await;
    assert!(
        code == 1 && err.starts_with("paxflow: nonsense is no reason code"),
        "{err}"
    );
    let (code, err) = said(&place, &["show", "999"]).await;
    assert!(
        code == 1 && err.starts_with("paxflow: no message 999 "),
        "{err}"
    );
}

#[tokio::test]
async fn replaying_twice_changes_nothing_twice() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    assert_eq!(progress(&place).await, "7 | 4 | 0 | 0 | 3 | 3\n");

    let (code, out) = said(&place, &["replay", "--reason", "refused_by_database"]).await;
    assert!(
        code == 0 && out.starts_with("3 passed (3 applied, "),
        "{out}"
    );
    assert_eq!(progress(&place).await, "10 | 7 | 0 | 0 | 3 | 3\n");
    assert_exact(&mut applier.connection).await;
    let rows = table_rows(&mut applier.connection).await;
    assert!(rows.contains("\"B3\"") && rows.contains("\"B4\""));
    let pending = "SELECT booking_id FROM pending_bookings";
    assert_eq!(dump(&mut applier.connection, pending).await, "B4\n");

    let (code, out) = said(&place, &["replay"]).await;
    assert!(code == 0 && out.starts_with("0 passed "), "{out}");
    let (code, again) = as_json(&place, &["replay", "1", "2", "2", "3"]).await;
    assert_eq!((code, &again["replayed_before"]), (0, &json!([1, 2, 3])));
    let (code, again) = as_json(&place, &["replay", "999"]).await;
    assert_eq!((code, &again["unknown"]), (1, &json!([999])));
    let (code, again) = as_json(&place, &["replay", "1", "999", "--dry-run"]).await;
    assert_eq!((code, &again["replayed_before"]), (1, &json!([1])));
    assert_eq!(again["unknown"], json!([999]));
    assert_same_rows(&table_rows(&mut applier.connection).await, &rows);
    assert_eq!(progress(&place).await, "10 | 7 | 0 | 0 | 3 | 3\n");
}

/// Every cell of the three relations, by relation, key and column.
async fn cells(connection: &mut PgConnection) -> BTreeMap<String, String> {
    let keys = [
        ("market_data", "origin, destination, data_date::text"),
        (
            "market_fares",
            "origin, destination, data_date::text, cabin, currency",
        ),
        (
            "market_activity",
            "origin, destination, data_date::text, activity_date::text, cabin, currency",
        ),
    ];
    let mut cells = BTreeMap::new();
    for (relation, key) in keys {
        let sql = format!(
            "SELECT concat_ws(' ', '{relation}', {key}, c.name), c.value
             FROM {relation} r CROSS JOIN LATERAL jsonb_each_text(to_jsonb(r)) c (name, value)
             WHERE c.name NOT IN ('updated_at', 'last_event_at') AND NOT c.name = ANY
                 (ARRAY['origin', 'destination', 'data_date', 'activity_date', 'cabin', 'currency'])"
        );
        for row in sqlx::raw_sql(sqlx::AssertSqlSafe(sql))
            .fetch_all(&mut *connection)
            .await
            .unwrap()
        {
            let value = row
                .try_get_raw(1)
                .unwrap()
                .as_str()
                .unwrap_or("-")
                .to_owned();
            cells.insert(
                row.try_get_raw(0).unwrap().as_str().unwrap().to_owned(),
                value,
            );
        }
    }
    cells
}

#[tokio::test]
async fn a_dry_run_changes_nothing_and_names_exactly_the_cells_that_the_replay_changes() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    applier
        .apply(&[booking(json!({ "booking_id": "B9", "cabin": "Z" }))])
        .await;
    let bystander = [
        flight(json!({ "flight_id": "F7", "origin": "JFK" })),
        booking(json!({ "booking_id": "B7", "flight_id": "F7" })),
    ];
    applier.apply(&bystander).await;
    let (rows, states) = (
        table_rows(&mut applier.connection).await,
        dump(&mut applier.connection, STATES).await,
    );

    let (code, preview) = as_json(&place, &["replay", "--dry-run"]).await;
    assert_eq!(
        (code, &preview["passing"]),
        (1, &json!([1, 2, 3])),
        "{preview}"
    );
    assert_eq!(preview["rejected"][0]["reason"], "unknown_value");
    assert_same_rows(&table_rows(&mut applier.connection).await, &rows);
    assert_eq!(dump(&mut applier.connection, STATES).await, states);
    let (_, out) = said(&place, &["replay", "--dry-run"]).await;
    assert!(
        out.contains("3 would pass (3 applied") && out.contains("4 would stay: $.data.cabin"),
        "{out}"
    );

    let before = cells(&mut applier.connection).await;
    said(&place, &["replay"]).await;
    let after = cells(&mut applier.connection).await;
    let none = "-".to_owned();
    let changed: BTreeMap<&String, (&String, &String)> = before
        .keys()
        .chain(after.keys())
        .map(|cell| {
            (
                cell,
                (
                    before.get(cell).unwrap_or(&none),
                    after.get(cell).unwrap_or(&none),
                ),
            )
        })
        .filter(|(_, (before, after))| before != after)
        .collect();
    let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let named: BTreeMap<String, (String, String)> = preview["cells"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cell| {
            let key: Vec<_> = cell["key"].as_array().unwrap().iter().map(text).collect();
            let name = [
                text(&cell["relation"]),
                key.join(" "),
                text(&cell["column"]),
            ]
            .join(" ");
            (name, (text(&cell["before"]), text(&cell["after"])))
        })
        .collect();
    assert!(changed.len() > 15, "{changed:?}");
    assert_eq!(format!("{named:#?}"), format!("{changed:#?}"));
}

/// Starts a command that comes to the booking B1, which `holder` has locked, and returns once it waits for it.
async fn waits_for_the_booking(
    observer: &mut PgConnection,
    holder: &mut PgConnection,
    command: Command,
) -> JoinHandle<(i32, String, String)> {
    let hold = holding("UPDATE bookings SET updated_at = now() WHERE booking_id = 'B1'");
    execute(holder, &hold).await;
    let running = tokio::spawn(ran(command));
    let waiting = "SELECT count(*) FROM pg_stat_activity
                   WHERE datname = current_database() AND application_name = 'paxflow quarantine'
                     AND wait_event_type = 'Lock'";
    until("it waits for the booking", async || {
        (dump(observer, waiting).await == "1\n").then_some(())
    })
    .await;
    running
}

#[tokio::test]
async fn a_dry_run_that_a_worker_overtakes_looks_again() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    let mut holder = place.connect().await;
    let preview = place.paxflow(&["quarantine", "replay", "--dry-run", "--json"]);
    let looking = waits_for_the_booking(&mut applier.connection, &mut holder, preview).await;
    // Its snapshot is older than this now.
    execute(&mut holder, "COMMIT").await;
    let (code, out, err) = looking.await.unwrap();
    let preview: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &preview["passing"]), (0, &json!([1, 2, 3])));
}

#[tokio::test]
async fn a_dry_run_finds_the_row_that_the_database_would_refuse() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    execute(
        &mut applier.connection,
        "ALTER TABLE bookings ADD CONSTRAINT no_b3 CHECK (booking_id <> 'B3')",
    )
    .await;
    let (code, preview) = as_json(&place, &["replay", "--dry-run"]).await;
    assert_eq!(
        (code, &preview["passing"]),
        (1, &json!([1, 3])),
        "{preview}"
    );
    assert_eq!(preview["rejected"][0]["id"], 2);
    let (code, replayed) = as_json(&place, &["replay"]).await;
    assert_eq!(
        (code, &replayed["passed"]),
        (1, &json!([1, 3])),
        "{replayed}"
    );
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn what_still_breaks_a_rule_stays_open_with_that_rule() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let bad = booking(json!({ "cabin": "Z" }));
    // As an older release judged it, twice, and as this one does.
    for reason in ["missing_field", "wrong_type"] {
        applier.apply(std::slice::from_ref(&bad)).await;
        let older = format!(
            "UPDATE quarantined_events SET reason = '{reason}' WHERE reason = 'unknown_value'"
        );
        execute(&mut applier.connection, &older).await;
    }
    let (code, out) = said(&place, &["replay", "1"]).await;
    assert!(
        code == 1 && out.contains("1 stays: $.data.cabin: unknown_value"),
        "{out}"
    );
    let (code, _) = said(&place, &["replay"]).await;
    assert_eq!(code, 1);
    let states = dump(&mut applier.connection, STATES).await;
    assert_eq!(states, "1 | unknown_value | open\n2 | wrong_type | open\n");
    assert_eq!(progress(&place).await, "2 | 0 | 0 | 0 | 2 | 2\n");
}

#[tokio::test]
async fn a_conflict_that_was_overtaken_passes_as_stale() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    applier
        .apply(&[booking(json!({})), booking(json!({ "seat": "1A" }))])
        .await;
    let (code, replayed) = as_json(&place, &["replay"]).await;
    assert_eq!(
        (code, &replayed["rejected"][0]["reason"]),
        (1, &json!("version_conflict"))
    );
    applier.apply(&[booking_deleted("B1", 2)]).await;
    let (code, replayed) = as_json(&place, &["replay"]).await;
    assert_eq!(
        (code, &replayed["verdicts"]["stale"]),
        (0, &json!(1)),
        "{replayed}"
    );
    assert_eq!(
        dump(&mut applier.connection, STATES).await,
        "1 | version_conflict | replayed\n"
    );
}

#[tokio::test]
async fn two_replays_at_once_replay_each_message_once() {
    const MESSAGES: usize = 60;
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    execute(&mut applier.connection, BLOCK).await;
    let events: Vec<_> = (0..MESSAGES)
        .map(|number| refused(json!({ "booking_id": format!("B{number}") })))
        .collect();
    applier.apply(&events).await;
    execute(&mut applier.connection, UNBLOCK).await;
    let replay = || as_json(&place, &["replay"]);
    let (one, two, three) = tokio::join!(replay(), replay(), replay());
    let mut passed = 0;
    for (code, outcome) in [one, two, three] {
        assert_eq!(code, 0, "{outcome}");
        passed += outcome["passed"].as_array().unwrap().len();
    }
    assert_eq!(passed, MESSAGES);
    assert_eq!(progress(&place).await, "120 | 60 | 0 | 0 | 60 | 60\n");
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn what_is_discarded_while_it_is_replayed_stays_so() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    let mut holder = place.connect().await;
    let replay = place.paxflow(&["quarantine", "replay", "--json"]);
    let replaying = waits_for_the_booking(&mut applier.connection, &mut holder, replay).await;
    let discard = "UPDATE quarantined_events SET state = 'discarded', state_reason = 'a twin' WHERE id = 1; COMMIT";
    execute(&mut holder, discard).await;
    let (code, out, err) = replaying.await.unwrap();
    let replayed: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    assert_eq!((code, &replayed["passed"]), (0, &json!([2, 3])));
    assert_eq!(replayed["replayed_before"], json!([]));
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn the_effect_and_its_mark_are_one_transaction() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    let rows = table_rows(&mut applier.connection).await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no mark today'; END $$;
                CREATE TRIGGER fail BEFORE UPDATE OF state ON quarantined_events
                    FOR EACH ROW EXECUTE FUNCTION fail()";
    execute(&mut applier.connection, fail).await;
    let (code, err) = said(&place, &["replay", "1"]).await;
    assert!(
        code == 1 && err.contains("stopped at message 1") && err.contains("no mark today"),
        "{err}"
    );
    assert_same_rows(&table_rows(&mut applier.connection).await, &rows);
    assert_eq!(progress(&place).await, "7 | 4 | 0 | 0 | 3 | 3\n");
    let fail_later = "DROP TRIGGER fail ON quarantined_events;
                      CREATE TRIGGER fail AFTER INSERT OR UPDATE ON worker_progress
                          FOR EACH ROW EXECUTE FUNCTION fail()";
    execute(&mut applier.connection, fail_later).await;
    let open = dump(&mut applier.connection, STATES).await;
    let (code, err) = said(&place, &["replay", "1"]).await;
    assert!(code == 1 && err.contains("stopped at message 1"), "{err}");
    assert_eq!(dump(&mut applier.connection, STATES).await, open);
    assert_same_rows(&table_rows(&mut applier.connection).await, &rows);
    execute(
        &mut applier.connection,
        "DROP TRIGGER fail ON worker_progress",
    )
    .await;
    assert_eq!(said(&place, &["replay"]).await.0, 0);
    assert_exact(&mut applier.connection).await;
}

#[tokio::test]
async fn broken_events_alone_have_no_newest_one() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    set_aside(&mut applier).await;
    let newest = "SELECT received, last_event_at FROM worker_progress";
    assert_eq!(dump(&mut applier.connection, newest).await, "3 | -\n");
}

/// Also of what is settled already, and of several that were set aside for one reason.
#[tokio::test]
async fn what_is_erased_leaves_nothing_of_its_body() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    let erase = ["discard", "1", "2", "--why", "asked for", "--erase"];
    let (code, _) = said(&place, &["discard", "1", "--why", "first"]).await;
    assert_eq!(code, 0);
    let (code, out) = said(&place, &erase).await;
    assert_eq!((code, out.as_str()), (0, "2 discarded\n"));
    let left =
        "SELECT id, state, state_reason, length(body), headers FROM quarantined_events ORDER BY id";
    let rows = dump(&mut applier.connection, left).await;
    assert!(
        rows.starts_with("1 | discarded | asked for | 32 | {}\n2 | discarded | asked for | 32 | {}\n3 | open | - | "),
        "{rows}"
    );
    // It may be sent once more.
    execute(&mut applier.connection, BLOCK).await;
    let again =
        refused(json!({ "booking_id": "B3", "price": price("0.10", "0.00", "0.10", "USD") }));
    applier.apply(&[again]).await;
    execute(&mut applier.connection, UNBLOCK).await;
    let (code, out) = said(&place, &["discard", "4", "--why", "asked for", "--erase"]).await;
    assert_eq!((code, out.as_str()), (0, "1 discarded\n"));
    // Nothing is left to be applied.
    let (code, out) = said(&place, &["replay", "1"]).await;
    assert!(code == 1 && out.contains("1 stays: "), "{out}");
}

#[tokio::test]
async fn discarded_messages_keep_their_why_and_are_replayed_only_by_number() {
    let database = Database::new().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    with_refused(&mut applier).await;
    let (code, err) = said(&place, &["discard", "1"]).await;
    assert!(code != 0 && err.contains("--why"), "{err}");
    let (code, out) = said(
        &place,
        &["discard", "1", "2", "--why", "sent by the old adapter"],
    )
    .await;
    assert_eq!((code, out.as_str()), (0, "2 discarded\n"));
    let (code, out) = said(&place, &["discard", "2", "--why", "again"]).await;
    assert!(
        code == 1 && out.contains("paxflow: 2 is discarded already"),
        "{out}"
    );
    let (code, out) = said(&place, &["discard", "99", "--why", "again"]).await;
    assert!(
        code == 1 && out.contains("paxflow: no message 99 "),
        "{out}"
    );
    let (_, shown) = said(&place, &["show", "2"]).await;
    assert!(
        shown.contains("discarded: sent by the old adapter"),
        "{shown}"
    );

    // Also if it was discarded after a replay had listed what is open.
    let (connection, worker) = (&mut applier.connection, &applier.committer);
    let replayed = apply::replay(connection, worker, 2, false).await.unwrap();
    assert_eq!(replayed, Replayed::Discarded);
    let (code, replayed) = as_json(&place, &["replay"]).await;
    assert_eq!((code, &replayed["passed"]), (0, &json!([3])));
    let (code, replayed) = as_json(&place, &["replay", "2"]).await;
    assert_eq!((code, &replayed["passed"]), (0, &json!([2])));
    let (_, open) = said(&place, &["list"]).await;
    assert_eq!(open, "nothing\n");
    let states = "SELECT id, state, state_reason FROM quarantined_events ORDER BY id";
    assert_eq!(
        dump(&mut applier.connection, states).await,
        "1 | discarded | sent by the old adapter\n2 | replayed | -\n3 | replayed | -\n"
    );
}
