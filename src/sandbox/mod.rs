//! A private PostgreSQL and a private RabbitMQ for the demo, the tests and the benches.
//!
//! Own data directories, own free ports, own `epmd`, loopback only, any user: whatever PostgreSQL or RabbitMQ the machine
//! runs already is neither used nor touched. Durability stays on. Both servers and their data are gone after
//! [`Sandbox::stop`], after a drop (a moment later), and after this process was killed.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;

use anyhow::{Context, Result};
use sqlx::migrate::MigrateDatabase;
use sqlx::{Connection, PgConnection, Postgres};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

mod keeper;
#[cfg(test)]
mod tests;

use keeper::{Keeper, Server};

const POSTGRESQL: Server = Server {
    name: "PostgreSQL",
    package: "postgresql",
    script: include_str!("postgresql.sh"),
    graceful: "INT",
};

const RABBITMQ: Server = Server {
    name: "RabbitMQ",
    package: "rabbitmq-server",
    script: include_str!("rabbitmq.sh"),
    graceful: "TERM",
};

const DATABASE: &str = "paxflow";

/// Below Linux's ephemeral range: while a server is stopped, the kernel must not lend its port to an outgoing connection,
/// least of all to a client that is trying to reach that very port.
const PORTS: Range<u16> = 20_000..32_768;

/// Settings beyond the defaults of a [`Sandbox`].
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines of `postgresql.conf`; they win over the sandbox's own.
    pub postgresql_settings: Vec<(String, String)>,
    /// Lines of `rabbitmq.conf`.
    pub rabbitmq_settings: Vec<(String, String)>,
    /// Plugins that come with RabbitMQ, by their names.
    pub rabbitmq_plugins: Vec<&'static str>,
}

/// How a server of the sandbox is made to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// The server's own orderly way.
    Graceful,
    /// `kill -9` of the server and its children.
    Kill,
}

/// A running private PostgreSQL and RabbitMQ.
pub struct Sandbox {
    postgresql: Keeper,
    rabbitmq: Keeper,
    database_server_url: String,
    database_url: String,
    amqp_port: u16,
    amqp_url: String,
}

impl Sandbox {
    /// Starts both servers, concurrently, and returns when both answer.
    pub async fn start(options: &Options) -> Result<Self> {
        let [postgresql_port, amqp_port, dist_port, epmd_port] = free_ports()?;
        let password = format!("{:032x}", rand::random::<u128>());
        let database_server_url =
            format!("postgres://paxflow:{password}@127.0.0.1:{postgresql_port}");
        let database_url = format!("{database_server_url}/{DATABASE}");
        let (postgresql, rabbitmq) = tokio::try_join!(
            async {
                let dir = postgresql_dir(postgresql_port, &password, options)?;
                let mut keeper = Keeper::start(&POSTGRESQL, dir, &[]).await?;
                keeper
                    .serve(|| database_answers(&database_server_url))
                    .await?;
                Postgres::create_database(&database_url)
                    .await
                    .context("cannot make the database")?;
                anyhow::Ok(keeper)
            },
            async {
                let dir = rabbitmq_dir(amqp_port, &password, options)?;
                let ports = [
                    ("EPMD_PORT", epmd_port.to_string()),
                    ("DIST_PORT", dist_port.to_string()),
                ];
                let mut keeper = Keeper::start(&RABBITMQ, dir, &ports).await?;
                keeper.serve(|| broker_answers(amqp_port)).await?;
                anyhow::Ok(keeper)
            },
        )?;
        let amqp_url = format!("amqp://paxflow:{password}@127.0.0.1:{amqp_port}/%2f");
        Ok(Self {
            postgresql,
            rabbitmq,
            database_server_url,
            database_url,
            amqp_port,
            amqp_url,
        })
    }

    /// The database `paxflow`, empty at first, as a superuser.
    pub fn database_url(&self) -> &str {
        &self.database_url
    }

    /// The virtual host `/`, as an administrator.
    pub fn amqp_url(&self) -> &str {
        &self.amqp_url
    }

    /// Creates a further, empty database and returns its URL.
    pub async fn create_database(&self, name: &str) -> Result<String> {
        let url = format!("{}/{name}", self.database_server_url);
        Postgres::create_database(&url)
            .await
            .with_context(|| format!("cannot make database {name}"))?;
        Ok(url)
    }

    /// The postmaster, while it runs.
    pub fn postgres_pid(&self) -> Option<u32> {
        self.postgresql.pid()
    }

    /// The Erlang VM of the broker, while it runs.
    pub fn rabbitmq_pid(&self) -> Option<u32> {
        self.rabbitmq.pid()
    }

    /// Stops PostgreSQL and keeps its port and data for [`Sandbox::postgres_start`].
    pub async fn postgres_stop(&mut self, shutdown: Shutdown) -> Result<()> {
        self.postgresql.halt(shutdown).await
    }

