//! How fast a worker empties a queue, beside its limits and beside one transaction for each message.

use anyhow::Result;

use crate::Plan;
use crate::events::Events;
use crate::limits;
use crate::load;
use crate::process::Cpu;
use crate::report::{Limit, Report, median};
use crate::rig::{Drained, Place, Servers};

/// Everything that is compared with a drain.
#[derive(Default)]
struct Rates {
    bare_drain: Vec<f64>,
    bare_apply: Vec<f64>,
    /// CPU-seconds of this process for a million events, of either.
    bare_drain_cpu: Vec<f64>,
    bare_apply_cpu: Vec<f64>,
    copy: Vec<f64>,
    row_by_row: Vec<f64>,
    drains: Vec<Drained>,
}

#[derive(Debug, Clone, Copy)]
enum Candidate {
    BareDrain,
    BareApply,
    Drain,
    RowByRow,
}

/// There and back in every round, so that a machine that slows down slows them all.
const ORDER: [Candidate; 8] = [
    Candidate::BareDrain,
    Candidate::BareApply,
    Candidate::Drain,
    Candidate::RowByRow,
    Candidate::RowByRow,
    Candidate::Drain,
    Candidate::BareApply,
    Candidate::BareDrain,
];

/// Reports all of them; returns the events a second of the worker, and of one transaction
/// for each event.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    plan: &Plan,
    report: &mut Report,
) -> Result<(f64, f64)> {
    let mut rates = Rates::default();
    for candidate in ORDER.repeat(plan.rounds) {
        rates.run(servers, events, plan, candidate).await?;
    }
    let bare_drain = median(&rates.bare_drain);
    let bare_apply = median(&rates.bare_apply);
    let copy = median(&rates.copy);
    let row_by_row = median(&rates.row_by_row);
    let of =
        |figure: fn(&Drained) -> f64| median(&rates.drains.iter().map(figure).collect::<Vec<_>>());
    let drain = of(Drained::rate);
    report.add("drain", drain, "events/s", Limit::None);
    report.add(
        "bare drain (broker alone)",
        bare_drain,
        "events/s",
        Limit::None,
    );
    report.add(
        "bare apply (database alone)",
        bare_apply,
        "events/s",
        Limit::None,
    );
    report.add(
        "drain / min(bare drain, bare apply)",
        drain / bare_drain.min(bare_apply),
        "",
        Limit::AtLeast(0.85),
    );
    report.add(
        "COPY into an indexed copy of bookings",
        copy,
        "rows/s",
        Limit::None,
    );
    report.add(
        "bare apply / COPY",
        bare_apply / copy,
        "",
        Limit::AtLeast(0.25),
    );
    report.add("row by row", row_by_row, "events/s", Limit::None);
    report.add(
        "drain / row by row",
        drain / row_by_row,
        "",
        Limit::AtLeast(15.0),
    );
    report.add(
        "CPU of the worker",
        of(Drained::cpu_per_million),
        "s/1M",
        Limit::AtMost(12.0),
    );
    for (name, cpu) in [
        ("of it, receiving and acknowledging", &rates.bare_drain_cpu),
        ("of it, the rest", &rates.bare_apply_cpu),
    ] {
        report.add(name, median(cpu), "s/1M", Limit::None);
    }
    let per_million =
        |cpu: Option<f64>, drained: &Drained| cpu.unwrap_or(f64::NAN) / drained.events as f64 * 1e6;
    let postgres = rates
        .drains
        .iter()
        .map(|drained| per_million(drained.postgres_cpu, drained))
        .collect::<Vec<_>>();
    report.add("CPU of PostgreSQL", median(&postgres), "s/1M", Limit::None);
    let rabbitmq = rates
        .drains
        .iter()
        .map(|drained| per_million(drained.rabbitmq_cpu, drained))
        .collect::<Vec<_>>();
    report.add("CPU of RabbitMQ", median(&rabbitmq), "s/1M", Limit::None);
    report.add(
        "WAL for an event",
        of(|drained| drained.wal_bytes / drained.events as f64),
        "bytes",
        Limit::None,
    );
    Ok((drain, row_by_row))
}

impl Rates {
    async fn run(
        &mut self,
        servers: &mut Servers,
        events: &Events,
        plan: &Plan,
        candidate: Candidate,
    ) -> Result<()> {
        let place = servers.place().await?;
        let all = 0..plan.drained;
        match candidate {
            Candidate::BareDrain => {
                load::fill(&place, events.range(all)).await?;
                let before = Cpu::of(std::process::id())?;
                let rate = limits::bare_drain(&place, plan.drained).await?;
                self.bare_drain.push(rate);
                self.bare_drain_cpu.push(before.per_million(plan.drained)?);
            }
            Candidate::BareApply => {
                let deliveries = events.deliveries(all);
                let before = Cpu::of(std::process::id())?;
                self.bare_apply
                    .push(limits::bare_apply(&place, deliveries).await?);
                self.bare_apply_cpu.push(before.per_million(plan.drained)?);
                self.copy.push(limits::copy(&place).await?);
                place.assert_exact().await?;
            }
            Candidate::Drain => {
                load::fill(&place, events.range(all)).await?;
                self.drains.push(place.drain(servers, &[]).await?);
            }
            Candidate::RowByRow => {
                load::fill(&place, events.range(0..plan.row_by_row)).await?;
                let one = [("PAXFLOW_BATCH_MAX", "1")];
                self.row_by_row
                    .push(place.drain(servers, &one).await?.rate());
            }
        }
        place.remove().await
    }
}

/// The memory of a worker that has a long queue before it; returns where all of it is stored then.
pub async fn memory(
    servers: &mut Servers,
    events: &Events,
    waiting: usize,
    report: &mut Report,
) -> Result<Place> {
    let place = servers.place().await?;
    load::fill(&place, events.range(0..waiting)).await?;
    let drained = place.drain(servers, &[]).await?;
    let mebibytes = drained.peak_rss as f64 / f64::from(1 << 20);
    report.add(
        format!("peak memory of the worker, {waiting} waiting"),
        mebibytes,
        "MiB",
        Limit::AtMost(64.0),
    );
    report.add("drain of them", drained.rate(), "events/s", Limit::None);
    Ok(place)
}
