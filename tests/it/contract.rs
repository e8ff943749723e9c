//! What breaks the contract, through the real broker: set aside whole, while its neighbours commit.

use std::path::PathBuf;

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use paxflow::event::Delivery;
use paxflow::event::{BODY_BYTES_MAX, CONTENT_TYPE, CONTRACT_VERSION, Message, decode};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::FromRow;

use crate::events::{booking, deliver, flight};
use crate::process::{Place, place, properties};
use crate::support::{Database, dump, execute};

/// An entry of `fixtures/rejected/index.json`. A property that is not given is as a correct publisher
/// would set it.
#[derive(Deserialize)]
struct Fixture {
    file: String,
    reason: String,
    path: String,
    #[serde(default = "correct_content_type")]
    content_type: Option<String>,
    content_encoding: Option<String>,
    routing_key: Option<String>,
    message_id: Option<String>,
}

fn correct_content_type() -> Option<String> {
    Some(CONTENT_TYPE.to_owned())
}

impl Fixture {
    fn all() -> Vec<Self> {
        serde_json::from_slice(&std::fs::read(directory().join("index.json")).unwrap()).unwrap()
    }

    fn body(&self) -> Vec<u8> {
        std::fs::read(directory().join(&self.file)).unwrap()
    }

    /// By way of the default exchange the routing key is the queue's name and says nothing of the type.
    fn route<'a>(&'a self, place: &'a Place) -> (&'a str, &'a str) {
        match &self.routing_key {
            Some(key) => (&place.topology.exchange, key),
            None => ("", &place.topology.queue),
        }
    }

    fn properties(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        headers.insert(
            "file".into(),
            AMQPValue::LongString(self.file.as_str().into()),
        );
        let mut properties = BasicProperties::default()
            .with_headers(headers)
            .with_delivery_mode(2);
        if let Some(content_type) = &self.content_type {
            properties = properties.with_content_type(content_type.as_str().into());
        }
        if let Some(content_encoding) = &self.content_encoding {
            properties = properties.with_content_encoding(content_encoding.as_str().into());
        }
        if let Some(message_id) = &self.message_id {
            properties = properties.with_message_id(message_id.as_str().into());
        }
        properties
    }
}

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/rejected")
}

/// What quarantine keeps of a message.
#[derive(FromRow)]
struct SetAside {
    reason: String,
    path: String,
    exchange: String,
    routing_key: String,
    content_type: Option<String>,
    content_encoding: Option<String>,
    message_id: Option<String>,
    headers: Value,
    body: Vec<u8>,
    contract_version: String,
    times_received: i64,
    state: String,
    sqlstate: Option<String>,
}

async fn set_aside(place: &Place) -> Vec<SetAside> {
    sqlx::query_as("SELECT * FROM quarantined_events ORDER BY id")
        .fetch_all(&mut place.connect().await)
        .await
        .unwrap()
}

fn good(number: usize) -> Vec<u8> {
    serde_json::to_vec(&booking(json!({ "booking_id": format!("GOOD-{number}") }))).unwrap()
}

async fn good_stored(place: &Place) -> i64 {
    place
        .number("SELECT count(*) FROM bookings WHERE booking_id LIKE 'GOOD-%'")
        .await
}

#[tokio::test]
async fn poison_isolated_every_rejected_fixture_is_set_aside_whole() {
    let database = Database::new().await;
    let place = place(&database);
    let producer = place.producer().await;
    // Some fixtures have routing keys that no producer's binding takes.
    place.bind("#").await;
    let fixtures = Fixture::all();
    assert!(fixtures.len() > 100);
    let mut confirms = Vec::new();
    for (number, fixture) in fixtures.iter().enumerate() {
        let (exchange, key) = fixture.route(&place);
        confirms.push(
            producer
                .send(exchange, key, fixture.properties(), &fixture.body())
                .await,
        );
        let key = "airline.booking.upserted.v1";
        confirms.push(
            producer
                .send(&place.topology.exchange, key, properties(), &good(number))
                .await,
        );
    }
    for confirm in confirms {
        assert!(confirm.await.unwrap().is_ack());
    }
    let worker = place.worker().await;
    let published = 2 * fixtures.len() as i64;
    place.committed_at_least(published).await;

    assert_eq!(place.committed().await, (published, published));
    assert_eq!(good_stored(&place).await, fixtures.len() as i64);
    let rows = set_aside(&place).await;
    for fixture in &fixtures {
        let (file, body) = (&fixture.file, fixture.body());
        let own = rows.iter().find(|row| row.headers["file"] == **file);
        // The same body for the same reason is one row, with the properties that came first.
        let same = |row: &&SetAside| row.body == body && row.reason == fixture.reason;
        let row = own.or_else(|| rows.iter().find(same));
        let row = row.unwrap_or_else(|| panic!("{file} is not set aside"));
        assert_eq!(
            (&row.reason, &row.path),
            (&fixture.reason, &fixture.path),
            "{file}"
        );
        assert!(row.body == body, "{file}: the body is kept byte for byte");
        assert_eq!(
            (row.contract_version.as_str(), row.state.as_str()),
            (CONTRACT_VERSION, "open")
        );
        assert_eq!(row.sqlstate, None, "{file}");
        if own.is_some() {
            let (exchange, key) = fixture.route(&place);
            assert_eq!(
                (row.exchange.as_str(), row.routing_key.as_str()),
                (exchange, key),
                "{file}"
            );
            assert_eq!(row.content_type, fixture.content_type, "{file}");
            assert_eq!(row.content_encoding, fixture.content_encoding, "{file}");
            assert_eq!(row.message_id, fixture.message_id, "{file}");
        }
    }
    let received: i64 = rows.iter().map(|row| row.times_received).sum();
    assert_eq!(received, fixtures.len() as i64);
    worker.stop().await;
    place.assert_drained().await;
}

