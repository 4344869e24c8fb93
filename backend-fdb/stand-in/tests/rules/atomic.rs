//! Atomic operations as the cluster applies them.

use foundationdb::options::MutationType;

use crate::cluster::code;
use crate::test;

/// Value before, operand, and value after.
type Case = (Option<&'static [u8]>, &'static [u8], Option<&'static [u8]>);

#[test]
fn the_cluster_computes_atomic_operations() {
    let cases: &[(MutationType, &[Case])] = &[
        (MutationType::Add, &[(None, &[1, 2], Some(&[1, 2])), (Some(&[255]), &[1, 0], Some(&[0, 1]))]),
        (MutationType::BitAnd, &[(None, &[3], Some(&[3])), (Some(&[6]), &[3, 9], Some(&[2, 0]))]),
        (MutationType::BitOr, &[(None, &[3], Some(&[3])), (Some(&[4, 1]), &[3], Some(&[7]))]),
        (MutationType::BitXor, &[(None, &[3], Some(&[3])), (Some(&[5]), &[4], Some(&[1]))]),
        (MutationType::AppendIfFits, &[(None, b"ab", Some(b"ab")), (Some(b"x"), b"ab", Some(b"xab"))]),
        (MutationType::Max, &[(None, &[1], Some(&[1])), (Some(&[0, 1]), &[9, 0], Some(&[0, 1]))]),
        (MutationType::Min, &[(None, &[1], Some(&[1])), (Some(&[0, 1]), &[9, 0], Some(&[9, 0]))]),
        (MutationType::ByteMin, &[(None, b"b", Some(b"b")), (Some(b"ab"), b"b", Some(b"ab"))]),
        (MutationType::ByteMax, &[(None, b"b", Some(b"b")), (Some(b"ab"), b"b", Some(b"b"))]),
        (
            MutationType::CompareAndClear,
            &[(None, b"b", None), (Some(b"a"), b"b", Some(b"a")), (Some(b"b"), b"b", None)],
        ),
    ];
    test(async |cluster| {
        let key = cluster.key("a");
        for (operation, cases) in cases {
            for (before, operand, after) in *cases {
                let transaction = cluster.begin();
                match before {
                    Some(before) => transaction.set(&key, before),
                    None => transaction.clear(&key),
                }
                transaction.commit().await.unwrap();
                let transaction = cluster.begin();
                transaction.atomic_op(&key, operand, *operation);
                let seen = transaction.get(&key, false).await.unwrap().map(|value| value.to_vec());
                assert_eq!(seen.as_deref(), *after, "{operation:?} on {before:?}, in the transaction");
                transaction.commit().await.unwrap();
                let stored = cluster.begin().get(&key, false).await.unwrap().map(|value| value.to_vec());
                assert_eq!(stored.as_deref(), *after, "{operation:?} on {before:?}");
            }
        }
    });
}

#[test]
fn operations_on_one_key_take_effect_in_their_order() {
    test(async |cluster| {
        let key = cluster.key("a");
        cluster.put(&[("a", "0")]).await;
        let transaction = cluster.begin();
        transaction.atomic_op(&key, b"1", MutationType::AppendIfFits);
        transaction.atomic_op(&key, b"2", MutationType::AppendIfFits);
        transaction.set(&cluster.key("b"), b"x");
        transaction.atomic_op(&cluster.key("b"), b"y", MutationType::AppendIfFits);
        transaction.clear_range(&cluster.key("c"), &cluster.key("d"));
        transaction.atomic_op(&cluster.key("c"), b"z", MutationType::AppendIfFits);
        transaction.commit().await.unwrap();
        assert_eq!(cluster.value("a").await.as_deref(), Some("012"));
        assert_eq!(cluster.value("b").await.as_deref(), Some("xy"));
        assert_eq!(cluster.value("c").await.as_deref(), Some("z"));
    });
}

#[test]
fn a_stamp_without_a_place_for_it_is_refused() {
    test(async |cluster| {
        let too_far: &[u8] = b"0123456789\x01\0\0\0";
        for (key, operand, operation) in [
            (cluster.key("a"), too_far, MutationType::SetVersionstampedValue),
            (cluster.key("a"), b"abc", MutationType::SetVersionstampedValue),
            (cluster.key("0123456789\u{7f}\0\0\0"), b"", MutationType::SetVersionstampedKey),
        ] {
            let transaction = cluster.begin();
            transaction.atomic_op(&key, operand, operation);
            assert_eq!(code(transaction.commit().await), 2000, "{operation:?}");
        }
    });
}
