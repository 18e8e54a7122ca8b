//! Devices that refuse, tear and block, and what the log makes of them.

use std::sync::mpsc;

use super::*;

/// Long enough for any thread to have its turn.
const PATIENCE: Duration = Duration::from_secs(20);

/// A device that takes so many bytes, and counts what it is asked.
#[derive(Debug, Clone, Default)]
struct Device(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    room: usize,
    written: Vec<u8>,
}

impl Device {
    fn with_room(room: usize) -> Self {
        let device = Self::default();
        device.give(room);
        device
    }

    fn give(&self, room: usize) {
        self.0.lock().unwrap().room = room;
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().written.clone()).unwrap()
    }
}

impl Write for Device {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock().unwrap();
        if state.room == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        let count = bytes.len().min(state.room);
        state.room -= count;
        state.written.extend(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A device of which each write waits until it is let.
struct Blocked(mpsc::Receiver<()>, Device);

impl Write for Blocked {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // All is let once the other end is gone.
        let _gone = self.0.recv();
        self.1.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Goal: a line that a full device refuses is counted and told when there is room, also if no
/// other line comes; a line that was torn does not run into the next.
/// Method: room for a line and a half, then for all.
#[test]
fn lines_that_a_full_device_refused_are_counted_and_told_when_there_is_room() {
    let device = Device::with_room(9);
    let log = Log::start(device.clone()).unwrap();
    log.push(b"first\n");
    log.push(b"second\n");
    log.push(b"third\n");
    log.settle(PATIENCE);
    assert_eq!(device.text(), "first\nsec");
    assert_eq!(log.dropped(), 2);
    device.give(usize::MAX);
    let told = || device.text().lines().nth(2).map(ToOwned::to_owned);
    let tries = PATIENCE.as_millis() / PAUSE.as_millis();
    for _ in 0..tries {
        if told().is_none() {
            std::thread::park_timeout(PAUSE);
        }
    }
    log.push(b"fourth\n");
    log.settle(PATIENCE);
    let text = device.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[..2], ["first", "sec"]);
    assert!(
        lines[2].ends_with("base::process::log: lines of the log were dropped count=2"),
        "{text}"
    );
    assert_eq!(lines[3..], ["fourth"]);
    assert_eq!(log.dropped(), 2, "what was told is not dropped");
}

/// Goal: a device that hangs holds nobody up, and what waits for it is bounded.
/// Method: lines of three times what may wait, while the first write hangs; then it goes on.
#[test]
fn a_device_that_hangs_holds_nobody_up() {
    let (lets, waits) = mpsc::channel();
    let device = Device::with_room(usize::MAX);
    let log = Log::start(Blocked(waits, device.clone())).unwrap();
    log.set_format(LogFormat::Json);
    let line = [vec![b'x'; 1023], vec![b'\n']].concat();
    let count = 3 * LOG_BYTES_MAX / line.len();
    for _ in 0..count {
        log.push(&line);
    }
    log.settle(Duration::from_millis(1));
    let dropped = log.dropped();
    assert!(dropped > 0);
    let kept = count as u64 - dropped;
    // What waits, and what the thread holds already.
    assert!(kept <= 2 * (LOG_BYTES_MAX / line.len()) as u64, "{kept}");
    drop(lets);
    log.settle(PATIENCE);
    let text = device.text();
    let notices = text.lines().filter(|line| !line.starts_with('x'));
    // The thread may begin late, when lines were dropped before its first write: then it tells twice.
    let (mut told, mut count) = (0, 0);
    for notice in notices {
        let notice: serde_json::Value = serde_json::from_str(notice).unwrap();
        assert_eq!(notice["message"], "lines of the log were dropped");
        assert_eq!(notice["level"], "WARN");
        told += notice["count"].as_u64().unwrap();
        count += 1;
    }
    assert_eq!(told, dropped);
    assert!(count <= 2, "{count} notices");
    assert_eq!(text.lines().count() as u64, kept + count);
}

/// Goal: whatever the device says, lines are only lost, and the thread lives.
#[test]
fn a_device_that_refuses_all_loses_lines_and_nothing_else() {
    for kind in [
        ErrorKind::BrokenPipe,
        ErrorKind::FileTooLarge,
        ErrorKind::QuotaExceeded,
        ErrorKind::Other,
    ] {
        struct Refuses(ErrorKind);
        impl Write for Refuses {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let log = Log::start(Refuses(kind)).unwrap();
        for count in 1..=3 {
            log.push(b"line\n");
            log.settle(PATIENCE);
            assert_eq!(log.dropped(), count, "{kind:?}");
        }
    }
}
