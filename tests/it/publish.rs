//! `paxflow publish`: what reaches the broker, and what it says of it.

use std::process::Stdio;
use std::time::{Duration, Instant};

use lapin::options::{BasicGetOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties};
use paxflow::broker::queue_state;
use paxflow::config::Secret;
use paxflow::event::BODY_BYTES_MAX;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::commands::{assert_one_line, file, line, mixed, path};
use crate::events::flight;
use crate::faults::harness::Line;
use crate::faults::proxy::Cut;
use crate::process::{Place, fed, paxflow, place, properties, ran, until};
use crate::running::Running;
use crate::support::Database;

/// So many flights, a line each.
fn flights(count: usize) -> Vec<u8> {
    let one = |number| line(&flight(json!({ "flight_id": format!("F{number}") })));
    (0..count).flat_map(one).collect()
}

async fn waiting(place: &Place) -> u32 {
    place.waiting(&place.topology.queue).await.ready
}

#[tokio::test]
async fn publish_sends_nothing_of_a_file_with_a_bad_line_unless_told_to_skip_it() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let events = file(&mixed(), ".ndjson");
    let (code, _, err) = ran(place.paxflow(&["publish", path(&events)])).await;
    assert_eq!(code, 1);
    assert!(
        err.contains(&format!("{}:2: $.data.cabin: unknown_value", path(&events))),
        "{err}"
    );
    assert!(
        err.contains("nothing was published") && err.contains("--skip-invalid"),
        "{err}"
    );
    let (code, out, _) = ran(place.paxflow(&["publish", "--json", path(&events)])).await;
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &result["published"], &result["rejected"]),
        (1, &json!(0), &json!(1))
    );
    assert_eq!(waiting(&place).await, 0);

    let (code, out, _) = ran(place.paxflow(&["publish", "--skip-invalid", path(&events)])).await;
    assert_eq!(code, 0);
    assert!(
        out.starts_with("published 2 events") && out.contains("1 rejected"),
        "{out}"
    );
    assert_eq!(waiting(&place).await, 2);

    let (code, out, _) = fed(
        place.paxflow(&["publish", "--skip-invalid", "--json", "-"]),
        &mixed(),
    )
    .await;
    let result: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &result["published"], &result["rejected"]),
        (0, &json!(2), &json!(1))
    );
    assert_eq!(waiting(&place).await, 4);
}

/// It would fill with a copy of all events, and nobody would take them.
#[tokio::test]
async fn publish_makes_no_queue_beside_the_one_that_workers_have_made() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let events = file(&flights(3), ".ndjson");
    let mut command = place.paxflow(&["publish", path(&events)]);
    let unknown = format!("{}.unknown", place.topology.queue);
    command.env("PAXFLOW_QUEUE", &unknown);
    let (code, out, err) = ran(command).await;
    assert_eq!(code, 0, "{out}{err}");
    assert_eq!(waiting(&place).await, 3);
    let url = Secret::new(place.amqp_url.as_str());
    let made = queue_state(&url, &unknown).await.unwrap();
    assert!(made.is_none(), "{made:?}");
}

#[tokio::test]
async fn publish_keeps_to_its_rate() {
    let database = Database::new().await;
    let place = place(&database);
    let events = flights(40);
    let started = Instant::now();
    let (code, _, err) = fed(place.paxflow(&["publish", "--rate", "40", "-"]), &events).await;
    assert_eq!(code, 0, "{err}");
    // The last of 40 is due 39/40 s after the first.
    assert!(
        started.elapsed() > Duration::from_millis(950),
        "{:?}",
        started.elapsed()
    );
    let (code, _, err) = ran(place.paxflow(&["publish", "--rate", "0", "-"])).await;
    assert!(code != 0 && err.contains("--rate"), "{err}");
}

#[tokio::test]
async fn publish_without_a_broker_says_where_it_looked() {
    let events = line(&flight(json!({})));
    let mut command = paxflow(&["publish", "-"]);
    command.env("AMQP_URL", "amqp://paxflow:canary-secret@127.0.0.1:1/%2f");
    let (code, _, err) = fed(command, &events).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(
        err.contains("127.0.0.1:1") && err.contains("AMQP_URL") && !err.contains("canary"),
        "{err}"
    );

    let (code, _, err) = fed(paxflow(&["publish", "-"]), &events).await;
    assert_eq!(code, 1);
    assert_one_line(&err);
    assert!(err.contains("AMQP_URL is not set"), "{err}");
}

