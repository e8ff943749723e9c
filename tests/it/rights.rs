//! The rights of roles over changes of the schema that do not go the usual way.

use crate::process::ran;
use crate::roles::{Login, RIGHTS, ROLES, empty, gone, rights};
use crate::support::{execute, with_revisions};

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
