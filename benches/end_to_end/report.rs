//! The figures: a table for people and JSON for machines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use comfy_table::{Table, presets};
use serde::Serialize;
use serde_json::json;

/// What a figure must be.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limit {
    /// As much or more.
    AtLeast(f64),
    /// As much or less.
    AtMost(f64),
    /// Only reported.
    None,
}

impl Limit {
    fn holds(self, value: f64) -> Option<bool> {
        match self {
            Self::AtLeast(limit) => Some(value >= limit),
            Self::AtMost(limit) => Some(value <= limit),
            Self::None => None,
        }
    }
}

#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    value: f64,
    unit: &'static str,
    limit: Limit,
    reached: Option<bool>,
}

/// All figures of a run, in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    figures: Vec<Figure>,
}

impl Report {
    /// Adds a figure and says it at once: a run is long.
    pub fn add(&mut self, name: impl Into<String>, value: f64, unit: &'static str, limit: Limit) {
        let name = name.into();
        let reached = limit.holds(value);
        println!(
            "  {name}: {} {unit}{}",
            readable(value),
            verdict(reached, " (", ")")
        );
        self.figures.push(Figure {
            name,
            value,
            unit,
            limit,
            reached,
        });
    }

    /// Figures that miss their limit.
    pub fn missed(&self) -> usize {
        let missed = |figure: &&Figure| figure.reached == Some(false);
        self.figures.iter().filter(missed).count()
    }

    /// Every figure with its limit and its verdict.
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY);
        table.set_header(["figure", "measured", "unit", "must be", "verdict"]);
        for figure in &self.figures {
            let limit = match figure.limit {
                Limit::AtLeast(limit) => format!(">= {}", readable(limit)),
                Limit::AtMost(limit) => format!("<= {}", readable(limit)),
                Limit::None => String::new(),
            };
            table.add_row([
                figure.name.clone(),
                readable(figure.value),
                figure.unit.to_owned(),
                limit,
                verdict(figure.reached, "", ""),
            ]);
        }
        table
    }

    /// Writes the figures with what they were measured on.
    pub fn write(&self, path: &Path, about: &serde_json::Value) -> Result<()> {
        let json = json!({ "about": about, "figures": self.figures });
        fs::write(path, format!("{json:#}\n"))
            .with_context(|| format!("writing {}", path.display()))
    }
}

fn verdict(reached: Option<bool>, before: &str, after: &str) -> String {
    match reached {
        Some(true) => format!("{before}reached{after}"),
        Some(false) => format!("{before}MISSED{after}"),
        None => String::new(),
    }
}

/// Three digits that count.
fn readable(value: f64) -> String {
    let decimals = match value.abs() {
        0.0 | 100.0.. => 0,
        10.0.. => 1,
        1.0.. => 2,
        _ => 3,
    };
    format!("{value:.decimals$}")
}

/// The value in the middle, or halfway between the two that are there.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = [sorted.len().saturating_sub(1) / 2, sorted.len() / 2];
    let [low, high] = middle.map(|at| sorted.get(at).copied().unwrap_or(f64::NAN));
    f64::midpoint(low, high)
}

/// The median of ratios, each of two that were measured one after the other: a machine that has changed its speed by the
/// next pair has changed it for both.
pub fn median_ratio(above: &[f64], below: &[f64]) -> f64 {
    let pairs = above.iter().zip(below);
    median(
        &pairs
            .map(|(above, below)| above / below)
            .collect::<Vec<_>>(),
    )
}

/// The smallest value that such a share of all does not exceed.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}
