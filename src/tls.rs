//! Failed TLS handshakes that trying again cannot mend.

use std::io;

use rustls::{AlertDescription, Error};

/// What is wrong with the other side, unless trying again may help.
pub fn refusal(error: &io::Error) -> Option<&'static str> {
    match error.get_ref()?.downcast_ref::<Error>()? {
        Error::InvalidCertificate(_) => Some("its certificate is refused"),
        Error::InvalidMessage(_) => Some("it does not speak TLS there"),
        // A server in trouble says this, also while it goes down.
        Error::AlertReceived(AlertDescription::InternalError) => None,
        Error::PeerIncompatible(_) | Error::AlertReceived(_) => Some("it refuses our TLS"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_no_refusal() {
        let said = |error| refusal(&io::Error::new(io::ErrorKind::InvalidData, error));
        let expired = rustls::CertificateError::Expired;
        assert!(said(Error::InvalidCertificate(expired)).is_some());
        assert!(said(Error::AlertReceived(AlertDescription::ProtocolVersion)).is_some());
        assert_eq!(
            said(Error::AlertReceived(AlertDescription::InternalError)),
            None
        );
        assert_eq!(refusal(&io::ErrorKind::ConnectionReset.into()), None);
        assert_eq!(refusal(&io::ErrorKind::UnexpectedEof.into()), None);
    }
}
