//! Files that are removed, renamed, replaced or overwritten under a store that writes them.

use std::fs;
use std::path::Path;

use super::rig::*;
use crate::disk;

/// What somebody does to a folder in use.
type Harm = fn(&Path);

/// A copy of the folder, as a backup that is taken while the node runs.
fn backup(of: &Path) -> tempfile::TempDir {
    let backup = tempfile::tempdir().unwrap();
    for file in fs::read_dir(of).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), backup.path().join(file.file_name())).unwrap();
    }
    backup
}

const HARMS: [(&str, Harm); 9] = [
    ("all of it removed", |dir| fs::remove_dir_all(dir).unwrap()),
    ("renamed", |dir| {
        fs::rename(dir, dir.with_extension("away")).unwrap();
    }),
    ("renamed, and another in its place", |dir| {
        let away = dir.with_extension("away");
        fs::rename(dir, &away).unwrap();
        fs::create_dir(dir).unwrap();
        for file in fs::read_dir(away).unwrap() {
            let file = file.unwrap();
            fs::copy(file.path(), dir.join(file.file_name())).unwrap();
        }
    }),
    ("the database removed", |dir| {
        fs::remove_file(dir.join("history.db")).unwrap();
    }),
    ("the log removed", |dir| {
        fs::remove_file(dir.join("history.db-wal")).unwrap();
    }),
    ("the log's index removed", |dir| {
        fs::remove_file(dir.join("history.db-shm")).unwrap();
    }),
    ("the lock removed", |dir| {
        fs::remove_file(dir.join("history.lock")).unwrap();
    }),
    ("the database replaced by its copy", |dir| {
        let (file, copy) = (dir.join("history.db"), dir.join("copy"));
        fs::copy(&file, &copy).unwrap();
        fs::rename(copy, file).unwrap();
    }),
    ("the log overwritten by nothing", |dir| {
        fs::write(dir.join("history.db-wal"), []).unwrap();
    }),
];

/// Goal: nothing is told as stored once the files are not where the next start finds them, whether
/// a batch comes or not.
/// Method: each harm, once before a batch and once without one.
#[tokio::test]
async fn files_that_are_not_where_they_were_end_the_writer() {
    for (what, harm) in HARMS {
        for writes in [true, false] {
            let parent = tempfile::tempdir().unwrap();
            let dir = parent.path().join("data");
            let (disk, _, mut outcomes) = disk::open(options(&dir)).unwrap();
            disk.write(shown((1..=50).map(|seq| entry('a', seq, seq))));
            assert_eq!(outcomes.recv().await, Some(disk::Outcome::Stored));
            harm(&dir);
            if writes {
                disk.write(shown([entry('a', 51, 51)]));
            }
            let outcome = tokio::time::timeout(PATIENCE, outcomes.recv()).await;
            let Ok(Some(disk::Outcome::Broken(why))) = outcome else {
                panic!("{what}, a batch: {writes}: {outcome:?}");
            };
            assert!(why.contains("history."), "{what}: {why}");
            disk.close(PATIENCE).await;
        }
    }
}

/// Goal: a backup that is copied over the files in use ends the writer too, and the backup is what
/// the next start finds.
/// Method: a copy of 50 entries, 500 more, the copy put back file by file.
#[tokio::test]
async fn a_backup_copied_over_the_files_in_use_ends_the_writer() {
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("data");
    let (disk, _, mut outcomes) = disk::open(options(&dir)).unwrap();
    disk.write(shown((1..=50).map(|seq| entry('a', seq, seq))));
    assert_eq!(outcomes.recv().await, Some(disk::Outcome::Stored));
    let backup = backup(&dir);
    disk.write(shown((51..=550).map(|seq| entry('a', seq, seq))));
    assert_eq!(outcomes.recv().await, Some(disk::Outcome::Stored));
    for name in ["history.db", "history.db-wal"] {
        fs::copy(backup.path().join(name), dir.join(name)).unwrap();
    }
    disk.write(shown([entry('a', 551, 551)]));
    let outcome = tokio::time::timeout(PATIENCE, outcomes.recv()).await;
    assert!(
        matches!(outcome, Ok(Some(disk::Outcome::Broken(_)))),
        "{outcome:?}"
    );
    disk.close(PATIENCE).await;
}

/// Goal: another program may copy the log into the file, as SQLite lets it, and empty it.
/// Method: such a checkpoint between two batches, and a wait for the next look.
#[tokio::test]
async fn a_checkpoint_by_another_program_ends_nothing() {
    let mut rig = Rig::new();
    rig.store(shown((1..=500).map(|seq| entry('a', seq, seq))))
        .await;
    let other = rusqlite::Connection::open(rig.dir.path().join("history.db")).unwrap();
    let emptied: i64 = other
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .unwrap();
    assert_eq!(emptied, 0, "nobody else reads");
    let looked = tokio::time::timeout(std::time::Duration::from_millis(1500), rig.outcomes.recv());
    assert!(looked.await.is_err(), "nothing is told");
    rig.store(shown([entry('a', 501, 501)])).await;
}
