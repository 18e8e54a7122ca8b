//! The log, written by a thread of its own: no write of it ends, stops or slows the program.
//!
//! Who logs puts a line into a queue. A device that is full, a pipe that is closed or that nobody
//! reads, a disk that hangs: lines are then dropped and counted, and once a line is written again
//! one before it says how many are missing.
//!
//! ```text
//!   tracing, panics ──▶ queue, bounded ──▶ thread "log" ──▶ stderr
//! ```

use std::fmt::Write as _;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

use super::LogFormat;

/// Bytes of lines that wait to be written at the most. Beyond, lines are dropped and counted.
pub const LOG_BYTES_MAX: usize = 1 << 20;
/// A line that waits counts for so much more than its bytes.
const LINE_COST: usize = 64;
/// How often it is tried to say how many lines are missing, if no other line comes.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a device that takes nothing now is left alone.
const PAUSE: Duration = Duration::from_millis(10);

/// A log; clones are the same one.
#[derive(Debug, Clone)]
pub(super) struct Log(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    /// There are lines.
    came: Condvar,
    /// All lines were written, or dropped.
    done: Condvar,
    /// Lines that were dropped since the start.
    dropped: AtomicU64,
    format: OnceLock<LogFormat>,
}

/// What waits.
#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<Vec<u8>>,
    bytes: usize,
    /// Lines that found no room behind those that wait.
    dropped: u64,
    /// The thread writes what it took.
    writing: bool,
}

impl Log {
    /// Starts the thread.
    ///
    /// # Errors
    /// There can be no more threads.
    pub(super) fn start(sink: impl Write + Send + 'static) -> io::Result<Self> {
        let log = Self(Arc::default());
        let thread = Thread {
            log: log.clone(),
            sink,
            missing: 0,
            torn: false,
        };
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || thread.run())?;
        Ok(log)
    }

    /// What the lines look like that are not made by tracing. Until this is called, as text.
    pub(super) fn set_format(&self, format: LogFormat) {
        // A second call changes nothing, as with tracing.
        let _known = self.0.format.set(format);
    }

    /// Adds a line. Never waits for the device.
    pub(super) fn push(&self, line: &[u8]) {
        let mut lines = self.lines();
        let cost = line.len() + LINE_COST;
        if lines.bytes + cost > LOG_BYTES_MAX {
            lines.dropped += 1;
            drop(lines);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
        } else {
            lines.bytes += cost;
            lines.waiting.push(line.to_vec());
            drop(lines);
        }
        self.0.came.notify_one();
    }

    /// Adds a line of a level, in the form that all have.
    pub(super) fn say(&self, level: &str, message: &str) {
        self.push(&self.line(level, message, None));
    }

    /// Waits until all was written, or dropped, `most` at the most.
    pub(super) fn settle(&self, most: Duration) {
        let is_busy = |lines: &mut Lines| lines.writing || !lines.waiting.is_empty();
        // What still waits, waits for a device that takes nothing.
        drop(self.0.done.wait_timeout_while(self.lines(), most, is_busy));
    }

    /// Lines that were dropped since the start.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.0.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn line(&self, level: &str, message: &str, count: Option<u64>) -> Vec<u8> {
        const TARGET: &str = "base::process::log";
        let mut time = String::new();
        // A string takes all.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let text = match self.0.format.get() {
            Some(LogFormat::Json) => {
                let mut line = serde_json::json!({
                    "timestamp": time, "level": level, "message": message, "target": TARGET,
                });
                if let Some(count) = count {
                    line["count"] = count.into();
                }
                line.to_string() + "\n"
            }
            Some(LogFormat::Text) | None => {
                let mut text = format!("{time} {level:>5} {TARGET}: {message}");
                if let Some(count) = count {
                    let _ = write!(text, " count={count}");
                }
                text + "\n"
            }
        };
        text.into_bytes()
    }
}

/// What tracing writes its lines to: each in one call.
impl Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

/// The thread's own.
struct Thread<W> {
    log: Log,
    sink: W,
    /// Lines that were dropped and of which no line has told yet.
    missing: u64,
    /// The last line was written in part.
    torn: bool,
}

impl<W: Write> Thread<W> {
    fn run(mut self) {
        loop {
            let (lines, dropped) = self.take();
            for line in lines {
                if !(self.tell() && self.put(&line)) {
                    self.missing += 1;
                    self.log.0.dropped.fetch_add(1, Ordering::Relaxed);
                }
            }
            // They came behind those that waited.
            self.missing += dropped;
            self.tell();
            self.log.lines().writing = false;
            self.log.0.done.notify_all();
        }
    }

    /// Waits for lines, or until it is time to tell that some are missing.
    fn take(&self) -> (Vec<Vec<u8>>, u64) {
        let came = &self.log.0.came;
        let is_idle = |lines: &mut Lines| lines.waiting.is_empty() && lines.dropped == 0;
        let lines = self.log.lines();
        let mut lines = if self.missing == 0 {
            came.wait_while(lines, is_idle)
                .unwrap_or_else(PoisonError::into_inner)
        } else {
            came.wait_timeout_while(lines, RETRY_EVERY, is_idle)
                .unwrap_or_else(PoisonError::into_inner)
                .0
        };
        lines.writing = true;
        lines.bytes = 0;
        (
            std::mem::take(&mut lines.waiting),
            std::mem::take(&mut lines.dropped),
        )
    }

    /// Tells how many lines are missing, if any are; false if that cannot be written either.
    fn tell(&mut self) -> bool {
        if self.missing == 0 {
            return true;
        }
        let notice = self
            .log
            .line("WARN", "lines of the log were dropped", Some(self.missing));
        let told = self.put(&notice);
        if told {
            self.missing = 0;
        }
        told
    }

    /// Writes a line, on a line of its own; false if the device does not take it whole.
    fn put(&mut self, line: &[u8]) -> bool {
        let mut rest = line;
        if self.torn {
            match self.write(b"\n") {
                Ok(1) => self.torn = false,
                Ok(_) | Err(_) => return false,
            }
        }
        while !rest.is_empty() {
            match self.write(rest) {
                Ok(0) | Err(_) => {
                    self.torn = rest.len() < line.len();
                    return false;
                }
                Ok(count) => rest = &rest[count..],
            }
        }
        true
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.sink.write(bytes) {
                Err(why) if why.kind() == ErrorKind::Interrupted => {}
                // Somebody made it a device that does not wait; this thread may.
                Err(why) if why.kind() == ErrorKind::WouldBlock => std::thread::park_timeout(PAUSE),
                written => return written,
            }
        }
    }
}

#[cfg(test)]
mod tests;
