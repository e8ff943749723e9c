//! The messages of the corpus that each kind of event has.

use std::collections::BTreeMap;

use paxflow::event::BODY_BYTES_MAX;
use serde_json::{Value, json};

use crate::events::{booking, flight};
use crate::raw::{CORRELATION_ID, EXPIRATION, MESSAGE_ID, PRIORITY, short};

/// A place for a value in the data of an event.
struct Field {
    path: &'static str,
    data: fn(Value) -> Value,
}

/// A kind of event, with a field for each kind of value.
struct Kind {
    name: &'static str,
    event: fn(Value) -> Value,
    key: &'static str,
    required: &'static [&'static str],
    time: Field,
    text: Field,
    airport: Field,
    count: Field,
    cabin: Field,
}

static KINDS: [Kind; 2] = [
    Kind {
        name: "booking",
        event: booking,
        key: "booking_id",
        required: &[
            "booking_id",
            "version",
            "reference",
            "flight_id",
            "booked_at",
            "cabin",
            "booking_class",
            "price",
            "payment_status",
            "status",
        ],
        time: Field {
            path: "booked_at",
            data: |value| json!({ "booked_at": value }),
        },
        text: Field {
            path: "channel",
            data: |value| json!({ "channel": value }),
        },
        airport: Field {
            path: "journey.origin",
            data: |value| json!({ "journey": { "origin": value, "destination": "JFK" } }),
        },
        count: Field {
            path: "coupon",
            data: |value| json!({ "coupon": value }),
        },
        cabin: Field {
            path: "cabin",
            data: |value| json!({ "cabin": value }),
        },
    },
    Kind {
        name: "flight",
        event: flight,
        key: "flight_id",
        required: &[
            "flight_id",
            "version",
            "airline",
            "flight_number",
            "origin",
            "destination",
            "scheduled_departure",
            "scheduled_arrival",
            "status",
        ],
        time: Field {
            path: "estimated_departure",
            data: |value| json!({ "estimated_departure": value }),
        },
        text: Field {
            path: "aircraft.registration",
            data: |value| json!({ "aircraft": { "registration": value } }),
        },
        airport: Field {
            path: "origin",
            data: |value| json!({ "origin": value }),
        },
        count: Field {
            path: "capacity.total",
            data: |value| json!({ "capacity": { "total": value } }),
        },
        cabin: Field {
            path: "capacity.by_cabin",
            data: |value| json!({ "capacity": { "total": 1, "by_cabin": { (value.as_str().unwrap()): 1 } } }),
        },
    },
];

/// What has to become of a message: it is applied, or set aside for a reason at a path.
pub type Expected = Option<(&'static str, String)>;

/// A message of the corpus.
pub struct Case {
    pub number: u8,
    pub body: Vec<u8>,
    pub content_type: &'static str,
    pub content_encoding: Option<&'static str>,
    pub properties: Vec<(u16, Vec<u8>)>,
    pub routing_key: Option<&'static str>,
    pub expected: Expected,
}

/// The messages of every kind, with the name of the kind.
pub fn all() -> Vec<(&'static str, Case)> {
    let of = |kind: &'static Kind| Corpus::of(kind).into_iter().map(|case| (kind.name, case));
    KINDS.iter().flat_map(of).collect()
}

/// The messages of one kind.
struct Corpus<'k> {
    kind: &'k Kind,
    cases: Vec<Case>,
}

