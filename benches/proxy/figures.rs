//! The figures of a workload: every value of every round, and what follows from them.

/// What a column measures.
pub(crate) struct Column {
    /// In the JSON.
    pub(crate) key: String,
    /// In the table.
    pub(crate) head: String,
    pub(crate) unit: &'static str,
    pub(crate) compare: Compare,
}

/// What the table shows beside or instead of the median.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compare {
    Nothing,
    /// The ratio to the baseline, in a column of its own.
    Ratio,
    /// The difference to the same round without a proxy, in place of the median.
    Added,
}

impl Column {
    pub(crate) fn new(key: impl Into<String>, head: impl Into<String>, unit: &'static str, compare: Compare) -> Column {
        Column { key: key.into(), head: head.into(), unit, compare }
    }
}

/// One proxy, or no proxy, in all rounds.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// A value for each column in each round; NaN where it failed or where there is nothing to measure.
    pub(crate) rounds: Vec<Vec<f64>>,
    pub(crate) failures: Vec<String>,
}

/// A workload's results.
pub(crate) struct Results {
    pub(crate) columns: Vec<Column>,
    pub(crate) rows: Vec<Row>,
}

impl Results {
    pub(crate) fn new(columns: Vec<Column>, names: impl Iterator<Item = &'static str>) -> Results {
        let rows = names.map(|name| Row { name, rounds: Vec::new(), failures: Vec::new() }).collect();
        Results { columns, rows }
    }

    /// Adds a row's next round.
    pub(crate) fn push(&mut self, row: usize, outcome: Result<Vec<f64>, String>) {
        let nothing = vec![f64::NAN; self.columns.len()];
        let row = &mut self.rows[row];
        row.rounds.push(outcome.unwrap_or_else(|error| {
            row.failures.push(error);
            nothing
        }));
    }

    pub(crate) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }
}

impl Row {
    /// A column's values, round by round.
    pub(crate) fn values(&self, column: usize) -> Vec<f64> {
        self.rounds.iter().map(|round| round[column]).collect()
    }

    /// The median of a column.
    pub(crate) fn median(&self, column: usize) -> f64 {
        median(self.values(column))
    }

    /// The median of the ratios to another row, round by round: both took their turn in the same weather.
    pub(crate) fn ratio(&self, column: usize, baseline: &Row) -> f64 {
        let pairs = self.values(column).into_iter().zip(baseline.values(column));
        median(pairs.map(|(of, baseline)| of / baseline).collect())
    }

    /// The median of the differences to another row, round by round.
    pub(crate) fn added(&self, column: usize, direct: &Row) -> f64 {
        let pairs = self.values(column).into_iter().zip(direct.values(column));
        median(pairs.map(|(of, direct)| of - direct).collect())
    }
}

/// The row without a proxy.
pub(crate) const DIRECT: &str = "direct";

/// The middle value, or the mean of the two in the middle. Ignores NaN.
fn median(mut values: Vec<f64>) -> f64 {
    values.retain(|value| value.is_finite());
    values.sort_by(f64::total_cmp);
    let (low, high) = (values.len().saturating_sub(1) / 2, values.len() / 2);
    values.get(low).zip(values.get(high)).map_or(f64::NAN, |(low, high)| f64::midpoint(*low, *high))
}

/// The value below which a share of the values lies; NaN if there are none.
pub(crate) fn percentile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * share).floor();
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length is an index")]
    let at = (at as usize).min(values.len().saturating_sub(1));
    values.get(at).copied().unwrap_or(f64::NAN)
}
