//! TLS to both servers, with certificates of this test: verified or refused, and never without it.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use paxflow::broker::queue_state;
use paxflow::config::Secret;
use paxflow::sandbox::{Options, Sandbox};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::boot::fails;
use crate::canary::broker_connections;
use crate::pgbouncer::free_port;
use crate::process::{Place, generated, ran, until};

/// What the servers' certificate is for; they listen on an address that it does not name.
const HOST: &str = "localhost";
const ADDRESS: &str = "127.0.0.1";
/// The first message of a PostgreSQL client that asks for TLS: its length and the code 1234.5679.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A CA: the certificate in PEM form, and what it signs with.
struct Ca {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self {
            pem,
            issuer: Issuer::new(params, key),
        }
    }
}

/// A private PostgreSQL and RabbitMQ with TLS, and the files of their certificate.
struct Servers {
    sandbox: Sandbox,
    files: TempDir,
    amqps_port: u16,
}

impl Servers {
    async fn start() -> Self {
        let (ca, stranger) = (Ca::new("ours"), Ca::new("a stranger's"));
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new([HOST.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, HOST);
        let certificate = params.signed_by(&key, &ca.issuer).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::set_permissions(files.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let path = |name: &str| files.path().join(name).to_str().unwrap().to_owned();
        for (name, pem) in [
            ("ca.pem", &ca.pem),
            ("stranger.pem", &stranger.pem),
            ("server.pem", &certificate.pem()),
            ("server.key", &key.serialize_pem()),
        ] {
            std::fs::write(path(name), pem).unwrap();
        }
        give_to_the_server(Path::new(&path("server.key")));
        let amqps_port = free_port();
        let listener = format!("{ADDRESS}:{amqps_port}");
        let pairs = |pairs: &[(&str, &str)]| {
            let owned = pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            owned.collect()
        };
        let options = Options {
            postgresql_settings: pairs(&[
                ("ssl", "on"),
                ("ssl_cert_file", &path("server.pem")),
                ("ssl_key_file", &path("server.key")),
            ]),
            rabbitmq_settings: pairs(&[
                ("listeners.ssl.1", &listener),
                ("ssl_options.cacertfile", &path("ca.pem")),
                ("ssl_options.certfile", &path("server.pem")),
                ("ssl_options.keyfile", &path("server.key")),
            ]),
            ..Options::default()
        };
        let sandbox = Sandbox::start(&options).await.unwrap();
        Self {
            sandbox,
            files,
            amqps_port,
        }
    }

    /// The servers without TLS, for what the test does itself.
    fn plain(&self) -> Place {
        Place::new(self.sandbox.database_url(), self.sandbox.amqp_url())
    }

    fn database_url(&self, host: &str, ca: &str) -> String {
        let url = self.sandbox.database_url().replace(ADDRESS, host);
        let ca = self.files.path().join(ca);
        format!("{url}?sslmode=verify-full&sslrootcert={}", ca.display())
    }

    fn amqp_url(&self, host: &str, ca: &str) -> String {
        let (credentials, _) = self.sandbox.amqp_url().split_once('@').unwrap();
        let credentials = credentials.replace("amqp://", "amqps://");
        let ca = self.files.path().join(ca);
        let port = self.amqps_port;
        format!(
            "{credentials}@{host}:{port}/%2f?cacertfile={}",
            ca.display()
        )
    }

    fn password(&self) -> &str {
        let parts = self.sandbox.amqp_url().split([':', '@']).nth(2);
        parts.expect("the URL has a password")
    }
}

/// PostgreSQL takes only a key that is its own; started by root it runs as somebody else.
fn give_to_the_server(key: &Path) {
    std::fs::set_permissions(key, PermissionsExt::from_mode(0o600)).unwrap();
    if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
        let given = std::process::Command::new("sh")
            .args(["-c", "chown postgres \"$0\" || chown nobody \"$0\""])
            .arg(key)
            .status();
        assert!(given.unwrap().success());
    }
}

/// A PostgreSQL without TLS, and everything that its first client sends.
async fn plaintext_postgresql() -> (u16, JoinHandle<Vec<u8>>) {
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let sent = tokio::spawn(async move {
        let (mut client, _) = listener.accept().await.unwrap();
        let mut sent = vec![0; SSL_REQUEST.len()];
        client.read_exact(&mut sent).await.unwrap();
        client.write_all(b"N").await.unwrap();
        client.read_to_end(&mut sent).await.unwrap();
        sent
    });
    (port, sent)
}

#[tokio::test]
async fn everything_goes_over_tls() {
    let servers = Servers::start().await;
    let plain = servers.plain();
    let place = Place {
        database_url: servers.database_url(HOST, "ca.pem"),
        amqp_url: servers.amqp_url(HOST, "ca.pem"),
        ..plain.clone()
    };
    let events = servers.files.path().join("events");
    std::fs::write(&events, generated(500, 11, 0.0).join(&b'\n')).unwrap();
    let worker = place.worker().await;
    let (code, _, err) = ran(place.paxflow(&["publish", events.to_str().unwrap()])).await;
    assert_eq!(code, 0, "{err}");
    plain.committed_at_least(500).await;

    let sessions = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                    WHERE application_name IN ('paxflow worker', 'paxflow upkeep') AND ssl";
    until("the worker's sessions are encrypted", async || {
        (plain.number(sessions).await > 0).then_some(())
    })
    .await;
    let open = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid)
                WHERE application_name LIKE 'paxflow %' AND application_name <> 'paxflow test' AND NOT ssl";
    assert_eq!(plain.number(open).await, 0);
    let connections = broker_connections(&servers.sandbox).await;
    assert!(
        connections.contains(&("paxflow worker".to_owned(), true)),
        "{connections:?}"
    );
    assert!(
        !connections.contains(&("paxflow worker".to_owned(), false)),
        "{connections:?}"
    );
    // Where the worker consumes, nobody is served without TLS.
    let unencrypted = place.amqp_url.replace("amqps://", "amqp://");
    let unencrypted = Secret::new(unencrypted.split('?').next().unwrap());
    let queue = &place.topology.queue;
    assert!(queue_state(&unencrypted, queue).await.is_err());
    assert_eq!(plain.waiting(queue).await.consumers, 1);

