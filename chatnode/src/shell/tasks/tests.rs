//! The loop that moves frames, with a carrier that always has more.

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base::process::Tasks;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::*;
use crate::carriers::CarrierEvent;
use crate::core::links::LinkId;
use crate::core::memory::{MemoryStore, Retention};
use crate::core::{Core, CoreOptions, Identity, Now};
use crate::model::mesh_name::MeshName;
use crate::peers::Asker;
use crate::shell::{Parts, Settings};

/// Brings one event after another, without a pause, up to a number.
#[derive(Debug)]
struct Flood {
    brought: Arc<AtomicUsize>,
    most: usize,
}

impl Carrier for Flood {
    fn carry(&mut self, _: Command) {}

    async fn event(&mut self) -> CarrierEvent {
        if self.brought.fetch_add(1, Ordering::Relaxed) >= self.most {
            return pending().await;
        }
        CarrierEvent::Plain(LinkId(1), String::new())
    }

    async fn close(self, _: Duration) {}
}

fn handle() -> (Handle, mpsc::Receiver<Command>) {
    let me = Identity {
        origin: "aaaaaaaaaa".parse().unwrap(),
        name: String::new(),
        http: String::new(),
        publisher: String::new(),
    };
    let start = Now {
        mono: Duration::ZERO,
        wall_us: 0,
    };
    let store = MemoryStore::new(Retention::default());
    let parts = Parts {
        bridges: Vec::new(),
        keeper: None,
        buses: Vec::new(),
        settings: Settings {
            rate_limit: 0,
            mesh: MeshName::default(),
            clients_max: 1,
        },
        core: Core::new(CoreOptions::of(me), store, StdRng::seed_from_u64(1), start),
        asker: Asker::new(
            base::tls::Http::new(None, |http| http).unwrap(),
            MeshName::default(),
            false,
        ),
        disk: None,
    };
    let (handle, _, commands) = Handle::new(parts, Tasks::new()).unwrap();
    (handle, commands)
}

/// Goal: a node that has much to hear goes on to write to its clients meanwhile. Method: a carrier that
/// always has an event; how many are taken before another gets its turn.
#[tokio::test]
async fn frames_that_never_end_let_others_have_their_turn() {
    let (handle, commands) = handle();
    let brought = Arc::new(AtomicUsize::new(0));
    let flood = Flood {
        brought: Arc::clone(&brought),
        most: 10_000,
    };
    let turns = async {
        let mut longest = 0;
        for _ in 0..100 {
            let before = brought.load(Ordering::Relaxed);
            tokio::task::yield_now().await;
            longest = longest.max(brought.load(Ordering::Relaxed) - before);
        }
        longest
    };
    let longest = tokio::select! {
        biased;
        ended = handle.run_carrier(flood, commands, Duration::ZERO) => panic!("{ended:?}"),
        longest = turns => longest,
    };
    assert!(longest > 0, "nothing was brought");
    assert!(longest <= EVENTS_TOGETHER + 1, "{longest} in one turn");
}
