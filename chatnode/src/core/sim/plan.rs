//! What a seed decides at the start: the size of the mesh and its temper.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;

use super::world::World;
use crate::core::memory::Retention;
use crate::core::pace::{LOG_PAGE_BYTES, SLOW_PAGE_BYTES_MIN};
use crate::disk::DiskRetention;

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Some hear nothing of the others.
    Partition,
    /// Some hear nothing of one.
    OneWayCut,
    /// Frames are lost, doubled and late, and fetches fail.
    Illness,
    /// A node dies, and mostly starts again.
    Crash,
    /// A node stops for a while.
    Freeze,
    /// A wall clock jumps.
    ClockJump,
    /// A publisher drops all it has for a listener.
    Burst,
    /// A disk is full or slow for a while.
    Disk,
    /// A node answers no fetch.
    Stuck,
    /// A node answers each fetch with an error.
    Refuse,
    /// A node has too much to do: it drops frames, answers no fetch, and loses links.
    Overload,
    /// A link ends.
    Reset,
    /// No registry answers for a while; when they do they may know nobody.
    Registries,
    /// A broker dies and comes back with nothing, is stopped, or lets a subscription die in silence.
    Broker,
}

/// How often each kind comes in a run in which all do.
const SHARES: [(Kind, usize); 14] = [
    (Kind::Partition, 4),
    (Kind::OneWayCut, 3),
    (Kind::Illness, 4),
    (Kind::Crash, 3),
    (Kind::Freeze, 2),
    (Kind::ClockJump, 1),
    (Kind::Burst, 2),
    (Kind::Disk, 2),
    (Kind::Stuck, 2),
    (Kind::Refuse, 1),
    (Kind::Overload, 2),
    (Kind::Reset, 3),
    (Kind::Registries, 1),
    (Kind::Broker, 4),
];

/// Which faults a run has. In half of them some kinds do not come, and others the more often: what
/// breaks only if much of one sort comes together would hide in an even mixture.
fn faults(rng: &mut StdRng, brokers: bool) -> Vec<Kind> {
    let even = rng.random_bool(0.5);
    let mut faults = Vec::new();
    let shares = SHARES.into_iter();
    for (kind, share) in shares.filter(|(kind, _)| brokers || *kind != Kind::Broker) {
        let times = if even {
            1
        } else {
            [0, 0, 1, 4][rng.random_range(0..4)]
        };
        faults.extend(std::iter::repeat_n(kind, share * times));
    }
    faults
}

/// How much the disks of a run keep: mostly all.
fn disk_keeps(rng: &mut StdRng) -> DiskRetention {
    let mut keeps = DiskRetention::default();
    match rng.random_range(0..12) {
        0 => keeps.messages = rng.random_range(20..200),
        1 => keeps.bytes = rng.random_range(2_000..20_000),
        2 => keeps.age = Some(Duration::from_millis(rng.random_range(1_000..10_000))),
        _ => {}
    }
    keeps
}

