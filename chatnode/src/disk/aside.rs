//! What a keeper held and is no message, set aside in files for people to look at.
//!
//! Each file begins with a line of JSON that says why; the bytes follow. Names ascend with the time, and the
//! oldest make room.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

use super::folder::Folder;

/// Files at the most,
const FILES_MAX: usize = 256;
/// and bytes of all together.
const BYTES_MAX: u64 = 16 << 20;

/// Puts this aside, synced.
pub(super) fn put(folder: &Folder, body: &[u8], why: &str, wall_us: u64) -> io::Result<()> {
    let dir = folder.dir().join("rejected");
    fs::create_dir_all(&dir)?;
    make_room(&dir, body.len() as u64)?;
    let mut name = wall_us;
    while dir.join(file_name(name)).try_exists()? {
        name += 1;
    }
    let draft = dir.join("rejected.new");
    let mut file = File::create(&draft)?;
    let head = serde_json::json!({ "reason": why, "at_us": wall_us, "bytes": body.len() });
    file.write_all(format!("{head}\n").as_bytes())?;
    file.write_all(body)?;
    file.sync_all()?;
    fs::rename(&draft, dir.join(file_name(name)))?;
    File::open(&dir)?.sync_all()
}

fn file_name(wall_us: u64) -> String {
    format!("{wall_us:020}.message")
}

fn make_room(dir: &Path, bytes: u64) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(".message") {
            files.push((entry.file_name(), entry.metadata()?.len()));
        }
    }
    files.sort_unstable();
    let mut total: u64 = files.iter().map(|(_, len)| len).sum();
    let mut count = files.len();
    for (name, len) in files {
        if count < FILES_MAX && total.saturating_add(bytes) <= BYTES_MAX {
            break;
        }
        fs::remove_file(dir.join(name))?;
        total -= len;
        count -= 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_set_aside_is_bounded_and_the_oldest_makes_room() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path().to_owned()).unwrap();
        for nth in 0..FILES_MAX as u64 + 10 {
            // Two at the same time have names of their own.
            put(&folder, &[7; 100], "it is \"odd\"", 1000 + nth / 2).unwrap();
        }
        let aside = dir.path().join("rejected");
        let names = || {
            let all = fs::read_dir(&aside).unwrap();
            let mut names: Vec<_> = all.map(|it| it.unwrap().file_name()).collect();
            names.sort_unstable();
            names
        };
        assert_eq!(names().len(), FILES_MAX);
        let last = fs::read(aside.join(names().last().unwrap())).unwrap();
        let (head, body) = last.split_at(last.len() - 100);
        assert_eq!(body, [7; 100]);
        let head: serde_json::Value = serde_json::from_slice(head).unwrap();
        assert_eq!(head["reason"], "it is \"odd\"");
        put(&folder, &vec![0; 16 << 20], "long", 5000).unwrap();
        assert_eq!(names().len(), 1, "all others made room");
    }
}
