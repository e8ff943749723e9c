//! Why an event is not applied.

use serde::Serialize;

use super::closed_list::codes;

codes! {
    /// The rule that a message breaks. The codes are a public contract: they stand in
    /// `quarantined_events.reason`.
    pub enum Reason {
        /// The body is larger than 256 KiB.
        BodyTooLarge = "body_too_large",
        /// The content type is neither `application/cloudevents+json` nor `application/json` in UTF-8, or `datacontenttype` is not exactly `application/json`.
        UnsupportedContentType = "unsupported_content_type",
        /// The content encoding says that the body is compressed or otherwise transformed.
        UnsupportedContentEncoding = "unsupported_content_encoding",
        /// The body is not UTF-8.
        InvalidUtf8 = "invalid_utf8",
        /// The body starts with a byte order mark.
        ByteOrderMark = "byte_order_mark",
        /// The body is not one JSON value and nothing else.
        InvalidJson = "invalid_json",
        /// An object holds the same key twice.
        DuplicateKey = "duplicate_key",
        /// Objects and arrays are nested too deep.
        NestedTooDeep = "nested_too_deep",
        /// `specversion` is not "1.0".
        UnsupportedSpecversion = "unsupported_specversion",
        /// `type` is none of the four event types.
        UnknownType = "unknown_type",
        /// `type` is one of the event types in a version that this release does not read.
        UnsupportedVersion = "unsupported_version",
        /// The routing key differs from `type`.
        RoutingKeyMismatch = "routing_key_mismatch",
        /// The message's `message_id` differs from the event's `id`.
        MessageIdMismatch = "message_id_mismatch",
        /// A required field is absent.
        MissingField = "missing_field",
        /// A required field is null.
        NullField = "null_field",
        /// A value is of another JSON type than its field.
        WrongType = "wrong_type",
        /// A text is empty; a field that says nothing is left out.
        EmptyText = "empty_text",
        /// A text is longer than its field allows.
        TextTooLong = "text_too_long",
        /// A text holds a control character.
        ControlCharacter = "control_character",
        /// A text holds a zero-width space, a byte order mark or a character that overrides the writing direction.
        InvisibleCharacter = "invisible_character",
        /// A text begins or ends with white space.
        SurroundingSpace = "surrounding_space",
        /// A key, code or reference does not have the form of its field.
        InvalidFormat = "invalid_format",
        /// A value is not on the closed list of its field.
        UnknownValue = "unknown_value",
        /// A currency is not an ISO 4217 code with a minor unit.
        UnknownCurrency = "unknown_currency",
        /// A country is not an ISO 3166 alpha-2 code.
        UnknownCountry = "unknown_country",
        /// A number, date or time lies outside the range of its field.
        OutOfRange = "out_of_range",
        /// A time is not RFC 3339 with capital T and an offset or capital Z, is a leap second, or does not exist.
        InvalidTimestamp = "invalid_timestamp",
        /// A date is not `YYYY-MM-DD`, or does not exist.
        InvalidDate = "invalid_date",
        /// An amount is not a plain decimal number.
        InvalidDecimal = "invalid_decimal",
        /// An amount is negative.
        NegativeAmount = "negative_amount",
        /// An amount has more decimals than its currency.
        TooManyDecimals = "too_many_decimals",
        /// `price.total` is not `price.base` plus `price.taxes`.
        TotalMismatch = "total_mismatch",
        /// A cancelled booking does not say when it was cancelled.
        CancelledAtMissing = "cancelled_at_missing",
        /// A booking that is not cancelled says when it was.
        CancelledAtUnexpected = "cancelled_at_unexpected",
        /// A booking was cancelled before it was made.
        CancelledBeforeBooked = "cancelled_before_booked",
        /// A flight ends where it begins.
        SameAirport = "same_airport",
        /// A flight does not arrive after it departs.
        ArrivalNotAfterDeparture = "arrival_not_after_departure",
        /// A flight takes longer than 24 hours.
        FlightTooLong = "flight_too_long",
        /// The seats by cabin do not add up to the total.
        CapacityMismatch = "capacity_mismatch",
        /// Another content came first under the same version.
        VersionConflict = "version_conflict",
        /// The database refuses the row; the quarantine row says with which SQLSTATE.
        RefusedByDatabase = "refused_by_database",
    }
}

/// A message that breaks the contract: which rule, where, and what is expected there.
///
/// It never holds a value of the message, nor the name of a field that the contract does not know:
/// both may be personal data, and this text goes to tables and logs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("{path}: {reason}: {detail}")]
pub struct Rejected {
    /// The rule that is broken.
    pub reason: Reason,
    /// JSON path of the value, such as `$.data.price.total`.
    pub path: String,
    /// What the contract expects there.
    pub detail: String,
}