#[tokio::test]
async fn a_pipe_is_published_although_it_can_be_read_but_once() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let (code, out, err) = fed(place.paxflow(&["publish", "/dev/stdin"]), &flights(30)).await;
    assert!(
        code == 0 && out.starts_with("published 30 events"),
        "{out}{err}"
    );
    assert_eq!(waiting(&place).await, 30);
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_published_is_told_of() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    // More than is read at once.
    let mut events = file(&flights(4_000), ".ndjson");
    let publish = place.paxflow(&["publish", "--rate", "400", path(&events)]);
    let publishing = Running::start(publish);
    until("some of it is published", async || {
        (waiting(&place).await > 0).then_some(())
    })
    .await;
    events.as_file_mut().set_len(1 << 20).unwrap();
    let (code, out, err) = publishing.ended().await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_one_line(&err);
    assert!(err.contains("4000 events were valid and "), "{err}");
}

#[tokio::test]
async fn what_was_confirmed_before_the_connection_broke_counts() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let line = Line::to(&place).await;
    let events = file(&flights(400), ".ndjson");
    let publish = line
        .place
        .paxflow(&["publish", "--rate", "20", path(&events)]);
    let publishing = Running::start(publish);
    until("some of it is published", async || {
        (waiting(&place).await >= 20).then_some(())
    })
    .await;
    line.broker.cut(Cut::Reset);
    let (code, _, err) = publishing.ended().await;
    assert_eq!(code, 1, "{err}");
    assert_one_line(&err);
    assert!(!err.contains("invalid"), "{err}");
    let confirmed: u32 = err.split(' ').nth(1).unwrap().parse().unwrap();
    let waiting = waiting(&place).await;
    assert!((10..=waiting).contains(&confirmed), "{waiting} wait: {err}");
}

/// A channel as an operator has it; the connection ends with the test.
async fn channel(place: &Place) -> (Connection, Channel) {
    let connection = Connection::connect(&place.amqp_url, ConnectionProperties::default());
    let connection = connection.await.unwrap();
    let channel = connection.create_channel().await.unwrap();
    (connection, channel)
}

#[tokio::test]
async fn an_event_that_no_queue_takes_ends_it_and_does_not_count() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let events = file(&flights(100), ".ndjson");
    let publishing = Running::start(place.paxflow(&["publish", "--rate", "10", path(&events)]));
    until("some of it is published", async || {
        (waiting(&place).await > 0).then_some(())
    })
    .await;
    let (_connection, channel) = channel(&place).await;
    let (queue, exchange) = (&*place.topology.queue, &*place.topology.exchange);
    let arguments = FieldTable::default();
    let unbound =
        channel.queue_unbind(queue.into(), exchange.into(), "airline.#".into(), arguments);
    unbound.await.unwrap();
    let (code, out, err) = publishing.ended().await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_one_line(&err);
    let counted = format!(
        "paxflow: {} of 100 events are confirmed",
        waiting(&place).await
    );
    assert!(
        err.starts_with(&counted) && err.contains("the exchange has no queue for the event"),
        "{err}"
    );
}

#[tokio::test]
async fn an_event_that_a_full_queue_refuses_does_not_count() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    place.delete_queue().await;
    let (_connection, channel) = channel(&place).await;
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    let overflow = AMQPValue::LongString("reject-publish".into());
    arguments.insert("x-overflow".into(), overflow);
    let queue = place.topology.queue.as_str().into();
    let declared = channel.queue_declare(queue, QueueDeclareOptions::durable(), arguments);
    declared.await.unwrap();
    place.bind("airline.#").await;
    let (code, out, err) = fed(place.paxflow(&["publish", "-"]), &flights(10)).await;
    assert_eq!((code, out.as_str()), (1, ""), "{err}");
    assert_one_line(&err);
    assert!(
        err.starts_with("paxflow: 1 of 10 events are confirmed; publish again")
            && err.contains("the broker did not take the event"),
        "{err}"
    );
    assert_eq!(waiting(&place).await, 1);
}

