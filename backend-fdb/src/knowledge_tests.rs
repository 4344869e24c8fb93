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
    let knowledge = Arc::new(Knowledge::new(ME));
    // The version that a change would read at, with this chain behind what is known.
    let read_version = |chain, seconds| {
        knowledge.begin(ID).made(known(chain, 5));
        knowledge.begin(ID).read_version(at(seconds))
    };
    let id = knowledge.witnessed(&witness(1, 10), (20, at(0))).unwrap();
    assert_eq!(read_version(id, 3), Some(19), "what others have committed at 20 must be seen");
    assert_eq!(read_version(id, 5), None, "too old");
    // A witness of the same fence carries it on, however long it was.
    assert_eq!(knowledge.witnessed(&witness(1, 90), (100, at(50))), Some(id));
    knowledge.extended(SESSION, id, (110, at(51)));
    knowledge.extended(SESSION, id, (105, at(52)));
    assert_eq!(read_version(id, 52), Some(109), "the newest counts");
    // Another value, and what was known counts no more.
    let next = knowledge.witnessed(&witness(2, 200), (210, at(53))).unwrap();
    assert_ne!(next, id);
    assert_eq!(read_version(id, 53), None);
    knowledge.extended(SESSION, id, (500, at(53)));
    assert_eq!(read_version(next, 53), Some(209));
    // One that was slow and saw the value before.
    assert_eq!(knowledge.witnessed(&witness(1, 150), (160, at(53))), None);
    assert_eq!(read_version(next, 53), Some(209));
    // Another instance's session is no chain.
    let other = Witness { fence: FenceValue { owner: [0; 8], nonce: [9; 8] }, ..witness(0, 300) };
    assert_eq!(knowledge.witnessed(&other, (310, at(54))), None);
    assert_eq!(read_version(next, 54), None);
}

#[test]
fn what_is_known_comes_back_only_from_a_change_that_was_alone() {
    let knowledge = Arc::new(Knowledge::new(ME));
    assert_eq!(knowledge.witnessed(&witness(1, 10), (20, at(0))), Some(1));
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
        |seconds| knowledge.version_for_reading(ID, at(seconds)).map(|(version, _, reached)| (version, reached));
    let reached = |horizon| Reached { checkpoint: Txid(4), horizon: Txid(horizon) };
    assert_eq!(reading(0), None);
    knowledge.committed((20, at(1)));
    knowledge.committed((15, at(2)));
    assert_eq!(reading(2), None, "not held");
    assert_eq!(knowledge.witnessed(&witness(1, 10), (12, at(0))), Some(1));
    knowledge.begin(ID).made(known(1, 5));
    assert_eq!(reading(2), Some((20, None)));
    assert_eq!(reading(4), None, "too old");
    knowledge.viewed(ID, View { version: 30, at: at(5), reached: reached(3) });
    assert_eq!(reading(6), Some((30, Some(reached(3)))), "what was read there need not be read again");
    knowledge.viewed(ID, View { version: 25, at: at(6), reached: reached(2) });
    assert_eq!(reading(6), Some((30, Some(reached(3)))), "the newest counts");
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

#[test]
fn a_grant_goes_by_the_chain_of_its_session() {
    let knowledge = Arc::new(Knowledge::new(ME));
    let granting = |database, seconds| knowledge.version_for_granting(SESSION, database, at(seconds));
    assert_eq!(granting(Some(ID), 0), None, "there is no chain");
    let id = knowledge.witnessed(&witness(1, 10), (20, at(0))).unwrap();
    assert_eq!(granting(Some(ID), 2), Some((19, fence(1))), "what others have committed at 20 must be seen");
    assert_eq!(granting(None, 2), Some((19, fence(1))), "nobody knows yet which database it is");
    assert_eq!(granting(Some(ID), 3), None, "too old");
    assert_eq!(knowledge.version_for_granting(SessionId([2; 16]), Some(ID), at(2)), None, "another session");
    knowledge.changed(ID, 19);
    assert_eq!(granting(Some(ID), 2), Some((19, fence(1))), "that is to be seen there");
    knowledge.changed(ID, 20);
    assert_eq!(granting(Some(ID), 2), None, "hidden");
    assert_eq!(granting(Some(DatabaseId(5)), 2), Some((19, fence(1))));
    knowledge.changed(DatabaseId(5), 20);
    assert_eq!((granting(Some(ID), 2), granting(Some(DatabaseId(5)), 2)), (None, None), "both");
    knowledge.changed(DatabaseId(5), 30);
    knowledge.extended(SESSION, id, (30, at(1)));
    assert_eq!(granting(Some(ID), 2), Some((29, fence(1))));
    assert_eq!(granting(Some(DatabaseId(5)), 2), None);
    knowledge.forget(SESSION);
    assert_eq!(granting(Some(ID), 2), None);
}

#[test]
fn a_change_goes_by_the_version_from_when_it_began() {
    // Another change of ours may begin and be committed before this one is sent: a newer version would hide it.
    let knowledge = Arc::new(Knowledge::new(ME));
    let id = knowledge.witnessed(&witness(1, 10), (20, at(0))).unwrap();
    knowledge.begin(ID).made(known(id, 5));
    let touch = knowledge.begin(ID);
    knowledge.extended(SESSION, id, (30, at(1)));
    assert_eq!(touch.read_version(at(1)), Some(19));
    drop(touch);
    assert_eq!(knowledge.begin(ID).read_version(at(1)), None, "nothing is known");
}

#[test]
fn no_two_states_have_the_same_identity() {
    let mut seen = std::collections::HashSet::new();
    let mut states = 0;
    for epoch in [0, 1, 255, 256] {
        for held in [false, true] {
            for txid in [0, 1, 255, 256, u64::MAX] {
                for generation in [0, 1, 256] {
                    let open = [1, 2, 256].map(|last| Entry::Open { last });
                    for entry in [Entry::None, Entry::Discarding].into_iter().chain(open) {
                        let mut core = Core::empty();
                        core.lease.epoch = Epoch(epoch);
                        let holder = crate::values::HolderValue { session: SESSION, label: "label".into() };
                        core.lease.tenure = if held { Tenure::Held(holder) } else { Tenure::Free };
                        core.head.txid = Txid(txid);
                        core.staging = StagingValue { generation, entry };
                        seen.insert(core.identity());
                        states += 1;
                    }
                }
            }
        }
    }
    assert_eq!(seen.len(), states);
}

#[test]
fn a_lost_session_leaves_nothing_behind() {
    let knowledge = Arc::new(Knowledge::new(ME));
    let other = SessionId([2; 16]);
    let chain = knowledge.witnessed(&witness(1, 10), (20, at(0))).unwrap();
    let others = knowledge.witnessed(&Witness { session: other, ..witness(2, 10) }, (21, at(0))).unwrap();
    for id in 1..100 {
        knowledge.begin(DatabaseId(id)).made(known(chain, 5));
    }
    knowledge.begin(DatabaseId(100)).made(Known { session: other, ..known(others, 5) });
    // One change is under way, and made when the session is over already.
    let mut late = knowledge.begin(DatabaseId(1));
    knowledge.forget(SESSION);
    late.made(known(chain, 6));
    drop(late);
    let kept: Vec<DatabaseId> = knowledge.lock().databases.keys().copied().collect();
    assert_eq!(kept, [DatabaseId(100)]);
    assert!(knowledge.begin(DatabaseId(100)).state.is_some());
}
