//! Disks that a test makes for itself: one whose power can be cut, one that fills up, one that is
//! read-only. Each is a mount of its own, undone when dropped; where the machine does not let a
//! test mount, that is said and counted.
//!
//! The one whose power can be cut is ext4 on a loop device whose image lies on an XFS that shares
//! blocks. A copy of the image with shared blocks takes milliseconds and is atomic: it has what the
//! file system has given its device until then, and nothing of what still is in memory, as a disk
//! after a power cut has.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::tools::{installed, limited, run};

/// Size of the XFS. Its file is sparse: only what is written takes room.
const STORE_BYTES: u64 = 1 << 30;
/// Size of the ext4 in it.
const DISK_BYTES: u64 = 256 << 20;
/// The folders of a run are named so, and after them the process.
const PREFIX: &str = "chatmesh-disk-";

/// A mounted file system, unmounted when dropped.
#[derive(Debug)]
struct Mount {
    at: PathBuf,
}

impl Mount {
    fn new(args: &[&str], at: &Path) -> Result<Self> {
        fs::create_dir_all(at)?;
        let mut all = args.to_vec();
        let shown = at.to_str().context("a path of this test is text")?;
        all.push(shown);
        run("mount", &all)?;
        Ok(Self { at: at.to_owned() })
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // At once for those who look, and in truth when the last process that was killed is gone.
        let _gone = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

/// A disk whose power can be cut, and which can hang.
#[derive(Debug)]
pub(crate) struct Rig {
    /// How many cuts were made.
    cuts: u32,
    frozen: bool,
    // Unmounted in this order.
    disk: Mount,
    store: Mount,
    folder: TempDir,
}

/// What was on the disk when its power was cut, mounted as after a new start.
#[derive(Debug)]
pub(crate) struct Cut {
    mount: Mount,
    image: PathBuf,
}

impl Rig {
    /// Makes the disk; `None` where the machine does not let it, which is said and counted.
    pub(crate) fn make() -> Result<Option<Self>> {
        for program in ["mkfs.xfs", "mkfs.ext4", "fsfreeze"] {
            installed(program)?;
        }
        let Some(folder) = room_for_mounts("disks on loop devices")? else {
            return Ok(None);
        };
        let place = folder.path();
        let (image, at) = (place.join("store.img"), place.join("store"));
        sparse(&image, STORE_BYTES)?;
        run("mkfs.xfs", &["-q", "-m", "reflink=1", text(&image)?])?;
        let store = match Mount::new(&["-o", "loop", text(&image)?], &at) {
            Ok(store) => store,
            Err(why) => {
                cannot("disks on loop devices", &format!("{why:#}"))?;
                return Ok(None);
            }
        };
        let image = at.join("disk.img");
        sparse(&image, DISK_BYTES)?;
        let options = ["-q", "-F", "-E", "lazy_itable_init=0", text(&image)?];
        run("mkfs.ext4", &options)?;
        let disk = Mount::new(&["-o", "loop", text(&image)?], &place.join("disk"))?;
        Ok(Some(Self {
            cuts: 0,
            frozen: false,
            disk,
            store,
            folder,
        }))
    }

    /// The folder for `--data` on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.disk.at.join("data")
    }

    /// What the disk has now, as if its power had been cut: the copy is made at this moment.
    pub(crate) fn copy(&mut self) -> Result<Copied> {
        self.cuts += 1;
        let name = format!("cut-{}.img", self.cuts);
        let (disk, copy) = (self.store.at.join("disk.img"), self.store.at.join(name));
        run("cp", &["--reflink=always", text(&disk)?, text(&copy)?])?;
        let at = self.folder.path().join(format!("cut-{}", self.cuts));
        Ok(Copied { image: copy, at })
    }

    /// Lets every write to the disk wait from now on.
    pub(crate) fn freeze(&mut self) -> Result<()> {
        run("fsfreeze", &["-f", text(&self.disk.at)?])?;
        self.frozen = true;
        Ok(())
    }

    /// Lets the writes go on.
    pub(crate) fn thaw(&mut self) -> Result<()> {
        run("fsfreeze", &["-u", text(&self.disk.at)?])?;
        self.frozen = false;
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.frozen {
            // A process that waits for a write cannot be killed.
            let _thawed = self.thaw();
        }
    }
}

/// An image of the disk, not looked at yet.
#[derive(Debug)]
pub(crate) struct Copied {
    image: PathBuf,
    at: PathBuf,
}

impl Copied {
    /// Mounts it: the file system recovers from its journal, as at a start after a power cut.
    pub(crate) fn mount(self) -> Result<Cut> {
        let mount = Mount::new(&["-o", "loop", text(&self.image)?], &self.at)?;
        Ok(Cut {
            mount,
            image: self.image,
        })
    }
}

impl Cut {
    /// The folder of `--data` on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.at.join("data")
    }
}

