//! The table.

use std::fmt;

/// What was measured, and what was to be reached.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) what: String,
    pub(crate) unit: &'static str,
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    /// Ours by theirs, of each round.
    pub(crate) ratios: Vec<f64>,
    pub(crate) goal: Goal,
    pub(crate) note: String,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// Ours by theirs.
    RatioAtMost(f64),
    RatioAtLeast(f64),
    /// Ours alone.
    AtMost(f64),
    /// Nothing: it says what stands behind another row.
    None,
}

impl Row {
    /// Of rounds of both sides: the median of the ratios, and of the other side's numbers.
    pub(crate) fn pairs(
        what: impl Into<String>,
        unit: &'static str,
        ratios: Vec<f64>,
        theirs: Vec<f64>,
        goal: Goal,
    ) -> Self {
        let theirs = median(theirs);
        let ours = median(ratios.clone()) * theirs;
        Self { what: what.into(), unit, ours, theirs, ratios, goal, note: String::new() }
    }

    /// Of our side alone.
    pub(crate) fn alone(what: impl Into<String>, ours: f64, goal: Goal) -> Self {
        Self { what: what.into(), unit: "", ours, theirs: f64::NAN, ratios: vec![], goal, note: String::new() }
    }

    pub(crate) fn ratio(&self) -> f64 {
        self.ours / self.theirs
    }

    pub(crate) fn met(&self) -> bool {
        match self.goal {
            Goal::RatioAtMost(most) => self.ratio() <= most,
            Goal::RatioAtLeast(least) => self.ratio() >= least,
            Goal::AtMost(most) => self.ours <= most,
            Goal::None => true,
        }
    }

    /// Whether it was reached, in these words.
    fn verdict<'a>(&self, yes: &'a str, no: &'a str) -> &'a str {
        match self.goal {
            Goal::None => "",
            _ if self.met() => yes,
            _ => no,
        }
    }

    /// The ratio or the number, and what it should be.
    fn value_and_goal(&self) -> (String, String) {
        match self.goal {
            Goal::RatioAtMost(most) => (format!("{:.2}", self.ratio()), format!("at most {most}")),
            Goal::RatioAtLeast(least) => (format!("{:.2}", self.ratio()), format!("at least {least}")),
            Goal::AtMost(most) => (short(self.ours), format!("at most {most}")),
            Goal::None => (format!("{:.2}", self.ratio()), String::new()),
        }
    }

    /// What stands behind the ratio.
    fn behind(&self) -> String {
        let mut words = Vec::new();
        if !self.theirs.is_nan() {
            words.push(format!("{} by {} {}", short(self.ours), short(self.theirs), self.unit).trim_end().to_owned());
        }
        let (least, most) = self.ratios.iter().fold((f64::INFINITY, 0.0_f64), |(a, b), r| (a.min(*r), b.max(*r)));
        if self.ratios.len() > 1 {
            words.push(format!("rounds {least:.2} to {most:.2}"));
        }
        if !self.note.is_empty() {
            words.push(self.note.clone());
        }
        words.join("; ")
    }
}

/// Three digits that count.
fn short(number: f64) -> String {
    match number.abs() {
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 || number.fract() == 0.0 => format!("{number:.1}").trim_end_matches(".0").to_owned(),
        size if size >= 1.0 => format!("{number:.2}"),
        _ => format!("{number:.3}"),
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, goal) = self.value_and_goal();
        let met = self.verdict("yes", "NO");
        write!(f, "{:<66} {value:>7}  {goal:<14} {met:<3}  {}", self.what, self.behind())
    }
}

/// The table of the page, in Markdown.
pub(crate) fn markdown(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let (value, goal) = row.value_and_goal();
        let met = row.verdict("reached", "**missed**");
        format!("| {} | {value} | {goal} | {met} | {} |\n", row.what, row.behind())
    };
    let head = "| what | ours by theirs, or ours | goal | | behind it |\n|---|--:|---|---|---|\n".to_owned();
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

/// Puts text between the two marks of a page.
pub(crate) fn replace_measured(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once("<!-- measured -->\n")?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    Some(format!("{before}<!-- measured -->\n{text}<!-- end -->{after}"))
}

pub(crate) fn json(rows: &[Row]) -> serde_json::Value {
    let row = |row: &Row| {
        serde_json::json!({
            "what": row.what, "unit": row.unit, "ours": row.ours, "theirs": row.theirs, "met": row.met(), "note": row.note,
        })
    };
    rows.iter().map(row).collect()
}

/// The middle one; of an even count the lower.
pub(crate) fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    let middle = numbers.len().saturating_sub(1) / 2;
    numbers.get(middle).copied().unwrap_or(f64::NAN)
}
