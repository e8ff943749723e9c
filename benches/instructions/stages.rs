//! Does the work of a worker on each event so often, for callgrind to count: decode, fold, and bind as parameters.
//! Built by `benches/instructions/run` as a program of its own, with the modules of this one beside it.

mod apply;
mod batch;
mod event;
mod market;

use std::hint::black_box;

use event::{Delivery, Message};

/// What the sample world publishes, a line each.
const EVENTS: &str = include_str!("events.ndjson");

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [stage, rounds] = arguments.as_slice() else {
        panic!("give a stage and a number of rounds");
    };
    let rounds: usize = rounds.parse().expect("a number of rounds");
    let deliveries: Vec<Delivery> = EVENTS.lines().map(delivery).collect();
    for _ in 0..rounds {
        match stage.as_str() {
            "decode" => deliveries.iter().for_each(decode),
            "fold" => drop(black_box(batch::fold(&deliveries))),
            "bind" => apply::bind(&batch::fold(&deliveries)),
            _ => panic!("there is no stage {stage}"),
        }
    }
    println!("{}", deliveries.len());
}

fn decode(delivery: &Delivery) {
    let message = Message {
        body: &delivery.body,
        exchange: &delivery.exchange,
        routing_key: &delivery.routing_key,
        content_type: delivery.content_type.as_deref(),
        content_encoding: None,
        message_id: delivery.message_id.as_deref(),
    };
    black_box(event::decode(&message).expect("a valid event"));
}

fn delivery(body: &str) -> Delivery {
    let event: serde_json::Value = serde_json::from_str(body).expect("JSON");
    let text = |field: &str| event[field].as_str().map(str::to_owned);
    Delivery {
        body: body.as_bytes().to_vec(),
        exchange: "paxflow.events".to_owned(),
        routing_key: text("type").unwrap_or_default(),
        content_type: Some(event::CONTENT_TYPE.to_owned()),
        message_id: text("id"),
        ..Delivery::default()
    }
}