#[tokio::test]
async fn the_same_body_twice_is_one_row_received_twice() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let producer = place.producer().await;
    let poison = b"{".to_vec();
    producer.publish(std::slice::from_ref(&poison)).await;
    place.committed_at_least(1).await;
    producer
        .publish(&[poison.clone(), good(1), poison.clone()])
        .await;
    place.committed_at_least(4).await;
    let rows = set_aside(&place).await;
    assert_eq!(
        rows.iter()
            .map(|row| row.times_received)
            .collect::<Vec<_>>(),
        [3]
    );
    assert_eq!(rows[0].body, poison);
    assert_eq!(good_stored(&place).await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn poison_in_the_properties_is_set_aside_too() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let producer = place.producer().await;
    let mut headers = FieldTable::default();
    headers.insert("a\0b".into(), AMQPValue::LongString("c\0d".into()));
    let exchange = &place.topology.exchange;
    // PostgreSQL stores no NUL.
    let nul = properties()
        .with_message_id("a\0b".into())
        .with_headers(headers);
    producer
        .send(exchange, "airline.booking.upserted.v1", nul, &good(1))
        .await
        .await
        .unwrap();
    let content_type = properties().with_content_type("text\0".into());
    producer
        .send(
            exchange,
            "airline.booking.upserted.v1",
            content_type,
            &good(2),
        )
        .await
        .await
        .unwrap();
    producer
        .send(exchange, "airline.\0", properties(), &good(3))
        .await
        .await
        .unwrap();
    producer.publish(&[good(4)]).await;
    place.committed_at_least(4).await;
    let reasons: Vec<_> = set_aside(&place)
        .await
        .into_iter()
        .map(|row| row.reason)
        .collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    for reason in [
        "message_id_mismatch",
        "unsupported_content_type",
        "routing_key_mismatch",
    ] {
        assert!(
            reasons.iter().any(|found| found == reason),
            "{reason} is not among {reasons:?}"
        );
    }
    assert_eq!(good_stored(&place).await, 1);
    worker.stop().await;
}

#[tokio::test]
async fn a_body_of_256_kib_passes_and_one_byte_more_is_set_aside_by_its_length() {
    let database = Database::new().await;
    let place = place(&database);
    let worker = place.worker().await;
    let mut largest = good(1);
    largest.resize(BODY_BYTES_MAX, b' ');
    let mut too_large = good(2);
    too_large.resize(BODY_BYTES_MAX + 1, b' ');
    place.publish(&[largest, too_large.clone()]).await;
    place.committed_at_least(2).await;
    let rows = set_aside(&place).await;
    assert_eq!(
        rows.iter()
            .map(|row| row.reason.as_str())
            .collect::<Vec<_>>(),
        ["body_too_large"]
    );
    assert!(rows[0].body == too_large);
    assert_eq!(good_stored(&place).await, 1);
    worker.stop().await;
}

/// A database that refuses rows which the contract allows.
async fn picky_database() -> Database {
    let database = Database::new().await;
    let mut connection = database.connect().await;
    execute(
        &mut connection,
        "ALTER TABLE bookings ADD CONSTRAINT no_boom CHECK (seat <> 'BOOM')",
    )
    .await;
    database
}

fn boom(number: usize) -> Value {
    booking(json!({ "booking_id": format!("BOOM-{number}"), "seat": "BOOM" }))
}

#[tokio::test]
async fn a_row_that_only_the_database_refuses_is_set_aside_with_its_sqlstate() {
    let database = picky_database().await;
    let place = place(&database);
    let refused = serde_json::to_vec(&boom(1)).unwrap();
    let mut bodies: Vec<_> = (0..20).map(good).collect();
    bodies.insert(7, refused.clone());
    bodies.push(serde_json::to_vec(&flight(json!({}))).unwrap());
    place.publish(&bodies).await;
    let worker = place.worker().await;
    place.committed_at_least(22).await;
    let rows = set_aside(&place).await;
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].reason.as_str(), rows[0].sqlstate.as_deref()),
        ("refused_by_database", Some("23514"))
    );
    assert!(rows[0].body == refused);
    assert_eq!(good_stored(&place).await, 20);
    assert_eq!(place.committed().await, (22, 22));
    place.assert_exact().await;
    worker.stop().await;
    place.assert_drained().await;
}

