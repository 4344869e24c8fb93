//! The tables a person reads: one line per engine and phase.

use serde_json::Value;

const COLUMNS: [(&str, &[&str]); 8] = [
    (
        "commits",
        &[
            "commits_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "fsyncs_per_batch",
            "wchar_per_commit",
            "written_per_commit",
            "peak_mib",
        ],
    ),
    (
        "mixed",
        &[
            "commits_per_s",
            "p50_us",
            "p99_us",
            "p999_us",
            "max_us",
            "fsyncs_per_batch",
            "checkpoint_rows_per_s",
            "peak_mib",
        ],
    ),
    (
        "pages",
        &[
            "load_rows_per_s",
            "wchar_per_row",
            "disk_mib",
            "live_mib",
            "reads_per_s",
            "ranges_of_64_per_s",
            "load_peak_mib",
            "peak_mib",
        ],
    ),
    ("reopen", &["open_ms", "peak_mib"]),
    (
        "reopen-killed",
        &["open_ms", "acknowledged", "head", "peak_mib"],
    ),
    (
        "space",
        &[
            "most",
            "settled",
            "compacted",
            "closed",
            "write_s",
            "compact_s",
            "reads_per_s_after",
            "peak_mib",
        ],
    ),
    ("second", &["opened", "ms", "says"]),
    ("torn", &["aborted", "opened", "head", "says"]),
];

fn cell(value: &Value) -> String {
    match value.as_f64() {
        Some(number) if number.fract() != 0.0 && number < 100.0 => format!("{number:.2}"),
        Some(number) => format!("{number:.0}"),
        None => value.to_string(),
    }
}

pub fn print(results: &Value) {
    let Some(all) = results["results"].as_array() else {
        return;
    };
    for (phase, columns) in COLUMNS {
        println!(
            "\n{phase}\n{:>8} {:>18} {:>5} {:>12} {}",
            "fsync us",
            "numbers",
            "round",
            "engine",
            columns.join(" | ")
        );
        for run in all.iter().filter(|run| run["phase"] == phase) {
            let cells: Vec<_> = columns.iter().map(|column| cell(&run[*column])).collect();
            let (price, round) = (cell(&run["price_us"]), cell(&run["round"]));
            let engine = run["engine"].as_str().unwrap_or_default();
            println!(
                "{price:>8} {:>18} {round:>5} {engine:>12} {}",
                run["numbers"].to_string(),
                cells.join(" | ")
            );
        }
    }
    for run in all.iter().filter(|run| run["phase"] == "full") {
        println!("\nfull disk: {run:#}");
    }
}