    /// Starts PostgreSQL again and returns when it answers.
    pub async fn postgres_start(&mut self) -> Result<()> {
        self.postgresql
            .serve(|| database_answers(&self.database_server_url))
            .await
    }

    /// Stops RabbitMQ and keeps its port and data for [`Sandbox::rabbitmq_start`].
    pub async fn rabbitmq_stop(&mut self, shutdown: Shutdown) -> Result<()> {
        self.rabbitmq.halt(shutdown).await
    }

    /// Starts RabbitMQ again and returns when it answers.
    pub async fn rabbitmq_start(&mut self) -> Result<()> {
        self.rabbitmq.serve(|| broker_answers(self.amqp_port)).await
    }

    /// Ends both servers and removes their data. Returns when nothing of them is left.
    pub async fn stop(self) -> Result<()> {
        let (postgresql, rabbitmq) = tokio::join!(self.postgresql.close(), self.rabbitmq.close());
        postgresql.and(rabbitmq)
    }
}

fn postgresql_dir(port: u16, password: &str, options: &Options) -> Result<TempDir> {
    let dir = server_dir("paxflow-postgresql-")?;
    let own = [
        ("listen_addresses", "127.0.0.1"),
        ("port", &port.to_string()),
        // Their names have little room, and a path may be long.
        ("unix_socket_directories", ""),
        // Under the data directory: a killed server then leaves nothing in /dev/shm, which is also tiny in containers.
        ("dynamic_shared_memory_type", "mmap"),
        // As the server asks for it; before PostgreSQL 14 the default is another.
        ("password_encryption", "scram-sha-256"),
        ("max_connections", "200"),
        ("shared_buffers", "256MB"),
        // A page of an SSD costs as much wherever it is; the default is for disks that turn.
        ("random_page_cost", "1.1"),
        ("max_wal_size", "2GB"),
    ];
    let quoted = |name: &str, value: &str| format!("{name} = '{}'\n", value.replace('\'', "''"));
    let mut settings: String = own
        .iter()
        .map(|(name, value)| quoted(name, value))
        .collect();
    settings.extend(
        options
            .postgresql_settings
            .iter()
            .map(|(name, value)| quoted(name, value)),
    );
    write(&dir, "postgresql.conf", &settings)?;
    write(&dir, "password", password)?;
    Ok(dir)
}

fn rabbitmq_dir(port: u16, password: &str, options: &Options) -> Result<TempDir> {
    let dir = server_dir("paxflow-rabbitmq-")?;
    let mut settings = format!(
        "listeners.tcp.1 = 127.0.0.1:{port}\ndefault_user = paxflow\ndefault_pass = {password}\n"
    );
    settings.extend(
        options
            .rabbitmq_settings
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n")),
    );
    write(&dir, "rabbitmq.conf", &settings)?;
    let plugins = options.rabbitmq_plugins.join(", ");
    write(&dir, "enabled_plugins", &format!("[{plugins}].\n"))?;
    Ok(dir)
}

fn server_dir(prefix: &str) -> Result<TempDir> {
    tempfile::Builder::new()
        .prefix(prefix)
        .tempdir()
        .context("cannot make a temporary directory")
}

fn write(dir: &TempDir, name: &str, contents: &str) -> Result<()> {
    let path = dir.path().join(name);
    fs::write(&path, contents).with_context(|| format!("cannot write {}", path.display()))
}

async fn database_answers(server_url: &str) -> bool {
    match PgConnection::connect(&format!("{server_url}/postgres")).await {
        Ok(connection) => connection.close().await.is_ok(),
        Err(_) => false,
    }
}

/// True once the broker answers AMQP's protocol header with Connection.Start: its last boot step opens the listener.
async fn broker_answers(port: u16) -> bool {
    const PROTOCOL_HEADER: &[u8] = b"AMQP\0\0\x09\x01";
    const METHOD_FRAME: u8 = 1;
    const CONNECTION_START: [u8; 4] = [0, 10, 0, 10];
    let answer = async {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.write_all(PROTOCOL_HEADER).await?;
        // Frame type, channel (2 bytes), size (4), class (2), method (2).
        let mut head = [0; 11];
        stream.read_exact(&mut head).await?;
        std::io::Result::Ok(head)
    };
    answer
        .await
        .is_ok_and(|head| head[0] == METHOD_FRAME && head[7..] == CONNECTION_START)
}

/// Ports of loopback that nobody listens on. All are held until the last is found, so no two are the same.
fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N);
    for port in &mut ports {
        let listener = free_listener()?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn free_listener() -> Result<TcpListener> {
    const TRIES: usize = 100;
    for _ in 0..TRIES {
        let port = rand::random_range(PORTS);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return Ok(listener);
        }
    }
    anyhow::bail!(
        "no free port on 127.0.0.1 in {}-{}",
        PORTS.start,
        PORTS.end - 1
    )
}
