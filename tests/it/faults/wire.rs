//! Reads the two protocols just far enough to cut a stream into frames and to name the frames that are
//! steps in the life of a batch.

use std::collections::HashMap;

/// A step that a frame stands for. Statements have the name of their file; what a server answers ends in
/// `answered`.
pub type Point = &'static str;

/// The transaction of a batch is asked to begin.
pub const BEGIN: Point = "BEGIN";
/// It has begun.
pub const BEGIN_ANSWERED: Point = "BEGIN answered";
/// Before what is left is written and counted: every transaction of a batch has it, and no other.
pub const CONCLUDE: Point = "conclude";
/// A worker whose commit was not answered asks whether it went through.
pub const ASKED: Point = "committed_batches";
/// The commit is asked for.
pub const COMMIT: Point = "COMMIT";
/// The commit is done.
pub const COMMIT_ANSWERED: Point = "COMMIT answered";
/// A message goes to the worker.
pub const DELIVER: Point = "basic.deliver";
/// A batch is acknowledged.
pub const ACK: Point = "basic.ack";
/// The worker takes no more deliveries: while it widens its prefetch, or stops.
pub const CANCEL: Point = "basic.cancel";
/// What is in hand goes back.
pub const NACK: Point = "basic.nack";
/// The worker says its first words to the broker.
pub const DECLARE: Point = "queue.declare";
/// The worker has a queue to consume.
pub const CONSUME_ANSWERED: Point = "basic.consume answered";

/// An event goes to the worker that a test takes for a deadly one.
pub const DEADLY: Point = "deadly event";
/// What a deadly event holds.
pub const DEADLY_TEXT: &str = "\"booking_id\":\"C0B13\"";

/// The statements of a batch in the order in which they are sent.
pub const STATEMENTS: [(Point, &str); 5] = [
    (
        "insert_new",
        include_str!("../../../src/apply/insert_new.sql"),
    ),
    (
        "lock_stored",
        include_str!("../../../src/apply/lock_stored.sql"),
    ),
    (CONCLUDE, include_str!("../../../src/apply/conclude.sql")),
    (
        "delete_empty_demand",
        include_str!("../../../src/apply/delete_empty_demand.sql"),
    ),
    (
        "quarantine",
        include_str!("../../../src/apply/quarantine.sql"),
    ),
];

/// The number that an answer to [`CONCLUDE`] or [`ASKED`] begins with.
pub fn number(frame: &[u8]) -> Option<i64> {
    // Type, length of all, number of columns, length of the first.
    let (head, value) = frame.split_at_checked(11)?;
    let value = value.first_chunk()?;
    (head[0] == b'D').then(|| i64::from_be_bytes(*value))
}

/// What a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// PostgreSQL's, version 3, without TLS.
    Postgres,
    /// AMQP 0-9-1, without TLS.
    Amqp,
}

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// The worker.
    Client,
    /// PostgreSQL or RabbitMQ.
    Server,
}

/// Cuts what one side sends into frames.
pub struct Frames {
    protocol: Protocol,
    sender: Sender,
    /// A client opens with bytes that have another form than a frame.
    opened: bool,
    buffer: Vec<u8>,
    /// How much of the buffer is cut already.
    cut: usize,
    /// Prepared statements of the connection.
    statements: HashMap<Vec<u8>, Point>,
}

impl Frames {
    pub fn new(protocol: Protocol, sender: Sender) -> Self {
        Self {
            protocol,
            sender,
            opened: sender == Sender::Server,
            buffer: Vec::new(),
            cut: 0,
            statements: HashMap::new(),
        }
    }

    /// Takes what has come.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.cut);
        self.cut = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, and the step it is, if it is one.
    pub fn next_frame(&mut self) -> Option<(Vec<u8>, Option<Point>)> {
        let end = self.cut + self.length()?;
        let frame = self.buffer.get(self.cut..end)?.to_vec();
        self.cut = end;
        if !self.opened {
            self.opened = true;
            return Some((frame, None));
        }
        let point = match self.protocol {
            Protocol::Postgres => self.postgres_point(&frame),
            Protocol::Amqp => amqp_point(&frame),
        };
        Some((frame, point))
    }

    fn length(&self) -> Option<usize> {
        let number = |at: usize| {
            let at = self.cut + at;
            let bytes = self.buffer.get(at..at + 4)?;
            Some(u32::from_be_bytes(bytes.try_into().unwrap()) as usize)
        };
        match (self.protocol, self.opened) {
            (Protocol::Postgres, true) => Some(1 + number(1)?),
            (Protocol::Postgres, false) => number(0),
            // Type, channel and size before the payload, an end mark after it.
            (Protocol::Amqp, true) => Some(7 + number(3)? + 1),
            (Protocol::Amqp, false) => Some(8),
        }
    }

    fn postgres_point(&mut self, frame: &[u8]) -> Option<Point> {
        let payload = &frame[5..];
        match (self.sender, frame[0]) {
            (Sender::Client, b'Q') => match text(payload) {
                b"BEGIN" => Some(BEGIN),
                b"COMMIT" => Some(COMMIT),
                _ => None,
            },
            (Sender::Client, b'P') => {
                let name = text(payload);
                let sql = text(&payload[name.len() + 1..]);
                let asked = (
                    ASKED,
                    include_str!("../../../src/apply/committed_batches.sql"),
                );
                let mut known = STATEMENTS.iter().chain([&asked]);
                if let Some((point, _)) = known.find(|(_, text)| text.as_bytes() == sql) {
                    self.statements.insert(name.to_vec(), point);
                }
                None
            }
            (Sender::Client, b'B') => {
                let portal = text(payload);
                let statement = text(&payload[portal.len() + 1..]);
                self.statements.get(statement).copied()
            }
            (Sender::Server, b'C') => match text(payload) {
                b"BEGIN" => Some(BEGIN_ANSWERED),
                b"COMMIT" => Some(COMMIT_ANSWERED),
                _ => None,
            },
            _ => None,
        }
    }
}

fn text(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

fn amqp_point(frame: &[u8]) -> Option<Point> {
    const METHOD: u8 = 1;
    const BODY: u8 = 3;
    if frame[0] == BODY {
        let deadly = DEADLY_TEXT.as_bytes();
        let is_deadly = frame.windows(deadly.len()).any(|bytes| bytes == deadly);
        return is_deadly.then_some(DEADLY);
    }
    if frame[0] != METHOD {
        return None;
    }
    // Class and method, the numbers of the specification.
    match frame[7..11] {
        [0, 50, 0, 10] => Some(DECLARE),
        [0, 60, 0, 21] => Some(CONSUME_ANSWERED),
        [0, 60, 0, 30] => Some(CANCEL),
        [0, 60, 0, 60] => Some(DELIVER),
        [0, 60, 0, 80] => Some(ACK),
        [0, 60, 0, 120] => Some(NACK),
        _ => None,
    }
}
