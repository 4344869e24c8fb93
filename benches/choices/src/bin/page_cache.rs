//! `lru` in sixteen shards of our own against `quick_cache`, as a cache of 4 KiB pages.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    hash::{BuildHasher, RandomState},
    num::NonZeroUsize,
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use bytes::Bytes;
use lru::LruCache;
use quick_cache::{OptionsBuilder, Weighter, sync::DefaultLifecycle};
use serde_json::{Value, json};

const PAGE_BYTES: usize = 4096;
const CAPACITY_BYTES: usize = 32 << 20;
const ENTRIES: usize = CAPACITY_BYTES / PAGE_BYTES;
const SHARDS: usize = 16;

/// Counts what is allocated, so that the memory of an entry is measured and not estimated.
struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system allocator with the caller's own arguments; the counter changes no memory.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds `GlobalAlloc::alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller upholds `GlobalAlloc::dealloc`.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Key {
    database: u32,
    page: u32,
    version: u64,
}

impl Key {
    fn new(number: usize) -> Self {
        Self {
            database: (number / 1000) as u32,
            page: (number % 1000) as u32 + 1,
            version: 7,
        }
    }
}

trait Cache: Send + Sync {
    fn get(&self, key: &Key) -> Option<Bytes>;
    fn put(&self, key: Key, page: Bytes);
    fn len(&self) -> usize;
}

/// Makes an empty cache.
type New = dyn Fn() -> Arc<dyn Cache>;

struct ShardedLru<S> {
    hasher: S,
    shards: Vec<Mutex<LruCache<Key, Bytes, S>>>,
}

impl<S: BuildHasher + Clone> ShardedLru<S> {
    fn new(hasher: S) -> Self {
        let entries = NonZeroUsize::new(ENTRIES / SHARDS).unwrap_or(NonZeroUsize::MIN);
        let shard = || Mutex::new(LruCache::with_hasher(entries, hasher.clone()));
        Self {
            shards: std::iter::repeat_with(shard).take(SHARDS).collect(),
            hasher,
        }
    }

    fn shard(&self, key: &Key) -> std::sync::MutexGuard<'_, LruCache<Key, Bytes, S>> {
        // The top bits: the map inside uses the low ones (and the top seven for its tags, a small loss).
        let index = (self.hasher.hash_one(key) >> 40) as usize % SHARDS;
        self.shards[index]
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<S: BuildHasher + Clone + Send + Sync> Cache for ShardedLru<S> {
    fn get(&self, key: &Key) -> Option<Bytes> {
        self.shard(key).get(key).cloned()
    }

    fn put(&self, key: Key, page: Bytes) {
        // The evicted page is freed after the lock.
        let evicted = self.shard(&key).push(key, page);
        drop(evicted);
    }

    fn len(&self) -> usize {
        self.shards
            .iter()
            .map(|shard| shard.lock().map_or(0, |shard| shard.len()))
            .sum()
    }
}

#[derive(Clone)]
struct PageBytes;

impl Weighter<Key, Bytes> for PageBytes {
    fn weight(&self, _: &Key, page: &Bytes) -> u64 {
        page.len() as u64
    }
}

struct Quick(quick_cache::sync::Cache<Key, Bytes, PageBytes>);

impl Quick {
    fn new(hot: f64) -> Self {
        let options = OptionsBuilder::new()
            .estimated_items_capacity(ENTRIES)
            .weight_capacity(CAPACITY_BYTES as u64)
            .shards(SHARDS)
            .hot_allocation(hot)
            .build();
        let options = options.unwrap_or_else(|error| panic!("options: {error}"));
        Self(quick_cache::sync::Cache::with_options(
            options,
            PageBytes,
            Default::default(),
            DefaultLifecycle::default(),
        ))
    }
}

impl Cache for Quick {
    fn get(&self, key: &Key) -> Option<Bytes> {
        self.0.get(key)
    }

