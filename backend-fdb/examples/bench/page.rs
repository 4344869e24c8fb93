//! What a person reads: tables in Markdown, on the terminal and on a page of the documentation.

use std::fmt::Write as _;
use std::path::Path;

/// A row of the last table.
struct Goal {
    what: &'static str,
    limit: f64,
    at_least: bool,
    reached: Option<f64>,
}

/// All that was measured.
#[derive(Default)]
pub(crate) struct Page {
    text: String,
    goals: Vec<Goal>,
}

impl Page {
    /// A line of its own.
    pub(crate) fn line(&mut self, line: &str) {
        println!("{line}");
        self.text.push_str(line);
        self.text.push('\n');
    }

    /// Begins a table.
    pub(crate) fn head(&mut self, cells: &[&str]) {
        self.line("");
        self.row(cells);
        let columns: String =
            cells.iter().enumerate().map(|(index, _)| if index == 0 { "---|" } else { "--:|" }).collect();
        self.line(&format!("|{columns}"));
    }

    pub(crate) fn row(&mut self, cells: &[&str]) {
        let mut line = "|".to_owned();
        for cell in cells {
            write!(line, " {cell} |").expect("memory");
        }
        self.line(&line);
    }

    /// A ratio that should be at most this.
    pub(crate) fn at_most(&mut self, what: &'static str, limit: f64, reached: Option<f64>) {
        self.goals.push(Goal { what, limit, at_least: false, reached });
    }

    /// A ratio that should be at least this.
    pub(crate) fn at_least(&mut self, what: &'static str, limit: f64, reached: Option<f64>) {
        self.goals.push(Goal { what, limit, at_least: true, reached });
    }

    /// What is to be reached, and what was.
    pub(crate) fn goals(&mut self) {
        self.head(&["to reach", "goal", "reached", ""]);
        for goal in std::mem::take(&mut self.goals) {
            let sign = if goal.at_least { "at least" } else { "at most" };
            let met = |reached: f64| if goal.at_least { reached >= goal.limit } else { reached <= goal.limit };
            let (reached, verdict) = match goal.reached {
                Some(reached) if met(reached) => (format!("{reached:.2}"), "reached"),
                Some(reached) => (format!("{reached:.2}"), "**missed**"),
                None => ("-".into(), "needs the cluster's processes on this machine"),
            };
            self.row(&[goal.what, &format!("{sign} {}", goal.limit), &reached, verdict]);
        }
    }

    /// Says which machine it was.
    pub(crate) fn machine(&mut self) {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let cpu = read("/proc/cpuinfo");
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
        let model = model.trim_start_matches([' ', '\t', ':']);
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        let kernel = read("/proc/sys/kernel/osrelease");
        let load = read("/proc/loadavg");
        let load = load.split(' ').next().unwrap_or_default();
        self.line(&format!("Machine: {model}, {cores} cores, Linux {}, load before: {load}.", kernel.trim()));
    }

    /// Puts it between the two marks of a page.
    pub(crate) fn write_to(&self, path: &Path) -> Result<(), String> {
        const BEGIN: &str = "<!-- measured -->\n";
        const END: &str = "<!-- end -->";
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let page = std::fs::read_to_string(path).map_err(failed)?;
        let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
        let (before, after) = parts.ok_or_else(|| format!("{}: no marks to write between", path.display()))?;
        let page = format!("{before}{BEGIN}{}{END}{after}", self.text);
        std::fs::write(path, page).map_err(failed)
    }
}
