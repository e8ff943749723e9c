//! The thread that looks at the socket of a connection to the broker, at most once a millisecond.
//!
//! RabbitMQ sends a long queue in pieces of two or three messages, and each piece would wake a thread of the runtime, and that
//! one the thread of the AMQP library. Here what arrives within a millisecond is one piece. On an idle connection
//! nothing is delayed: the pause comes after a look, not before it. Whatever else the library does here, such as sending an
//! acknowledgement, may have to wait for the pause; nothing else may run on this thread.

use std::time::Duration;
use std::{io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

const PAUSE: Duration = Duration::from_millis(1);

/// That thread, until it is dropped. Then whatever waits for the socket hears that it is over: the AMQP library has a thread that
/// would wait for ever for a broker that says nothing, and keep the socket.
pub(super) struct Sockets {
    /// The runtime of the thread.
    pub(super) runtime: Handle,
    _end: Option<oneshot::Sender<()>>,
}

impl Sockets {
    /// Begins to look; on the runtime of the caller where no thread can be had.
    pub(super) fn open() -> Self {
        start().unwrap_or_else(|_| Self {
            runtime: Handle::current(),
            _end: None,
        })
    }
}

fn start() -> io::Result<Sockets> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        .on_thread_park(|| thread::sleep(PAUSE))
        .build()?;
    let handle = runtime.handle().clone();
    let (end, ended) = oneshot::channel();
    thread::Builder::new()
        .name("amqp-sockets".to_owned())
        .spawn(move || {
            runtime.block_on(ended).ok();
            // Without waiting for a name server.
            runtime.shutdown_background();
        })?;
    Ok(Sockets {
        runtime: handle,
        _end: Some(end),
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    #[test]
    fn what_arrives_within_a_millisecond_is_one_piece() {
        const PIECES: usize = 500;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut sender = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        sender.set_nodelay(true).unwrap();
        let (receiver, _) = listener.accept().unwrap();
        receiver.set_nonblocking(true).unwrap();

        let sockets = Sockets::open();
        let started = Instant::now();
        let receiving = sockets.runtime.spawn(async move {
            let receiver = tokio::net::TcpStream::from_std(receiver).unwrap();
            let (mut received, mut looks) = (0, 0);
            while received < PIECES {
                receiver.readable().await.unwrap();
                looks += 1;
                while let Ok(bytes) = receiver.try_read(&mut [0; PIECES]) {
                    received += bytes;
                }
            }
            looks
        });
        for _ in 0..PIECES {
            sender.write_all(&[0]).unwrap();
            thread::sleep(PAUSE / 20);
        }
        let looks: u128 = sockets.runtime.block_on(receiving).unwrap();
        assert!(looks <= started.elapsed().as_millis() + 2, "{looks} looks");
    }
}
