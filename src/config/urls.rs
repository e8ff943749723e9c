//! What can be wrong with a URL, told before anything is done with it. Nothing of it is repeated but the names of its
//! parameters: it may hold a password.

use std::str::FromStr;

use anyhow::{Context, Result, bail};
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnectOptions;

/// What the driver takes from a database's URL besides `options[...]`: `options/parse.rs` of sqlx-postgres 0.9.
pub(super) const OF_A_DATABASE: &[&str] = &[
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

/// What amq-protocol-uri 10 takes from a broker's URL, and what we take ourselves.
pub(super) const OF_A_BROKER: &[&str] = &[
    "frame_max",
    "channel_max",
    "heartbeat",
    "connection_timeout",
    "auth_mechanism",
    "cacertfile",
];

/// What nobody means by the URL of a server.
pub(super) fn problem(url: &str) -> Option<&'static str> {
    let (_, after_scheme) = url.split_once("://")?;
    let end = after_scheme.find(['/', '?', '#']);
    let (authority, rest) = after_scheme.split_at(end.unwrap_or(after_scheme.len()));
    // Or what was meant as a password would be the host, a port, a database or a parameter, and shown as that.
    if rest.contains('@') {
        return Some("has an @ after its host (write / ? # @ % in a password %2F %3F %23 %40 %25)");
    }
    let after_address = authority.rsplit(['@', ']']).next()?;
    let (_, port) = after_address.split_once(':')?;
    (!port.is_empty() && port.parse::<u16>().is_err())
        .then_some("has a port that is no number up to 65535")
}

/// Names of parameters in a URL that are none of those `known`.
pub(super) fn ignored_parameters<'u>(
    url: &'u str,
    known: &[&str],
) -> impl Iterator<Item = &'u str> {
    let names = pairs(url).filter_map(|pair| pair.split('=').next());
    names.filter(|name| !name.is_empty() && !known.contains(name) && !name.starts_with("options["))
}

/// The parameter whose value is what makes a URL unreadable.
pub(crate) fn unreadable_parameter<U: FromStr>(url: &str) -> Option<&str> {
    let (server, _) = url.split_once('?')?;
    let is_read = |url: &str| url.parse::<U>().is_ok();
    let mut unreadable = pairs(url).filter(|pair| !is_read(&format!("{server}?{pair}")));
    if is_read(server) {
        unreadable.next()?.split('=').next()
    } else {
        None
    }
}

fn pairs(url: &str) -> impl Iterator<Item = &str> {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    query.split('#').next().unwrap_or_default().split('&')
}

/// Refuses certificates that would not be looked at, or cannot be: the one is no protection, the other
/// would pass for an outage.
pub(super) fn check_certificates(name: &str, options: &PgConnectOptions) -> Result<()> {
    use sqlx::postgres::PgSslMode::{VerifyCa, VerifyFull};
    for (parameter, value) in options.to_url_lossy().query_pairs() {
        if !["sslrootcert", "sslcert", "sslkey"].contains(&&*parameter) {
            continue;
        }
        let verifies = matches!(options.get_ssl_mode(), VerifyCa | VerifyFull);
        if parameter == "sslrootcert" && !verifies {
            bail!(
                "{name} names an sslrootcert that nothing is verified with: add sslmode=verify-full"
            );
        }
        // How sqlx writes what is a path and not the certificate itself.
        if let Some(path) = value.strip_prefix("file: ") {
            std::fs::File::open(path)
                .with_context(|| format!("{name}: cannot read {path}, its {parameter}"))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_that_is_not_encoded_is_refused_and_a_port_that_is_none() {
        for (url, expected) in [
            ("postgres://u:7/secret@db:5432/x", Some("%2F")),
            ("postgres://u:?secret@db/x", Some("%3F")),
            ("amqp://u:12#secret@mq", Some("%23")),
            ("amqp://u:p@mq:99999", Some("port")),
            ("amqp://u:p@[::1]:amqp/%2f", Some("port")),
            ("amqp://u:p:q@mq", None),
            ("amqp://u:p@[::1]:5672/%2f", None),
            ("amqp://mq:", None),
            ("postgres:///x?host=/run/postgresql", None),
        ] {
            match (problem(url), expected) {
                (Some(found), Some(expected)) => {
                    assert!(found.contains(expected), "{url}: {found}")
                }
                (found, expected) => assert_eq!(found, expected, "{url}"),
            }
        }
    }

    #[test]
    fn parameters_that_are_ignored_are_named_and_not_their_values() {
        let url = "postgres://u:p@db/x?sslmode=require&sslmod=x&options[jit]=off&&channel_binding=require&a#b";
        let ignored: Vec<_> = ignored_parameters(url, OF_A_DATABASE).collect();
        assert_eq!(ignored, ["sslmod", "channel_binding", "a"]);
        let url = "amqps://u:p@mq/x?heartbeat=5&cacertfil=/ca.pem";
        let ignored: Vec<_> = ignored_parameters(url, OF_A_BROKER).collect();
        assert_eq!(ignored, ["cacertfil"]);
        assert_eq!(
            ignored_parameters("postgres://db/x", OF_A_DATABASE).next(),
            None
        );
    }
}
