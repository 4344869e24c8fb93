//! The contract and the cases name each other: no clause without its case, no case without its test.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use litefleet_conformance::store_cases::NAMES;

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn manifest(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The documentation of a source file as one line of words.
fn documentation(source: &str) -> String {
    let lines = source.lines().map(str::trim_start);
    let lines = lines.filter_map(|line| line.strip_prefix("///").or(line.strip_prefix("//!")));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    words.join(" ")
}

/// What stands in backticks in each `(case: …)` and `(cases: …)`.
fn named_cases(text: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for clause in ["(case: ", "(cases: "] {
        for part in text.split(clause).skip(1) {
            let part = part.split(')').next().unwrap_or_default();
            found.extend(part.split('`').skip(1).step_by(2).map(str::to_owned));
        }
    }
    found
}

/// Every `pub async fn` of the case files.
fn written_cases() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(manifest("src/store_cases")).expect("the cases are there") {
        let path = entry.expect("a file").path();
        if path.is_dir() {
            continue;
        }
        let source = read(&path);
        for line in source.lines() {
            if let Some(rest) = line.strip_prefix("pub async fn ") {
                let name = rest.split('(').next().unwrap_or_default();
                found.insert(name.to_owned());
            }
        }
    }
    found
}

#[test]
fn every_case_of_the_contract_exists() {
    let tested: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    let contract = documentation(&read(&manifest("../vfs-core/src/store/mod.rs")));
    let named = named_cases(&contract);
    assert!(named.len() > 40, "the contract names its cases: {named:?}");
    let missing: Vec<_> = named.difference(&tested).collect();
    assert!(missing.is_empty(), "named by the contract, but no case: {missing:?}");
}

#[test]
fn every_clause_that_says_case_was_understood() {
    let contract = documentation(&read(&manifest("../vfs-core/src/store/mod.rs")));
    let mentions = contract.matches("case: ").count() + contract.matches("cases: ").count();
    let clauses = contract.matches("(case: `").count() + contract.matches("(cases: `").count();
    // One mention is the sentence that explains the notation.
    assert_eq!(mentions, clauses + 1, "write `(case: name)` or `(cases: name, name)`");
}

#[test]
fn every_case_has_a_test() {
    let tested: BTreeSet<String> = NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested.len(), NAMES.len(), "no name twice");
    assert_eq!(tested, written_cases());
}

/// Every `pub fn` of the engine's case files is a test.
#[test]
fn every_engine_case_has_a_test() {
    let tested: BTreeSet<String> =
        litefleet_conformance::engine_cases::NAMES.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested.len(), litefleet_conformance::engine_cases::NAMES.len(), "no name twice");
    let mut written = BTreeSet::new();
    for entry in std::fs::read_dir(manifest("src/engine_cases")).expect("the cases are there") {
        for line in read(&entry.expect("a file").path()).lines() {
            let case = line.strip_prefix("pub fn ").filter(|_| line.ends_with(": &dyn EngineHarness) {"));
            if let Some((name, _)) = case.and_then(|rest| rest.split_once('(')) {
                written.insert(name.to_owned());
            }
        }
    }
    assert_eq!(tested, written);
}