#[tokio::test]
async fn an_event_is_sent_persistent_and_with_its_id() {
    let database = Database::new().await;
    let place = place(&database);
    let event = flight(json!({}));
    let (code, _, err) = fed(place.paxflow(&["publish", "-"]), &line(&event)).await;
    assert_eq!(code, 0, "{err}");
    let (_connection, channel) = channel(&place).await;
    let queue = place.topology.queue.as_str().into();
    let got = channel.basic_get(queue, BasicGetOptions::default()).await;
    let message = got.unwrap().expect("it waits in the queue").delivery;
    let id = event["id"].as_str().unwrap();
    // The broker adds headers of its own.
    let expected = properties().with_message_id(id.into());
    let got = message.properties.with_headers(FieldTable::default());
    assert_eq!(got, expected.with_headers(FieldTable::default()));
    assert_eq!(message.routing_key.as_str(), "airline.flight.upserted.v1");
    let body: Value = serde_json::from_slice(&message.data).unwrap();
    assert_eq!(body, event);
}

#[tokio::test]
async fn a_broker_that_confirms_nothing_is_told_of_and_waited_for() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let line = Line::to(&place).await;
    let events = file(&flights(50), ".ndjson");
    let mut publish = line
        .place
        .paxflow(&["publish", "--rate", "10", path(&events)]);
    publish.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut publishing = publish.spawn().unwrap();
    let mut said = BufReader::new(publishing.stderr.take().unwrap()).lines();
    until("some of it is published", async || {
        (waiting(&place).await > 0).then_some(())
    })
    .await;
    line.broker.freeze(true);
    let told = said.next_line().await.unwrap().unwrap();
    assert!(told.contains("confirmed nothing for 10 s"), "{told}");
    line.broker.freeze(false);
    assert_eq!(said.next_line().await.unwrap(), None);
    let ended = publishing.wait_with_output().await.unwrap();
    let out = String::from_utf8_lossy(&ended.stdout);
    assert!(ended.status.success(), "{out}");
    assert!(out.starts_with("published 50 events"), "{out}");
}

#[tokio::test]
async fn nobody_needs_to_read_what_it_says() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let events = file(&mixed(), ".ndjson");
    let mut publish = place.paxflow(&["publish", "--skip-invalid", path(&events)]);
    publish.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = publish.spawn().unwrap();
    drop((child.stdout.take(), child.stderr.take()));
    assert_eq!(child.wait().await.unwrap().code(), Some(141));
    assert_eq!(waiting(&place).await, 2);
}

#[tokio::test]
async fn blank_lines_hold_no_event_and_count_as_lines() {
    let database = Database::new().await;
    let place = place(&database);
    place.declare().await;
    let events = file(
        &[b"\n", &flights(1)[..], b" \r\n\n", &flights(1), b"\n\t"].concat(),
        ".ndjson",
    );
    let (code, out, err) = ran(place.paxflow(&["publish", path(&events)])).await;
    assert_eq!(code, 0, "{err}");
    assert!(
        out.starts_with("published 2 events") && out.contains(" 0 rejected"),
        "{out}"
    );
    let broken = file(b"\n\nrubbish\n\n", ".ndjson");
    let named = format!("{}:3: $: invalid_json", path(&broken));
    let (code, out, _) = ran(place.paxflow(&["check", path(&broken)])).await;
    assert_eq!(code, 1);
    assert!(
        out.contains(&named) && out.contains("0 valid, 1 rejected"),
        "{out}"
    );
    let (_, _, err) = ran(place.paxflow(&["publish", path(&broken)])).await;
    assert!(err.contains(&named), "{err}");
}

#[test]
fn the_end_of_a_line_is_not_looked_for_within_it() {
    let mut body = line(&flight(json!({})));
    body.pop();
    body.resize(BODY_BYTES_MAX, b' ');
    let fits = file(&[&body[..], b"\r\n"].concat(), ".ndjson");
    let longer = file(&[&body[..], b"\rrubbish\n"].concat(), ".ndjson");
    for (events, said) in [(fits, "1 valid, 0 rejected"), (longer, "body_too_large")] {
        let checked = std::process::Command::new(env!("CARGO_BIN_EXE_paxflow"))
            .args(["check", path(&events)])
            .output()
            .unwrap();
        let out = String::from_utf8_lossy(&checked.stdout);
        assert!(out.contains(said), "{out}");
    }
}
