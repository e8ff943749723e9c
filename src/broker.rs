//! The broker: the only module that knows AMQP.

mod connect;
mod inspect;
mod received;
mod sockets;

use std::collections::VecDeque;
use std::future;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, Consumer, ErrorKind, ExchangeKind,
};

use crate::batch::Delivery;
use crate::config::{Config, ConsumerRole, Secret};
use crate::event::CONTENT_TYPE;
use crate::tls;

use connect::connect;
use received::received;

pub use connect::address;
pub use inspect::{Argument, Inspection, Object, Standing, inspect};

/// A broker that does not answer a goodbye must not hold up a stop.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// A channel that the broker closes at the moment of a question may leave it without an answer for ever.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a message may be delivered before it is dead-lettered. Below RabbitMQ 4.3 every lost
/// connection counts against every message it held, so this is a backstop and far from tight.
pub const DELIVERY_LIMIT: i32 = 50;
/// A consumer without a priority has 0.
const ACTIVE_PRIORITY: i32 = 1;
/// What the queue is bound to: every event of the contract, of this version or a later one.
const BINDING: &str = "airline.#";

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
    fn exchanges(&self) -> [(String, ExchangeKind); 2] {
        [
            (self.exchange.clone(), ExchangeKind::Topic),
            (self.dead_letters(), ExchangeKind::Fanout),
        ]
    }

    /// Every queue with its arguments; all are durable.
    fn queues(&self) -> [(String, FieldTable); 2] {
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

    async fn declare(&self, channel: &Channel) -> Result<(), BrokerError> {
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

fn durable_exchange() -> ExchangeDeclareOptions {
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
    let channel = connection.create_channel().await?;
    let state = match channel
        .queue_declare(queue.into(), passive(), FieldTable::default())
        .await
    {
        Ok(queue) => Some(QueueState {
            ready: queue.message_count(),
            consumers: queue.consumer_count(),
        }),
        Err(error) if is_not_found(&error) => None,
        Err(error) => return Err(error.into()),
    };
    connection.close(200, "done".into()).await.ok();
    Ok(state)
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

/// A connection that consumes the queue. A second connection publishes: a blocked publisher would
/// hold back the acknowledgements too.
pub struct Subscription {
    connection: Connection,
    channel: Channel,
    consumer: Consumer,
    /// What a consumer that has ended was given, and nobody took yet.
    left: VecDeque<Delivery>,
    /// The prefetch of the next consumer, which begins once all that the one before was given is settled.
    wider: Option<u16>,
    prefetch: u16,
    /// How many arrived here and were settled. Deliveries are numbered from 1, and settled in that order.
    arrived: u64,
    settled: u64,
    queue: String,
    role: ConsumerRole,
}

impl Subscription {
    /// Connects, declares the topology and consumes.
    ///
    /// # Errors
    /// If the broker is away or refuses us.
    pub async fn open(
        url: &Secret,
        topology: &Topology,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let connection = connect(url, "worker").await?;
        let (queue, role) = (topology.queue.clone(), topology.consumer);
        let consuming = answered(async {
            let channel = connection.create_channel().await?;
            topology.declare(&channel).await?;
            let consumer = consume(&channel, &queue, role, prefetch).await?;
            Ok((channel, consumer))
        });
        let (channel, consumer) = match consuming.await {
            Ok(consuming) => consuming,
            Err(error) => {
                close(&connection).await;
                return Err(error);
            }
        };
        Ok(Self {
            connection,
            channel,
            consumer,
            left: VecDeque::new(),
            wider: None,
            prefetch,
            arrived: 0,
            settled: 0,
            queue,
            role,
        })
    }

    /// The next delivery. May be dropped before it is done.
    ///
    /// # Errors
    /// The end of the stream is an error: queue deleted, fail-over, time-out or connection lost.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        if let Some(delivery) = self.left.pop_front() {
            return Ok(delivery);
        }
        if self.wider.is_some() {
            return future::pending().await;
        }
        match self.arrive().await {
            Some(delivery) => delivery,
            None => Err(BrokerError::Lost(
                "the broker ended the consumer".to_owned(),
            )),
        }
    }

    async fn arrive(&mut self) -> Option<Result<Delivery, BrokerError>> {
        let delivery = match self.consumer.next().await? {
            Ok(delivery) => delivery,
            Err(error) => return Some(Err(error.into())),
        };
        // It would be acknowledged with those after it.
        if delivery.delivery_tag != self.arrived + 1 {
            return Some(Err(BrokerError::Lost(
                "a delivery did not come through".to_owned(),
            )));
        }
        self.arrived += 1;
        Some(Ok(received(delivery)))
    }

    /// Deliveries that were settled since the start.
    pub fn settled(&self) -> u64 {
        self.settled
    }

    /// Whether no delivery can come before another is settled.
    pub fn is_exhausted(&self) -> bool {
        let in_hand = self.arrived - self.settled;
        self.left.is_empty() && (self.wider.is_some() || in_hand >= u64::from(self.prefetch))
    }

    /// Goes on with a prefetch of as many deliveries as were settled since the start, at most `max`.
    ///
    /// A message that ends the connection, or the whole process, counts against every delivery in hand.
    /// As those are no more than what was settled before, each time half of the way to it is cleared:
    /// its neighbours burn a few attempts, and in the end it stands alone.
    ///
    /// A prefetch is that of a consumer, and one that has ended still has in hand what it was given. So the next begins once
    /// all of that is settled: to be called after each acknowledgement.
    ///
    /// Where one consumer is active at a time, each widening lets another worker have its turn, until all have the most.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn widen(&mut self, max: u16) -> Result<(), BrokerError> {
        let prefetch = u16::try_from(self.settled).unwrap_or(u16::MAX).min(max);
        let worth_it = prefetch >= self.prefetch.saturating_mul(2).min(max);
        if prefetch > self.prefetch && worth_it && self.wider.is_none() {
            self.wider = Some(prefetch);
            answered(self.empty_consumer()).await?;
        }
        if let Some(prefetch) = self.wider
            && self.arrived == self.settled
        {
            let consumer = consume(&self.channel, &self.queue, self.role, prefetch);
            self.consumer = answered(consumer).await?;
            (self.wider, self.prefetch) = (None, prefetch);
        }
        Ok(())
    }

    async fn empty_consumer(&mut self) -> Result<(), BrokerError> {
        self.end_consumer().await?;
        while let Some(delivery) = self.arrive().await {
            self.left.push_back(delivery?);
        }
        Ok(())
    }

    /// Stops the flow of deliveries; those received already can still be settled.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn cancel(&self) -> Result<(), BrokerError> {
        match tokio::time::timeout(GOODBYE_TIMEOUT, self.end_consumer()).await {
            Ok(ended) => Ok(ended?),
            Err(_) => Err(BrokerError::Lost("no answer".to_owned())),
        }
    }

    async fn end_consumer(&self) -> lapin::Result<()> {
        let options = BasicCancelOptions::default();
        self.channel
            .basic_cancel(self.consumer.tag(), options)
            .await
    }

    /// Acknowledges every delivery up to a tag.
    ///
    /// # Errors
    /// If the connection is lost: the broker delivers them again.
    pub async fn ack_up_to(&mut self, tag: u64) -> Result<(), BrokerError> {
        let options = BasicAckOptions { multiple: true };
        self.channel.basic_ack(tag, options).await?;
        self.settled = tag;
        Ok(())
    }

    /// Gives every unsettled delivery back to the queue and closes the connection. A broker that is slow to say goodbye
    /// gets so much `more` time: what it has not come to of the acknowledgements is delivered again.
    pub async fn hand_back(self, more: Duration) {
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        // Tag 0 means all of them. Where this fails the connection is gone, or goes with this process,
        // and they are back anyway.
        let goodbye = async {
            // Or they would come to this very consumer once more, and go back from it with the connection.
            self.end_consumer().await.ok();
            self.channel.basic_nack(0, all).await?;
            // A quorum queue may hear that the channel is gone before it has come to the last acknowledgement, and
            // deliver again what was settled. A question on the same channel is answered after it.
            let queue = self.queue.as_str().into();
            self.channel
                .queue_declare(queue, passive(), FieldTable::default())
                .await
        };
        tokio::time::timeout(GOODBYE_TIMEOUT + more, goodbye)
            .await
            .ok();
        self.close().await;
    }

    /// Closes the connection: the broker delivers again what is not settled.
    pub async fn close(&self) {
        close(&self.connection).await;
    }
}

