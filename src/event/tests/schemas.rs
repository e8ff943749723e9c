//! The generated documents, judged by an independent validator.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::event::{Currency, Kind, Reason, SchemaKind, asyncapi, json_schema};

static BOOKING: LazyLock<Validator> =
    LazyLock::new(|| validator(&json_schema(SchemaKind::Booking)));
static FLIGHT: LazyLock<Validator> = LazyLock::new(|| validator(&json_schema(SchemaKind::Flight)));

fn validator(schema: &Value) -> Validator {
    jsonschema::meta::validate(schema).unwrap();
    jsonschema::options()
        .should_validate_formats(true)
        .build(schema)
        .unwrap()
}

/// What a producer does who validates against the schema of the events that it publishes.
pub(super) fn schema_accepts(event: &Value) -> bool {
    BOOKING.is_valid(event) || FLIGHT.is_valid(event)
}

#[test]
fn schemas_accept_every_event() {
    for fixture in events() {
        let event = fixture.json();
        let is_booking = event["type"]
            .as_str()
            .unwrap()
            .starts_with("airline.booking.");
        let validator = if is_booking { &BOOKING } else { &FLIGHT };
        let errors: Vec<_> = validator
            .iter_errors(&event)
            .map(|e| e.to_string())
            .collect();
        assert!(errors.is_empty(), "{}: {errors:?}", fixture.name);
        assert_ne!(
            BOOKING.is_valid(&event),
            FLIGHT.is_valid(&event),
            "{}",
            fixture.name
        );
    }
}

#[test]
fn schemas_reject_what_the_index_says_they_reject() {
    for fixture in rejected() {
        let rejects =
            serde_json::from_slice(&fixture.body()).is_ok_and(|event| !schema_accepts(&event));
        assert_eq!(rejects, fixture.schema_rejects, "{}", fixture.file);
    }
}

/// The rules of a field in both forms: what the schema says and what the decoder does.
fn assert_agree(name: &str, path: &str, value: Value) -> Result<(), TestCaseError> {
    let changed = with(&event(name), path, value);
    let body = changed.to_string();
    let decoded = decode_body(body.as_bytes());
    prop_assert_eq!(
        decoded.is_ok(),
        schema_accepts(&changed),
        "{} {:?}",
        path,
        decoded.map(|e| e.kind)
    );
    Ok(())
}

/// Texts near the border between good and bad.
fn text() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -~]{0,4}",
        "[A-Z0-9]{0,15}",
        "[0-9]{0,14}",
        "[A-Za-z0-9._:/?#\\[\\]@!$&'()*+,;=%-]{0,6}",
        "[a-c\u{0}-\u{20}\u{7f}-\u{a0}\u{1680}\u{2000}-\u{202f}\u{205f}\u{2060}-\u{206f}\u{3000}\u{feff}😀]{1,3}",
        any::<String>(),
    ]
}

