//! Connections: where the URL leads, and whether the broker there can be trusted.

use std::io;
use std::ops::Deref;
use std::time::Duration;

use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Connection, ConnectionProperties, ErrorKind};
use percent_encoding::percent_decode_str;

use super::BrokerError;
use super::sockets::Sockets;
use crate::config::{Secret, unreadable_parameter, wrong};

/// A peer that accepts a connection and says nothing would hold us for ever.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A dead peer is noticed after two of them, in seconds.
const HEARTBEAT_SECS: u16 = 10;

/// A connection. What it waits for ends with it.
pub(super) struct Link {
    connection: Connection,
    /// Dropped after the connection.
    _sockets: Sockets,
}

impl Deref for Link {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

/// Opens a connection. Its name tells operators what it is for.
pub(super) async fn connect(url: &Secret, purpose: &str) -> Result<Link, BrokerError> {
    let (mut uri, trusted) = read(url)?;
    uri.query.heartbeat.get_or_insert(HEARTBEAT_SECS);
    let scheme = uri.scheme.clone();
    let properties =
        ConnectionProperties::default().with_connection_name(format!("paxflow {purpose}").into());
    let sockets = Sockets::open();
    let runtime = {
        let _entered = sockets.runtime.enter();
        lapin::runtime::default_runtime()?
    };
    let connected = Connection::connect_uri_with_config(uri, properties, trusted, runtime);
    match tokio::time::timeout(CONNECT_TIMEOUT, connected).await {
        Ok(connected) => Ok(Link {
            connection: connected.map_err(|error| explain(error, &scheme))?,
            _sockets: sockets,
        }),
        Err(_) => Err(BrokerError::Lost(format!(
            "no answer within {} s",
            CONNECT_TIMEOUT.as_secs()
        ))),
    }
}

/// Tells what is wrong with a broker's URL, and with the file of the CA that it names, without asking the broker.
///
/// # Errors
/// [`BrokerError::Refused`] with what to correct.
pub fn check_url(url: &Secret) -> Result<(), BrokerError> {
    read(url).map(|_| ())
}

/// Where the URL leads, and whom to trust there.
fn read(url: &Secret) -> Result<(AMQPUri, OwnedTLSConfig), BrokerError> {
    let uri = parse(url).ok_or_else(|| BrokerError::Refused(unreadable(url)))?;
    if uri.vhost.is_empty() {
        return Err(BrokerError::Refused(
            "AMQP_URL names an empty vhost: leave the slash at its end out, or write /%2f, for the default one".to_owned(),
        ));
    }
    let trusted = trusted(url, &uri)?;
    Ok((uri, trusted))
}

/// Parses the URL. The library's parser drops an IPv6 address, which would lead to localhost.
fn parse(url: &Secret) -> Option<AMQPUri> {
    let mut uri: AMQPUri = url.expose().parse().ok()?;
    let (_, rest) = url.expose().split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let host = authority.rsplit('@').next()?;
    if let Some((address, _)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) {
        uri.authority.host = address.to_owned();
    }
    Some(uri)
}

/// What is wrong with a URL that cannot be read, without anything of it but the name of a parameter.
fn unreadable(url: &Secret) -> String {
    let problem = match unreadable_parameter::<AMQPUri>(url.expose()) {
        Some(parameter) => format!("has a wrong value of {parameter}"),
        None => "cannot be read (write / ? # @ % in a password %2F %3F %23 %40 %25)".to_owned(),
    };
    wrong("AMQP_URL", &problem).to_string()
}

/// Over TLS the library wants the system's CAs, also where the URL names another. What cannot be read before
/// there is a connection is no message.
fn explain(error: lapin::Error, scheme: &AMQPScheme) -> BrokerError {
    let has_no_roots = match error.kind() {
        ErrorKind::IOError(error) => {
            error.kind() == io::ErrorKind::NotFound
                || error.to_string().contains("native certificates")
        }
        _ => false,
    };
    if has_no_roots && *scheme == AMQPScheme::AMQPS {
        return BrokerError::Refused(format!(
            "amqps needs the CAs that the system trusts: install ca-certificates, or correct SSL_CERT_FILE: {error}"
        ));
    }
    match error.into() {
        BrokerError::Unreadable(_) => BrokerError::Lost(
            "what answers there does not speak AMQP 0-9-1: correct host and port in AMQP_URL"
                .to_owned(),
        ),
        error => error,
    }
}

/// The CA that the URL names, in the parameter that RabbitMQ's own clients know. It is read for each
/// connection, so that a new one needs no restart.
fn trusted(url: &Secret, uri: &AMQPUri) -> Result<OwnedTLSConfig, BrokerError> {
    let query = url.expose().split_once('?').map_or("", |(_, query)| query);
    let named = query
        .split('&')
        .find_map(|pair| pair.strip_prefix("cacertfile="));
    let Some(path) = named else {
        return Ok(OwnedTLSConfig::default());
    };
    if uri.scheme != AMQPScheme::AMQPS {
        return Err(BrokerError::Refused(
            "AMQP_URL names a cacertfile and asks for no TLS: begin it with amqps://".to_owned(),
        ));
    }
    let path = percent_decode_str(path).decode_utf8_lossy();
    match std::fs::read_to_string(&*path) {
        Ok(pem) if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(OwnedTLSConfig {
            cert_chain: Some(pem),
            ..OwnedTLSConfig::default()
        }),
        Ok(_) => Err(BrokerError::Refused(format!(
            "{path}, the cacertfile in AMQP_URL, holds no certificate: give it in PEM form"
        ))),
        Err(error) => Err(BrokerError::Refused(format!(
            "cannot read {path}, the cacertfile in AMQP_URL: {error}"
        ))),
    }
}

/// Where a broker is, to be shown to people: never its password.
pub fn address(url: &Secret) -> String {
    let Some(uri) = parse(url) else {
        return "an unreadable AMQP_URL".to_owned();
    };
    let (host, port) = (&uri.authority.host, uri.authority.port);
    let vhost = match uri.vhost.as_str() {
        "/" => String::new(),
        vhost => format!("/{vhost}"),
    };
    if host.contains(':') {
        format!("[{host}]:{port}{vhost}")
    } else {
        format!("{host}:{port}{vhost}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_address_shows_no_password(
            scheme in "amqps?|http|",
            rest in "[a-z0-9.:/?&=%@\\[\\]-]{0,40}|\\PC{0,20}",
        ) {
            let url = Secret::new(format!("{scheme}://joe:canary-password@{rest}"));
            prop_assert!(!address(&url).contains("canary"), "{}", address(&url));
        }
    }

    #[test]
    fn a_parameter_that_cannot_be_read_is_named_and_not_its_value() {
        let said = |url| unreadable(&Secret::new(url));
        let heartbeat = "amqp://u:p@mq/x?frame_max=4096&heartbeat=canary";
        assert_eq!(
            said(heartbeat),
            "AMQP_URL has a wrong value of heartbeat: expected amqp://user:password@host:5672/vhost (default: none)"
        );
        assert!(
            said("amqp://u:%zz@mq/x?heartbeat=5").starts_with("AMQP_URL cannot be read (write / ")
        );
    }

    #[test]
    fn what_is_not_found_without_tls_is_waited_for() {
        let not_found = || io::Error::from(io::ErrorKind::NotFound).into();
        let plain = explain(not_found(), &AMQPScheme::AMQP);
        assert!(matches!(plain, BrokerError::Lost(_)), "{plain}");
        let over_tls = explain(not_found(), &AMQPScheme::AMQPS);
        assert!(matches!(over_tls, BrokerError::Refused(_)), "{over_tls}");
    }
}