    let backup = servers.files.path().join("backup");
    for command in [
        &["db", "check"][..],
        &["status"],
        &["verify"],
        &["db", "backup", backup.to_str().unwrap()],
    ] {
        let (code, out, err) = ran(place.paxflow(command)).await;
        assert_eq!(code, 0, "{command:?}: {out}{err}");
    }
    // A CA that the system trusts needs no file in the URL, which PostgreSQL's programs would want.
    let (trusted, _) = place.database_url.split_once("&sslrootcert=").unwrap();
    let of_the_system = Place {
        database_url: trusted.to_owned(),
        ..place.clone()
    };
    let again = servers.files.path().join("again");
    let mut command = of_the_system.paxflow(&["db", "backup", again.to_str().unwrap()]);
    command.env("SSL_CERT_FILE", servers.files.path().join("ca.pem"));
    let (code, out, err) = ran(command).await;
    assert_eq!(code, 0, "{out}{err}");
    worker.stop().await;
    plain.assert_exact().await;
    servers.sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn what_is_not_verified_is_refused() {
    let servers = Servers::start().await;
    let plain = servers.plain();
    let (code, _, err) = ran(plain.paxflow(&["db", "init"])).await;
    assert_eq!(code, 0, "{err}");
    let to_database = |url: String| Place {
        database_url: url,
        ..plain.clone()
    };
    let to_broker = |url: String| Place {
        amqp_url: url,
        ..plain.clone()
    };
    let without_tls = plain.amqp_url.replace("amqp://", "amqps://");
    let missing = servers.amqp_url(HOST, "missing.pem");
    let no_certificate = servers.amqp_url(HOST, "server.key");
    let unencrypted = servers
        .amqp_url(HOST, "ca.pem")
        .replace("amqps://", "amqp://");
    let no_file = servers.database_url(HOST, "missing.pem");
    let unverified = servers
        .database_url(HOST, "ca.pem")
        .replace("verify-full", "require");
    let cases = [
        (
            to_database(servers.database_url(HOST, "stranger.pem")),
            "UnknownIssuer",
        ),
        (
            to_database(servers.database_url(ADDRESS, "ca.pem")),
            "not valid for name \"127.0.0.1\"",
        ),
        (to_database(no_file), "cannot read"),
        (to_database(unverified), "add sslmode=verify-full"),
        (
            to_broker(servers.amqp_url(HOST, "stranger.pem")),
            "UnknownIssuer",
        ),
        (
            to_broker(servers.amqp_url(ADDRESS, "ca.pem")),
            "not valid for name \"127.0.0.1\"",
        ),
        (to_broker(without_tls), "does not speak TLS"),
        (to_broker(missing), "cannot read"),
        (to_broker(no_certificate), "holds no certificate"),
        (to_broker(unencrypted), "begin it with amqps://"),
    ];
    for (place, expected) in cases {
        let (setting, command) = match place.amqp_url == plain.amqp_url {
            true => ("DATABASE_URL", &["db", "check"][..]),
            false => ("AMQP_URL", &["publish", "/dev/null"][..]),
        };
        for command in [&["run"][..], command] {
            let (_, said) = fails(place.paxflow(command)).await;
            assert!(
                said.contains(expected) && said.contains(setting),
                "{command:?}: {said}"
            );
            assert!(!said.contains(servers.password()), "{command:?}: {said}");
        }
    }
    servers.sandbox.stop().await.unwrap();
}

#[tokio::test]
async fn a_database_without_tls_hears_nothing_but_the_question_for_it() {
    for command in [&["run"][..], &["db", "check"]] {
        let (port, sent) = plaintext_postgresql().await;
        let url =
            format!("postgres://paxflow:canary-secret@{ADDRESS}:{port}/market?sslmode=verify-full");
        let place = Place::new(&url, "amqp://paxflow@127.0.0.1:1/%2f");
        let (_, said) = fails(place.paxflow(command)).await;
        assert!(
            said.contains("DATABASE_URL") && said.contains("ssl = on"),
            "{said}"
        );
        assert!(!said.contains("canary"), "{said}");
        assert_eq!(sent.await.unwrap(), SSL_REQUEST);
    }
}

#[tokio::test]
async fn a_system_without_cas_is_explained() {
    let empty = tempfile::NamedTempFile::new().unwrap();
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let url = format!("amqps://paxflow:canary-secret@{ADDRESS}:{port}/%2f");
    let place = Place::new("postgres://paxflow@127.0.0.1:1/market", &url);
    for cas in ["/no/such/file", empty.path().to_str().unwrap()] {
        let mut command = place.paxflow(&["publish", "/dev/null"]);
        command.env("SSL_CERT_FILE", cas);
        let (_, said) = fails(command).await;
        assert!(said.contains("ca-certificates"), "{said}");
        assert!(!said.contains("canary"), "{said}");
    }
}
