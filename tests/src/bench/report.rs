//! What was measured: rows with their median, as a table for people and as JSON for programs.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;

/// One row.
#[derive(Debug, Clone, Serialize)]
pub struct Entry {
    /// The number of the figure.
    pub id: u32,
    /// What was measured; one figure may have several parts.
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// The median of the runs.
    pub value: f64,
    /// The median of what it is compared with, measured in the same run.
    pub baseline: Option<f64>,
    /// Value over baseline.
    pub ratio: Option<f64>,
    /// How many runs.
    pub runs: usize,
    /// The largest run minus the smallest, in the same unit.
    pub spread: f64,
    #[serde(skip)]
    reach: &'static str,
}

/// All rows so far.
#[derive(Debug, Default)]
pub struct Report {
    current: u32,
    entries: Vec<Entry>,
}

impl Report {
    /// Says to which figure the next rows belong.
    pub fn begin(&mut self, id: u32) {
        self.current = id;
    }

    /// Adds a row; `reach` is the goal, in words.
    pub fn add(&mut self, name: &str, unit: &'static str, runs: &[f64], reach: &'static str) {
        self.push(name, unit, runs, None, reach);
    }

    /// Adds a row that is compared with something.
    pub fn compare(
        &mut self,
        name: &str,
        unit: &'static str,
        (runs, baseline): (&[f64], &[f64]),
        reach: &'static str,
    ) {
        self.push(name, unit, runs, Some(median(baseline)), reach);
    }

    /// Adds how many times a row of this run is what `runs` are; nothing when it was not measured.
    pub fn faster_than(&mut self, name: &str, row: &str, runs: &[f64], reach: &'static str) {
        let other = self.entries.iter().find(|entry| entry.name == row);
        if let Some(other) = other.map(|entry| entry.value) {
            self.push(name, "×", &[other / median(runs)], None, reach);
        }
    }

    fn push(
        &mut self,
        name: &str,
        unit: &'static str,
        runs: &[f64],
        baseline: Option<f64>,
        reach: &'static str,
    ) {
        let value = median(runs);
        let most = runs.iter().copied().fold(value, f64::max);
        let least = runs.iter().copied().fold(value, f64::min);
        self.entries.push(Entry {
            id: self.current,
            name: name.to_owned(),
            unit,
            value,
            baseline,
            ratio: baseline
                .filter(|baseline| *baseline > 0.0)
                .map(|baseline| value / baseline),
            runs: runs.len(),
            spread: most - least,
            reach,
        });
    }

    /// Writes all rows as a JSON array.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(directory) = path.parent() {
            std::fs::create_dir_all(directory)?;
        }
        let text = serde_json::to_string_pretty(&self.entries)?;
        std::fs::write(path, text + "\n")
            .with_context(|| format!("could not write {}", path.display()))
    }

    /// The table.
    pub fn table(&self) -> String {
        let head = [
            "#", "figure", "unit", "value", "baseline", "ratio", "runs", "spread", "reach",
        ];
        let mut rows = vec![head.map(str::to_owned)];
        for entry in &self.entries {
            let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
            rows.push([
                entry.id.to_string(),
                entry.name.clone(),
                entry.unit.to_owned(),
                number(entry.value),
                optional(entry.baseline),
                entry
                    .ratio
                    .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}")),
                entry.runs.to_string(),
                number(entry.spread),
                entry.reach.to_owned(),
            ]);
        }
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        let line = |row: &[String; 9]| {
            let cells = row
                .iter()
                .zip(&widths)
                .enumerate()
                .map(|(column, (cell, width))| {
                    let is_number = matches!(column, 0 | 3..=7);
                    if is_number {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                });
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        };
        rows.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// As many digits as say something.
fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 1000.0 {
        format!("{value:.0}")
    } else if size >= 100.0 {
        format!("{value:.1}")
    } else if size >= 10.0 {
        format!("{value:.2}")
    } else {
        format!("{value:.3}")
    }
}

/// The middle one; 0 of nothing.
pub(super) fn median(runs: &[f64]) -> f64 {
    percentile(runs, 0.5)
}

/// The value that a share of the runs does not exceed, interpolated; 0 of nothing.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a place in a list of measurements"
)]
pub(super) fn percentile(runs: &[f64], share: f64) -> f64 {
    let mut sorted = runs.to_vec();
    sorted.sort_by(f64::total_cmp);
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = share.clamp(0.0, 1.0) * last as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_median_the_ratio_and_the_whole_range() {
        let mut report = Report::default();
        report.begin(5);
        report.compare("part", "ms", (&[3.0, 1.0, 2.0], &[4.0, 4.0]), "");
        let value = serde_json::to_value(&report.entries).expect("rows have a JSON form");
        let expected = serde_json::json!([{
            "id": 5, "name": "part", "unit": "ms", "value": 2.0, "baseline": 4.0, "ratio": 0.5,
            "runs": 3, "spread": 2.0,
        }]);
        assert_eq!(value, expected);
        assert!(report.table().contains("0.500"));
    }

    #[test]
    fn percentiles_lie_between_the_runs() {
        assert_eq!(percentile(&[1.0, 3.0], 0.5), 2.0);
        assert_eq!(percentile(&[1.0, 2.0, 9.0], 1.0), 9.0);
        assert_eq!(percentile(&[], 0.99), 0.0);
    }
}
