//! Looks at the topology as the broker has it, and changes nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Connection, ExchangeKind};

use super::topology::{Topology, durable_exchange};
use super::{BrokerError, QueueState, close, connect, is_not_found, queue_state};
use crate::config::Secret;

/// A broker that does not confirm a message for this long takes none.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(3);
/// More arguments than a queue can have.
const ARGUMENTS_MAX: usize = 20;
/// A value that the broker had no room for.
const UNSAID: &str = "another value";
/// No queue has this name, so that a message to it goes nowhere.
const NOWHERE: &str = "paxflow.doctor.nowhere";

/// What AMQP tells of a broker.
#[derive(Debug)]
pub struct Inspection {
    /// Seconds between heartbeats; 0 if a dead peer is never noticed.
    pub heartbeat_secs: u16,
    /// Whether it takes messages: not while an alarm of its memory or disk is on.
    pub takes_messages: bool,
    /// The exchanges and queues that a worker needs.
    pub objects: Vec<Object>,
    /// The queue, if there is one.
    pub queue: Option<QueueState>,
    /// The queue of dead letters, if there is one.
    pub dead_letters: Option<QueueState>,
}

/// An exchange or a queue.
#[derive(Debug)]
pub struct Object {
    /// `exchange` or `queue`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// How it stands.
    pub declared: Declared,
}

/// How an exchange or a queue stands to what a worker declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Declared {
    /// It is what a worker declares.
    AsDeclared,
    /// There is none.
    Missing,
    /// It has other properties.
    Differs(Vec<Argument>),
    /// We may not declare it.
    Forbidden,
}

/// A property of an exchange or queue, in the words of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Its name, such as `x-queue-type`.
    pub name: String,
    /// Its value.
    pub found: String,
}

/// Looks at the broker. Nothing is made, changed or sent to the queue: what exists is declared once more,
/// and the broker says whether it is the same.
///
/// # Errors
/// If the broker is away or refuses us.
pub async fn inspect(url: &Secret, topology: &Topology) -> Result<Inspection, BrokerError> {
    let connection = connect(url, "doctor").await?;
    let objects = objects(&connection, topology).await;
    let heartbeat_secs = connection.configuration().heartbeat();
    close(&connection).await;
    Ok(Inspection {
        objects: objects?,
        heartbeat_secs,
        takes_messages: takes_messages(url).await?,
        queue: queue_state(url, &topology.queue).await?,
        dead_letters: queue_state(url, &topology.dead_letters()).await?,
    })
}

async fn objects(connection: &Connection, topology: &Topology) -> Result<Vec<Object>, BrokerError> {
    let mut objects = Vec::new();
    for (name, kind) in topology.exchanges() {
        objects.push(Object {
            kind: "exchange",
            declared: exchange(connection, &name, kind).await?,
            name,
        });
    }
    for (name, arguments) in topology.queues() {
        objects.push(Object {
            kind: "queue",
            declared: queue(connection, &name, arguments).await?,
            name,
        });
    }
    Ok(objects)
}

async fn exchange(
    connection: &Connection,
    name: &str,
    kind: ExchangeKind,
) -> Result<Declared, BrokerError> {
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..Default::default()
    };
    // An error closes its channel, so each question has one of its own.
    for options in [passive, durable_exchange()] {
        let channel = connection.create_channel().await?;
        let declared =
            channel.exchange_declare(name.into(), kind.clone(), options, FieldTable::default());
        if let Err(error) = declared.await {
            return match refusal(error)? {
                Refusal::Missing => Ok(Declared::Missing),
                Refusal::Forbidden => Ok(Declared::Forbidden),
                Refusal::Differs(argument) => Ok(Declared::Differs(vec![argument])),
            };
        }
        channel.close(200, "done".into()).await?;
    }
    Ok(Declared::AsDeclared)
}

type Arguments = BTreeMap<ShortString, AMQPValue>;

