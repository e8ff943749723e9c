//! Delivery attempts, of which each message has a limited number: only faults use them up.

use serde_json::json;

use crate::events::booking;
use crate::process::place;
use crate::support::Database;

#[tokio::test]
async fn a_start_uses_up_no_attempt() {
    const PUBLISHED: usize = 5_000;
    let database = Database::new().await;
    let place = place(&database);
    // What is set aside keeps its headers, the broker's count of attempts among them.
    let bad = |number| {
        let bad = booking(json!({ "booking_id": format!("B{number}"), "cabin": "Z" }));
        serde_json::to_vec(&bad).unwrap()
    };
    place
        .publish(&(0..PUBLISHED).map(bad).collect::<Vec<_>>())
        .await;
    let workers = [place.worker().await, place.worker().await];
    place.committed_at_least(PUBLISHED as i64).await;
    for worker in workers {
        worker.stop().await;
    }
    let set_aside = "SELECT count(*) FROM quarantined_events";
    assert_eq!(place.number(set_aside).await, PUBLISHED as i64);
    let attempted = "SELECT count(*) FROM quarantined_events WHERE headers ? 'x-delivery-count'";
    assert_eq!(place.number(attempted).await, 0);
}
