//! How many entries a second a disk keeps, by the size of batches.
//!
//! `cargo run --release -p chatnode --example disk_speed FOLDER [ENTRIES [BATCH]]`: each row is a
//! store of its own in FOLDER, which is removed afterwards. "Stored" is the rate at which batches
//! were told as stored, with what the index of words costs meanwhile; "indexed" is the rate until
//! that had caught up too; "at limit" the rate of a store that has to trim as much as it takes.
//! Then what a search, a page and an opening take.

#![expect(
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::expect_used,
    reason = "a small program for people: it measures and prints"
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use chatnode::measured::{
    self, Batch, Disk, DiskOptions, DiskRetention, Entry, EntryId, Loaded, Mid, Origin, Outcome,
    Retention, RoomName, UserName,
};
use tokio::sync::mpsc;

/// Words that texts are made of; those in front are the most frequent.
const WORDS: u64 = 5000;
/// Bytes of a text, about.
const TEXT_BYTES: usize = 100;
/// Longer than a store takes to close.
const PATIENCE: Duration = Duration::from_secs(60);
/// Rooms in which things are said.
const ROOMS: u64 = 20;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut args = std::env::args().skip(1);
    let folder = PathBuf::from(args.next().expect("the folder to measure in"));
    let count: u64 = args
        .next()
        .map_or(300_000, |count| count.parse().expect("a number of entries"));
    let only: Option<usize> = args.next().map(|batch| batch.parse().expect("a number"));
    let entries = entries(count);
    println!("batch   stored/s  indexed/s at limit/s");
    for (batch, part) in [(1, 50), (8, 10), (64, 1), (1000, 1)] {
        if only.is_none_or(|only| only == batch) {
            let dir = folder.join(format!("disk-speed-{batch}"));
            measure(&dir, &entries[..entries.len() / part], batch).await;
        }
    }
}

async fn measure(dir: &Path, entries: &[Arc<Entry>], batch: usize) {
    let (disk, _, mut outcomes) = open(dir, DiskRetention::default());
    let begun = Instant::now();
    for chunk in entries.chunks(batch) {
        store(&disk, &mut outcomes, chunk).await;
    }
    let stored = rate(entries.len(), begun.elapsed());
    // Fewer are never indexed: a search looks through them.
    while disk.unindexed() >= 1000 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let indexed = rate(entries.len(), begun.elapsed());
    let mut looked = Vec::new();
    if batch >= 64 {
        looked = look(&disk).await;
    }
    disk.close(PATIENCE).await;
    let begun = Instant::now();
    let (disk, loaded, outcomes) = open(dir, DiskRetention::default());
    let elapsed = begun.elapsed();
    looked.push(format!(
        "opened in {elapsed:.1?}, {} loaded",
        loaded.entries.len()
    ));
    disk.close(PATIENCE).await;
    drop((loaded, outcomes));
    std::fs::remove_dir_all(dir).expect("the store is removed");

    let (before, after) = entries.split_at(entries.len() / 2);
    let retention = DiskRetention {
        messages: before.len() as u64,
        ..DiskRetention::default()
    };
    let (disk, _, mut outcomes) = open(dir, retention);
    for chunk in before.chunks(1000) {
        store(&disk, &mut outcomes, chunk).await;
    }
    let begun = Instant::now();
    for chunk in after.chunks(batch) {
        store(&disk, &mut outcomes, chunk).await;
    }
    let limited = rate(after.len(), begun.elapsed());
    disk.close(PATIENCE).await;
    std::fs::remove_dir_all(dir).expect("the store is removed");
    println!("{batch:5} {stored:10.0} {indexed:10.0} {limited:10.0}");
    for line in looked {
        println!("      {line}");
    }
}

fn open(dir: &Path, retention: DiskRetention) -> (Disk, Loaded, mpsc::Receiver<Outcome>) {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH);
    let wall = wall.expect("it is after 1970").as_micros();
    measured::open(DiskOptions {
        dir: dir.to_owned(),
        retention,
        window: Retention::default(),
        wall_us: u64::try_from(wall).expect("microseconds fit for long"),
    })
    .expect("the store opens")
}

async fn store(disk: &Disk, outcomes: &mut mpsc::Receiver<Outcome>, entries: &[Arc<Entry>]) {
    disk.write(Batch {
        entries: entries
            .iter()
            .map(|entry| (Arc::clone(entry), true))
            .collect(),
        shows: Vec::new(),
    });
    loop {
        match outcomes.recv().await {
            Some(Outcome::Stored) => return,
            Some(Outcome::Trimmed(_)) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// What readers take.
async fn look(disk: &Disk) -> Vec<String> {
    let mut looked = Vec::new();
    let room: RoomName = "room-3".parse().expect("a name");
    let both = format!("{} {}", word(1), word(2));
    for words in [word(0), word(300), both, word(4999)] {
        let query = words.parse().expect("a word");
        let begun = Instant::now();
        let found = disk.search(&room, &query, None, 50).await;
        let count = found.map(|page| page.entries.len());
        looked.push(format!(
            "search {words}: {count:?} in {:.1?}",
            begun.elapsed()
        ));
    }
    let begun = Instant::now();
    let page = disk.page(&room, None, 50).await.expect("a page");
    looked.push(format!(
        "page of {} in {:.1?}",
        page.entries.len(),
        begun.elapsed()
    ));
    looked
}

fn rate(count: usize, elapsed: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let count = count as f64;
    count / elapsed.as_secs_f64()
}

/// The same entries each time.
fn entries(count: u64) -> Vec<Arc<Entry>> {
    let origins: [Origin; 3] =
        ["aaaaaaaaaa", "bbbbbbbbbb", "cccccccccc"].map(|o| o.parse().expect("an origin"));
    let name: UserName = "ada".parse().expect("a name");
    let mut random = 88_172_645_463_325_252_u64;
    let mut next = move |below: u64| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        random % below
    };
    let mut seqs = [0; 3];
    let entry = |ts: u64| {
        let mut text = String::new();
        while text.len() < TEXT_BYTES {
            // The least of three: few words are frequent, most are rare.
            text.push_str(&word(next(WORDS).min(next(WORDS)).min(next(WORDS))));
            text.push(' ');
        }
        let whose = usize::try_from(next(3)).expect("0 to 2");
        seqs[whose] += 1;
        let id = EntryId {
            origin: origins[whose],
            seq: seqs[whose],
        };
        let room = format!("room-{}", next(ROOMS)).parse().expect("a name");
        let mid: Mid = format!("{ts:032x}").parse().expect("a mid");
        let ts = 1_760_000_000_000_000 + 10 * ts;
        Arc::new(Entry::new(id, ts, room, Some(mid), &name, text.trim_end()))
    };
    (0..count).map(entry).collect()
}

/// A word of three to eight letters.
fn word(number: u64) -> String {
    let mut left = (number + 1) * 7_919;
    let mut word = String::new();
    for _ in 0..3 + number % 6 {
        let letter = u8::try_from(left % 26).expect("a letter");
        word.push(char::from(b'a' + letter));
        left = left / 26 + number * 31;
    }
    word
}
