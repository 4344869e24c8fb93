use super::*;

fn keys() -> Keys {
    Keys::new(b"p".to_vec())
}

const NUMBERS: [u64; 14] =
    [0, 1, 2, 9, 255, 256, 257, 65_535, 65_536, 1 << 24, 1 << 32, 1 << 56, u64::MAX - 1, u64::MAX];

#[test]
fn numbers_sort_as_their_bytes_do_and_come_back() {
    let encoded: Vec<Vec<u8>> = NUMBERS
        .iter()
        .map(|number| {
            let mut out = Vec::new();
            put_number(&mut out, *number);
            out
        })
        .collect();
    assert!(encoded.is_sorted_by(|a, b| a < b));
    for (number, bytes) in NUMBERS.iter().zip(&encoded) {
        let mut rest = bytes.as_slice();
        assert_eq!(take_number(&mut rest).unwrap(), *number);
        assert!(rest.is_empty());
        for cut in 0..bytes.len() {
            assert!(take_number(&mut bytes.get(..cut).unwrap()).is_err());
        }
    }
    assert!(take_number(&mut [9, 0, 0, 0, 0, 0, 0, 0, 0, 0].as_slice()).is_err());
}

#[test]
fn rows_sort_by_page_then_txid() {
    let mut places = Vec::new();
    for page in [1, 2, 255, 256, u32::MAX] {
        for txid in NUMBERS {
            places.push((PageNo(page), Txid(txid)));
        }
    }
    let id = DatabaseId(7);
    let rows: Vec<Key> = places.iter().map(|(page, txid)| keys().row(id, *page, *txid)).collect();
    assert!(rows.is_sorted_by(|a, b| a < b));
    for ((page, txid), key) in places.iter().zip(&rows) {
        assert_eq!(keys().row_in(id, key).unwrap(), (*page, *txid));
        let (first, end) = keys().rows_up_to(id, *page, *txid);
        assert!(first <= *key && *key < end);
        let (first, end) = keys().rows(id, *page, *page);
        assert!(first <= *key && *key < end);
        let (after, _) = keys().rows_after(id, Some((*page, *txid)));
        assert!(*key < after);
    }
    let (first, end) = keys().rows(id, PageNo(2), PageNo(255));
    let inside = rows.iter().filter(|key| first <= **key && **key < end).count();
    assert_eq!(inside, 2 * NUMBERS.len());
}

#[test]
fn pieces_of_a_record_lie_between_it_and_the_next() {
    let id = DatabaseId(300);
    let mut all = Vec::new();
    for txid in [1, 255, 256, 1 << 40] {
        for piece in [0, 1, 2, 255] {
            let key = keys().log(id, Txid(txid), piece);
            assert_eq!(keys().log_in(id, &key).unwrap(), (Txid(txid), piece));
            all.push(key);
        }
    }
    assert!(all.is_sorted_by(|a, b| a < b));
    let (first, end) = keys().log_range(id, Txid(1), Txid(256));
    assert_eq!(all.iter().filter(|key| first <= **key && **key < end).count(), 8);
    let (first, end) = keys().log_range(id, Txid(0), Txid(u64::MAX));
    assert!(all.iter().all(|key| first <= *key && *key < end));
}