/// A connection is not left to be dropped: one that still waits for an answer would stay open, and if a consumer is what it
/// waits for, the broker would give deliveries to a consumer that nobody reads.
async fn close(connection: &Connection) {
    let goodbye = connection.close(200, "done".into());
    tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.ok();
}

async fn answered<T>(
    question: impl Future<Output = Result<T, BrokerError>>,
) -> Result<T, BrokerError> {
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, question).await;
    answer.unwrap_or_else(|_| Err(BrokerError::Lost("no answer".to_owned())))
}

async fn consume(
    channel: &Channel,
    queue: &str,
    role: ConsumerRole,
    prefetch: u16,
) -> Result<Consumer, BrokerError> {
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let mut arguments = FieldTable::default();
    if role == ConsumerRole::Active {
        // A quorum queue minds it from RabbitMQ 4.0 on; before, the first to come is the one.
        arguments.insert("x-priority".into(), AMQPValue::LongInt(ACTIVE_PRIORITY));
    }
    let consumer = channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            arguments,
        )
        .await?;
    Ok(consumer)
}

/// A connection that publishes with confirms.
pub struct Publisher {
    connection: Connection,
    channel: Channel,
    exchange: String,
}

/// A message on its way.
pub struct Unconfirmed(lapin::PublisherConfirm);

