//! The archive of the newest release that Debian has, in sid, fetched by apt and checked with Debian's signatures. Apt gets a
//! configuration of its own: the machine's is left as it is.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::command;
use crate::Result;

const SOURCES: &str =
    "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian sid main\n";

/// The archive, and its version. Sid has no older one: what is newest is asked each time.
pub(super) fn archive(cache: &Path) -> Result<(PathBuf, String)> {
    let folder = cache.join("newest");
    // What an older release has left is not the newest.
    let downloads = folder.join("archives");
    let _absent = fs::remove_dir_all(&downloads);
    for part in ["lists/partial", "archives/partial"] {
        fs::create_dir_all(folder.join(part)).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let list = folder.join("sources.list");
    fs::write(&list, SOURCES).map_err(|e| format!("{}: {e}", list.display()))?;
    let apt = |words: &[&str], log: &str| {
        let mut apt = Command::new("apt-get");
        apt.current_dir(&downloads);
        let places =
            [("Dir::Etc::SourceList", &list), ("Dir::State::Lists", &folder.join("lists")), ("Dir::Cache", &folder)];
        for (name, path) in places {
            let mut setting = OsString::from(format!("{name}="));
            setting.push(path);
            apt.arg("-o").arg(setting);
        }
        apt.args(["-o", "Dir::Etc::SourceParts=/dev/null"]).args(words);
        command(&mut apt, &folder.join(log))
    };
    eprintln!("asking Debian for its newest SQLite");
    apt(&["update"], "update.log")?;
    apt(&["source", "--download-only", "--only-source", "--tar-only", "sqlite3"], "source.log")?;
    let entries = fs::read_dir(&downloads).map_err(|e| format!("{}: {e}", downloads.display()))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(version) = name.strip_prefix("sqlite3_").and_then(|rest| rest.strip_suffix(".orig.tar.xz")) {
            return Ok((entry.path(), version.to_owned()));
        }
    }
    Err("Debian's source package of SQLite has no sqlite3_*.orig.tar.xz".into())
}
