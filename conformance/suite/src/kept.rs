//! What is kept of runs with SQLite's own VFS, from one run of this command to the next.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Result;
use crate::outcome::Outcome;
use crate::run::Outcomes;

/// Raised with what an outcome means.
const FORM: u32 = 3;

#[derive(Debug, Serialize, Deserialize)]
struct Kept<T> {
    form: u32,
    outcomes: T,
}

/// What is kept; what an older version of this command has kept is not, as its figures are others.
pub(crate) fn read(path: &Path) -> Result<Outcomes> {
    let bytes = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Outcomes::new()),
        bytes => bytes.map_err(|e| format!("{}: {e}", path.display()))?,
    };
    let kept = serde_json::from_slice::<Kept<Outcomes>>(&bytes).ok().filter(|kept| kept.form == FORM);
    let Some(mut kept) = kept else {
        eprintln!("{}: not of this version, is measured again", path.display());
        return Ok(Outcomes::new());
    };
    kept.outcomes.values_mut().for_each(|outcome| outcome.kept = true);
    Ok(kept.outcomes)
}

/// Keeps outcomes.
pub(crate) fn write(path: &Path, outcomes: BTreeMap<&String, &Outcome>) -> Result<()> {
    let text = serde_json::to_string(&Kept { form: FORM, outcomes }).map_err(|e| e.to_string())?;
    fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_this_version_has_kept_is_a_measure() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("stock.json");
        assert!(read(&path).expect("nothing").is_empty());
        let outcome = Outcome { cases: 3, ..Outcome::default() };
        write(&path, BTreeMap::from([(&"a".to_owned(), &outcome)])).expect("a file");
        let kept = read(&path).expect("what was kept");
        assert_eq!(kept.values().map(|outcome| (outcome.cases, outcome.kept)).collect::<Vec<_>>(), [(3, true)]);
        let old = serde_json::to_string(&BTreeMap::from([("a", &outcome)])).expect("the old form");
        fs::write(&path, old).expect("a file");
        assert!(read(&path).expect("an old one").is_empty());
    }
}
