//! The broker: the only module that knows AMQP.

mod inspect;

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions,
    BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
    QueueBindOptions, QueueDeclareOptions,
};
use lapin::protocol::{AMQPErrorKind, AMQPHardError, AMQPSoftError};
use lapin::tcp::OwnedTLSConfig;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, ErrorKind,
    ExchangeKind,
};
use percent_encoding::percent_decode_str;

use crate::batch::Delivery;
use crate::config::Secret;
use crate::tls;

pub use inspect::{Argument, Inspection, Object, Standing, inspect};

/// A peer that accepts a connection and says nothing would hold us for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A broker that does not answer a goodbye must not hold up a stop.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// A dead peer is noticed after two of them, in seconds.
const HEARTBEAT_SECS: u16 = 10;
/// How often a message may be delivered before it is dead-lettered. Below RabbitMQ 4.3 every lost
/// connection counts against every message it held, so this is a backstop and far from tight.
const DELIVERY_LIMIT: i32 = 50;
/// What the queue is bound to: every event of the contract, of this version or a later one.
const BINDING: &str = "airline.#";

/// What went wrong between us and the broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// It is away or broke off: the same attempt succeeds later.
    #[error("{0}")]
    Lost(String),
    /// Only a person can mend it.
    #[error("{0}")]
    Refused(String),
}

impl From<lapin::Error> for BrokerError {
    fn from(error: lapin::Error) -> Self {
        if let ErrorKind::IOError(error) = error.kind() {
            if let Some(problem) = tls::refusal(error) {
                return Self::Refused(format!(
                    "{problem}: AMQP_URL has to lead to a TLS port (usually 5671), to name the host as the broker's certificate \
                     does, and with ?cacertfile=FILE the CA, unless the system trusts it: {error}"
                ));
            }
            if has_no_roots(error) {
                return Self::Refused(format!(
                    "amqps needs the CAs that the system trusts: install ca-certificates, or correct SSL_CERT_FILE: {error}"
                ));
            }
        }
        let refused = match error.kind() {
            ErrorKind::ProtocolError(error) => matches!(
                error.kind(),
                AMQPErrorKind::Soft(
                    AMQPSoftError::ACCESSREFUSED | AMQPSoftError::PRECONDITIONFAILED
                ) | AMQPErrorKind::Hard(AMQPHardError::NOTALLOWED)
            ),
            ErrorKind::InvalidProtocolVersion(_) | ErrorKind::AuthProviderError(_) => true,
            _ => false,
        };
        if refused {
            Self::Refused(error.to_string())
        } else {
            Self::Lost(error.to_string())
        }
    }
}

/// Whether lapin found none of the system's CAs, which it wants also where the URL names another.
fn has_no_roots(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.to_string().contains("native certificates")
}

/// Where events come from: names of the exchange and the queue.
#[derive(Debug, Clone)]
pub struct Topology {
    /// Topic exchange that producers publish to.
    pub exchange: String,
    /// Quorum queue that workers consume.
    pub queue: String,
}

impl Topology {
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
        BrokerError::Refused(reason) if reason.contains("inequivalent arg") => {
            BrokerError::Refused(format!(
                "the {what} {name} exists with other arguments and is left as it is ({reason}): drain and delete it, \
             or choose another name with PAXFLOW_QUEUE or PAXFLOW_EXCHANGE"
            ))
        }
        other => other,
    }
}