/// The temper of one run.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// Nodes that live at the same time.
    pub(super) slots: usize,
    /// Clients.
    pub(super) clients: usize,
    /// Rooms.
    pub(super) rooms: usize,
    /// When faults end.
    pub(super) faults_end: Duration,
    /// Whether one node refuses all fetches nearly all that time.
    pub(super) refuses: bool,
    /// Which faults come, each as often as it stands here.
    pub(super) faults: Vec<Kind>,
    /// Time between two faults, on average.
    pub(super) fault_every: Duration,
    /// One partition in the middle, so long, in place of all other faults.
    pub(super) long_partition: Option<Duration>,
    /// One node is stopped in a burst, in place of all other faults.
    pub(super) stopped: bool,
    /// Nobody says anything for longer than a mid is remembered, in place of all faults.
    pub(super) aged: bool,
    /// Time between two doings of one client, on average.
    pub(super) act_every: Duration,
    /// Whether nodes link each to each,
    pub(super) direct: bool,
    /// and at how many brokers they meet.
    pub(super) brokers: usize,
    /// Whether frames of one link may overtake each other. TCP would not; the core must not care.
    pub(super) reorder: bool,
    /// Share of frames lost while the network is ill.
    pub(super) loss: f64,
    /// Share of frames doubled while the network is ill.
    pub(super) doubled: f64,
    /// Share of fetches that fail while the network is ill.
    pub(super) fetch_failure: f64,
    /// Whether a node that starts again is where the one before it was.
    pub(super) ports_stay: bool,
    /// Share of starts at which no registry answers for a while.
    pub(super) registry_silence: f64,
    /// Longest usual delay of a frame while the network is ill.
    pub(super) delay_max: Duration,
    /// Whether frames and pages really are encoded and decoded.
    pub(super) encodes: bool,
    /// Bytes of a page of entries: mostly small, so that pages matter here.
    pub(super) page_bytes: usize,
    /// How much history a node keeps.
    pub(super) retention: Retention,
    /// Whether that is so little that it matters here.
    pub(super) trims: bool,
    /// Share of machines that have a disk.
    pub(super) disks: f64,
    /// How much a disk keeps.
    pub(super) disk_keeps: DiskRetention,
    /// How wrong wall clocks are at the most, in microseconds.
    pub(super) clock_skew_max_us: i64,
    /// Bytes that a client's socket takes before it reads.
    pub(super) socket_bytes: usize,
    /// Whether some clients read nothing for a while.
    pub(super) slow_clients: bool,
    /// Whether a node's one thread and its wire take their time for what comes.
    pub(super) costs: bool,
}

impl Plan {
    pub(super) fn draw(rng: &mut StdRng) -> Self {
        let refuses = rng.random_bool(0.1);
        let slots = rng.random_range(2..=if refuses { 3 } else { 7 });
        let trims = rng.random_bool(0.15);
        let faults_last = if refuses {
            15_000..25_000
        } else {
            5_000..16_000
        };
        let lossy = refuses || rng.random_bool(0.6);
        let share = |most: f64, rng: &mut StdRng| {
            if lossy {
                rng.random_range(0.0..most)
            } else {
                0.0
            }
        };
        let slow_clients = rng.random_bool(0.3);
        let (direct, brokers) = match rng.random_range(0..20) {
            0 | 1 => (false, 1),
            2 => (false, 2),
            3 => (true, 1),
            _ => (true, 0),
        };
        let disk_keeps = disk_keeps(rng);
        let mut retention = Retention::default();
        if trims {
            retention.messages = rng.random_range(20..150);
        }
        Self {
            slots,
            refuses,
            clients: rng.random_range(2..=2 * slots),
            rooms: rng.random_range(1..=3),
            faults_end: Duration::from_millis(rng.random_range(faults_last)),
            faults: faults(rng, brokers > 0),
            fault_every: Duration::from_millis(rng.random_range(100..1_500)),
            long_partition: None,
            stopped: false,
            aged: false,
            act_every: Duration::from_millis(rng.random_range(40..400)),
            direct,
            brokers,
            reorder: rng.random_bool(0.2),
            loss: share(0.3, rng),
            doubled: share(0.2, rng),
            // Sometimes a request hardly ever succeeds, so that some peers fail time and again.
            fetch_failure: if rng.random_bool(0.03) {
                0.9
            } else {
                share(0.4, rng)
            },
            ports_stay: rng.random_bool(0.5),
            registry_silence: if rng.random_bool(0.2) { 0.3 } else { 0.0 },
            delay_max: Duration::from_micros(rng.random_range(300..200_000)),
            encodes: rng.random_bool(0.1),
            page_bytes: if rng.random_bool(0.7) {
                SLOW_PAGE_BYTES_MIN
            } else {
                LOG_PAGE_BYTES
            },
            retention,
            trims: trims || disk_keeps != DiskRetention::default(),
            disks: if rng.random_bool(0.5) { 0.6 } else { 0.0 },
            disk_keeps,
            clock_skew_max_us: match rng.random_range(0..10) {
                0 => 7_200_000_000,
                1 | 2 => 100_000_000,
                _ => 50_000,
            },
            socket_bytes: if slow_clients || rng.random_bool(0.1) {
                rng.random_range(200..4_000)
            } else {
                1 << 20
            },
            slow_clients,
            costs: false,
        }
    }

