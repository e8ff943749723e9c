//! The rights of roles over changes of the schema that do not go the usual way.

use sqlx::Connection as _;
use sqlx::postgres::PgConnection;

use crate::process::{ran, until};
use crate::roles::{Login, RIGHTS, ROLES, empty, gone, rights};
use crate::support::{Database, execute, with_revisions};

/// A view that is made anew belongs to the login that made it, and has no rights until they are given.
const ANEW: &str = "DROP VIEW pending_bookings;
    CREATE VIEW pending_bookings AS SELECT booking_id, flight_id, cabin, currency FROM bookings";

#[tokio::test]
async fn rights_follow_an_upgrade_that_stops_half_way_and_a_downgrade() {
    let (database, mut admin) = empty().await;
    execute(&mut admin, ROLES).await;
    let deploy = Login::of("paxflow_owner", &mut admin).await;
    let dir = with_revisions(&[
        ("0016_anew.up.sql", ANEW),
        ("0016_anew.down.sql", ANEW),
        ("0017_wrong.up.sql", "SELECT 1 / 0"),
    ]);
    let dir = dir.path().to_str().unwrap();
    for (change, says) in [
        (&["upgrade", "--yes"][..], "revision 17 failed"),
        (&["downgrade", "15", "--yes"], ""),
    ] {
        let arguments = [&["db", "migrate", "--dir", dir], change].concat();
        let (_, out, err) = ran(deploy.place(&database).paxflow(&arguments)).await;
        assert!(err.contains(says), "{out}{err}");
        assert_eq!(rights(&mut admin).await, RIGHTS, "after {change:?}");
    }
    gone(&mut admin, &deploy).await;
    deploy.drop_from(&mut admin).await;
}

/// The server's own words tell what is not allowed.
#[tokio::test]
async fn a_login_that_may_not_make_the_schema_is_told_why() {
    let (database, mut admin) = empty().await;
    execute(
        &mut admin,
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC; GRANT USAGE ON SCHEMA public TO PUBLIC",
    )
    .await;
    let stranger = Login::of("pg_monitor", &mut admin).await;
    let place = stranger.place(&database);
    let (code, _, err) = ran(place.paxflow(&["db", "migrate", "upgrade"])).await;
    assert!(
        code == 1
            && err.contains("revision 0 of")
            && err.ends_with(": permission denied for schema public\n"),
        "{err}"
    );
    gone(&mut admin, &stranger).await;
    stranger.drop_from(&mut admin).await;
}

#[tokio::test]
async fn who_holds_a_lock_is_named_without_what_the_login_may_not_see() {
    let database = Database::new().await;
    let mut admin = database.connect().await;
    execute(&mut admin, "CREATE TABLE wanted ()").await;
    let plain = Login::of("pg_signal_backend", &mut admin).await;
    let place = plain.place(&database);
    let (mut waiting, mut asking) = (place.connect().await, place.connect().await);
    let (mut holding, pid) = (database.connect().await, "SELECT pg_backend_pid()");
    execute(&mut admin, "GRANT ALL ON wanted TO PUBLIC").await;
    execute(&mut holding, "BEGIN; LOCK TABLE wanted").await;
    let pid: i32 = sqlx::query_scalar(pid)
        .fetch_one(&mut waiting)
        .await
        .unwrap();
    let waits = tokio::spawn(async move {
        execute(&mut waiting, "BEGIN; LOCK TABLE wanted").await;
        waiting
    });
    let holders = async |connection: &mut PgConnection| {
        let holders = sqlx::query_scalar(include_str!("../../src/db/holders.sql"));
        holders.bind(pid).fetch_one(connection).await.unwrap()
    };
    let named = until("it waits", async || -> Option<String> {
        holders(&mut asking).await
    })
    .await;
    assert!(
        named.starts_with("pid ") && !named.contains("since"),
        "{named}"
    );
    let named: Option<String> = holders(&mut admin).await;
    assert!(named.unwrap().contains(", idle in transaction since 20"));
    execute(&mut holding, "COMMIT").await;
    waits.await.unwrap().close().await.unwrap();
    asking.close().await.unwrap();
    plain.drop_from(&mut admin).await;
}
