//! How fast a worker empties a queue, beside its limits and beside one transaction for each message.

use anyhow::Result;

use crate::Plan;
use crate::events::Events;
use crate::limits;
use crate::load;
use crate::process::{Cpu, Steal};
use crate::report::{Limit, Report, median, median_ratio};
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

/// One round. A drain stands beside the limit that it comes near, there and back: what counts is the ratio of the two.
const ORDER: [Candidate; 6] = [
    Candidate::BareDrain,
    Candidate::BareApply,
    Candidate::Drain,
    Candidate::Drain,
    Candidate::BareApply,
    Candidate::RowByRow,
];

/// Reports all of them; returns the events a second of the worker, and of one transaction
/// for each event.
pub async fn measure(
    servers: &mut Servers,
    events: &Events,
    plan: &Plan,
    report: &mut Report,
) -> Result<(f64, f64)> {
    let (mut rates, steal) = (Rates::default(), Steal::count()?);
    for candidate in ORDER.repeat(plan.rounds) {
        rates.run(servers, events, plan, candidate).await?;
    }
    let drain = rates.report(report);
    rates.report_costs(report);
    let name = "processors kept by the host meanwhile";
    report.add(name, steal.percent()?, "%", Limit::None);
    Ok((drain, median(&rates.row_by_row)))
}

impl Rates {
    fn of_drains(&self, figure: impl Fn(&Drained) -> f64) -> Vec<f64> {
        self.drains.iter().map(figure).collect()
    }

    /// Events a second, and their ratios; returns those of a drain.
    fn report(&self, report: &mut Report) -> f64 {
        let drains = self.of_drains(Drained::rate);
        let (drain, bare_drain) = (median(&drains), median(&self.bare_drain));
        for (name, rate) in [
            ("drain", drain),
            ("bare drain (broker alone)", bare_drain),
            ("bare apply (database alone)", median(&self.bare_apply)),
        ] {
            report.add(name, rate, "events/s", Limit::None);
        }
        // Of the smaller limit: the larger share.
        report.add(
            "drain / min(bare drain, bare apply)",
            median_ratio(&drains, &self.bare_apply).max(drain / bare_drain),
            "",
            Limit::AtLeast(0.85),
        );
        let copy = "COPY into an indexed copy of bookings";
        report.add(copy, median(&self.copy), "rows/s", Limit::None);
        report.add(
            "bare apply / COPY",
            median_ratio(&self.bare_apply, &self.copy),
            "",
            Limit::AtLeast(0.25),
        );
        let row_by_row = median(&self.row_by_row);
        report.add("row by row", row_by_row, "events/s", Limit::None);
        let times = drain / row_by_row;
        report.add("drain / row by row", times, "", Limit::AtLeast(15.0));
        drain
    }

    /// What an event costs whom.
    fn report_costs(&self, report: &mut Report) {
        let worker = median(&self.of_drains(Drained::cpu_per_million));
        report.add("CPU of the worker", worker, "s/1M", Limit::AtMost(12.0));
        let of_server = |cpu: fn(&Drained) -> Option<f64>| {
            let of_one = |drained: &Drained| cpu(drained).unwrap_or(f64::NAN);
            median(&self.of_drains(|drained| of_one(drained) / drained.events as f64 * 1e6))
        };
        for (name, cpu) in [
            (
                "of it, receiving and acknowledging",
                median(&self.bare_drain_cpu),
            ),
            ("of it, the rest", median(&self.bare_apply_cpu)),
            (
                "CPU of PostgreSQL",
                of_server(|drained| drained.postgres_cpu),
            ),
            ("CPU of RabbitMQ", of_server(|drained| drained.rabbitmq_cpu)),
        ] {
            report.add(name, cpu, "s/1M", Limit::None);
        }
        let wal = self.of_drains(|drained| drained.wal_bytes / drained.events as f64);
        report.add("WAL for an event", median(&wal), "bytes", Limit::None);
    }

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
                let before = Cpu::own()?;
                let rate = limits::bare_drain(&place, plan.drained).await?;
                self.bare_drain.push(rate);
                self.bare_drain_cpu
                    .push(Cpu::own_per_million(before, plan.drained)?);
            }
            Candidate::BareApply => {
                let deliveries = events.deliveries(all);
                let before = Cpu::own()?;
                self.bare_apply
                    .push(limits::bare_apply(&place, deliveries).await?);
                self.bare_apply_cpu
                    .push(Cpu::own_per_million(before, plan.drained)?);
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