impl Drop for Cut {
    fn drop(&mut self) {
        let _room = fs::remove_file(&self.image);
    }
}

/// A small disk in memory that a test can fill.
#[derive(Debug)]
pub(crate) struct Small {
    mount: Mount,
    _folder: TempDir,
}

impl Small {
    /// A disk of this size, e.g. `24m`; `None` where the machine does not let it.
    pub(crate) fn make(size: &str) -> Result<Option<Self>> {
        Self::with(&format!("size={size}"))
    }

    /// A disk that cannot be written; `None` where the machine does not let it.
    pub(crate) fn read_only() -> Result<Option<Self>> {
        Self::with("ro,size=1m")
    }

    fn with(options: &str) -> Result<Option<Self>> {
        let Some(folder) = room_for_mounts("disks in memory")? else {
            return Ok(None);
        };
        let at = folder.path().join("small");
        match Mount::new(&["-t", "tmpfs", "-o", options, "chatmesh"], &at) {
            Ok(mount) => Ok(Some(Self {
                mount,
                _folder: folder,
            })),
            Err(why) => {
                cannot("disks in memory", &format!("{why:#}"))?;
                Ok(None)
            }
        }
    }

    /// The folder for `--data` on it.
    pub(crate) fn data(&self) -> PathBuf {
        self.mount.at.join("data")
    }

    /// Fills all room that is left; how many bytes that was.
    ///
    /// # Errors
    /// It fails otherwise than for want of room.
    pub(crate) fn fill(&self) -> Result<u64> {
        let mut file = fs::File::create(self.ballast())?;
        let mut filled = 0;
        // First by much, then to the last page.
        for piece in [vec![1; 1 << 16], vec![1; 1 << 12]] {
            loop {
                match file.write(&piece) {
                    Ok(count) => filled += count as u64,
                    Err(why) if why.kind() == ErrorKind::StorageFull => break,
                    Err(why) => return Err(why.into()),
                }
            }
        }
        Ok(filled)
    }

    /// Gives the room back.
    pub(crate) fn make_room(&self) -> Result<()> {
        Ok(fs::remove_file(self.ballast())?)
    }

    fn ballast(&self) -> PathBuf {
        self.mount.at.join("ballast")
    }
}

/// A folder in which mounts may be made. Those of runs that were ended before they could undo
/// theirs are undone.
fn room_for_mounts(what: &str) -> Result<Option<TempDir>> {
    if !rustix::process::geteuid().is_root() {
        cannot(what, "not root")?;
        return Ok(None);
    }
    installed("mount")?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    // The newest first: they may lie on older ones.
    for line in mounts.lines().rev() {
        let at = line.split(' ').nth(1).unwrap_or_default();
        let owner = at.split_once(PREFIX).and_then(|(_, rest)| {
            let (pid, _) = rest.split_once('-')?;
            pid.parse::<u32>().ok()
        });
        if owner.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
            let _thawed = Command::new("fsfreeze").args(["-u", at]).output();
            let _gone = Command::new("umount").args(["-l", at]).status();
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    Ok(Some(tempfile::Builder::new().prefix(&prefix).tempdir()?))
}

fn cannot(what: &str, why: &str) -> Result<()> {
    limited(what, "kill -9 and the tests of the store", why)
}

fn sparse(file: &Path, bytes: u64) -> Result<()> {
    Ok(fs::File::create(file)?.set_len(bytes)?)
}

fn text(path: &Path) -> Result<&str> {
    path.to_str().context("a path of this test is text")
}
