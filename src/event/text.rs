//! Texts, keys and codes of the contract: strings that keep a rule.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::contract::Contract;
use super::digest::{Digest, Hashed};
use super::json::{Decode, Node, Path};
use super::reason::{Reason, Rejected};

/// What a rule answers: the broken rule and what it expects instead.
type Checked = Result<(), (Reason, &'static str)>;

/// A string that keeps a rule: `check` for the decoder, `schema` for producers.
macro_rules! text_type {
    (
        $(#[$meta:meta])+
        $name:ident, check: $check:expr, schema: $schema:expr
    ) => {
        $(#[$meta])+
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name<'a>(Cow<'a, str>);

        impl<'a> $name<'a> {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// The text itself.
            pub fn into_inner(self) -> Cow<'a, str> {
                self.0
            }
        }

        impl<'a> Decode<'a> for $name<'a> {
            fn decode(node: Node<'a>, at: &Path<'_>) -> Result<Self, Rejected> {
                let text = node.text(at)?;
                let check: fn(&str) -> Checked = $check;
                match check(&text) {
                    Ok(()) => Ok(Self(text)),
                    Err((reason, expected)) => Err(at.reject(reason, expected)),
                }
            }
        }

        impl<'a> Contract<'a> for $name<'a> {
            fn schema() -> Value {
                $schema
            }
        }

        impl Hashed for $name<'_> {
            fn digest(&self, into: &mut Digest) {
                into.text(&self.0);
            }
        }
    };
}

/// A code or key: `$form` says in words what `$pattern` says to a machine and `$check` to us.
macro_rules! code_type {
    ($(#[$meta:meta])+ $name:ident, $pattern:literal, $form:literal, $check:expr) => {
        text_type! {
            $(#[$meta])+
            #[derive(Debug)]
            $name,
            check: |text| {
                let holds: fn(&[u8]) -> bool = $check;
                if holds(text.as_bytes()) {
                    Ok(())
                } else {
                    Err((Reason::InvalidFormat, concat!("must be ", $form)))
                }
            },
            schema: json!({ "type": "string", "pattern": $pattern })
        }
    };
}

code_type! {
    /// The opaque key of a booking or a flight.
    Key, "^[A-Za-z0-9._:/-]{1,64}$", "1 to 64 of A-Z a-z 0-9 . _ : / -",
    |key| (1..=64).contains(&key.len())
        && key.iter().all(|b| b.is_ascii_alphanumeric() || b"._:/-".contains(b))
}

code_type! {
    /// A record locator: not unique, never a key.
    Reference, "^[A-Z0-9]{5,13}$", "5 to 13 of A-Z 0-9",
    |code| (5..=13).contains(&code.len()) && code.iter().all(|&b| is_upper_or_digit(b))
}

code_type! {
    /// A ticket number.
    TicketNumber, "^[0-9]{13}$", "13 digits",
    |code| code.len() == 13 && code.iter().all(u8::is_ascii_digit)
}

code_type! {
    /// An IATA airport code. Well-formed is enough: an airport that is not known has no time zone,
    /// and MarketData says so.
    Airport, "^[A-Z]{3}$", "an IATA airport code, 3 of A-Z",
    |code| code.len() == 3 && code.iter().all(u8::is_ascii_uppercase)
}

code_type! {
    /// An IATA airline designator.
    Airline, "^([A-Z][A-Z0-9]|[0-9][A-Z])$", "2 of A-Z 0-9, at least one of them a letter",
    |code| code.len() == 2
        && code.iter().all(|&b| is_upper_or_digit(b))
        && code.iter().any(u8::is_ascii_uppercase)
}

code_type! {
    /// A flight number without airline and suffix.
    FlightNumber, "^[1-9][0-9]{0,3}$", "1 to 4 digits without leading zeros",
    |code| (1..=4).contains(&code.len())
        && code.iter().all(u8::is_ascii_digit)
        && code[0] != b'0'
}

code_type! {
    /// One capital letter: a booking class or an operational suffix.
    Letter, "^[A-Z]$", "one of A-Z",
    |code| code.len() == 1 && code[0].is_ascii_uppercase()
}

text_type! {
    /// A URI reference: what RFC 3986 lets stand in one, at most 1024 characters.
    #[derive(Debug)]
    UriReference,
    check: |uri| {
        if is_uri_reference(uri.as_bytes()) {
            Ok(())
        } else {
            Err((Reason::InvalidFormat, "must be a URI reference of at most 1024 characters"))
        }
    },
    // The length stands beside the pattern: some engines know no repetition of more than 1000 times.
    schema: json!({
        "type": "string",
        "pattern": r"^([A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+$",
        "maxLength": URI_CHARS_MAX,
    })
}

const URI_CHARS_MAX: usize = 1024;

text_type! {
    /// Free text.
    #[derive(Debug)]
    Text,
    check: check_text,
    schema: text_schema()
}

text_type! {
    /// Free text that identifies a person: it is kept, and never printed.
    Personal,
    check: check_text,
    schema: text_schema()
}

impl std::fmt::Debug for Personal<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Personal(..)")
    }
}

