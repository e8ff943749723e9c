//! A publisher that writes AMQP frames byte by byte, for what no client library lets anybody send.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const END: u8 = 0xce;
/// What both sides agree on as the largest frame: RabbitMQ's own choice.
pub const FRAME_BYTES_MAX: usize = 131_072;
/// A frame has so many bytes around its payload.
const FRAME_BYTES_AROUND: usize = 8;

/// Which properties of a message are given, in the order in which they are written.
pub const CONTENT_TYPE: u16 = 1 << 15;
pub const CONTENT_ENCODING: u16 = 1 << 14;
pub const HEADERS: u16 = 1 << 13;
pub const PRIORITY: u16 = 1 << 11;
pub const CORRELATION_ID: u16 = 1 << 10;
pub const EXPIRATION: u16 = 1 << 8;
pub const MESSAGE_ID: u16 = 1 << 7;

/// A message as bytes.
#[derive(Default)]
pub struct Message {
    exchange: String,
    key: Vec<u8>,
    flags: u16,
    properties: Vec<u8>,
    body: Vec<u8>,
}

impl Message {
    /// A message without any property.
    pub fn bare(exchange: &str, key: &[u8], body: &[u8]) -> Self {
        Self {
            exchange: exchange.to_owned(),
            key: key.to_vec(),
            body: body.to_vec(),
            ..Self::default()
        }
    }

    /// An event with the right content type.
    pub fn event(exchange: &str, key: &[u8], body: &[u8]) -> Self {
        let content_type = short(paxflow::event::CONTENT_TYPE.as_bytes());
        Self::bare(exchange, key, body).with(CONTENT_TYPE, &content_type)
    }

    /// Adds a property; they come in the order of the flags.
    pub fn with(mut self, flag: u16, bytes: &[u8]) -> Self {
        assert!(
            self.flags.trailing_zeros() > flag.trailing_zeros(),
            "properties come in order"
        );
        self.flags |= flag;
        self.properties.extend_from_slice(bytes);
        self
    }
}

/// A short string: a byte of length before it.
pub fn short(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()][..], bytes].concat()
}

/// A long string, table or array: four bytes of length before it.
pub fn long(bytes: &[u8]) -> Vec<u8> {
    [
        &u32::try_from(bytes.len()).unwrap().to_be_bytes()[..],
        bytes,
    ]
    .concat()
}

/// A field of a table: name, type and value.
pub fn field(name: &[u8], kind: u8, value: &[u8]) -> Vec<u8> {
    [short(name), vec![kind], value.to_vec()].concat()
}

/// A connection that publishes with confirms.
pub struct RawProducer {
    stream: TcpStream,
    sent: u64,
    confirmed: u64,
}

impl RawProducer {
    /// Connects and opens a channel that confirms.
    pub async fn connect(amqp_url: &str) -> Self {
        let (user, host) = amqp_url
            .strip_prefix("amqp://")
            .and_then(|url| url.split_once('@'))
            .unwrap();
        let (name, password) = user.split_once(':').unwrap();
        let (host, vhost) = host.split_once('/').unwrap();
        let mut stream = TcpStream::connect(host).await.unwrap();
        stream.write_all(b"AMQP\0\0\x09\x01").await.unwrap();
        let mut producer = Self {
            stream,
            sent: 0,
            confirmed: 0,
        };
        producer.answer(10, 10).await;
        let response = long(format!("\0{name}\0{password}").as_bytes());
        let start_ok = [long(b""), short(b"PLAIN"), response, short(b"en_US")].concat();
        producer.method(0, 10, 11, &start_ok).await;
        producer.answer(10, 30).await;
        let frame_max = u32::try_from(FRAME_BYTES_MAX).unwrap().to_be_bytes();
        // At most one channel; no heartbeat.
        let tune_ok = [&[0, 1][..], &frame_max, &[0, 0]].concat();
        producer.method(0, 10, 31, &tune_ok).await;
        let vhost = vhost.replace("%2f", "/");
        let open = [short(vhost.as_bytes()), short(b""), vec![0]].concat();
        producer.method(0, 10, 40, &open).await;
        producer.answer(10, 41).await;
        producer.method(1, 20, 10, &short(b"")).await;
        producer.answer(20, 11).await;
        producer.method(1, 85, 10, &[0]).await;
        producer.answer(85, 11).await;
        producer
    }

    /// Sends a message.
    pub async fn send(&mut self, message: &Message) {
        let publish = [
            vec![0, 0],
            short(message.exchange.as_bytes()),
            short(&message.key),
            vec![0],
        ];
        self.method(1, 60, 40, &publish.concat()).await;
        let mut header = vec![0, 60, 0, 0];
        header.extend((message.body.len() as u64).to_be_bytes());
        header.extend(message.flags.to_be_bytes());
        header.extend(&message.properties);
        self.frame(HEADER, 1, &header).await;
        for part in message.body.chunks(FRAME_BYTES_MAX - FRAME_BYTES_AROUND) {
            self.frame(BODY, 1, part).await;
        }
        self.sent += 1;
    }

    /// Waits until the broker has taken everything that was sent.
    pub async fn confirm(&mut self) {
        while self.confirmed < self.sent {
            let (class, method, arguments) = self.read_method().await;
            assert_eq!((class, method), (60, 80), "{arguments:?}");
            let tag = arguments[..8].try_into().unwrap();
            self.confirmed = u64::from_be_bytes(tag);
        }
    }

    async fn method(&mut self, channel: u16, class: u16, method: u16, arguments: &[u8]) {
        let payload = [&class.to_be_bytes()[..], &method.to_be_bytes(), arguments].concat();
        self.frame(METHOD, channel, &payload).await;
    }

    async fn frame(&mut self, kind: u8, channel: u16, payload: &[u8]) {
        let mut frame = vec![kind];
        frame.extend(channel.to_be_bytes());
        frame.extend(long(payload));
        frame.push(END);
        self.stream.write_all(&frame).await.unwrap();
    }

    async fn answer(&mut self, class: u16, method: u16) {
        let (found_class, found_method, arguments) = self.read_method().await;
        assert_eq!(
            (found_class, found_method),
            (class, method),
            "{}",
            String::from_utf8_lossy(&arguments)
        );
    }

    async fn read_method(&mut self) -> (u16, u16, Vec<u8>) {
        let mut head = [0; 7];
        self.stream.read_exact(&mut head).await.unwrap();
        let length = u32::from_be_bytes(head[3..7].try_into().unwrap()) as usize;
        let mut payload = vec![0; length + 1];
        self.stream.read_exact(&mut payload).await.unwrap();
        let number = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
        assert_eq!(head[0], METHOD, "the broker answers with methods only");
        (number(0), number(2), payload[4..length].to_vec())
    }
}
