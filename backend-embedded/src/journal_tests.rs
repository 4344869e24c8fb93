//! Journals as crashes leave them.

use super::*;

const MARKS: [u8; 16] = [3; 16];

/// A batch as the engine writes it.
fn batch(sequence: u64, entries: &[(&[u8], &[u8])]) -> Vec<u8> {
    let mut out = vec![1];
    out.extend(u32::try_from(entries.len()).unwrap().to_le_bytes());
    out.extend(sequence.to_le_bytes());
    let mut items = Vec::new();
    for (key, value) in entries {
        items.extend([2, 0, 0]);
        items.extend(1_u64.to_le_bytes());
        items.extend(u16::try_from(key.len()).unwrap().to_le_bytes());
        let length = u32::try_from(value.len()).unwrap().to_le_bytes();
        items.extend([length, length].concat());
        items.extend([*key, *value].concat());
    }
    let sum = xxh3_64(&items);
    out.extend(items);
    out.push(3);
    out.extend(sum.to_le_bytes());
    out.extend(TRAILER);
    out
}

/// The durable change of this number.
fn marked(number: u64) -> Vec<u8> {
    let mark = Marks::new(MARKS).encode(number);
    batch(number, &[(b"key", &[7; 3000]), (&keys::singleton(Kind::Sync), &mark)])
}

fn save(data: &Path, number: u32, content: &[u8], length: u64) {
    let path = data.join(format!("{number}.jnl"));
    fs::write(&path, content).unwrap();
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// A write failed in its middle, and before the engine was opened again its worker began the next journal: that was taken
/// for damage, for ever.
#[test]
fn a_torn_end_before_an_empty_journal_is_cut_off() {
    for empty in [0, 1 << 20] {
        let folder = tempfile::tempdir().unwrap();
        let whole = [marked(1), marked(2)].concat();
        let torn = [&whole[..], &marked(3)[..1500]].concat();
        save(folder.path(), 1, &torn, torn.len() as u64);
        save(folder.path(), 2, &[], empty);
        check(folder.path(), Marks::new(MARKS)).unwrap();
        assert_eq!(fs::read(folder.path().join("1.jnl")).unwrap(), whole);
        // Where something was written after it, nothing can be torn.
        save(folder.path(), 1, &torn, torn.len() as u64);
        save(folder.path(), 2, &marked(3), 1 << 20);
        let error = check(folder.path(), Marks::new(MARKS)).unwrap_err();
        assert_eq!(error.kind(), litefleet::ErrorKind::Corrupt);
    }
}

/// What is missing before a durable change is damage before an empty journal as well.
#[test]
fn damage_before_an_empty_journal_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let damaged = [marked(1), vec![0; 3000], marked(3)].concat();
    save(folder.path(), 1, &damaged, damaged.len() as u64);
    save(folder.path(), 2, &[], 1 << 20);
    let error = check(folder.path(), Marks::new(MARKS)).unwrap_err();
    assert_eq!(error.kind(), litefleet::ErrorKind::Corrupt);
    assert_eq!(fs::read(folder.path().join("1.jnl")).unwrap(), damaged);
}

#[test]
fn journals_are_written_again_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let content = [marked(1), vec![0; 3 << 20], marked(2)].concat();
    save(folder.path(), 1, &content, 8 << 20);
    save(folder.path(), 2, &[], 1 << 20);
    let read = |number: u32| fs::read(folder.path().join(format!("{number}.jnl"))).unwrap();
    let before = (read(1), read(2));
    rewrite(folder.path()).unwrap();
    assert!((read(1), read(2)) == before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        let blocks = fs::metadata(folder.path().join("2.jnl")).unwrap().blocks();
        assert_eq!(blocks, 0, "what was never written takes no room");
    }
}
