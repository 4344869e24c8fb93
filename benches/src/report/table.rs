//! Rows as Markdown.

use std::fmt::Write;

use super::{Goal, Row};

/// The comparisons: ratio first.
pub(super) fn comparisons<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut text = String::from(
        "| measurement | ratio | goal | met | Litefleet | stock SQLite | round trips | bytes sent | |\n\
         |---|--:|--:|:-:|--:|--:|--:|--:|---|\n",
    );
    for row in rows {
        let [ratio, smallest, largest] = row.ratio.unwrap_or([f64::NAN; 3]);
        let spread = if (largest - smallest).abs() < 0.005 || ratio.is_nan() {
            String::new()
        } else {
            format!(" ({}–{})", number(smallest), number(largest))
        };
        let with_unit = |value: f64| format!("{} {}", number(value), row.unit).trim_end().to_owned();
        // Writing to a string cannot fail.
        let _written = writeln!(
            text,
            "| {} | **{}**{spread} | {} | {} | {} | {} | {} | {} | {} |",
            row.what,
            number(ratio),
            goal(row.goal),
            met(row),
            with_unit(row.litefleet),
            with_unit(row.stock),
            row.round_trips.map(number).unwrap_or_default(),
            row.sent.map(number).unwrap_or_default(),
            row.note
        );
    }
    text
}

/// The counts.
pub(super) fn counts<'a>(rows: impl Iterator<Item = &'a Row>) -> String {
    let mut text = String::from("| operation | round trips | budget | met | calls |\n|---|--:|--:|:-:|---|\n");
    for row in rows {
        let _written = writeln!(
            text,
            "| {} | {} | {} | {} | {} |",
            row.what,
            number(row.litefleet),
            goal(row.goal),
            met(row),
            row.note
        );
    }
    text
}

/// For the terminal while it runs.
pub(super) fn plain(rows: &[Row]) -> String {
    let mut text = String::new();
    for row in rows {
        let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{}  ", number(ratio[0])));
        let stock = if row.stock.is_nan() { String::new() } else { format!(" / {}", number(row.stock)) };
        let _written = writeln!(
            text,
            "  {}: {ratio}{}{stock} {}  {}  {}",
            row.what,
            number(row.litefleet),
            row.unit,
            met(row),
            row.note
        );
    }
    text
}

pub(super) fn goal(goal: Goal) -> String {
    match goal {
        Goal::None => String::new(),
        Goal::RatioAtLeast(least) => format!("≥ {least}"),
        Goal::RatioAtMost(most) | Goal::AtMost(most) => format!("≤ {most}"),
        Goal::Below(bound) => format!("< {bound}"),
        Goal::Difference { below, .. } => format!("difference < {below}"),
    }
}

fn met(row: &Row) -> &'static str {
    match row.met() {
        None => "",
        Some(true) => "yes",
        Some(false) => "**no**",
    }
}

/// Three digits that count, and all of them before the point.
pub(super) fn number(value: f64) -> String {
    let size = value.abs();
    let decimals = if size >= 100.0 || value.fract() == 0.0 {
        0
    } else if size >= 10.0 {
        1
    } else {
        2
    };
    if value.is_nan() { "—".to_owned() } else { format!("{value:.decimals$}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_three_digits() {
        let cases =
            [(1.0, "1"), (0.126, "0.13"), (12.34, "12.3"), (123.4, "123"), (12_345.6, "12346"), (f64::NAN, "—")];
        for (value, text) in cases {
            assert_eq!(number(value), text);
        }
    }
}