#[test]
fn ranges_hold_what_they_say() {
    let id = DatabaseId(5);
    let singles = [Kind::Head, Kind::Staging, Kind::Lease, Kind::Progress, Kind::Name, Kind::Warm];
    let within = |range: &Range, key: &Key| range.0 <= *key && *key < range.1;
    for (index, kind) in singles.into_iter().enumerate() {
        let key = keys().of(id, kind);
        assert_eq!(keys().kind_in(id, &key), Some(kind));
        assert_eq!(keys().kind_in(DatabaseId(6), &key), None);
        assert_eq!(within(&keys().core(id), &key), index < 3);
        assert!(within(&keys().singles(id), &key) && within(&keys().small(id), &key) && within(&keys().all(), &key));
        assert!(!within(&keys().bulk(id), &key));
    }
    for key in [
        keys().checkpoint(id, Txid::MAX),
        keys().epoch_end(id, Epoch(u64::MAX)),
        keys().staged(id, u64::MAX, u64::MAX),
        keys().slot(id, &[]),
        keys().slot(id, &[0xff; 40]),
        keys().of(id, Kind::Exclusive),
        keys().shared(id, SharedLock { session: SessionId([0xff; 16]), number: u64::MAX }),
    ] {
        assert!(within(&keys().small(id), &key) && !within(&keys().singles(id), &key));
    }
    for key in [keys().log(id, Txid(1), 3), keys().row(id, PageNo(u32::MAX), Txid::MAX)] {
        assert!(within(&keys().bulk(id), &key) && !within(&keys().small(id), &key));
    }
    assert!(!within(&keys().bulk(id), &keys().row(DatabaseId(6), PageNo(1), Txid(1))));
}

#[test]
fn names_go_by_their_bytes() {
    let name = |text: &str| DatabaseName::new(text).unwrap();
    let (first, end) = keys().names("a", Some(&name("ab")));
    let within = |text: &str| first <= keys().name(&name(text)) && keys().name(&name(text)) < end;
    assert!(!within("a") && !within("ab") && !within("b"));
    assert!(within("ab\u{1}") && within("ac") && within("a\u{10ffff}"));
    assert_eq!(keys().name_in(&keys().name(&name("é"))).unwrap(), name("é"));
    // Names that come before the prefix do not move the beginning back.
    let (first, _) = keys().names("m", Some(&name("a")));
    assert_eq!(first, keys().names("m", None).0);
}

#[test]
fn sessions_are_found_in_their_keys() {
    let session = SessionId([7; 16]);
    let (first, end) = keys().sessions(None);
    for (key, is_record) in [(keys().session_record(session), true), (keys().session_fence(session), false)] {
        assert_eq!(keys().session_in(&key), Some((session, is_record)));
        assert!(first <= key && key < end);
        let (first, end) = keys().session_all(session);
        assert!(first <= key && key < end);
        assert!(keys().sessions(Some(session)).0 > key);
    }
}

#[test]
fn shared_locks_go_by_session() {
    let id = DatabaseId(5);
    let sessions = [0, 1, 7, 8, 0xff].map(|byte| SessionId([byte; 16]));
    let within = |range: &Range, key: &Key| range.0 <= *key && *key < range.1;
    for own in sessions {
        let [before, after] = keys().shared_but_of(id, own);
        for session in sessions {
            for number in NUMBERS {
                let key = keys().shared(id, SharedLock { session, number });
                assert_eq!(keys().locker_in(id, &key).unwrap(), session);
                assert_eq!(within(&keys().shared_of(id, own), &key), session == own);
                assert_eq!((within(&before, &key), within(&after, &key)), (session < own, session > own));
            }
        }
        for other in [keys().of(id, Kind::Exclusive), keys().log(id, Txid(0), 0)] {
            assert!(!within(&before, &other) && !within(&after, &other));
        }
    }
}

#[test]
fn the_longest_key_is_far_below_the_limit() {
    let keys = Keys::new(vec![0x20; MAX_PREFIX_BYTES]);
    let name = DatabaseName::new(&"x".repeat(512)).unwrap();
    assert!(keys.name(&name).len() < 10_000);
    let id = DatabaseId(u64::MAX);
    let longest = [
        keys.row(id, PageNo(u32::MAX), Txid::MAX),
        keys.staged(id, u64::MAX, u64::MAX),
        keys.log(id, Txid::MAX, 255),
        keys.session_fence(SessionId([1; 16])),
        keys.shared_of(id, SessionId([1; 16])).1,
        keys.shared(id, SharedLock { session: SessionId([1; 16]), number: u64::MAX }),
        // Epochs, txids and generations of 2^40 and more do not come in a lifetime.
        keys.slot(id, &[0xff; 37]),
    ];
    assert!(longest.iter().all(|key| key.len() <= keys.key_bytes()), "{longest:?}");
}
