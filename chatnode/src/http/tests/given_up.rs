//! Who asks and goes before the answer.

use super::*;
use crate::core::journal::LoadedLog;
use crate::disk::{self, DiskOptions, DiskRetention};

/// Waits until so many questions wait in the core, and so many askers for them.
async fn waiting(f: &Fixture, what: &str, count: usize) {
    let come = async {
        while f.node.waiting() != (count, count) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let come = tokio::time::timeout(PATIENCE, come).await;
    come.unwrap_or_else(|_| panic!("{what}: {:?} wait, not {count}", f.node.waiting()));
}

/// Goal: a node keeps nothing for who does not wait for the answer any more, also if the disk hangs: what
/// asks it for history again and again and goes would fill it. Method: reads that wait for a disk whose
/// readers are held up; the connections that asked for them are closed. Then the readers go on.
#[tokio::test]
async fn a_read_is_taken_back_when_the_connection_that_asked_for_it_closes() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut loaded, _outcomes) = disk::open(DiskOptions {
        dir: dir.path().to_owned(),
        retention: DiskRetention::default(),
        window: Retention::default(),
        wall_us: 0,
    })
    .unwrap();
    // There is more than memory has, so that a page needs the disk.
    loaded.logs.push(LoadedLog {
        origin: "bbbbbbbbbb".parse().unwrap(),
        held: 3,
        floor: 0,
        holes: Vec::new(),
        last_ts: 1,
    });
    let held = disk.hold_readers();
    let f = Fixture::with_disk(&PLAIN, Some((disk, loaded)));
    let paths = [
        "/api/rooms",
        "/api/rooms/tea/messages",
        "/api/rooms/tea/search?q=said",
    ];
    for path in paths {
        let mut asking = Vec::new();
        for count in 1..=20 {
            let mut stream = TcpStream::connect(f.addr).await.unwrap();
            let head = format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", f.addr);
            stream.write_all(head.as_bytes()).await.unwrap();
            asking.push(stream);
            waiting(&f, path, count).await;
        }
        asking.truncate(5);
        waiting(&f, path, 5).await;
        drop(asking);
        waiting(&f, path, 0).await;
    }
    drop(held);
    for path in paths {
        assert_eq!(f.get(path).await.status(), 200, "{path}");
    }
    waiting(&f, "all are answered", 0).await;
}
