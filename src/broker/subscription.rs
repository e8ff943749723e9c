//! Receives the queue's deliveries and settles them.

use std::collections::VecDeque;
use std::future;
use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use lapin::options::{
    BasicAckOptions, BasicCancelOptions, BasicConsumeOptions, BasicNackOptions, BasicQosOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Consumer};

use super::connect::{Link, connect};
use super::received::received;
use super::topology::Topology;
use super::{BrokerError, GOODBYE_TIMEOUT, answered, close, passive};
use crate::config::{ConsumerRole, Secret};
use crate::event::Delivery;

/// A consumer without a priority has 0.
const ACTIVE_PRIORITY: i32 = 1;

/// A connection that consumes the queue. A second connection publishes: a blocked publisher would
/// hold back the acknowledgements too.
pub struct Subscription {
    connection: Link,
    channel: Channel,
    consumer: Consumer,
    /// What has arrived and nobody took yet.
    left: VecDeque<Delivery>,
    /// The prefetch of the next consumer, which begins once all that the one before was given is settled.
    wider: Option<u16>,
    prefetch: u16,
    /// Whether the first that arrived had been delivered before.
    repeated: bool,
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
            repeated: false,
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
        self.arrive().await.ok_or_else(ended)?
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
        if self.arrived == 0 {
            self.repeated = delivery.redelivered;
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

    /// Ends a consumer whose prefetch is too narrow, so that [`Subscription::widen`] can begin a wider one, of at most `max`. To be
    /// called before the deliveries up to `tag` are acknowledged, and `widen` after it.
    ///
    /// A message that ends the connection, or the whole process, costs every delivery in hand an attempt, and these are delivered
    /// again before all others. So where the first delivery is a repeated one, no more are in hand than were settled since the start:
    /// each time half of the way to such a message is cleared, its neighbours use up a few attempts, and in the end it stands alone.
    ///
    /// A consumer keeps its prefetch, and what is on its way to one that ends goes back to the queue with an attempt used up. So it
    /// ends only while it has in hand all that it may, since then nothing is on its way; where the queue holds less, it goes on.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn end_narrow(&mut self, tag: u64, max: u16) -> Result<(), BrokerError> {
        let prefetch = match u16::try_from(tag) {
            Ok(cleared) if self.repeated => cleared.min(max),
            _ => max,
        };
        let worth_it = prefetch >= self.prefetch.saturating_mul(2).min(max);
        if prefetch <= self.prefetch || !worth_it || self.wider.is_some() {
            return Ok(());
        }
        while let Some(arrived) = self.arrive().now_or_never() {
            self.left.push_back(arrived.ok_or_else(ended)??);
        }
        if self.arrived - self.settled == u64::from(self.prefetch) {
            self.wider = Some(prefetch);
            answered(async { Ok(self.end_consumer().await?) }).await?;
        }
        Ok(())
    }

    /// Goes on with the wider prefetch, once all that the consumer with the narrow one was given is settled.
    ///
    /// Where one consumer is active at a time, each widening lets another worker have its turn, until all have the most.
    ///
    /// # Errors
    /// If the connection is lost.
    pub async fn widen(&mut self) -> Result<(), BrokerError> {
        if let Some(prefetch) = self.wider
            && self.arrived == self.settled
        {
            let consumer = consume(&self.channel, &self.queue, self.role, prefetch);
            self.consumer = answered(consumer).await?;
            (self.wider, self.prefetch) = (None, prefetch);
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
            Err(_) => Err(BrokerError::Lost(format!(
                "the broker did not end the consumer within {} s",
                GOODBYE_TIMEOUT.as_secs()
            ))),
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
    /// gets `more` time: what it has not come to of the acknowledgements is delivered again.
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

fn ended() -> BrokerError {
    BrokerError::Lost("the broker ended the consumer".to_owned())
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