/// The broker names one argument that differs. Asking again with its own value for that one brings out the next.
async fn queue(
    connection: &Connection,
    name: &str,
    arguments: FieldTable,
) -> Result<Declared, BrokerError> {
    let mut options = QueueDeclareOptions {
        passive: true,
        ..QueueDeclareOptions::durable()
    };
    let mut arguments = arguments.inner().clone();
    let mut differing: Vec<Argument> = Vec::new();
    for _ in 0..ARGUMENTS_MAX {
        let channel = connection.create_channel().await?;
        let declared = channel.queue_declare(name.into(), options, arguments.clone().into());
        match declared.await {
            Ok(_) => {
                channel.close(200, "done".into()).await?;
                if !options.passive {
                    break;
                }
                // It exists, so that declaring it cannot make it.
                options.passive = false;
            }
            Err(error) => match refusal(error)? {
                Refusal::Missing => return Ok(Declared::Missing),
                Refusal::Forbidden => return Ok(Declared::Forbidden),
                Refusal::Differs(argument) => {
                    let stuck = differing.iter().any(|other| other.name == argument.name);
                    if stuck {
                        break;
                    }
                    adopt(&argument, &mut options, &mut arguments);
                    differing.push(argument);
                }
            },
        }
    }
    Ok(if differing.is_empty() {
        Declared::AsDeclared
    } else {
        Declared::Differs(differing)
    })
}

/// Takes over the value that the broker has for an argument.
fn adopt(argument: &Argument, options: &mut QueueDeclareOptions, arguments: &mut Arguments) {
    let (name, found) = (argument.name.as_str(), argument.found.as_str());
    match name {
        "durable" => options.durable = false,
        "auto_delete" => options.auto_delete = true,
        _ if found == "none" => {
            arguments.remove(name);
        }
        _ => {
            let value = found.parse().map_or_else(
                |_| AMQPValue::LongString(found.into()),
                AMQPValue::LongLongInt,
            );
            arguments.insert(name.into(), value);
        }
    }
}

/// Why the broker refuses a declaration.
enum Refusal {
    Missing,
    Forbidden,
    Differs(Argument),
}

fn refusal(error: lapin::Error) -> Result<Refusal, BrokerError> {
    if is_not_found(&error) {
        return Ok(Refusal::Missing);
    }
    match BrokerError::from(error) {
        BrokerError::Refused(reason) => match differing(&reason) {
            Some(argument) => Ok(Refusal::Differs(argument)),
            None if reason.contains("ACCESS_REFUSED") => Ok(Refusal::Forbidden),
            None => Err(BrokerError::Refused(reason)),
        },
        lost => Err(lost),
    }
}

/// Reads `inequivalent arg 'NAME' for queue 'Q' in vhost '/': received ... but current is the value 'V' of type 'T'`.
fn differing(reason: &str) -> Option<Argument> {
    let (_, rest) = reason.split_once("inequivalent arg '")?;
    let (name, _) = rest.split_once('\'')?;
    // The reason has 255 bytes at most: with a long name of the queue its end is missing.
    let found = match rest.split_once(" but current is ") {
        Some((_, "none")) => "none",
        Some((_, found)) => found.split('\'').nth(1).unwrap_or(UNSAID),
        None => UNSAID,
    };
    Some(Argument {
        name: name.to_owned(),
        found: found.to_owned(),
    })
}

/// Sends messages to nowhere: a broker with an alarm reads nothing more from a connection once it has published.
async fn takes_messages(url: &Secret) -> Result<bool, BrokerError> {
    let connection = connect(url, "doctor").await?;
    let channel = connection.create_channel().await?;
    channel
        .confirm_select(ConfirmSelectOptions::default())
        .await?;
    let two_confirmed = async {
        for _ in 0..2 {
            let options = BasicPublishOptions::default();
            let properties = BasicProperties::default();
            let sent = channel.basic_publish("".into(), NOWHERE.into(), options, b"", properties);
            sent.await?.await?;
        }
        lapin::Result::Ok(())
    };
    // An error is an answer too: a worker need not be allowed to publish.
    let answered = tokio::time::timeout(CONFIRM_TIMEOUT, two_confirmed).await;
    close(&connection).await;
    Ok(answered.is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_the_broker_are_understood() {
        let said = |found| {
            format!(
                "PRECONDITION_FAILED - inequivalent arg 'x-a' for queue 'q' in vhost '/': received 'b' but current is {found}"
            )
        };
        for (words, found) in [
            ("none", "none"),
            ("'classic'", "classic"),
            ("the value '5' of type 'signedint'", "5"),
        ] {
            let argument = Argument {
                name: "x-a".to_owned(),
                found: found.to_owned(),
            };
            assert_eq!(differing(&said(words)), Some(argument));
        }
        assert_eq!(differing("NOT_FOUND - no queue 'q'"), None);
    }
}
