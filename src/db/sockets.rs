//! Sockets that send at once what they are given, and notice a path that is lost.
//!
//! The driver leaves Nagle's algorithm on. COPY ends in two writes, its rows and a few bytes that say so, and the second
//! waits until the server has acknowledged the first, which it delays by up to 40 ms. And it sets no limit: who waits for an answer
//! that a firewall or a dead host has swallowed would hear nothing more, and who sends there, nothing for a quarter of an hour. The driver keeps its socket to itself, so
//! the kernel is asked for a second descriptor of it.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// A connection that is silent for this long is asked whether it is still there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(5);
/// How often it is asked until it answers.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// A connection is lost if for this many milliseconds nobody takes what was sent, or answers that question.
const LOST_AFTER_MS: u32 = 11_000;

/// Whether the kernel gives out such a second descriptor: from Linux 5.6 on, unless a container forbids it.
pub fn is_possible() -> bool {
    own().is_some_and(|own| duplicate(&own, own.as_raw_fd()).is_some())
}

/// Sets every TCP socket that this process has open, where that is possible. None of them is worse off, but for a COPY of which the
/// server reads no more, since it waits for a twin's lock: its batch begins anew after these seconds.
pub(super) fn set() {
    let (Some(own), Ok(descriptors)) = (own(), fs::read_dir("/proc/self/fd")) else {
        return;
    };
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers {
        if let Some(descriptor) = duplicate(&own, number) {
            // What is no TCP socket refuses.
            set_one(&descriptor).ok();
        }
    }
}

fn set_one(socket: &OwnedFd) -> io::Result<()> {
    sockopt::set_tcp_nodelay(socket, true)?;
    sockopt::set_tcp_keepidle(socket, KEEPALIVE_AFTER)?;
    sockopt::set_tcp_keepintvl(socket, KEEPALIVE_EVERY)?;
    sockopt::set_tcp_user_timeout(socket, LOST_AFTER_MS)?;
    sockopt::set_socket_keepalive(socket, true)?;
    Ok(())
}

/// This process, as the kernel's descriptor of it.
fn own() -> Option<OwnedFd> {
    pidfd_open(getpid(), PidfdFlags::empty()).ok()
}

fn duplicate(own: &OwnedFd, number: RawFd) -> Option<OwnedFd> {
    pidfd_getfd(own, number, PidfdGetfdFlags::empty()).ok()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_socket_that_is_open_waits_no_more_and_notices_a_lost_path() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!stream.nodelay().unwrap());
        assert!(is_possible());
        set();
        assert!(stream.nodelay().unwrap());
        assert!(sockopt::socket_keepalive(&stream).unwrap());
        assert_eq!(sockopt::tcp_keepidle(&stream).unwrap(), KEEPALIVE_AFTER);
        assert_eq!(sockopt::tcp_keepintvl(&stream).unwrap(), KEEPALIVE_EVERY);
        assert_eq!(sockopt::tcp_user_timeout(&stream).unwrap(), LOST_AFTER_MS);
    }
}
