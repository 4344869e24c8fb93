use crate::setup::{Place, bare, finish, sample};

#[test]
fn on_a_sample() {
    let out = finish(bare().arg("demo"), "").ok();
    assert_eq!(out.lines().count(), 8, "{out}");
    assert!(out.contains("200 of 200 acknowledged rows"), "{out}");
    assert!(out.ends_with("all as it should be\n"), "{out}");
}

#[test]
fn on_a_file_in_a_given_store() {
    let place = Place::new();
    let file = place.file("source.db");
    drop(sample(&file));
    let out = place.run(["demo", file.to_str().unwrap()]).ok();
    assert!(out.contains("4 tables with 5011 rows"), "{out}");
    assert_eq!(place.value("demo", "SELECT count(*) FROM litefleet_demo"), "300");
    place.run(["demo"]).fails(1, "'demo' already");
}

#[test]
fn not_in_memory_and_not_in_the_environments_store() {
    finish(bare().args(["--store", "memory:", "demo"]), "").fails(1, "memory");
    let place = Place::new();
    finish(bare().env("LITEFLEET_STORE", place.store()).arg("demo"), "").ok();
    assert!(!place.store().exists());
}
