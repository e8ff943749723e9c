//! The private servers of the demo, the tests and the benches, as the network sees them.

use std::collections::BTreeSet;
use std::fs;

use paxflow::sandbox::{Options, Sandbox};

/// 127.0.0.1, ::1 and ::ffff:127.0.0.1, as /proc/net has them.
const LOOPBACK: [&str; 3] = [
    "0100007F",
    "00000000000000000000000001000000",
    "0000000000000000FFFF00000100007F",
];
/// The state of a socket that listens.
const LISTENS: &str = "0A";

struct Listener {
    address: String,
    port: u16,
    inode: String,
}

fn listeners() -> Vec<Listener> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    let tables = tables.map(|table| fs::read_to_string(table).unwrap_or_default());
    let rows = tables.iter().flat_map(|table| table.lines().skip(1));
    rows.filter_map(|row| {
        let cells: Vec<_> = row.split_whitespace().collect();
        let (address, port) = cells[1].split_once(':')?;
        (cells[3] == LISTENS).then(|| Listener {
            address: address.to_owned(),
            port: u16::from_str_radix(port, 16).unwrap(),
            inode: cells[9].to_owned(),
        })
    })
    .collect()
}

fn port_of(url: &str) -> u16 {
    let (_, rest) = url.rsplit_once(':').unwrap();
    rest.split('/').next().unwrap().parse().unwrap()
}

/// The sockets that a process of ours has open.
fn sockets_of(process: u32) -> Vec<String> {
    let files = fs::read_dir(format!("/proc/{process}/fd")).unwrap();
    let links = files.filter_map(|file| fs::read_link(file.ok()?.path()).ok());
    links
        .filter_map(|link| {
            let inode = link.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?;
            Some(inode.to_owned())
        })
        .collect()
}

/// What the broker's command line says of its port mapper.
fn epmd_port(broker: u32) -> u16 {
    let line = fs::read_to_string(format!("/proc/{broker}/cmdline")).unwrap();
    let mut words = line.split('\0').skip_while(|word| *word != "-epmd_port");
    words.nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_private_servers_are_reached_from_this_machine_alone() {
    let sandbox = Sandbox::start(&Options::default()).await.unwrap();
    let broker = sandbox.rabbitmq_pid().unwrap();
    let (listeners, sockets) = (listeners(), sockets_of(broker));
    let mut ports = BTreeSet::from([
        port_of(sandbox.database_url()),
        port_of(sandbox.amqp_url()),
        epmd_port(broker),
    ]);
    let own = |listener: &&Listener| sockets.contains(&listener.inode);
    ports.extend(listeners.iter().filter(own).map(|listener| listener.port));
    // The fourth is where the broker would wait for others of a cluster.
    assert_eq!(ports.len(), 4, "{ports:?}");
    for port in ports {
        let of_port = listeners.iter().filter(|listener| listener.port == port);
        let addresses: Vec<_> = of_port.map(|listener| &*listener.address).collect();
        let is_private =
            !addresses.is_empty() && addresses.iter().all(|address| LOOPBACK.contains(address));
        assert!(is_private, "{port} is open at {addresses:?}");
    }
    sandbox.stop().await.unwrap();
}