impl Publisher {
    /// Connects and declares the topology, so that nothing published is unroutable.
    ///
    /// # Errors
    /// If the broker is away or refuses us.
    pub async fn open(url: &Secret, topology: &Topology) -> Result<Self, BrokerError> {
        let connection = connect(url, "publisher").await?;
        let channel = connection.create_channel().await?;
        topology.declare(&channel).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Self {
            connection,
            channel,
            exchange: topology.exchange.clone(),
        })
    }

    /// Sends an event of the contract: persistent, and returned if no queue takes it.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn send(
        &self,
        routing_key: &str,
        event_id: Option<&str>,
        body: &[u8],
    ) -> Result<Unconfirmed, BrokerError> {
        let mut properties = BasicProperties::default()
            .with_content_type(CONTENT_TYPE.into())
            .with_delivery_mode(2);
        // AMQP keeps 255 bytes for it; a longer id stands in the body alone.
        if let Some(id) = event_id.and_then(|id| ShortString::try_new(id).ok()) {
            properties = properties.with_message_id(id);
        }
        let options = BasicPublishOptions {
            mandatory: true,
            ..Default::default()
        };
        let exchange = self.exchange.as_str().into();
        let confirm = self
            .channel
            .basic_publish(exchange, routing_key.into(), options, body, properties)
            .await?;
        Ok(Unconfirmed(confirm))
    }

    /// Closes the connection.
    pub async fn close(self) {
        self.connection.close(200, "done".into()).await.ok();
    }
}

impl Unconfirmed {
    /// Waits until the broker has the message on its disk. May be dropped before it is done, and asked again.
    ///
    /// # Errors
    /// If it refuses or cannot route it, or the connection is lost.
    pub async fn confirmed(&mut self) -> Result<(), BrokerError> {
        match (&mut self.0).await? {
            Confirmation::Ack(None) => Ok(()),
            Confirmation::Ack(Some(_)) => Err(BrokerError::Refused(
                "the exchange has no queue for the event".to_owned(),
            )),
            Confirmation::Nack(_) => Err(BrokerError::Lost(
                "the broker did not take the event".to_owned(),
            )),
            Confirmation::NotRequested => Err(BrokerError::Refused(
                "the broker does not confirm what is published".to_owned(),
            )),
        }
    }
}