text_type! {
    /// The id of an event: text of at most 256 characters.
    #[derive(Debug)]
    EventId,
    check: |text| {
        check_text(text)?;
        if text.len() > EVENT_ID_CHARS_MAX && text.chars().count() > EVENT_ID_CHARS_MAX {
            return Err((Reason::TextTooLong, "must have at most 256 characters"));
        }
        Ok(())
    },
    schema: {
        let mut schema = text_schema();
        schema["maxLength"] = EVENT_ID_CHARS_MAX.into();
        schema
    }
}

const EVENT_ID_CHARS_MAX: usize = 256;

fn is_upper_or_digit(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit()
}

fn is_uri_reference(uri: &[u8]) -> bool {
    let mut rest = uri;
    while let [first, after @ ..] = rest {
        rest = match (first, after) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                after
            }
            _ if first.is_ascii_alphanumeric() || b"-._~:/?#[]@!$&'()*+,;=".contains(first) => {
                after
            }
            _ => return false,
        };
    }
    (1..=URI_CHARS_MAX).contains(&uri.len())
}

fn check_text(text: &str) -> Checked {
    if text.is_empty() {
        return Err((
            Reason::EmptyText,
            "must not be empty; leave an optional field out",
        ));
    }
    // Nearly every text is printable ASCII.
    if !text.bytes().all(|b| (b' '..=b'~').contains(&b)) {
        if text.chars().any(char::is_control) {
            return Err((Reason::ControlCharacter, "must not hold control characters"));
        }
        if text.contains(is_invisible) {
            return Err((
                Reason::InvisibleCharacter,
                "must not hold a zero-width space, a byte order mark or overrides of the writing direction",
            ));
        }
    }
    if text.starts_with(char::is_whitespace) || text.ends_with(char::is_whitespace) {
        return Err((
            Reason::SurroundingSpace,
            "must not begin or end with white space; it is not trimmed",
        ));
    }
    Ok(())
}

/// Characters that make two texts look alike, or one read otherwise than it is stored.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}' | '\u{feff}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// `check_text` as a pattern. White space is spelled out, because dialects differ on `\s`, and what is beyond Latin-1 stands as
/// itself, because RE2 and PCRE2 know no `\u`.
fn text_schema() -> Value {
    const FORBIDDEN: &str =
        "\\x00-\\x1f\\x7f-\\x9f\u{200b}\u{feff}\u{202a}-\u{202e}\u{2066}-\u{2069}";
    const SPACE: &str =
        "\\x20\\xa0\u{1680}\u{2000}-\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";
    let pattern = format!("^[^{FORBIDDEN}{SPACE}]([^{FORBIDDEN}]*[^{FORBIDDEN}{SPACE}])?$");
    json!({ "type": "string", "pattern": pattern })
}
