//! A way to a server that a test can break, slow down, or halt at one frame.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

use super::wire::{ACK, ASKED, COMMIT_ANSWERED, CONCLUDE, Frames, Point, Protocol, Sender, number};

/// How long a frame that a test waits for may take to come.
pub const FRAME_WITHIN: Duration = Duration::from_secs(60);

/// What holds for all connections until it is changed.
#[derive(Debug, Clone, Copy, Default)]
struct Conditions {
    /// Connections stay open and nothing comes through, as when a network path is lost.
    frozen: bool,
    /// Whoever connects is turned away.
    refusing: bool,
    /// How long every frame is under way.
    delay: Duration,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// Both ends see it closed.
    Close,
    /// Both ends see a reset.
    Reset,
    /// The client sees the end of the stream, the server keeps the connection.
    Half,
}

/// A delivery is a method, a header and a small body.
const FRAMES_OF_DELIVERY: usize = 3;

/// What becomes of a frame that was held.
enum Verdict {
    Pass,
    Lose,
    CutBefore(Cut),
    CutAfter(Cut),
}

/// A frame that was asked for, before it is passed on; passed on when dropped.
pub struct Held(Option<oneshot::Sender<Verdict>>);

impl Held {
    /// Passes it on.
    pub fn pass(self) {
        drop(self);
    }

    /// The delivery that it begins is lost, and those after it are not.
    pub fn lose_delivery(mut self) {
        self.decide(Verdict::Lose);
    }

    /// The connection breaks before the frame is through.
    pub fn cut_before(mut self, cut: Cut) {
        self.decide(Verdict::CutBefore(cut));
    }

    /// The connection breaks when the frame is through.
    pub fn cut_after(mut self, cut: Cut) {
        self.decide(Verdict::CutAfter(cut));
    }

    fn decide(&mut self, verdict: Verdict) {
        if let Some(sender) = self.0.take() {
            // Nobody waits for it if the connection has broken meanwhile.
            let _ = sender.send(verdict);
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.decide(Verdict::Pass);
    }
}

/// A frame that a test waits for.
pub struct Trap {
    point: Point,
    sprung: mpsc::Receiver<Held>,
}

impl Trap {
    /// Waits for the frame; it is held until the test says what becomes of it. Shows a log if it does not
    /// come.
    pub async fn sprung_by(mut self, log: impl Fn() -> String) -> Held {
        let held = self.sprung_within(FRAME_WITHIN).await;
        held.unwrap_or_else(|| panic!("{}", self.missed(log())))
    }

    /// What to say when the frame has not come.
    pub fn missed(&self, log: String) -> String {
        format!("not seen in {FRAME_WITHIN:?}: {}\n{log}", self.point)
    }

    /// The frame, if it has come within a limit.
    pub async fn sprung_within(&mut self, limit: Duration) -> Option<Held> {
        tokio::time::timeout(limit, self.sprung.recv()).await.ok()?
    }
}

struct Armed {
    point: Point,
    /// How many of them are still let through.
    before: usize,
    held: mpsc::Sender<Held>,
}

/// What has come through the proxies of a worker: whether each acknowledgement had a commit before it.
#[derive(Default)]
pub struct Journal {
    seen: Mutex<Seen>,
    /// Connections that have not ended on both sides.
    open: watch::Sender<usize>,
}

#[derive(Default)]
struct Seen {
    points: BTreeMap<Point, u64>,
    /// Batches whose commit the worker knows of.
    batches: u64,
    /// The newest batch: its number among those of its worker, and whether it is among those.
    newest: i64,
    newest_is_known: bool,
    /// Acknowledgements that were sent while fewer batches were known to be committed.
    early_acks: u64,
}

impl Journal {
    /// How often a step was seen.
    pub fn count(&self, point: Point) -> u64 {
        let seen = self.seen.lock().unwrap();
        seen.points.get(point).copied().unwrap_or_default()
    }

    /// Acknowledgements that came before the commit of their batch.
    pub fn early_acks(&self) -> u64 {
        self.seen.lock().unwrap().early_acks
    }

    /// Waits until every connection has ended, so that the servers know of it as well.
    pub async fn ended(&self) {
        let mut open = self.open.subscribe();
        let ended = open.wait_for(|open| *open == 0);
        let ended = tokio::time::timeout(FRAME_WITHIN, ended).await;
        ended.expect("every connection ends").unwrap();
    }

