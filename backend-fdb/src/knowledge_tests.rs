use super::*;

const SESSION: SessionId = SessionId([1; 16]);
const ID: DatabaseId = DatabaseId(4);
const ME: [u8; 8] = [7; 8];

fn fence(nonce: u8) -> FenceValue {
    FenceValue { owner: ME, nonce: [nonce; 8] }
}

fn witness(nonce: u8, version: i64) -> Witness {
    Witness { session: SESSION, fence: fence(nonce), version }
}

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn known(chain: u64, txid: u64) -> Known {
    let mut core = Core::empty();
    core.head.txid = Txid(txid);
    Known { core, session: SESSION, chain }
}

#[test]
fn a_chain_vouches_while_it_is_young_and_its_fence_stands() {
    let knowledge = Knowledge::new(ME);
    let id = knowledge.witnessed(&witness(1, 10), (20, at(0))).unwrap();
    assert_eq!(knowledge.read_version(SESSION, id, at(3)), Some(20));
    assert_eq!(knowledge.read_version(SESSION, id, at(5)), None, "too old");
    // A witness of the same fence carries it on, however long it was.
    assert_eq!(knowledge.witnessed(&witness(1, 90), (100, at(50))), Some(id));
    knowledge.extended(SESSION, id, (110, at(51)));
    knowledge.extended(SESSION, id, (105, at(52)));
    assert_eq!(knowledge.read_version(SESSION, id, at(52)), Some(110), "the newest counts");
    // Another value, and what was known counts no more.
    let next = knowledge.witnessed(&witness(2, 200), (210, at(53))).unwrap();
    assert_ne!(next, id);
    assert_eq!(knowledge.read_version(SESSION, id, at(53)), None);
    knowledge.extended(SESSION, id, (500, at(53)));
    assert_eq!(knowledge.read_version(SESSION, next, at(53)), Some(210));
    // One that was slow and saw the value before.
    assert_eq!(knowledge.witnessed(&witness(1, 150), (160, at(53))), None);
    assert_eq!(knowledge.read_version(SESSION, next, at(53)), Some(210));
    // Another instance's session is no chain.
    let other = Witness { fence: FenceValue { owner: [0; 8], nonce: [9; 8] }, ..witness(0, 300) };
    assert_eq!(knowledge.witnessed(&other, (310, at(54))), None);
    assert_eq!(knowledge.read_version(SESSION, next, at(54)), None);
}

#[test]
fn what_is_known_comes_back_only_from_a_change_that_was_alone() {
    let knowledge = Arc::new(Knowledge::new(ME));
    knowledge.begin(ID).made(known(1, 5));
    let mut touch = knowledge.begin(ID);
    assert_eq!(touch.state.as_ref().map(|known| known.core.head.txid), Some(Txid(5)));
    // Two at once: neither leaves anything behind.
    let mut other = knowledge.begin(ID);
    assert!(other.state.is_none());
    touch.made(known(1, 6));
    drop(touch);
    other.made(known(1, 7));
    drop(other);
    assert!(knowledge.begin(ID).state.is_none());
    let mut touch = knowledge.begin(ID);
    assert!(touch.state.is_none());
    assert_eq!(touch.session, Some(SESSION), "whose the lease is stays known");
    touch.made(known(1, 8));
    drop(touch);
    // One that is dropped takes what was known with it.
    drop(knowledge.begin(ID));
    assert!(knowledge.begin(ID).state.is_none());
    knowledge.begin(ID).not_held();
    assert!(knowledge.lock().databases.is_empty());
}

#[test]
fn pages_are_read_at_a_version_only_where_nothing_newer_can_be_missed() {
    let knowledge = Arc::new(Knowledge::new(ME));
    let reading =
        |seconds| knowledge.version_for_reading(ID, at(seconds)).map(|(version, _, horizon)| (version, horizon));
    assert_eq!(reading(0), None);
    knowledge.committed((20, at(1)));
    knowledge.committed((15, at(2)));
    assert_eq!(reading(2), None, "not held");
    knowledge.begin(ID).made(known(1, 5));
    assert_eq!(reading(2), Some((20, None)));
    assert_eq!(reading(4), None, "too old");
    knowledge.viewed(ID, View { version: 30, at: at(5), horizon: Txid(3) });
    assert_eq!(reading(6), Some((30, Some(Txid(3)))), "what was read there need not be read again");
    knowledge.viewed(ID, View { version: 25, at: at(6), horizon: Txid(2) });
    assert_eq!(reading(6), Some((30, Some(Txid(3)))), "the newest counts");
    // A checkpoint: rows that the caller counts on are not there at 30.
    knowledge.telling(ID, 40);
    assert_eq!(reading(6), None);
    knowledge.committed((39, at(6)));
    assert_eq!(reading(6), None);
    knowledge.committed((41, at(6)));
    assert_eq!(reading(6), Some((41, None)));
    // Whoever has given it back is told by others.
    knowledge.begin(ID).not_held();
    assert_eq!(reading(6), None);
}
