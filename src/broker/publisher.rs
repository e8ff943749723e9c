//! Publishes events with confirms.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};

use super::connect::{Link, connect};
use super::topology::Topology;
use super::{BrokerError, answered, close, is_not_found};
use crate::config::Secret;
use crate::event::CONTENT_TYPE;

/// A connection that publishes with confirms.
pub struct Publisher {
    connection: Link,
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
        Self::connect(url, topology, true).await
    }

    /// Connects to an exchange that is there already, and otherwise does as [`Self::open`]. A producer need not know the name of
    /// the queue, nor be allowed to make one: that of another name would fill with a copy of all events.
    ///
    /// # Errors
    /// As there.
    pub async fn join(url: &Secret, topology: &Topology) -> Result<Self, BrokerError> {
        Self::connect(url, topology, false).await
    }

    async fn connect(
        url: &Secret,
        topology: &Topology,
        declares: bool,
    ) -> Result<Self, BrokerError> {
        let connection = connect(url, "publisher").await?;
        let opening = answered(async {
            let channel = connection.create_channel().await?;
            if declares || !is_there(&connection, &topology.exchange).await? {
                topology.declare(&channel).await?;
            }
            channel
                .confirm_select(ConfirmSelectOptions::default())
                .await?;
            Ok(channel)
        });
        let channel = match opening.await {
            Ok(channel) => channel,
            Err(error) => {
                close(&connection).await;
                return Err(error);
            }
        };
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

    /// Closes the connection, without waiting long for a broker that reads nothing more from it.
    pub async fn close(self) {
        close(&self.connection).await;
    }
}

/// Whether there is such an exchange. Asked on a channel of its own, which the answer ends where there is none.
async fn is_there(connection: &Link, exchange: &str) -> Result<bool, BrokerError> {
    let channel = connection.create_channel().await?;
    let passive = ExchangeDeclareOptions {
        passive: true,
        ..Default::default()
    };
    let found = channel.exchange_declare(
        exchange.into(),
        ExchangeKind::Topic,
        passive,
        FieldTable::default(),
    );
    match found.await {
        Ok(()) => channel.close(200, "done".into()).await?,
        Err(error) if is_not_found(&error) => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    Ok(true)
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
                "the exchange has no queue for the event, which a worker makes: start one (paxflow run), or see what paxflow doctor finds".to_owned(),
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