    fn note(&self, point: Point, doing: Doing) {
        let mut seen = self.seen.lock().unwrap();
        *seen.points.entry(point).or_default() += 1;
        if point == COMMIT_ANSWERED && doing == Doing::Batch {
            seen.batches += 1;
            seen.newest_is_known = true;
        }
        if point == ACK && seen.points[ACK] > seen.batches {
            seen.early_acks += 1;
        }
    }

    /// Notes what the database says of the worker's batches.
    fn note_number(&self, number: i64, doing: Doing) {
        let mut seen = self.seen.lock().unwrap();
        match doing {
            Doing::Other => {}
            Doing::Batch => {
                seen.newest = number;
                seen.newest_is_known = false;
            }
            Doing::Asking if number >= seen.newest && !seen.newest_is_known => {
                seen.batches += 1;
                seen.newest_is_known = true;
            }
            Doing::Asking => {}
        }
    }
}

/// What a connection is about.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doing {
    /// The transaction of a batch, which is counted.
    Batch,
    /// Whether a commit went through that was not answered.
    Asking,
    Other,
}

struct Shared {
    protocol: Protocol,
    conditions: watch::Sender<Conditions>,
    cuts: broadcast::Sender<Cut>,
    traps: Mutex<Vec<Armed>>,
    journal: Arc<Journal>,
}

/// A way to a server.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens for connections to an address.
    pub async fn to(server: &str, protocol: Protocol, journal: &Arc<Journal>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let shared = Arc::new(Shared {
            protocol,
            conditions: watch::Sender::default(),
            cuts: broadcast::Sender::new(16),
            traps: Mutex::default(),
            journal: Arc::clone(journal),
        });
        tokio::spawn(accept(listener, server.to_owned(), Arc::clone(&shared)));
        Self { address, shared }
    }

    /// Lets nothing through, or lets through what has waited.
    pub fn freeze(&self, frozen: bool) {
        self.shared
            .conditions
            .send_modify(|conditions| conditions.frozen = frozen);
    }

    /// Turns away whoever connects, or no more.
    pub fn refuse(&self, refusing: bool) {
        self.shared
            .conditions
            .send_modify(|conditions| conditions.refusing = refusing);
    }

    /// Delays every frame.
    pub fn delay(&self, delay: Duration) {
        self.shared
            .conditions
            .send_modify(|conditions| conditions.delay = delay);
    }

    /// Breaks all connections of this moment.
    pub fn cut(&self, cut: Cut) {
        // Nobody listens if there is none.
        let _ = self.shared.cuts.send(cut);
    }

    /// Halts the frame of a step, the first one after so many others.
    pub fn trap(&self, point: Point, before: usize) -> Trap {
        let (held, sprung) = mpsc::channel(1);
        self.shared.traps.lock().unwrap().push(Armed {
            point,
            before,
            held,
        });
        Trap { point, sprung }
    }
}

impl Shared {
    /// The trap for a step, if this is the one it waits for.
    fn springs(&self, point: Point) -> Option<mpsc::Sender<Held>> {
        let mut traps = self.traps.lock().unwrap();
        let index = traps.iter().position(|armed| armed.point == point)?;
        if traps[index].before > 0 {
            traps[index].before -= 1;
            return None;
        }
        Some(traps.remove(index).held)
    }
}

async fn accept(listener: TcpListener, server: String, shared: Arc<Shared>) {
    while let Ok((near, _)) = listener.accept().await {
        if shared.conditions.borrow().refusing {
            near.set_zero_linger().ok();
            continue;
        }
        let (server, shared) = (server.clone(), Arc::clone(&shared));
        tokio::spawn(async move {
            let cuts = shared.cuts.subscribe();
            match TcpStream::connect(&server).await {
                Ok(far) => {
                    let open = &shared.journal.open;
                    open.send_modify(|open| *open += 1);
                    carry(near, far, &shared, cuts).await;
                    open.send_modify(|open| *open -= 1);
                }
                // As if the server had been reached directly.
                Err(_) => near.set_zero_linger().unwrap_or_default(),
            }
        });
    }
}

