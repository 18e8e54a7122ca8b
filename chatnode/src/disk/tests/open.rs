//! What may be opened, and what is said when it may not.

use std::path::Path;

use rusqlite::Connection;

use super::rig::{PATIENCE, Rig, entry, options, shown};
use crate::disk::{self, OpenError};

fn refused(dir: &Path) -> OpenError {
    disk::open(options(dir)).expect_err("it is refused")
}

/// Goal: two nodes never write one file. Method: open a folder twice; then again once it is closed.
#[tokio::test]
async fn a_folder_in_use_is_refused() {
    let rig = Rig::new();
    let why = refused(rig.dir.path());
    assert!(matches!(why, OpenError::InUse(_)), "{why}");
    let why = why.to_string();
    assert!(why.contains(&rig.dir.path().display().to_string()), "{why}");
    assert!(why.contains("another process"), "{why}");
    let rig = rig.reopen().await;
    // Also without being closed: the threads end when the handle goes.
    let Rig { dir, disk, .. } = rig;
    let ends = disk.0.ends.clone();
    drop(disk);
    ends.closed().await;
    disk::open(options(dir.path())).unwrap();
}

/// Goal: a folder is made where its parent is, and nowhere else.
#[tokio::test]
async fn a_folder_is_made_if_its_parent_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let inside = dir.path().join("data");
    drop(disk::open(options(&inside)).unwrap());
    assert!(inside.join("history.db").exists());
    let why = refused(&dir.path().join("no/data"));
    assert!(matches!(why, OpenError::NoParent(_)), "{why}");
    let file = dir.path().join("file");
    std::fs::write(&file, "x").unwrap();
    let why = refused(&file);
    assert!(matches!(why, OpenError::NotAFolder(_)), "{why}");
}

/// Goal: a file of a later version is left alone, and named. Method: the version is raised in both
/// places where it stands; then in one, which is damage.
#[tokio::test]
async fn a_newer_schema_is_refused_and_left_alone() {
    let mut rig = Rig::new();
    rig.store(shown([entry('a', 1, 1)])).await;
    let dir = rig.close().await;
    let change = |sql: &str| {
        let db = Connection::open(dir.path().join("history.db")).unwrap();
        db.execute_batch(sql).unwrap();
    };
    change("PRAGMA user_version = 7; UPDATE meta SET value = 7 WHERE key = 'schema'");
    let before = std::fs::read(dir.path().join("history.db")).unwrap();
    let why = refused(dir.path());
    assert!(
        matches!(
            why,
            OpenError::Newer {
                found: 7,
                known: 2,
                ..
            }
        ),
        "{why}"
    );
    let after = std::fs::read(dir.path().join("history.db")).unwrap();
    assert!(before == after, "it was changed");
    change("PRAGMA user_version = 2; UPDATE meta SET value = 2 WHERE key = 'schema'");
    let (disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
    assert!(loaded.set_aside.is_none() && loaded.entries.len() == 1);
    disk.close(PATIENCE).await;
    change("UPDATE meta SET value = 7 WHERE key = 'schema'");
    let (_disk, loaded, _outcomes) = disk::open(options(dir.path())).unwrap();
    assert!(loaded.set_aside.is_some());
    assert_eq!(loaded.entries.len(), 1);
}

/// Goal: a start that was killed while it made a file, or while one took another's place, is mended
/// by the next. Method: the folder as each of these moments leaves it.
#[tokio::test]
async fn a_start_that_was_killed_is_mended_by_the_next() {
    let mut rig = Rig::new();
    rig.store(shown([entry('a', 1, 1)])).await;
    let dir = rig.close().await;
    let path = |name: &str| dir.path().join(name);
    // While a file was made.
    std::fs::write(path("history.new.db"), "half").unwrap();
    std::fs::write(path("history.new.db-wal"), "half").unwrap();
    let options = || options(dir.path());
    let (disk, loaded, outcomes) = disk::open(options()).unwrap();
    assert_eq!((loaded.entries.len(), loaded.set_aside), (1, None));
    disk.close(PATIENCE).await;
    drop(outcomes);
    // Between making a successor and putting it in its place.
    std::fs::rename(path("history.db"), path("history.salvaged.db")).unwrap();
    std::fs::write(path("history.db"), "damaged").unwrap();
    std::fs::write(path("history.db-wal"), "damaged too").unwrap();
    let (disk, loaded, outcomes) = disk::open(options()).unwrap();
    assert_eq!(loaded.entries.len(), 1);
    let aside = loaded.set_aside.unwrap();
    assert_eq!(std::fs::read(&aside).unwrap(), b"damaged");
    let log = aside.with_extension("db-wal");
    assert_eq!(std::fs::read(log).unwrap(), b"damaged too");
    disk.close(PATIENCE).await;
    drop(outcomes);
    // Between moving the damaged file and its log.
    std::fs::rename(path("history.db"), path("history.salvaged.db")).unwrap();
    std::fs::write(path("history.db-wal"), "stray").unwrap();
    let (disk, loaded, _outcomes) = disk::open(options()).unwrap();
    assert_eq!(loaded.entries.len(), 1);
    assert!(loaded.set_aside.is_some_and(|aside| aside.exists()));
    disk.close(PATIENCE).await;
}
