//! SQLite's source tree: Debian's pristine archive of a version that stays, pinned by checksum, or the newest that Debian
//! has. Then it is proved by the tree itself: each file against `manifest`, the manifest against `manifest.uuid`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;
use serde::Deserialize;
use sha1::Digest as _;

use crate::Result;

mod newest;

/// A release of SQLite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Release {
    /// The one that the list of differences was made with.
    Pinned,
    /// The newest that Debian has.
    Newest,
}

const VERSION: &str = "3.46.1";
const ARCHIVE: &str = "http://deb.debian.org/debian/pool/main/s/sqlite3/sqlite3_3.46.1.orig.tar.xz";
const SHA256: &str = "d0cdd2ece271b29e7ce18095745d892517ee26d0f270065b3a25c2e9eb11639c";
/// Fetches with apt's own proxies and checks the sum.
const FETCHER: &str = "/usr/lib/apt/apt-helper";
/// Not a part of the manifest that `manifest.uuid` is the hash of.
const REMARK: &str = "# Remove this line to create a well-formed Fossil manifest.\n";

/// The unpacked tree.
#[derive(Debug)]
pub(crate) struct Tree {
    pub(crate) path: PathBuf,
    pub(crate) version: String,
}

/// The folder of the workspace.
pub(crate) fn workspace() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = here.ancestors().nth(2).ok_or("this crate is not where it should be in the workspace")?;
    Ok(root.to_owned())
}

/// Cargo's target folder.
pub(crate) fn target(workspace: &Path) -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), |given| workspace.join(given))
}

/// Runs a command to its end; its output goes to a log, of which an error shows the last lines.
pub(crate) fn command(command: &mut Command, log: &Path) -> Result<()> {
    let out = fs::File::create(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let err = out.try_clone().map_err(|e| format!("{}: {e}", log.display()))?;
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.stdout(out).stderr(err).status().map_err(|e| format!("cannot start {name}: {e}"))?;
    if status.success() {
        return Ok(());
    }
    let text = fs::read(log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = lines[lines.len().saturating_sub(20)..].join("\n");
    Err(format!("{name} failed ({status}), see {}:\n{end}", log.display()))
}

/// Fetches, unpacks and checks the tree, unless it is in the cache.
pub(crate) fn fetch(cache: &Path, release: Release) -> Result<Tree> {
    fs::create_dir_all(cache).map_err(|e| format!("{}: {e}", cache.display()))?;
    match release {
        Release::Newest => {
            let (archive, version) = newest::archive(cache)?;
            unpack(cache, &version, &archive)
        }
        Release::Pinned => {
            let archive = cache.join(format!("sqlite3_{VERSION}.orig.tar.xz"));
            if !checked(cache, VERSION).exists() {
                eprintln!("fetching {ARCHIVE}");
                let mut fetch = Command::new(FETCHER);
                fetch.arg("download-file").arg(ARCHIVE).arg(&archive).arg(format!("SHA256:{SHA256}"));
                command(&mut fetch, &cache.join("fetch.log"))?;
            }
            unpack(cache, VERSION, &archive)
        }
    }
}

/// A file that is there when the tree of a version is there and has been checked.
fn checked(cache: &Path, version: &str) -> PathBuf {
    cache.join(format!("sqlite3-{version}.checked"))
}

fn unpack(cache: &Path, version: &str, archive: &Path) -> Result<Tree> {
    let tree = Tree { path: cache.join(format!("sqlite3-{version}")), version: version.into() };
    let checked = checked(cache, version);
    if checked.exists() {
        return Ok(tree);
    }
    if tree.path.exists() {
        fs::remove_dir_all(&tree.path).map_err(|e| format!("{}: {e}", tree.path.display()))?;
    }
    let mut unpack = Command::new("tar");
    unpack.arg("--no-same-owner").arg("-xf").arg(archive).arg("-C").arg(cache);
    command(&mut unpack, &cache.join("unpack.log"))?;
    let uuid = verify(&tree)?;
    fs::write(&checked, uuid).map_err(|e| format!("{}: {e}", checked.display()))?;
    Ok(tree)
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _written = write!(text, "{byte:02x}");
        text
    })
}

fn sha3(bytes: &[u8]) -> String {
    hex(&sha3::Sha3_256::digest(bytes))
}

/// The name of what was checked: each line `F path hash` of the manifest names a file, and spaces in its path as `\s`.
fn verify(tree: &Tree) -> Result<String> {
    let manifest = read(&tree.path.join("manifest"))?;
    let uuid = read(&tree.path.join("manifest.uuid"))?;
    let uuid = String::from_utf8_lossy(&uuid).trim().to_owned();
    let signed = manifest.strip_suffix(REMARK.as_bytes()).unwrap_or(&manifest);
    if sha3(signed) != uuid {
        return Err("SQLite's manifest is not the one that manifest.uuid names".into());
    }
    let mut files = 0;
    for line in String::from_utf8_lossy(signed).lines().filter(|line| line.starts_with("F ")) {
        let mut words = line.split(' ').skip(1);
        let (Some(path), Some(hash)) = (words.next(), words.next()) else { continue };
        let path = path.replace("\\s", " ");
        // The archive leaves Fossil's own settings out.
        if path.starts_with('.') {
            continue;
        }
        let bytes = read(&tree.path.join(&path))?;
        let found = if hash.len() == 40 { hex(&sha1::Sha1::digest(&bytes)) } else { sha3(&bytes) };
        if found != hash {
            return Err(format!("{path} of SQLite's tree is not the one that its manifest names"));
        }
        files += 1;
    }
    eprintln!("SQLite {}: {files} files are what the manifest {uuid} says", tree.version);
    Ok(uuid)
}
