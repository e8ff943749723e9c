//! How a worker's bookings come into their table, and how it keeps out of the way of its twins.
//!
//! A twin that inserts one of the keys that a batch copies makes that batch begin anew. Twins seldom come alone: two
//! workers on one queue meet at nearly every batch. So whoever has met one takes turns for a while, and nothing is
//! lost by it, since batches with common keys wait for each other in any case, but with work done that is thrown away.

use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;

use sqlx::{PgConnection, Row};

use crate::config::Pooler;
use crate::db::sockets;

/// Below this many bookings, the two or three extra round trips of COPY cost as much as it saves.
const COPIED_MIN: usize = 100;
/// This many batches take turns after a twin was met.
const IN_TURN_AFTER_TWIN: u32 = 200;

/// How the bookings that are new come into their table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Insertion {
    /// By COPY, which a twin that inserts one of the same keys makes fail: see [`super::insert::is_collision`].
    /// Otherwise by a statement that waits for such a twin and leaves its keys alone.
    pub copies: bool,
    /// After the others who take turns.
    pub in_turn: bool,
}

impl Insertion {
    /// By a statement, whatever others do meanwhile.
    pub(super) const INSERT: Self = Self {
        copies: false,
        in_turn: false,
    };
}

/// What decides how a worker inserts bookings.
#[derive(Debug, Clone)]
pub(super) struct Inserting {
    /// Whether COPY does not wait for the network.
    copies: bool,
    /// Batches that still take turns since a twin was met.
    in_turn: Arc<AtomicU32>,
}

impl Inserting {
    pub(super) fn new() -> Self {
        Self {
            copies: sockets::is_possible(),
            in_turn: Arc::default(),
        }
    }

    /// How the next batch inserts this many bookings.
    pub(super) fn next(&self, bookings: usize) -> Insertion {
        if !self.copies || bookings < COPIED_MIN {
            return Insertion::INSERT;
        }
        let one_less = |left: u32| left.checked_sub(1);
        let left = self.in_turn.fetch_update(Relaxed, Relaxed, one_less);
        Insertion {
            // The batch that met the twin does not copy again: twins that take no turn could make it fail for ever.
            copies: left != Ok(IN_TURN_AFTER_TWIN),
            in_turn: left.is_ok(),
        }
    }

    pub(super) fn met_a_twin(&self) {
        self.in_turn.store(IN_TURN_AFTER_TWIN, Relaxed);
    }
}

/// Ends the sessions of twins that are frozen in the midst of a COPY; returns how many.
///
/// # Errors
/// What the database says.
pub async fn end_frozen(connection: &mut PgConnection) -> sqlx::Result<i64> {
    // A simple statement, which a pooler lets through.
    let ended = sqlx::raw_sql(include_str!("end_frozen.sql"))
        .fetch_one(connection)
        .await?;
    ended.try_get(0)
}

/// Waits for the others who take turns, up to their commits.
pub(super) async fn take_turn(connection: &mut PgConnection, pooler: Pooler) -> sqlx::Result<()> {
    let turn = pooler.query(include_str!("take_turn.sql"));
    turn.execute(connection).await.map(|_| ())
}
