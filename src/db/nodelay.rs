//! Sockets that send at once what they are given.
//!
//! The driver leaves Nagle's algorithm on. COPY ends in two writes, its rows and a few bytes that say so, and the second
//! waits until the server has acknowledged the first, which it delays by up to 40 ms. The driver keeps its socket to
//! itself, so the kernel is asked for a second descriptor of it.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::net::sockopt;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};

/// Whether the kernel does so: from Linux 5.6 on, unless a container forbids it.
pub fn is_possible() -> bool {
    own().is_some_and(|own| duplicate(&own, own.as_raw_fd()).is_some())
}

/// Turns Nagle's algorithm off for every TCP socket that this process has open, where that is possible: none of them is
/// better off with it.
pub(super) fn set() {
    let (Some(own), Ok(descriptors)) = (own(), fs::read_dir("/proc/self/fd")) else {
        return;
    };
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers {
        if let Some(descriptor) = duplicate(&own, number) {
            // What is no TCP socket refuses.
            sockopt::set_tcp_nodelay(descriptor, true).ok();
        }
    }
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
    fn a_socket_that_is_open_waits_no_more() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        assert!(!stream.nodelay().unwrap());
        assert!(is_possible());
        set();
        assert!(stream.nodelay().unwrap());
    }
}
