//! Publishes events with confirms.

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};

use super::connect::{Link, connect};
use super::topology::Topology;
use super::{BrokerError, answered, close};
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
        let connection = connect(url, "publisher").await?;
        let opening = answered(async {
            let channel = connection.create_channel().await?;
            topology.declare(&channel).await?;
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
