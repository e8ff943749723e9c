//! Generated input: nothing panics, and what is an event to the decoder is the same event to others.

use proptest::prelude::*;
use serde_json::Value;

use super::schemas::schema_accepts;
use super::*;

/// Any JSON, shallow and small.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[A-Z0-9:.+TZ-]{0,30}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 20, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((any::<String>(), inner), 0..5)
                .prop_map(|entries| entries.into_iter().collect()),
        ]
    })
}

/// Replaces the `n`th value of a tree, counted depth first.
fn replace_nth(value: &mut Value, n: &mut usize, with: &Value) -> bool {
    if *n == 0 {
        *value = with.clone();
        return true;
    }
    *n -= 1;
    match value {
        Value::Object(fields) => fields.values_mut().any(|value| replace_nth(value, n, with)),
        _ => false,
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_do_not_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode_body(&body);
    }

    #[test]
    fn arbitrary_json_does_not_panic(json in any_json()) {
        let _ = decode_body(json.to_string().as_bytes());
    }

    #[test]
    fn mutated_bytes_are_what_another_parser_reads_or_are_rejected(
        fixture in prop::sample::select(events().into_iter().map(|f| f.body).collect::<Vec<_>>()),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in any::<prop::sample::Index>(),
        whole in any::<bool>(),
    ) {
        let mut body = fixture;
        for (index, byte) in changes {
            let index = index.index(body.len());
            body[index] = byte;
        }
        if !whole {
            body.truncate(cut.index(body.len()));
        }
        if let Ok(event) = decode_body(&body) {
            let json = serde_json::from_slice::<Value>(&body).unwrap().to_string();
            prop_assert_eq!(decode_body(json.as_bytes()).unwrap(), event);
        }
    }

    #[test]
    fn mutated_events_keep_the_schema_or_are_rejected(
        fixture in prop::sample::select(events().iter().map(Fixture::json).collect::<Vec<_>>()),
        index in 0..30_usize,
        value in any_json(),
    ) {
        let mut event = fixture;
        replace_nth(&mut event, &mut index.clone(), &value);
        if decode_body(event.to_string().as_bytes()).is_ok() {
            prop_assert!(schema_accepts(&event));
        }
    }

    #[test]
    fn amounts_are_exact(base in 0..1_000_000_000_i64, taxes in 0..1_000_000_000_i64) {
        let amount = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
        let mut event = event("booking_is_made");
        event["data"]["price"]["base"] = amount(base).into();
        event["data"]["price"]["taxes"] = amount(taxes).into();
        event["data"]["price"]["total"] = amount(base + taxes).into();
        prop_assert!(decode_body(event.to_string().as_bytes()).is_ok());
        event["data"]["price"]["total"] = amount(base + taxes + 1).into();
        prop_assert_eq!(rejection(&event).reason.as_str(), "total_mismatch");
    }

    /// chrono's own RFC 3339 reader agrees, within the range and but for leap seconds.
    #[test]
    fn instants_agree_with_chrono(micros in 0..4_102_444_800_000_000_i64, offset in -1439..1440_i32) {
        let offset = chrono::FixedOffset::east_opt(offset * 60).unwrap();
        let instant = chrono::DateTime::from_timestamp_micros(micros).unwrap();
        let text = instant.with_timezone(&offset).to_rfc3339();
        let mut event = event("booking_is_made");
        event["time"] = text.into();
        let body = event.to_string();
        prop_assert_eq!(decode_body(body.as_bytes()).unwrap().time, instant);
    }
}
