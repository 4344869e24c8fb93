use std::fmt::Debug;

use super::*;

#[expect(clippy::needless_pass_by_value, reason = "the values are made in the calls")]
fn comes_back<T: Value + PartialEq + Debug>(value: T) {
    let bytes = value.encode(b"key");
    assert_eq!(T::decode(b"key", &bytes).unwrap(), value);
    assert!(T::decode(b"another key", &bytes).is_err(), "in the wrong place");
    for cut in 0..bytes.len() {
        assert!(T::decode(b"key", bytes.get(..cut).unwrap()).is_err(), "cut off");
    }
    for index in 0..bytes.len() {
        let mut damaged = bytes.clone();
        *damaged.get_mut(index).unwrap() ^= 0x40;
        assert!(T::decode(b"key", &damaged).is_err(), "damaged");
    }
}

#[test]
fn values_come_back_and_damage_is_found() {
    comes_back(HeadValue { txid: Txid(300), commit_id: CommitId([3; 16]), size: 1 << 40 });
    for entry in [Entry::None, Entry::Open { last: 7 }, Entry::Discarding] {
        comes_back(StagingValue { generation: 9, entry });
    }
    let holder = HolderValue { session: SessionId([9; 16]), label: "host:17".into() };
    let unnamed = HolderValue { label: String::new(), ..holder.clone() };
    for tenure in [Tenure::Free, Tenure::Deposed(holder.session), Tenure::Held(holder), Tenure::Held(unnamed)] {
        comes_back(LeaseValue { epoch: Epoch(4), tenure });
    }
    let pieces = Pieces { epoch: Epoch(2), attempt: 4, txid: Txid(7), count: 300 };
    for pieces in [Pieces::default(), pieces] {
        comes_back(ProgressValue { checkpoint: Txid(5), horizon: Txid(4), log_start: Txid(3), pieces });
    }
    for ended in [None, Some(1 << 40)] {
        let lifetime = Duration::from_secs(30);
        comes_back(SessionValue { lifetime, renewals: 2, ended, label: "host".into() });
    }
    comes_back(FenceValue { owner: [1; 8], nonce: [2; 8] });
    let end = EpochEnd { epoch: Epoch(1), txid: Txid(2), commit_id: CommitId([4; 16]) };
    for holder in [None, Some(SessionId([5; 16]))] {
        comes_back(EpochEndValue { end, version: 99, holder });
    }
    comes_back(Epoch(70_000));
    comes_back(UnixMillis(1_700_000_000_000));
    comes_back(String::from("näme"));
    comes_back(17_u64);
    let pages: PageSet = [1, 2, 3, 9, 70_000, u32::MAX].into_iter().map(PageNo).collect();
    comes_back(pages);
    comes_back(PageSet::new());
}

#[test]
fn rows_come_back() {
    for kind in [RowKind::Image, RowKind::Delta { base: Txid(70_000) }, RowKind::Zero] {
        for bytes in [b"".as_slice(), b"row"] {
            let value = encode_row(kind, bytes);
            assert_eq!(decode_row(&value).unwrap(), (kind, bytes));
        }
    }
    assert!(decode_row(b"").is_err());
    assert!(decode_row(b"\x09").is_err());
    assert!(decode_row(b"\x02\x04\x01").is_err());
}

#[test]
fn a_head_is_small() {
    let head = HeadValue { txid: Txid(1_000_000), commit_id: CommitId([1; 16]), size: 100 << 20 };
    assert!(head.encode(b"key").len() <= 31);
}
