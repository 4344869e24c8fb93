//! Which test files: as SQLite's own `permutations.test` names them.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::Result;
use crate::programs::Programs;
use crate::source::Tree;

/// What continuous integration has time for: of each kind of veryquick's files some, and most of what tests files, locks and
/// journals.
/// A line with an exclamation mark takes out what others bring in.
const SHORT: &str = include_str!("../short.txt");
/// For a store that several processes share: tests that start others, and some of what each kind of statement needs.
const PROCESSES: &str = include_str!("../processes.txt");

/// The word before the name of one of SQLite's permutations.
pub(crate) const PERMUTATION: &str = "permutation";
/// Those that suit a VFS.
pub(crate) const PERMUTATIONS: &[&str] = &[
    "inmemory_journal",
    "persistent_journal",
    "truncate_journal",
    "no_journal",
    "exclusive",
    "autovacuum_crash",
    "autovacuum_ioerr",
    "singlethread",
    "fullmutex",
];

/// The files of a selection, as paths in the tree, such as `test/select1.test`.
pub(crate) fn files(selection: &[String], programs: &Programs, tree: &Tree, cache: &Path) -> Result<Vec<String>> {
    let suite = match selection {
        [word, name] if word == PERMUTATION => name,
        [one] if one == "veryquick" || one == "full" => one,
        // The list of differences is that of veryquick.
        [one] if one == "short" || one == "processes" => "veryquick",
        _ => "full",
    };
    let mut files = list(suite, programs, tree, cache)?;
    match selection {
        [word, _] if word == PERMUTATION => {}
        [one] if one == suite => {}
        [one] if one == "short" || one == "processes" => {
            let patterns = if one == "short" { SHORT } else { PROCESSES };
            let any = |prefix: &str, file: &str| {
                let mut patterns = patterns.lines().filter(|line| line.starts_with('!') != prefix.is_empty());
                patterns.any(|line| matches(line.trim_start_matches(prefix), file))
            };
            files.retain(|file| any("", file) && !any("!", file));
        }
        _ => files.retain(|file| selection.iter().any(|pattern| matches(pattern, file))),
    }
    not_empty(files, selection)
}

fn not_empty(files: Vec<String>, selection: &[String]) -> Result<Vec<String>> {
    if files.is_empty() { Err(format!("no test file is called {}", selection.join(" "))) } else { Ok(files) }
}

/// Whether a file is meant: by its path, its name, or its name without `.test`, with `*` for any letters.
fn matches(pattern: &str, file: &str) -> bool {
    let name = file.rsplit('/').next().unwrap_or(file);
    [file, name, name.strip_suffix(".test").unwrap_or(name)].iter().any(|text| glob(pattern, text))
}

fn glob(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(text) = text.strip_prefix(first) else { return false };
    (0..=text.len()).any(|at| text.get(at..).is_some_and(|end| glob(rest, end)))
}

fn list(suite: &str, programs: &Programs, tree: &Tree, cache: &Path) -> Result<Vec<String>> {
    let script = cache.join("list.tcl");
    // With this variable the script makes its lists and runs nothing.
    let text = format!(
        "namespace eval trd {{ variable tcltest; array set tcltest {{a b}} }}\n\
         set testdir {tree}/test; set argv0 list.tcl\n\
         source $testdir/permutations.test\n\
         foreach file [dict get $::testspec({suite}) -files] {{\n\
         if {{[file tail $file] eq $file}} {{ set file $testdir/$file }}\n\
         puts [file normalize $file]\n}}\n",
        tree = tree.path.display()
    );
    fs::write(&script, text).map_err(|e| format!("{}: {e}", script.display()))?;
    let output = Command::new(&programs.stock).arg(&script).output();
    let output = output.map_err(|e| format!("cannot start {}: {e}", programs.stock.display()))?;
    if !output.status.success() {
        return Err(format!("permutations.test failed: {}", String::from_utf8_lossy(&output.stderr)));
    }
    let root = format!("{}/", fs::canonicalize(&tree.path).map_err(|e| e.to_string())?.display());
    beneath(&root, &String::from_utf8_lossy(&output.stdout))
}

/// The files of a list, one a line, as paths beneath the tree. One that is elsewhere would be left out without a word.
fn beneath(root: &str, list: &str) -> Result<Vec<String>> {
    let inside = |line: &str| line.strip_prefix(root).map(str::to_owned);
    let files = list.lines().map(|line| inside(line).ok_or_else(|| format!("{line} is not in SQLite's tree, {root}")));
    let mut files = files.collect::<Result<Vec<String>>>()?;
    files.sort();
    files.dedup();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// "0 passed; 0 failed" would be a good run.
    #[test]
    fn nothing_is_no_selection() {
        for words in [&["veryquick"][..], &["full"], &["permutation", "no_journal"], &["no-such-test"]] {
            let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
            assert!(not_empty(Vec::new(), &words).is_err());
        }
    }

    #[test]
    fn a_file_outside_the_tree_is_not_left_out_in_silence() {
        assert_eq!(
            beneath("/t/", "/t/test/b.test\n/t/test/a.test\n/t/test/b.test\n"),
            Ok(vec!["test/a.test".into(), "test/b.test".into()])
        );
        assert!(beneath("/t/", "/t/test/a.test\n/u/test/b.test\n").is_err());
    }

    #[test]
    fn files_are_named_in_three_ways() {
        assert!(matches("select1", "test/select1.test"));
        assert!(matches("select*", "test/select1.test"));
        assert!(matches("ext/fts5/*", "ext/fts5/test/fts5aa.test"));
        assert!(!matches("select", "test/select1.test"));
    }
}