/// Opens a connection. Its name tells operators what it is for.
async fn connect(url: &Secret, purpose: &str) -> Result<Connection, BrokerError> {
    let mut uri: AMQPUri = url.expose().parse().map_err(|_| {
        BrokerError::Refused(
            "AMQP_URL cannot be read: expected amqp://user:password@host:5672/vhost".to_owned(),
        )
    })?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    let trusted = trusted(url, &uri)?;
    let properties =
        ConnectionProperties::default().with_connection_name(format!("paxflow {purpose}").into());
    let runtime = lapin::runtime::default_runtime()?;
    let connected = Connection::connect_uri_with_config(uri, properties, trusted, runtime);
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(connected) => Ok(connected?),
        Err(_) => Err(BrokerError::Lost(format!(
            "no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

/// The CA that the URL names, in the parameter that RabbitMQ's own clients know. It is read for each
/// connection, so that a new one needs no restart.
fn trusted(url: &Secret, uri: &AMQPUri) -> Result<OwnedTLSConfig, BrokerError> {
    let query = url.expose().split_once('?').map_or("", |(_, query)| query);
    let named = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("cacertfile="));
    let Some(path) = named else {
        return Ok(OwnedTLSConfig::default());
    };
    if uri.scheme != AMQPScheme::AMQPS {
        return Err(BrokerError::Refused(
            "AMQP_URL names a cacertfile and asks for no TLS: begin it with amqps://".to_owned(),
        ));
    }
    let path = percent_decode_str(path).decode_utf8_lossy();
    match std::fs::read_to_string(&*path) {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(OwnedTLSConfig {
            cert_chain: Some(pem),
            ..OwnedTLSConfig::default()
        }),
        Ok(_) => Err(BrokerError::Refused(format!(
            "{path}, the cacertfile in AMQP_URL, holds no certificate: give it in PEM form"
        ))),
        Err(error) => Err(BrokerError::Refused(format!(
            "cannot read {path}, the cacertfile in AMQP_URL: {error}"
        ))),
    }
}

/// Where a broker is, to be shown to people: never its password.
pub fn address(url: &Secret) -> String {
    match url.expose().parse::<AMQPUri>() {
        Ok(uri) => format!(
            "{}:{}{}",
            uri.authority.host,
            uri.authority.port,
            vhost_path(&uri.vhost)
        ),
        Err(_) => "an unreadable AMQP_URL".to_owned(),
    }
}

fn vhost_path(vhost: &str) -> String {
    if vhost == "/" {
        String::new()
    } else {
        format!("/{vhost}")
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
    let passive = QueueDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let state = match channel
        .queue_declare(queue.into(), passive, FieldTable::default())
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
    /// Consumes in place of `consumer` once that one has ended.
    wider: Option<Consumer>,
    queue: String,
}

impl Subscription {
    /// Connects, declares the topology and consumes with at most `prefetch` unacknowledged deliveries.
    ///
    /// # Errors
    /// If the broker is away or refuses us.
    pub async fn open(
        url: &Secret,
        topology: &Topology,
        prefetch: u16,
    ) -> Result<Self, BrokerError> {
        let connection = connect(url, "worker").await?;
        let channel = connection.create_channel().await?;
        topology.declare(&channel).await?;
        let queue = topology.queue.clone();
        let consumer = consume(&channel, &queue, prefetch).await?;
        Ok(Self {
            connection,
            channel,
            consumer,
            wider: None,
            queue,
        })
    }

    /// The next delivery.
    ///
    /// # Errors
    /// The end of the stream is an error: queue deleted, fail-over, time-out or connection lost.
    pub async fn next(&mut self) -> Result<Delivery, BrokerError> {
        loop {
            match self.consumer.next().await {
                Some(Ok(delivery)) => return Ok(received(delivery)),
                Some(Err(error)) => return Err(error.into()),
                None => match self.wider.take() {
                    Some(wider) => self.consumer = wider,
                    None => {
                        return Err(BrokerError::Lost(
                            "the broker ended the consumer".to_owned(),
                        ));
                    }
                },
            }
        }
    }

    /// Goes on with a larger prefetch. The first batches after a start are small, so that a worker
    /// that crashes on them has not burned an attempt of thousands of messages.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn widen(&mut self, prefetch: u16) -> Result<(), BrokerError> {
        self.cancel().await?;
        self.wider = Some(consume(&self.channel, &self.queue, prefetch).await?);
        Ok(())
    }

    /// Stops the flow of deliveries; those received already can still be settled.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn cancel(&self) -> Result<(), BrokerError> {
        let tag = self.wider.as_ref().unwrap_or(&self.consumer).tag();
        let cancelled = self
            .channel
            .basic_cancel(tag, BasicCancelOptions::default());
        match tokio::time::timeout(GOODBYE_TIMEOUT, cancelled).await {
            Ok(cancelled) => Ok(cancelled?),
            Err(_) => Err(BrokerError::Lost("no answer".to_owned())),
        }
    }

    /// Acknowledges every delivery up to a tag.
    ///
    /// # Errors
    /// If the connection is lost: the broker delivers them again.
    pub async fn ack_up_to(&self, tag: u64) -> Result<(), BrokerError> {
        Ok(self
            .channel
            .basic_ack(tag, BasicAckOptions { multiple: true })
            .await?)
    }

    /// Gives every unsettled delivery back to the queue and closes the connection.
    pub async fn hand_back(self) {
        let all = BasicNackOptions {
            multiple: true,
            requeue: true,
        };
        // Tag 0 means all of them. Where this fails the connection is gone, or goes with this process,
        // and they are back anyway.
        let goodbye = async {
            self.channel.basic_nack(0, all).await?;
            self.connection.close(200, "done".into()).await
        };
        tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await.ok();
    }
}

async fn consume(channel: &Channel, queue: &str, prefetch: u16) -> Result<Consumer, BrokerError> {
    channel
        .basic_qos(prefetch, BasicQosOptions::default())
        .await?;
    let consumer = channel
        .basic_consume(
            queue.into(),
            "".into(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        )
        .await?;
    Ok(consumer)
}

fn received(delivery: lapin::message::Delivery) -> Delivery {
    let properties = &delivery.properties;
    let text = |value: &Option<ShortString>| value.as_ref().map(|value| storable(value.as_str()));
    Delivery {
        tag: delivery.delivery_tag,
        exchange: delivery.exchange.to_string(),
        routing_key: storable(delivery.routing_key.as_str()),
        content_type: text(properties.content_type()),
        content_encoding: text(properties.content_encoding()),
        message_id: text(properties.message_id()),
        headers: properties
            .headers()
            .as_ref()
            .map(headers_as_json)
            .unwrap_or_default(),
        body: delivery.data,
    }
}

fn headers_as_json(headers: &FieldTable) -> serde_json::Map<String, serde_json::Value> {
    headers
        .into_iter()
        .map(|(name, value)| (storable(name.as_str()), value_as_json(value)))
        .collect()
}

fn value_as_json(value: &AMQPValue) -> serde_json::Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale).into(),
        AMQPValue::ShortString(value) => storable(value.as_str()).into(),
        AMQPValue::LongString(value) => storable(&String::from_utf8_lossy(value.as_bytes())).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(value_as_json).collect(),
        AMQPValue::Timestamp(value) => (*value).into(),
        AMQPValue::FieldTable(table) => headers_as_json(table).into(),
        AMQPValue::ByteArray(bytes) => storable(&String::from_utf8_lossy(bytes.as_slice())).into(),
        AMQPValue::Void => serde_json::Value::Null,
    }
}

/// PostgreSQL's text has no NUL.
fn storable(text: &str) -> String {
    text.replace('\0', "\u{fffd}")
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
            .with_content_type("application/cloudevents+json".into())
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
    /// Waits until the broker has the message on its disk.
    ///
    /// # Errors
    /// If it refuses or cannot route it, or the connection is lost.
    pub async fn confirmed(self) -> Result<(), BrokerError> {
        match self.0.await? {
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