    fn put(&self, key: Key, page: Bytes) {
        self.0.insert(key, page);
    }

    fn len(&self) -> usize {
        self.0.len()
    }
}

fn page() -> Bytes {
    Bytes::from(vec![1; PAGE_BYTES])
}

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// Draws with probability proportional to rank^-0.9, through the cumulative sums.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(count: usize) -> Self {
        let mut sum = 0.0;
        Self(
            (1..=count)
                .map(|rank| {
                    sum += (rank as f64).powf(-0.9);
                    sum
                })
                .collect(),
        )
    }

    fn draw(&self, random: &mut Random) -> usize {
        let last = self.0.last().copied().unwrap_or(0.0);
        let at = (random.next() >> 11) as f64 / (1_u64 << 53) as f64 * last;
        self.0
            .partition_point(|sum| *sum < at)
            .min(self.0.len() - 1)
    }
}

/// Zipf reads of pages of which every tenth access writes a new version: the old one is never asked for again.
fn hit_ratio_with_writes(cache: &dyn Cache, zipf: &Zipf) -> f64 {
    let mut random = Random(77);
    let page = page();
    let mut versions = vec![0_u64; 8 * ENTRIES];
    let (mut hits, mut reads) = (0_usize, 0_usize);
    for access in 0..100 * ENTRIES {
        let number = zipf.draw(&mut random);
        if random.next().is_multiple_of(10) {
            versions[number] += 1;
            cache.put(
                Key {
                    version: versions[number],
                    ..Key::new(number)
                },
                page.clone(),
            );
            continue;
        }
        let key = Key {
            version: versions[number],
            ..Key::new(number)
        };
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.put(key, page.clone());
        }
        if access >= 20 * ENTRIES {
            hits += usize::from(hit);
            reads += 1;
        }
    }
    hits as f64 / reads as f64
}

/// Nanoseconds of one hit, with so many threads at once: each its own time per call.
fn hit_ns(cache: &Arc<dyn Cache>, threads: usize) -> f64 {
    const CALLS: usize = 2_000_000;
    let barrier = Arc::new(Barrier::new(threads));
    let workers: Vec<_> = (0..threads)
        .map(|worker| {
            let (cache, barrier) = (Arc::clone(cache), Arc::clone(&barrier));
            thread::spawn(move || {
                let mut random = Random(0x1234_5678_9abc_def1 + worker as u64);
                let resident = ENTRIES / 2; // what surely is in the cache
                barrier.wait();
                let (start, mut hits) = (Instant::now(), 0);
                for _ in 0..CALLS {
                    hits += usize::from(
                        cache
                            .get(&Key::new(random.next() as usize % resident))
                            .is_some(),
                    );
                }
                (
                    start.elapsed().as_nanos() as f64 / CALLS as f64,
                    hits as f64 / CALLS as f64,
                )
            })
        })
        .collect();
    let times: Vec<_> = workers
        .into_iter()
        .filter_map(|worker| worker.join().ok())
        .collect();
    assert!(
        times.iter().all(|(_, hits)| *hits > 0.999),
        "those were not hits"
    );
    times.iter().map(|(time, _)| time).sum::<f64>() / times.len() as f64
}

fn insert_ns(cache: &Arc<dyn Cache>) -> f64 {
    const CALLS: usize = 1_000_000;
    let page = page();
    let start = Instant::now();
    for number in 0..CALLS {
        cache.put(Key::new(1_000_000 + number), page.clone());
    }
    start.elapsed().as_nanos() as f64 / CALLS as f64
}