/// Carries one connection to its end.
async fn carry(
    mut near: TcpStream,
    mut far: TcpStream,
    shared: &Shared,
    mut cuts: broadcast::Receiver<Cut>,
) {
    near.set_nodelay(true).ok();
    far.set_nodelay(true).ok();
    let cut = {
        let (near_in, near_out) = near.split();
        let (far_in, far_out) = far.split();
        let doing = watch::Sender::new(Doing::Other);
        let both = async {
            tokio::try_join!(
                pass(near_in, far_out, Sender::Client, shared, &doing),
                pass(far_in, near_out, Sender::Server, shared, &doing),
            )
        };
        tokio::select! {
            passed = both => passed.err().unwrap_or(Cut::Close),
            cut = cuts.recv() => cut.unwrap_or(Cut::Close),
        }
    };
    match cut {
        Cut::Close => {}
        Cut::Reset => {
            near.set_zero_linger().ok();
            far.set_zero_linger().ok();
        }
        Cut::Half => {
            near.shutdown().await.ok();
            // Until the client goes as well.
            let mut rest = [0; 1 << 10];
            while let Ok(1..) = near.read(&mut rest).await {}
        }
    }
}

/// Passes on what one side sends, until its end; an error is how to break the connection.
async fn pass(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    sender: Sender,
    shared: &Shared,
    doing: &watch::Sender<Doing>,
) -> Result<(), Cut> {
    let mut frames = Frames::new(shared.protocol, sender);
    let mut conditions = shared.conditions.subscribe();
    let mut buffer = vec![0; 1 << 16];
    let mut through = Vec::new();
    let mut frames_to_lose = 0;
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| Cut::Close)?;
        if length == 0 {
            return to.shutdown().await.map_err(|_| Cut::Close);
        }
        frames.push(&buffer[..length]);
        let delay = conditions.borrow().delay;
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        while let Some((frame, point)) = frames.next_frame() {
            let mut cut_after = None;
            if sender == Sender::Server {
                note_answer(&frame, shared, doing);
            }
            if let Some(point) = point {
                if point == ACK {
                    // Counted when it is sent, not when it is through.
                    shared.journal.note(point, Doing::Other);
                }
                if let Some(held) = shared.springs(point) {
                    to.write_all(&through).await.map_err(|_| Cut::Close)?;
                    through.clear();
                    match hold(&held).await {
                        Verdict::Pass => {}
                        Verdict::Lose => frames_to_lose = FRAMES_OF_DELIVERY,
                        Verdict::CutBefore(cut) => return Err(cut),
                        Verdict::CutAfter(cut) => cut_after = Some(cut),
                    }
                }
                note_passed(point, shared, doing);
            }
            if frames_to_lose > 0 {
                frames_to_lose -= 1;
                continue;
            }
            through.extend_from_slice(&frame);
            if let Some(cut) = cut_after {
                to.write_all(&through).await.map_err(|_| Cut::Close)?;
                return Err(cut);
            }
        }
        conditions
            .wait_for(|conditions| !conditions.frozen)
            .await
            .map_err(|_| Cut::Close)?;
        to.write_all(&through).await.map_err(|_| Cut::Close)?;
        through.clear();
    }
}

/// Notes what the database answers about the worker's batches, if that was asked.
fn note_answer(frame: &[u8], shared: &Shared, doing: &watch::Sender<Doing>) {
    let about = *doing.borrow();
    if about != Doing::Other
        && let Some(number) = number(frame)
    {
        shared.journal.note_number(number, about);
        if about == Doing::Asking {
            doing.send_replace(Doing::Other);
        }
    }
}

/// Notes a step that nothing holds any more, and what its connection is about from then on.
fn note_passed(point: Point, shared: &Shared, doing: &watch::Sender<Doing>) {
    match point {
        CONCLUDE => doing.send_replace(Doing::Batch),
        ASKED => doing.send_replace(Doing::Asking),
        _ => *doing.borrow(),
    };
    if point != ACK {
        shared.journal.note(point, *doing.borrow());
    }
    if point == COMMIT_ANSWERED {
        doing.send_replace(Doing::Other);
    }
}

/// Hands a frame to the test that waits for it.
async fn hold(trap: &mpsc::Sender<Held>) -> Verdict {
    let (sender, verdict) = oneshot::channel();
    if trap.send(Held(Some(sender))).await.is_err() {
        return Verdict::Pass;
    }
    verdict.await.unwrap_or(Verdict::Pass)
}
