//! The broker: the only module that speaks AMQP.

mod connect;
mod inspect;
mod publisher;
mod received;
mod sockets;
mod subscription;
mod topology;

use std::time::Duration;

use lapin::options::QueueDeclareOptions;
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::FieldTable;
use lapin::{Connection, ErrorKind};

use crate::config::Secret;
use crate::tls;

use connect::connect;

pub use connect::{address, check_url};
pub use inspect::{Argument, Declared, Inspection, Object, inspect};
pub use publisher::{Publisher, Unconfirmed};
pub use subscription::Subscription;
pub use topology::{DELIVERY_LIMIT, Topology};

/// A broker that does not answer a goodbye must not hold up a stop.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// A channel that the broker closes at the moment of a question may leave it without an answer for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Log filter of the AMQP library: what it notices comes back as an error, and is told once, where it is handled.
pub const LIBRARY_LOG: &str = "lapin=off";

/// What went wrong between us and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It is away or broke off: the same attempt succeeds later.
    #[error("{0}")]
    Lost(String),
    /// Only a person can mend it.
    #[error("{0}")]
    Refused(String),
    /// A message ended the connection, and does so each time it is delivered.
    #[error("{0}")]
    Unreadable(&'static str),
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        match error.kind() {
            ErrorKind::IOError(io) => match tls::refusal(io) {
                Some(problem) => Self::Refused(format!(
                    "{problem}: AMQP_URL has to lead to a TLS port (usually 5671), to name the host as the broker's certificate \
                     does, and with ?cacertfile=FILE the CA, unless the system trusts it: {io}"
                )),
                None => Self::Lost(error.to_string()),
            },
            // The library reads a frame whole or not at all, and then gives up the connection.
            ErrorKind::ParsingError(_) => Self::Unreadable(
                "a message cannot be read: its routing key, a property or the name of a header is not UTF-8",
            ),
            ErrorKind::ProtocolError(problem) => match problem.kind() {
                // A limit of connections or channels, of a user, a virtual host or a node: some connection ends sooner or later,
                // perhaps an earlier one of ours, which the broker takes for alive until it misses its heartbeats.
                AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
                    if ["connection limit", "number of channels opened"]
                        .iter()
                        .any(|limit| problem.get_message().as_str().contains(limit)) =>
                {
                    Self::Lost(error.to_string())
                }
                AMQPErrorKind::Soft(
                    AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED,
                )
                | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED) => {
                    Self::Refused(error.to_string())
                }
                AMQPErrorKind::Hard(AMQPHardError::FRAMEERROR) => Self::Unreadable(
                    "a message cannot be read: its headers do not fit into the frame that was agreed on",
                ),
                _ => Self::Lost(error.to_string()),
            },
            ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => {
                Self::Refused(error.to_string())
            }
            // Asked of a connection that has broken meanwhile.
            ErrorKind::InvalidChannelState(..) | ErrorKind::InvalidConnectionState(_) => {
                Self::Lost("the connection to the broker is lost".to_owned())
            }
            _ => Self::Lost(error.to_string()),
        }
    }
}

/// How a queue stands.
#[derive(Debug, Clone, Copy)]
pub struct QueueState {
    /// Messages ready to be delivered.
    pub ready: u32,
    /// Consumers attached.
    pub consumers: u32,
}

/// Looks at a queue without touching it; `None` if there is no such queue.
///
/// # Errors
/// If the broker is away or refuses us.
pub async fn queue_state(url: &Secret, queue: &str) -> Result<Option<QueueState>, BrokerError> {
    let connection = connect(url, "status").await?;
    let asked = async {
        let channel = connection.create_channel().await?;
        let declared = channel.queue_declare(queue.into(), passive(), FieldTable::default());
        match declared.await {
            Ok(queue) => Ok(Some(QueueState {
                ready: queue.message_count(),
                consumers: queue.consumer_count(),
            })),
            Err(error) if is_not_found(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    };
    let state = answered(asked).await;
    close(&connection).await;
    state
}

/// Asks about a queue and makes none.
fn passive() -> QueueDeclareOptions {
    QueueDeclareOptions {
        passive: true,
        ..Default::default()
    }
}

fn is_not_found(error: &lapin::Error) -> bool {
    matches!(error.kind(), ErrorKind::ProtocolError(error)
        if *error.kind() == AMQPErrorKind::Soft(AMQPSoftError::NOTFOUND))
}

/// Says goodbye: of a connection that is only dropped the broker's log says that a client was lost.
async fn close(connection: &Connection) {
    let goodbye = connection.close(200, "done".into());
    tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.ok();
}

async fn answered<T>(
    question: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, question).await;
    answer.unwrap_or_else(|_| {
        let seconds = ANSWER_TIMEOUT.as_secs();
        Err(BrokerError::Lost(format!(
            "the broker gave no answer within {seconds} s"
        )))
    })
}