#[tokio::test]
async fn a_refused_row_costs_few_extra_tries_wherever_it_stands() {
    const BATCH: usize = 128;
    let database = picky_database().await;
    let place = place(&database);
    // A sequence is not rolled back: it counts the failed tries too.
    let counting = "CREATE SEQUENCE tries;
                    CREATE FUNCTION count_try() RETURNS trigger LANGUAGE plpgsql
                    AS 'BEGIN PERFORM nextval(''tries''); RETURN NULL; END';
                    CREATE TRIGGER count_try BEFORE INSERT ON bookings EXECUTE FUNCTION count_try()";
    execute(&mut place.connect().await, counting).await;
    let mut applier = database.applier().await;
    let mut before = 0;
    for (round, at) in [0, BATCH / 2 - 1, BATCH - 1].into_iter().enumerate() {
        let mut events: Vec<_> = (0..BATCH)
            .map(|number| booking(json!({ "booking_id": format!("GOOD-{round}-{number}") })))
            .collect();
        events[at] = boom(round);
        let counts = applier.apply(&events).await;
        assert_eq!((counts.applied, counts.quarantined), (BATCH as u64 - 1, 1));
        let after = place.number("SELECT last_value FROM tries").await;
        let tries = after - before;
        before = after;
        // Without the first one, and with the one that sets the message aside.
        assert!(tries <= 2 * i64::from(BATCH.ilog2()) + 1, "{tries} tries");
    }
    assert_eq!(good_stored(&place).await, 3 * (BATCH as i64 - 1));
    place.assert_exact().await;
    // All of them: halving ends when each stands alone.
    let refused: Vec<_> = (0..BATCH).map(boom).collect();
    assert_eq!(applier.apply(&refused).await.total(), BATCH as u64);
    let after = place.number("SELECT last_value FROM tries").await;
    assert!(after - before <= 2 * BATCH as i64, "{}", after - before);
}

#[tokio::test]
async fn a_batch_of_nothing_but_poison_commits() {
    let database = picky_database().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let refused: Vec<_> = (0..9).map(boom).collect();
    assert_eq!(applier.apply(&refused).await.quarantined, 9);
    let mut broken: Vec<_> = (0..9).map(|number| deliver(&boom(number))).collect();
    for (number, delivery) in broken.iter_mut().enumerate() {
        delivery.body.truncate(20 + number);
        assert!(decode(&Message::of_body(&delivery.body)).is_err());
    }
    let counts = paxflow::apply::apply(&mut applier.connection, &applier.committer, &broken)
        .await
        .unwrap();
    assert_eq!((counts.quarantined, counts.total()), (9, 9));
    assert_eq!(
        place
            .number("SELECT count(*) FROM quarantined_events")
            .await,
        18
    );
}

#[tokio::test]
async fn poison_may_stand_first_or_last() {
    let database = picky_database().await;
    let place = place(&database);
    let mut applier = database.applier().await;
    let poison = Delivery {
        body: b"[".to_vec(),
        ..deliver(&boom(0))
    };
    let batch = [
        poison.clone(),
        deliver(&boom(1)),
        deliver(&flight(json!({}))),
        deliver(&boom(2)),
        poison,
    ];
    let counts = paxflow::apply::apply(&mut applier.connection, &applier.committer, &batch)
        .await
        .unwrap();
    assert_eq!((counts.applied, counts.quarantined), (1, 4));
    let rows = set_aside(&place).await;
    assert_eq!(rows.len(), 3);
    assert_eq!(rows.iter().map(|row| row.times_received).sum::<i64>(), 4);
}

/// Whichever of them fails, none of them is there.
#[tokio::test]
async fn poison_and_its_neighbours_are_one_transaction() {
    let database = Database::new().await;
    let mut applier = database.applier().await;
    let bad = booking(json!({ "booking_id": "BAD", "cabin": "economy" }));
    let batch = [booking(json!({})), bad];
    let rows = "SELECT (SELECT count(*) FROM bookings), (SELECT count(*) FROM quarantined_events),
                       (SELECT coalesce(sum(received), 0) FROM worker_progress)";
    let busy = "CREATE FUNCTION busy() RETURNS trigger LANGUAGE plpgsql AS $$
                BEGIN RAISE EXCEPTION 'busy' USING ERRCODE = 'lock_not_available'; END $$";
    execute(&mut applier.connection, busy).await;
    for table in ["quarantined_events", "worker_progress"] {
        let fails = format!("CREATE TRIGGER busy BEFORE INSERT ON {table} EXECUTE FUNCTION busy()");
        execute(&mut applier.connection, &fails).await;
        let failed = applier.try_apply(&batch).await.unwrap_err();
        assert!(failed.to_string().contains("busy"), "{failed}");
        let left = dump(&mut applier.connection, rows).await;
        assert_eq!(left, "0 | 0 | 0\n", "{table} failed");
        let works = format!("DROP TRIGGER busy ON {table}");
        execute(&mut applier.connection, &works).await;
    }
    applier.apply(&batch).await;
    assert_eq!(dump(&mut applier.connection, rows).await, "1 | 1 | 2\n");
}
