//! smoke
use litefleet::Fleet;
use litefleet::store::MemoryStore;
use rusqlite::{Connection, OpenFlags};
use std::sync::Arc;

fn open(fleet_name: &str, uri: &str) -> Connection {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags_and_vfs(uri, flags, fleet_name).unwrap()
}

#[test]
fn it_works() {
    let fleet = Fleet::builder(Arc::new(MemoryStore::default())).build().unwrap();
    fleet.register("smoke", false).unwrap();
    let a = open("smoke", "file:tenant-42");
    a.execute_batch("create table t(a integer primary key, b text); insert into t(b) values ('x'),('y');").unwrap();
    let b = open("smoke", "file:tenant-42");
    assert_eq!(b.query_row("select count(*) from t", [], |r| r.get::<_, i64>(0)).unwrap(), 2);
    for i in 0..1000 {
        a.execute("insert into t(b) values (?1)", [format!("row {i}").repeat(20)]).unwrap();
    }
    assert_eq!(b.query_row("select count(*) from t", [], |r| r.get::<_, i64>(0)).unwrap(), 1002);
    println!("{}", b.query_row("pragma litefleet_status", [], |r| r.get::<_, String>(0)).unwrap());
    a.execute_batch("begin; delete from t where a > 500; rollback; vacuum; pragma page_size=1024; vacuum; delete from t where a > 900; vacuum;").unwrap();
    assert_eq!(b.query_row("pragma integrity_check", [], |r| r.get::<_, String>(0)).unwrap(), "ok");
    a.execute_batch("attach 'file:other' as o; create table o.u(x); begin; insert into o.u values (1); delete from t where a=1; commit").unwrap();
    drop(a);
    drop(b);
    let c = open("smoke", "file:tenant-42?mode=ro");
    assert_eq!(c.query_row("select count(*) from t", [], |r| r.get::<_, i64>(0)).unwrap(), 899);
    println!("{}", c.query_row("pragma litefleet_status", [], |r| r.get::<_, String>(0)).unwrap());
    println!("{:#?}", fleet.counters().all());
    let r = fleet.verify(&litefleet::DatabaseName::new("tenant-42").unwrap(), &mut |_| {}).unwrap();
    println!("{r:?}");
    assert!(r.problems.is_empty());
}
