//! The exchanges and queues, and how they are made.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, ExchangeKind};

use super::BrokerError;
use crate::config::{Config, ConsumerRole};

/// How often a message may be delivered before it is dead-lettered. Every lost connection counts against every message it held, and
/// below RabbitMQ 4.3 a hand-back does, so this is a backstop and far from tight.
pub const DELIVERY_LIMIT: i32 = 50;
/// What the queue is bound to: every event of the contract, of this version or a later one.
const BINDING: &str = "airline.#";

/// Where events come from: names of the exchange and the queue, and who consumes it.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Topic exchange that producers publish to.
    pub exchange: String,
    /// Quorum queue that workers consume.
    pub queue: String,
    /// Whether they do so together or one at a time: a property of the queue.
    pub consumer: ConsumerRole,
}

impl Topology {
    /// What is configured.
    pub fn of(config: &Config) -> Self {
        Self {
            exchange: config.exchange.clone(),
            queue: config.queue.clone(),
            consumer: config.consumer,
        }
    }

    /// Exchange and queue of messages that were delivered too often.
    pub fn dead_letters(&self) -> String {
        format!("{}.dead", self.queue)
    }

    /// Every exchange; all are durable.
    pub(super) fn exchanges(&self) -> [(String, ExchangeKind); 2] {
        [
            (self.exchange.clone(), ExchangeKind::Topic),
            (self.dead_letters(), ExchangeKind::Fanout),
        ]
    }

    /// Every queue with its arguments; all are durable.
    pub(super) fn queues(&self) -> [(String, FieldTable); 2] {
        let dead = self.dead_letters();
        let mut quorum = FieldTable::default();
        quorum.insert(
            "x-queue-type".into(),
            AMQPValue::LongString("quorum".into()),
        );
        let mut arguments = quorum.clone();
        arguments.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongInt(DELIVERY_LIMIT),
        );
        arguments.insert(
            "x-dead-letter-exchange".into(),
            AMQPValue::LongString(dead.as_str().into()),
        );
        // Dead letters are moved with confirms, which asks for this overflow mode.
        arguments.insert(
            "x-dead-letter-strategy".into(),
            AMQPValue::LongString("at-least-once".into()),
        );
        arguments.insert(
            "x-overflow".into(),
            AMQPValue::LongString("reject-publish".into()),
        );
        if self.consumer != ConsumerRole::Shared {
            arguments.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        }
        [(dead, quorum), (self.queue.clone(), arguments)]
    }

    pub(super) async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
        for (exchange, kind) in self.exchanges() {
            channel
                .exchange_declare(
                    exchange.as_str().into(),
                    kind,
                    durable_exchange(),
                    FieldTable::default(),
                )
                .await
                .map_err(|error| other_arguments("exchange", &exchange, error))?;
        }
        for (queue, arguments) in self.queues() {
            channel
                .queue_declare(
                    queue.as_str().into(),
                    QueueDeclareOptions::durable(),
                    arguments,
                )
                .await
                .map_err(|error| other_arguments("queue", &queue, error))?;
        }
        let dead = self.dead_letters();
        for (queue, exchange, key) in [(&dead, &dead, ""), (&self.queue, &self.exchange, BINDING)] {
            channel
                .queue_bind(
                    queue.as_str().into(),
                    exchange.as_str().into(),
                    key.into(),
                    QueueBindOptions::default(),
                    FieldTable::default(),
                )
                .await?;
        }
        Ok(())
    }
}

pub(super) fn durable_exchange() -> ExchangeDeclareOptions {
    ExchangeDeclareOptions {
        durable: true,
        ..Default::default()
    }
}

/// Explains what the broker says of an exchange or queue that exists with other arguments.
fn other_arguments(what: &str, name: &str, error: lapin::Error) -> BrokerError {
    match BrokerError::from(error) {
        BrokerError::Refused(reason) if reason.contains("'x-single-active-consumer'") => {
            BrokerError::Refused(format!(
                "the {what} {name} has another kind of consumers ({reason}): set PAXFLOW_CONSUMER as the queue was made, \
                 active or standby where one worker consumes at a time, else shared"
            ))
        }
        BrokerError::Refused(reason) if reason.contains("inequivalent arg") => {
            BrokerError::Refused(format!(
                "the {what} {name} exists with other arguments and is left as it is ({reason}): drain and delete it, \
             or choose another name with PAXFLOW_QUEUE or PAXFLOW_EXCHANGE"
            ))
        }
        other => other,
    }
}