impl Corpus<'_> {
    fn of(kind: &Kind) -> Vec<Case> {
        let mut corpus = Corpus {
            kind,
            cases: Vec::new(),
        };
        corpus.shapes();
        corpus.encodings();
        corpus.fields();
        corpus.codes();
        corpus.numbers();
        corpus.times();
        corpus.hostile();
        corpus.properties();
        corpus.cases
    }

    /// An event that no other case has.
    fn event(&self, data: Value) -> Value {
        let key = format!("C{}", self.cases.len());
        let mut event = (self.kind.event)(json!({ (self.kind.key): key }));
        event["data"]
            .as_object_mut()
            .unwrap()
            .extend(data.as_object().unwrap().clone());
        event
    }

    fn plain(&self) -> String {
        self.event(json!({})).to_string()
    }

    fn push(&mut self, number: u8, body: impl Into<Vec<u8>>, expected: Expected) -> &mut Case {
        self.cases.push(Case {
            number,
            body: body.into(),
            content_type: paxflow::event::CONTENT_TYPE,
            content_encoding: None,
            properties: Vec::new(),
            routing_key: None,
            expected,
        });
        self.cases.last_mut().unwrap()
    }

    fn broken(&mut self, number: u8, body: impl Into<Vec<u8>>, reason: &'static str) {
        self.push(number, body, Some((reason, "$".to_owned())));
    }

    fn accepted(&mut self, number: u8, data: Value) {
        let body = self.event(data).to_string();
        self.push(number, body, None);
    }

    fn rejected(&mut self, number: u8, data: Value, reason: &'static str, path: &str) {
        let body = self.event(data).to_string();
        self.push(number, body, Some((reason, format!("$.data.{path}"))));
    }

    fn shapes(&mut self) {
        let text = self.plain();
        self.broken(1, "", "invalid_json");
        self.broken(2, " \t\r\n", "invalid_json");
        self.broken(3, "null", "null_field");
        self.broken(4, "[]", "wrong_type");
        self.broken(5, "\"str\"", "wrong_type");
        self.broken(6, "42", "wrong_type");
        self.broken(7, &text.as_bytes()[..text.len() / 2], "invalid_json");
        self.broken(8, format!("{text}x"), "invalid_json");
        self.broken(9, format!("{text}{text}"), "invalid_json");
        let twice = text.replacen('{', "{\"id\":\"other\",", 1);
        self.broken(16, twice, "duplicate_key");
        self.accepted(17, json!({ "not_in_the_contract": { "a": [1, null] } }));
        let (key, other) = (self.kind.key, self.kind.key.to_uppercase());
        let missing = Some(("missing_field", format!("$.data.{key}")));
        self.push(18, text.replace(key, &other), missing.clone());
        for levels in [127, 128, 129, 100_000] {
            let nested = format!("{}{}", "[".repeat(levels), "]".repeat(levels));
            let body = text.replacen('{', &format!("{{\"extra\":{nested},"), 1);
            self.broken(25, body, "nested_too_deep");
        }
        let sized = |bytes: usize| format!("{text}{}", " ".repeat(bytes - text.len()));
        self.broken(26, sized(BODY_BYTES_MAX + 1), "body_too_large");
        self.broken(
            26,
            text.replacen('{', &format!("{{\"a\":\"{}\",", "a".repeat(1 << 20)), 1),
            "body_too_large",
        );
        self.broken(27, sized(10 << 20), "body_too_large");
        let million = format!("[{}0]", "0,".repeat(999_999));
        self.broken(28, million, "body_too_large");
        self.accepted(28, json!({ "extra": vec![0; 100_000] }));
        let keys: BTreeMap<_, _> = (0..15_000)
            .map(|number| (format!("k{number}"), number))
            .collect();
        self.accepted(29, json!({ "extra": keys }));
        let mut largest = self.plain();
        largest.push_str(&" ".repeat(BODY_BYTES_MAX - largest.len()));
        self.push(26, largest, None);
        let spaced = self.plain().replace(',', ",\r\n");
        self.push(118, spaced, None);
        let with_line_end = self.plain().replace(key, &format!("{key}\\r\\n"));
        self.push(118, with_line_end, missing);
    }

    fn encodings(&mut self) {
        let text = self.plain();
        self.broken(
            10,
            [b"\xef\xbb\xbf", text.as_bytes()].concat(),
            "byte_order_mark",
        );
        let utf_16 = [0xfeff]
            .into_iter()
            .chain(text.encode_utf16())
            .flat_map(u16::to_le_bytes);
        self.broken(11, utf_16.collect::<Vec<_>>(), "invalid_utf8");
        let gzip = [b"\x1f\x8b\x08\0\0\0\0\0\0\xff", text.as_bytes()].concat();
        self.broken(12, gzip.clone(), "invalid_utf8");
        for number in [12, 116] {
            let expected = Some(("unsupported_content_encoding", "$".to_owned()));
            self.push(number, gzip.clone(), expected).content_encoding = Some("gzip");
        }
        let random: Vec<u8> = (0..1024_u32)
            .map(|at| (at.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        self.broken(13, random, "invalid_utf8");
        let marker = "MARK";
        let marked = self.event((self.kind.text.data)(json!(marker))).to_string();
        for (number, bytes, reason) in [
            (30, &b"\xff"[..], "invalid_utf8"),
            (31, b"\xc0\x80", "invalid_utf8"),
            (32, b"\xed\xa0\x80", "invalid_utf8"),
            (32, b"\\ud800", "invalid_json"),
            (34, b"\x01", "invalid_json"),
        ] {
            let (before, after) = marked.split_once(marker).unwrap();
            let body = [before.as_bytes(), bytes, after.as_bytes()].concat();
            self.broken(number, body, reason);
        }
        let (text, path) = (self.kind.text.data, self.kind.text.path);
        for (number, value, reason) in [
            (33, "a\0b", "control_character"),
            (34, "a\u{1}b", "control_character"),
            (34, "a\u{1f}b", "control_character"),
            (34, "a\u{7f}b", "control_character"),
            (105, "a\nb", "control_character"),
            (105, "a\u{1b}[31mb", "control_character"),
            (35, "a\u{202e}b", "invisible_character"),
            (35, "a\u{200b}b", "invisible_character"),
            (35, "\u{feff}ab", "invisible_character"),
            (100, "", "empty_text"),
        ] {
            self.rejected(number, text(json!(value)), reason, path);
        }
        self.accepted(33, json!({ "extra": "a\0b" }));
        self.accepted(36, text(json!("👩‍✈️ née".replace('\u{200d}', ""))));
        self.accepted(100, json!({}));
    }

    fn fields(&mut self) {
        for name in self.kind.required {
            let mut event = self.event(json!({}));
            event["data"].as_object_mut().unwrap().remove(*name);
            self.push(
                19,
                event.to_string(),
                Some(("missing_field", format!("$.data.{name}"))),
            );
            self.rejected(20, json!({ (*name): null }), "null_field", name);
        }
        let key = self.kind.key;
        self.rejected(21, json!({ "version": "1" }), "wrong_type", "version");
        self.rejected(22, json!({ (key): 42 }), "wrong_type", key);
        self.rejected(23, json!({ (key): true }), "wrong_type", key);
        let mut list = self.event(json!({}));
        list["data"] = json!([]);
        self.push(
            24,
            list.to_string(),
            Some(("wrong_type", "$.data".to_owned())),
        );
        for (number, value) in [
            (33, "a\0b"),
            (98, "é"),
            (98, "e\u{301}"),
            (98, "A 1"),
            (101, "'; DROP TABLE bookings;--"),
            (105, "A\n1"),
        ] {
            self.rejected(number, json!({ (key): value }), "invalid_format", key);
        }
        self.accepted(98, json!({ (key): "case" }));
        self.accepted(98, json!({ (key): "CASE" }));
        for number in [99, 113] {
            self.rejected(
                number,
                json!({ (key): "a".repeat(300) }),
                "invalid_format",
                key,
            );
        }
        let status = self.event(json!({ "status": "no_such_status" }));
        self.push(
            51,
            status.to_string(),
            Some(("unknown_value", "$.data.status".to_owned())),
        );
        // The key of the other kind's data; a booking names its flight as well.
        let (other, missing) = match self.kind.name {
            "booking" => ("flight", "airline"),
            _ => ("booking", "booking_id"),
        };
        let of_type = |corpus: &Self, name: String| {
            let mut event = corpus.event(json!({}));
            event["type"] = json!(name);
            event.to_string()
        };
        let body = of_type(self, format!("airline.{other}.upserted.v1"));
        let expected = Some(("missing_field", format!("$.data.{missing}")));
        self.push(120, body, expected);
        for version in ["v0", "v999"] {
            let body = of_type(
                self,
                format!("airline.{}.upserted.{version}", self.kind.name),
            );
            let expected = Some(("unsupported_version", "$.type".to_owned()));
            self.push(119, body, expected);
        }
    }

    fn codes(&mut self) {
        let (airport, path) = (self.kind.airport.data, self.kind.airport.path);
        for (number, value) in [
            (37, "lhr"),
            (38, " LHR "),
            (39, "LH"),
            (39, "LHRX"),
            (39, ""),
            (40, "АВС"),
            (41, "ＬＨＲ"),
            (42, "ıst"),
            (42, "LHß"),
            (43, "LHR\n"),
        ] {
            self.rejected(number, airport(json!(value)), "invalid_format", path);
        }
        self.accepted(45, airport(json!("ZZZ")));
        if self.kind.name == "flight" {
            self.rejected(
                44,
                json!({ "origin": "PHX" }),
                "same_airport",
                "destination",
            );
        } else {
            self.accepted(44, airport(json!("JFK")));
        }
        let (cabin, path) = (self.kind.cabin.data, self.kind.cabin.path);
        self.rejected(50, cabin(json!("Z9")), "unknown_value", path);
    }

    fn numbers(&mut self) {
        for literal in ["NaN", "Infinity", "-Infinity"] {
            let body = self
                .plain()
                .replacen("\"version\":1", &format!("\"version\":{literal}"), 1);
            self.broken(52, body, "invalid_json");
        }
        let (count, path) = (self.kind.count.data, self.kind.count.path);
        self.rejected(53, count(json!("NaN")), "wrong_type", path);
        for value in [
            json!(0),
            json!(1001),
            json!(1_u64 << 31),
            json!(1_u64 << 63),
            json!(-1),
        ] {
            self.rejected(65, count(value), "out_of_range", path);
        }
        self.rejected(65, count(json!(1.5)), "wrong_type", path);
        for value in [json!(0), json!(-1), json!(1_u64 << 63)] {
            self.rejected(67, json!({ "version": value }), "out_of_range", "version");
        }
        self.accepted(67, json!({ "version": i64::MAX }));
    }

    fn times(&mut self) {
        let (time, path) = (self.kind.time.data, self.kind.time.path);
        for (number, value) in [
            (68, "2025-02-29T00:00:00Z"),
            (70, "2025-13-01T00:00:00Z"),
            (70, "2025-00-10T00:00:00Z"),
            (71, "2025-01-01T24:00:00Z"),
            (72, "2016-12-31T23:59:60Z"),
            (73, "2025-01-01T00:00:00"),
            (74, "2025-01-01T00:00:00+25:00"),
            (75, "2025-03-30T02:30:00[Europe/Berlin]"),
            (78, "+262142-01-01T00:00:00Z"),
            (78, "294277-01-01T00:00:00Z"),
            (79, "infinity"),
            (117, "2025-01-01T00:00:00 Europe/London"),
        ] {
            self.rejected(number, time(json!(value)), "invalid_timestamp", path);
        }
        for (number, year) in [
            (77, "1969"),
            (77, "1900"),
            (77, "0001"),
            (77, "0000"),
            (78, "2100"),
            (78, "9999"),
        ] {
            let value = format!("{year}-01-01T00:00:00Z");
            self.rejected(number, time(json!(value)), "out_of_range", path);
        }
        self.rejected(80, time(json!(1_767_584_628_121_i64)), "wrong_type", path);
        for (number, value) in [
            (69, "2024-02-29T00:00:00Z"),
            (74, "2025-01-01T00:00:00+14:00"),
            (74, "2025-01-01T00:00:00-12:00"),
            (76, "1970-01-01T00:00:00Z"),
            (78, "2099-12-31T00:00:00Z"),
            (81, "2025-01-01T00:00:00.123456789Z"),
            (81, "2025-01-01T00:00:00.123456Z"),
            (84, "2026-12-01T00:00:00Z"),
        ] {
            self.accepted(number, time(json!(value)));
        }
        let mut late = self.event(json!({}));
        late["time"] = json!("2099-01-01T00:00:00Z");
        self.push(85, late.to_string(), None);
    }

    fn hostile(&mut self) {
        let text = self.kind.text.data;
        for (number, value) in [
            (101, "'; DROP TABLE bookings;--"),
            (102, "$1"),
            (102, "%s"),
            (102, "{{7*7}}"),
            (102, "${jndi:ldap://x}"),
            (103, "=CMD()"),
            (103, "+1"),
            (103, "@x"),
            (104, "<script>alert(1)</script>"),
        ] {
            self.accepted(number, text(json!(value)));
        }
        self.accepted(113, text(json!("a".repeat(200_000))));
        // As many keys as fit, which a weak hash would put into one bucket.
        let keys: BTreeMap<_, _> = (0..10_000)
            .map(|number| (format!("Aa{:08b}BB", number), 0))
            .collect();
        self.accepted(114, json!({ "extra": keys }));
    }

    fn properties(&mut self) {
        let body = self.plain();
        let at = |reason, path: &str| Some((reason, path.to_owned()));
        self.push(14, body.clone(), at("unsupported_content_type", "$"))
            .content_type = "text/xml";
        let elsewhere = self.push(15, body.clone(), at("routing_key_mismatch", "$.type"));
        elsewhere.routing_key = Some("airline.seatmap.upserted.v1");
        let spoofed = self.push(107, body, at("message_id_mismatch", "$.id"));
        spoofed
            .properties
            .push((MESSAGE_ID, short(b"somebody-else")));
        let body = self.plain();
        let odd = self.push(108, body, None);
        odd.properties = vec![(PRIORITY, vec![255]), (EXPIRATION, short(b"3600000"))];
        let body = self.plain();
        let foreign = self.push(109, body, None);
        foreign
            .properties
            .push((CORRELATION_ID, short(b"another tenant")));
    }
}