/// Reads through the cache: zipf over 8 times the cache and, when asked for, a scan of 4 times the cache at intervals.
/// The ratio is that of the zipf reads alone, after a warm-up.
fn hit_ratio(cache: &dyn Cache, zipf: &Zipf, scans: bool) -> f64 {
    let mut random = Random(99);
    let page = page();
    let read = |key: Key| {
        let hit = cache.get(&key).is_some();
        if !hit {
            cache.put(key, page.clone());
        }
        hit
    };
    let (mut hits, mut reads) = (0_usize, 0_usize);
    for round in 0..10 {
        for _ in 0..10 * ENTRIES {
            let hit = read(Key::new(zipf.draw(&mut random)));
            if round >= 2 {
                hits += usize::from(hit);
                reads += 1;
            }
        }
        if scans {
            for number in 0..4 * ENTRIES {
                read(Key::new(10_000_000 + number));
            }
        }
    }
    hits as f64 / reads as f64
}

fn allocated() -> usize {
    ALLOCATED.load(Ordering::Relaxed)
}

fn measure(name: &str, new: &New, zipf: &Zipf) -> Value {
    let before = allocated();
    let cache = new();
    let shared = page();
    // Full, and evicting for a while, so that ghosts and tombstones are counted too.
    for number in 0..4 * ENTRIES {
        cache.put(Key::new(number), shared.clone());
    }
    // One shared page: what is left over belongs to the cache. The handle to shared bytes is inside the entry.
    let overhead = allocated().saturating_sub(before + PAGE_BYTES) as f64 / cache.len() as f64;
    let len = cache.len();
    drop(cache);

    let cache = new();
    for number in 0..ENTRIES / 2 {
        cache.put(Key::new(number), page());
    }
    let (one, two) = (hit_ns(&cache, 1), hit_ns(&cache, 2));
    for number in 0..ENTRIES {
        cache.put(Key::new(number), page());
    }
    let insert = insert_ns(&cache);
    let (plain, scanned) = (
        hit_ratio(&*new(), zipf, false),
        hit_ratio(&*new(), zipf, true),
    );
    let written = hit_ratio_with_writes(&*new(), zipf);
    json!({ "cache": name, "hit_ratio_zipf_and_writes": written, "hit_ns_1_thread": one, "hit_ns_2_threads": two, "insert_evict_ns": insert,
        "hit_ratio_zipf": plain, "hit_ratio_zipf_and_scans": scanned, "overhead_bytes_per_entry": overhead, "entries": len })
}

fn main() {
    let zipf = Zipf::new(8 * ENTRIES);
    let sip = || Arc::new(ShardedLru::new(RandomState::new())) as Arc<dyn Cache>;
    let fold =
        || Arc::new(ShardedLru::new(quick_cache::DefaultHashBuilder::default())) as Arc<dyn Cache>;
    let quick = || Arc::new(Quick::new(0.97)) as Arc<dyn Cache>; // its default
    let colder = || Arc::new(Quick::new(0.75)) as Arc<dyn Cache>;
    let mut results = Vec::new();
    println!(
        "{:<12} hit ns 1 thread | 2 threads | insert+evict ns | zipf hits | with scans | with writes | overhead bytes | entries",
        ""
    );
    for _ in 0..3 {
        let caches: [(&str, &New); 4] = [
            ("lru, SipHash", &sip),
            ("lru, foldhash", &fold),
            ("quick 0.97", &quick),
            ("quick 0.75", &colder),
        ];
        for (name, new) in caches {
            let run = measure(name, new, &zipf);
            let number = |key: &str| run[key].as_f64().unwrap_or(f64::NAN);
            println!(
                "{name:<14} {:>8.1} | {:>8.1} | {:>8.1} | {:.3} | {:.3} | {:.3} | {:>6.1} | {}",
                number("hit_ns_1_thread"),
                number("hit_ns_2_threads"),
                number("insert_evict_ns"),
                number("hit_ratio_zipf"),
                number("hit_ratio_zipf_and_scans"),
                number("hit_ratio_zipf_and_writes"),
                number("overhead_bytes_per_entry"),
                run["entries"],
            );
            results.push(run);
        }
    }
    println!("{}", json!({ "results": results }));
}