    /// Nodes die that others have not heard for a while, and most requests for what they said fail.
    pub(super) fn failing(rng: &mut StdRng) -> Self {
        Self {
            slots: rng.random_range(4..=6),
            refuses: false,
            faults: vec![Kind::Illness, Kind::Overload, Kind::Crash],
            fault_every: Duration::from_millis(rng.random_range(300..900)),
            loss: 0.3,
            fetch_failure: rng.random_range(0.6..0.95),
            disks: 0.0,
            direct: true,
            brokers: 0,
            ..Self::draw(rng)
        }
    }

    /// Nodes meet at a broker, which loses in silence.
    pub(super) fn meeting(rng: &mut StdRng) -> Self {
        Self {
            slots: rng.random_range(2..=4),
            refuses: false,
            faults: vec![Kind::Broker],
            fault_every: Duration::from_millis(rng.random_range(500..2_000)),
            direct: false,
            brokers: 1,
            ..Self::draw(rng)
        }
    }

    /// Clients read little, or nothing for longer than nodes wait for that.
    pub(super) fn slow(rng: &mut StdRng) -> Self {
        Self {
            slots: rng.random_range(2..=3),
            clients: 6,
            rooms: 1,
            refuses: false,
            faults_end: Duration::from_secs(16),
            act_every: Duration::from_millis(rng.random_range(40..100)),
            socket_bytes: rng.random_range(200..2_000),
            slow_clients: true,
            direct: true,
            brokers: 0,
            ..Self::draw(rng)
        }
    }

    /// One node that is stopped while much is said elsewhere; the network is well.
    pub(super) fn stopped(rng: &mut StdRng) -> Self {
        Self {
            slots: rng.random_range(2..=4),
            clients: 8,
            rooms: 1,
            faults_end: Duration::from_secs(15),
            stopped: true,
            refuses: false,
            act_every: Duration::from_millis(60),
            registry_silence: 0.0,
            encodes: false,
            page_bytes: LOG_PAGE_BYTES,
            retention: Retention::default(),
            trims: false,
            disk_keeps: DiskRetention::default(),
            clock_skew_max_us: 50_000,
            direct: true,
            brokers: 0,
            ..Self::draw(rng)
        }
    }

    /// All is well, and lasts longer than a mid is remembered.
    pub(super) fn aged(rng: &mut StdRng) -> Self {
        let mut retention = Retention::default();
        let trims = rng.random_bool(0.7);
        if trims {
            retention.messages = rng.random_range(20..100);
        }
        Self {
            slots: rng.random_range(2..=3),
            clients: 4,
            rooms: 1,
            faults_end: World::aged_for(),
            aged: true,
            refuses: false,
            act_every: Duration::from_millis(100),
            registry_silence: 0.0,
            retention,
            trims,
            disks: if rng.random_bool(0.3) { 0.5 } else { 0.0 },
            disk_keeps: DiskRetention::default(),
            clock_skew_max_us: 50_000,
            direct: true,
            brokers: 0,
            ..Self::draw(rng)
        }
    }

    /// Two halves that say much and hear nothing of each other for longer than peers are
    /// remembered.
    pub(super) fn long_partition(rng: &mut StdRng) -> Self {
        let lasts = Duration::from_secs(rng.random_range(60..70));
        Self {
            slots: rng.random_range(3..=5),
            clients: 8,
            faults_end: Duration::from_secs(4) + lasts,
            long_partition: Some(lasts),
            refuses: false,
            act_every: Duration::from_millis(20),
            registry_silence: 0.0,
            encodes: false,
            page_bytes: LOG_PAGE_BYTES,
            retention: Retention::default(),
            trims: false,
            disks: 0.0,
            disk_keeps: DiskRetention::default(),
            clock_skew_max_us: 50_000,
            costs: true,
            direct: true,
            brokers: 0,
            ..Self::draw(rng)
        }
    }
}