proptest! {
    #[test]
    fn schema_and_decoder_agree_on_texts(
        path in prop::sample::select(vec![
            "id", "source", "subject", "dataschema", "partitionkey", "data.booking_id", "data.reference",
            "data.ticket_number", "data.flight_id", "data.journey.origin", "data.passenger.name",
            "data.booking_class", "data.fare_basis", "data.seat", "data.point_of_sale",
        ]),
        text in text(),
    ) {
        assert_agree("booking_is_made", path, text.into())?;
    }

    #[test]
    fn schema_and_decoder_agree_on_flights(
        path in prop::sample::select(vec![
            "data.flight_id", "data.airline", "data.flight_number", "data.suffix", "data.aircraft.type",
        ]),
        text in text(),
    ) {
        assert_agree("flight_is_scheduled", path, text.into())?;
    }

    #[test]
    fn schema_and_decoder_agree_on_codes(airline in "[A-Z0-9a]{1,3}", number in "[0-9]{1,5}", class in "[A-Zb]") {
        assert_agree("flight_is_scheduled", "data.airline", airline.into())?;
        assert_agree("flight_is_scheduled", "data.flight_number", number.into())?;
        assert_agree("booking_is_made", "data.booking_class", class.into())?;
    }

    #[test]
    fn schema_and_decoder_agree_on_numbers(number in prop_oneof![-3..8_i64, 998..1003_i64, any::<i64>()]) {
        assert_agree("booking_is_made", "data.version", number.into())?;
        assert_agree("booking_is_made", "data.coupon", number.into())?;
        assert_agree("flight_has_a_smaller_aircraft", "data.capacity.total", number.into())?;
    }

    #[test]
    fn schema_and_decoder_agree_on_amounts(
        amount in prop_oneof!["-?[0-9]{1,3}(\\.[0-9]{0,6})?", "[0-9]{10,14}(\\.[0-9]{1,5})?", "[0-9.,eE+ -]{0,6}"],
        currency in prop::sample::select(Currency::all().iter().map(|c| c.as_str()).collect::<Vec<_>>()),
    ) {
        let price = json!({ "base": amount, "taxes": "0", "total": amount, "currency": currency });
        assert_agree("booking_is_made", "data.price", price)?;
    }

    #[test]
    fn schema_and_decoder_agree_on_times(
        date in "(1969|1970|2026|2024|2099|2100)-(0[0-9]|1[0-3])-([0-2][0-9]|3[0-2])",
        clock in "[T ]([01][0-9]|2[0-4]):[0-6][0-9]:[0-6][0-9](\\.[0-9]{0,9})?",
        offset in prop_oneof!["Z", "[+-]([01][0-9]|2[0-4]):[0-6][0-9]", "[z+-]?[0-9]{0,4}"],
    ) {
        let year: i32 = date[..4].parse().unwrap();
        assert_agree("booking_is_made", "data.travel_date", date.as_str().into())?;
        // At the two ends the offset decides, which a pattern cannot compute.
        if (1971..2099).contains(&year) {
            assert_agree("booking_is_made", "time", format!("{date}{clock}{offset}").into())?;
        }
    }
}

/// RE2 (Go) and PCRE2 (PHP) know no `\u`, and no repetition of more than 1000 times.
#[test]
fn patterns_stand_in_what_all_engines_read() {
    let mut patterns = vec![];
    collect("pattern", &asyncapi(), &mut patterns);
    let distinct: BTreeSet<_> = patterns.into_iter().collect();
    assert!(distinct.len() > 10, "{distinct:?}");
    for pattern in distinct {
        assert!(!pattern.contains(r"\u"), "{pattern}");
        for counted in pattern.split('{').skip(1) {
            let most = counted
                .split(['}', ','])
                .filter_map(|n| n.parse::<u32>().ok())
                .max();
            assert!(most.is_none_or(|most| most <= 1000), "{pattern}");
        }
    }
}

#[test]
fn producers_are_told_what_a_schema_does_not_see() {
    for kind in [SchemaKind::Booking, SchemaKind::Flight] {
        assert!(
            json_schema(kind)["description"]
                .as_str()
                .unwrap()
                .contains("`format`")
        );
    }
    assert!(
        asyncapi()["info"]["description"]
            .as_str()
            .unwrap()
            .contains("`format`")
    );
}

#[test]
fn asyncapi_says_which_routing_key_to_publish_with() {
    let channel = &asyncapi()["channels"]["events"];
    assert_eq!(channel["address"], "{type}");
    assert_eq!(channel["parameters"]["type"]["enum"], json!(Kind::ALL));
}

#[test]
fn asyncapi_references_resolve_and_examples_hold() {
    let document = asyncapi();
    assert_eq!(document["asyncapi"], "3.0.0");
    assert!(document["info"]["title"].is_string() && document["info"]["version"].is_string());
    let mut references = vec![];
    collect("$ref", &document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
    let messages = document["components"]["messages"].as_object().unwrap();
    assert_eq!(messages.len(), Kind::ALL.len());
    for (name, message) in messages {
        let validator = validator(&message["payload"]);
        let example = &message["examples"][0]["payload"];
        assert!(validator.is_valid(example), "{name}");
        assert_eq!(message["name"], example["type"]);
        let body = example.to_string();
        decode_body(body.as_bytes()).unwrap();
    }
    let description = document["info"]["description"].as_str().unwrap();
    for reason in Reason::ALL {
        assert!(
            description.contains(&format!("| `{reason}` | ")),
            "{reason}"
        );
    }
}

/// The texts of a name, wherever they stand.
fn collect(wanted: &str, value: &Value, into: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value {
                    Value::String(text) if name == wanted => into.push(text.clone()),
                    _ => collect(wanted, value, into),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(wanted, item, into)),
        _ => {}
    }
}
