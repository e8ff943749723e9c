//! A stop that somebody requests and others wait for.

use std::time::Duration;

use tokio::sync::watch;

/// A request to stop, that everyone who waits can see.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// A stop that is requested by sending `true`.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(receiver))
    }

    /// Returns once it is requested.
    pub async fn requested(&mut self) {
        if self.0.wait_for(|stop| *stop).await.is_err() {
            // Nobody is left who could request it.
            std::future::pending().await
        }
    }

    /// Waits; `true` if the stop was requested meanwhile.
    pub async fn requested_within(&mut self, wait: Duration) -> bool {
        tokio::time::timeout(wait, self.requested()).await.is_ok()
    }
}
