//! What the kernel says about this process and its files.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use anyhow::{Context, Result};

fn number_after(text: &str, label: &str) -> Result<u64> {
    let line = text
        .lines()
        .find(|line| line.starts_with(label))
        .context("no such line")?;
    let number = line[label.len()..]
        .split_whitespace()
        .next()
        .context("no number")?;
    Ok(number.parse()?)
}

/// Bytes given to `write` calls, and bytes this process caused to be sent to the disk.
pub fn written() -> Result<(u64, u64)> {
    let io = fs::read_to_string("/proc/self/io")?;
    Ok((
        number_after(&io, "wchar:")?,
        number_after(&io, "write_bytes:")?,
    ))
}

/// The most memory this process ever held, in MiB.
pub fn peak_mib() -> Result<u64> {
    Ok(number_after(&fs::read_to_string("/proc/self/status")?, "VmHWM:")? / 1024)
}

/// Blocks of all files below a directory, in bytes.
pub fn disk_bytes(directory: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        // A compaction may remove the file meanwhile.
        let Ok(metadata) = entry.metadata() else {
            continue;
        };
        sum += if metadata.is_dir() {
            disk_bytes(&entry.path())?
        } else {
            metadata.blocks() * 512
        };
    }
    Ok(sum)
}
