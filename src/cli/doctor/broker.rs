//! What could be wrong with the broker.

use anyhow::Result;

use super::Finding;
use crate::broker::{self, Declared, Inspection, Object, Topology};
use crate::config::Config;

/// What an argument of the queue leads to when it differs.
const ARGUMENTS: [(&str, &str); 11] = [
    (
        "x-queue-type",
        "only a quorum queue has its messages on several nodes and counts deliveries",
    ),
    (
        "durable",
        "the queue and its messages are gone after a restart of the broker",
    ),
    (
        "auto_delete",
        "the queue is deleted, with its messages, when the last worker leaves",
    ),
    (
        "x-expires",
        "the queue is deleted, with its messages, when no worker is there for a while",
    ),
    (
        "x-message-ttl",
        "messages that wait too long leave the queue without having been applied",
    ),
    (
        "x-max-length",
        "a full queue drops messages or refuses producers",
    ),
    (
        "x-max-length-bytes",
        "a full queue drops messages or refuses producers",
    ),
    (
        "x-delivery-limit",
        "a message that crashes workers is delivered for ever, or a healthy one is given up too early",
    ),
    (
        "x-dead-letter-exchange",
        "messages that were delivered too often are dropped and not kept",
    ),
    (
        "x-single-active-consumer",
        "one worker consumes and all others wait, or all consume where one at a time should: see PAXFLOW_CONSUMER",
    ),
    (
        "x-dead-letter-strategy",
        "dead letters can be lost on their way",
    ),
];

/// The findings, and how many workers consume.
pub(super) async fn examine(config: &Config) -> Result<(Vec<Finding>, u32)> {
    let topology = Topology::of(config);
    let url = config.amqp_url()?;
    Ok(match broker::inspect(url, &topology).await {
        Ok(inspection) => {
            let consumers = inspection.queue.map_or(0, |queue| queue.consumers);
            (findings(&inspection, &topology), consumers)
        }
        Err(error) => {
            let unreachable = finding(
                "reachable",
                format!("{}: {error}", broker::address(url)),
                "no event arrives",
                "start the broker, or correct AMQP_URL",
            );
            (vec![unreachable], 0)
        }
    })
}

fn finding(
    check: &'static str,
    found: String,
    danger: &'static str,
    remedy: &'static str,
) -> Finding {
    Finding {
        server: "broker",
        check,
        found,
        danger,
        remedy,
    }
}

fn findings(inspection: &Inspection, topology: &Topology) -> Vec<Finding> {
    let mut findings: Vec<_> = inspection.objects.iter().flat_map(of_object).collect();
    if inspection.heartbeat_secs == 0 {
        findings.push(finding(
            "heartbeat",
            "off".to_owned(),
            "a broker that vanishes without a word is never noticed, and the worker waits for ever",
            "take heartbeat=0 out of AMQP_URL, and out of the broker's configuration",
        ));
    }
    if !inspection.takes_messages {
        findings.push(finding(
            "alarm",
            "the broker takes no messages".to_owned(),
            "producers are blocked: memory or disk of the broker is short",
            "look at rabbitmq-diagnostics alarms and free memory or disk",
        ));
    }
    match inspection.queue {
        Some(queue) if queue.consumers == 0 && queue.ready > 0 => findings.push(finding(
            "consumers",
            format!(
                "{} messages wait in {} and nobody consumes",
                queue.ready, topology.queue
            ),
            "MarketData stands still",
            "start paxflow run",
        )),
        _ => {}
    }
    match inspection.dead_letters {
        Some(dead) if dead.ready > 0 => findings.push(finding(
            "dead_letters",
            format!("{} messages in {}", dead.ready, topology.dead_letters()),
            "they were delivered too often and have not been applied",
            "find out why workers crashed, then move them back into the queue, where a version that was applied counts once; what no worker could read (paxflow_deliveries_unreadable_total) the producer has to correct",
        )),
        _ => {}
    }
    findings
}

fn of_object(object: &Object) -> Vec<Finding> {
    let Object {
        kind,
        name,
        declared,
    } = object;
    match declared {
        Declared::AsDeclared => Vec::new(),
        Declared::Missing => vec![finding(
            "missing",
            format!("{kind} {name}"),
            "what is published or dead-lettered there is lost",
            "start paxflow run, which declares it",
        )],
        Declared::Forbidden => vec![finding(
            "permission",
            format!("no permission to configure {kind} {name}"),
            "no worker can start",
            "rabbitmqctl set_permissions: configure, write and read on the exchanges and queues of this program",
        )],
        Declared::Differs(arguments) => arguments
            .iter()
            .map(|argument| {
                let danger = ARGUMENTS.iter().find(|(known, _)| *known == argument.name);
                finding(
                    "arguments",
                    format!("{kind} {name}: {} is {}", argument.name, argument.found),
                    danger.map_or("no worker starts on it", |(_, danger)| *danger),
                    match argument.name.as_str() {
                        "x-single-active-consumer" => "set PAXFLOW_CONSUMER as the queue was made: active or standby where one worker consumes at a time, else shared",
                        _ => "drain and delete it and start paxflow run, or choose another name with PAXFLOW_QUEUE or PAXFLOW_EXCHANGE",
                    },
                )
            })
            .collect(),
    }
}
