//! Text tables and how numbers are written in them.

use crate::measure::Measurement;

/// Rows of cells under a header: the first column to the left, the others to the right.
#[derive(Clone, Debug, Default)]
pub struct TextTable {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl TextTable {
    /// A table without rows.
    pub fn new(header: &[&str]) -> TextTable {
        TextTable { header: header.iter().map(|cell| (*cell).to_owned()).collect(), rows: Vec::new() }
    }

    /// Adds a row. Cells that are missing at its end are empty; those beyond the header are dropped.
    pub fn row(&mut self, mut cells: Vec<String>) {
        cells.resize(self.header.len(), String::new());
        self.rows.push(cells);
    }

    /// The lines of the table, each ending in a newline and none in spaces.
    pub fn render(&self) -> String {
        let lines = || std::iter::once(&self.header).chain(&self.rows);
        let width = |column: usize| lines().map(|cells| cells[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.header.len()).map(width).collect();
        let mut text = String::new();
        for cells in lines() {
            let mut line = String::new();
            for (column, (cell, &width)) in cells.iter().zip(&widths).enumerate() {
                let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
                line.push_str(&cell);
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// The usual table of measurements.
pub fn measurement_table(measurements: &[Measurement]) -> TextTable {
    let mut table = TextTable::new(&[
        "times in us",
        "depth",
        "per second",
        "p50",
        "p90",
        "p99",
        "p99.9",
        "max",
        "client CPU/op",
        "server CPU/op",
        "errors",
    ]);
    for measurement in measurements {
        let latency = &measurement.latency;
        table.row(vec![
            measurement.name.clone(),
            measurement.depth.to_string(),
            count(measurement.per_second),
            microseconds(latency.p50_us),
            microseconds(latency.p90_us),
            microseconds(latency.p99_us),
            microseconds(latency.p999_us),
            microseconds(latency.max_us),
            optional_microseconds(measurement.client_cpu_us),
            optional_microseconds(measurement.server_cpu_us),
            if measurement.errors == 0 { "-".to_owned() } else { measurement.errors.to_string() },
        ]);
    }
    table
}

/// Microseconds with as many decimals as are worth reading.
pub fn microseconds(figure: f64) -> String {
    match figure {
        figure if figure >= 999.5 => count(figure),
        figure if figure >= 10.0 => format!("{figure:.1}"),
        figure => format!("{figure:.2}"),
    }
}

/// Microseconds, or a dash where nothing was measured.
pub fn optional_microseconds(figure: Option<f64>) -> String {
    figure.map_or_else(|| "-".to_owned(), microseconds)
}

/// How many times `part` is of `whole`, or a dash where that says nothing.
pub fn ratio(part: Option<f64>, whole: Option<f64>) -> String {
    match (part, whole) {
        (Some(part), Some(whole)) if whole > 0.0 => format!("{:.2}x", part / whole),
        _ => "-".to_owned(),
    }
}

/// A whole number with a comma at the thousands.
pub fn count(figure: f64) -> String {
    let digits = format!("{:.0}", figure.max(0.0));
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use crate::measure::LatencySummary;

    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(count(0.0), "0");
        assert_eq!(count(999.4), "999");
        assert_eq!(count(1_234_567.0), "1,234,567");
        assert_eq!(microseconds(0.551), "0.55");
        assert_eq!(microseconds(48.26), "48.3");
        assert_eq!(microseconds(999.6), "1,000");
        assert_eq!(optional_microseconds(None), "-");
        assert_eq!(ratio(Some(3.0), Some(2.0)), "1.50x");
        assert_eq!(ratio(Some(3.0), Some(0.0)), "-");
        assert_eq!(ratio(None, Some(1.0)), "-");
    }

    #[test]
    fn columns_line_up() {
        let mut table = TextTable::new(&["what", "p50"]);
        table.row(vec!["get".to_owned(), "1.00".to_owned()]);
        table.row(vec!["set (synced)".to_owned()]);
        table.row(vec!["x".to_owned(), "1,000".to_owned(), "dropped".to_owned()]);
        assert_eq!(table.render(), "what            p50\nget            1.00\nset (synced)\nx             1,000\n");
    }

    #[test]
    fn a_measurement_is_one_row() {
        let measurement = Measurement {
            name: "quic echo 100 B".to_owned(),
            depth: 16,
            operations: 1000,
            per_second: 123_456.0,
            latency: LatencySummary { p50_us: 125.0, max_us: 20_000.0, ..LatencySummary::default() },
            server_cpu_us: Some(0.83),
            ..Measurement::default()
        };
        let text = measurement_table(&[measurement]).render();
        let lines: Vec<Vec<&str>> =
            text.lines().map(|line| line.split("  ").filter(|cell| !cell.is_empty()).collect()).collect();
        assert_eq!(lines.len(), 2);
        let cells: Vec<&str> = lines[1].iter().map(|cell| cell.trim()).collect();
        assert_eq!(
            cells,
            ["quic echo 100 B", "16", "123,456", "125.0", "0.00", "0.00", "0.00", "20,000", "-", "0.83", "-"]
        );
    }
}
