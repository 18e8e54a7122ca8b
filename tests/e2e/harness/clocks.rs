//! Clocks that a test sets, for the programs that it starts with them: libfaketime stands between
//! a program and the kernel's clocks, and reads from a file how far to shift them. The machine's
//! own clock is never touched.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::process::Launch;

/// Which clocks of a program are shifted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shifted {
    /// The wall clock only, as when somebody sets it.
    Wall,
    /// The monotonic clock as well, as when a machine was suspended.
    All,
}

/// A clock; it is right until it is shifted.
#[derive(Debug)]
pub(crate) struct Clock {
    folder: TempDir,
    library: PathBuf,
    shifted: Shifted,
}

impl Clock {
    /// A clock that is right.
    ///
    /// # Errors
    /// libfaketime is not installed; the text says how to mend it.
    pub(crate) fn new(shifted: Shifted) -> Result<Self> {
        let libraries = std::fs::read_dir("/usr/lib")?;
        let library = libraries
            .flatten()
            .map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"))
            .find(|file| file.is_file())
            .context("libfaketime is not installed: run scripts/setup")?;
        let clock = Self {
            folder: tempfile::tempdir()?,
            library,
            shifted,
        };
        clock.shift(0)?;
        Ok(clock)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("shift")
    }

    /// Shifts the clock by so many seconds from what is right, for all programs that have it, at
    /// once.
    pub(crate) fn shift(&self, seconds: i64) -> Result<()> {
        // Renamed into its place: no program ever reads half of it.
        let new = self.folder.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n"))?;
        Ok(std::fs::rename(new, self.file())?)
    }

    /// Lets a program that is to be started read this clock.
    pub(crate) fn give(&self, launch: &mut Launch) {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let monotonic = match self.shifted {
            Shifted::Wall => "1",
            Shifted::All => "0",
        };
        let variables = [
            ("LD_PRELOAD", text(self.library.clone())),
            ("FAKETIME_TIMESTAMP_FILE", text(self.file())),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", monotonic.to_owned()),
        ];
        launch
            .variables
            .extend(variables.map(|(name, value)| (name.to_owned(), value)));
    }
}
