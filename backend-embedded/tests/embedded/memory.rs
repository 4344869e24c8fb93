//! Memory is bounded by the settings, not by what is written.

use crate::child;

/// fjall's memory has a bound only because the store seals and waits by itself, through calls that are hidden from the
/// engine's documentation: this test is to notice when one of them stops doing what it did.
#[test]
#[cfg_attr(not(target_os = "linux"), ignore = "the peak is read from /proc")]
fn checkpoints_take_bounded_memory() {
    let peak = |megabytes| {
        let directory = tempfile::tempdir().unwrap();
        let out = child::command("memory", directory.path(), 0, megabytes).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stdout));
        let text = String::from_utf8(out.stdout).unwrap();
        let line = text.lines().find_map(|line| Some(line.split_once("peak ")?.1)).expect("the child says it");
        line.parse::<u64>().unwrap() / 1024
    };
    let (small, large) = (peak(32), peak(256));
    println!("peak memory: {small} MiB after 32 MiB of rows, {large} MiB after 256 MiB");
    assert!(large < 120, "{large} MiB; 8 MiB of cache and 3 tables of 8 MiB each were allowed");
    assert!(large < small + 40, "{small} MiB for 32 MiB of rows, {large} MiB for 256 MiB");
}
