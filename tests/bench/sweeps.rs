//! What grows, and how it is measured.

use crate::scenarios::{Bar, Metric, of_tls};

/// Deliveries a second at which growth is measured: all peers can carry them.
const DELIVERIES: usize = 50_000;

/// What is done at one point of a sweep.
#[derive(Debug)]
pub(crate) enum Point {
    /// Nodes, messages said before, arguments of the generator.
    Load(usize, usize, String),
    /// The same, the nodes on all cores.
    Spread(usize, String),
    /// A second node starts when the first holds so many messages.
    Join(usize),
    /// A node stands still while so many messages are said.
    Freeze(usize),
    /// A false peer makes so many links and holds them.
    Links(usize),
    /// So many nodes join one, one by one.
    Peers(usize),
    /// A node is stopped for so many seconds of messages.
    Stopped(usize),
}

/// One quantity that grows.
#[derive(Debug)]
pub(crate) struct Sweep {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) about: &'static str,
    pub(crate) x: &'static str,
    pub(crate) points: &'static [usize],
    pub(crate) peers: &'static [&'static str],
    pub(crate) point: fn(usize) -> Point,
    pub(crate) columns: &'static [(&'static str, &'static str)],
    /// Which columns are plotted.
    pub(crate) plots: &'static [&'static str],
    /// How the curve is to be read: where it bends, and why.
    pub(crate) why: &'static str,
    /// What chatnode is held to, at which point.
    pub(crate) bars: &'static [(usize, Bar)],
}

/// Messages a second across a mesh in TLS, of those in plain ZeroMQ.
const TLS_MESH: Bar = Bar {
    at_least: true,
    ..of_tls(
        Metric("messages_per_s", "messages a second"),
        Some("chatnode"),
        0.9,
    )
};

const COST: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("memory a client", "rss_bytes_per_conn"),
    ("memory in all", "rss_bytes"),
    ("others", "others_cores"),
];
const PER_MESSAGE: &[(&str, &str)] = &[
    ("CPU a delivery", "cpu_us_per_delivery"),
    ("CPU a message", "cpu_us_per_message"),
    ("p50", "p50_us"),
    ("p99", "p99_us"),
    ("memory in all", "rss_bytes"),
    ("others", "others_cores"),
];
const COST_PLOTS: &[&str] = &["cpu_us_per_delivery", "p50_us", "p99_us", "rss_bytes"];

const SWEEPS: &[Sweep] = &[
    Sweep {
        name: "growth-clients",
        title: "Clients of a node",
        about: "10 senders; the rate is such that there are 50 000 deliveries a second",
        x: "clients",
        points: &[100, 300, 1000, 3000, 10_000, 20_000],
        peers: &["chatnode", "chat.v1", "floor", "uws"],
        point: |clients| {
            let rate = DELIVERIES as f64 / clients as f64;
            Point::Load(
                1,
                0,
                format!(
                    "fanout --clients {clients} --senders 10 --rate {rate} --secs 6 --warmup 2"
                ),
            )
        },
        columns: COST,
        plots: COST_PLOTS,
        why: "A delivery is a write of the kernel and little else, so all servers bend where the floor does: between 300 and 1000 clients their sockets stop fitting into the processor's nearer cache. How late the last client gets a message is clients times CPU a delivery. Memory a client falls to what a slot in a table takes, since more clients share what a process takes at its start.",
        bars: &[],
    },
    Sweep {
        name: "growth-rooms",
        title: "Rooms",
        about: "1000 clients in 1 room each, from 1000 rooms on in 10 and 50 each, and 100 senders; \
                1000, 100, 10, 10 and 5 clients hear a message; 50 000 deliveries a second in all",
        x: "rooms",
        points: &[1, 10, 100, 1000, 10_000],
        peers: &["chat.v1"],
        point: |rooms| {
            let each = [(10_000, 50), (1000, 10)]
                .into_iter()
                .find(|(from, _)| rooms >= *from);
            let each = each.map_or(1, |(_, each)| each);
            let rate = DELIVERIES * rooms / (1000 * each);
            let load = format!(
                "fanout --clients 1000 --senders 100 --rooms {rooms} --rooms-each {each} --rate {rate} --secs 6 --warmup 2"
            );
            Point::Load(1, 0, load)
        },
        columns: PER_MESSAGE,
        plots: COST_PLOTS,
        why: "A message of one room of 10 has a hundred hearers; from 100 rooms on it has ten, with 10 000 rooms five. What a message costs whoever hears it (it is read, gets a place in history, ends a turn: some 10 µs) is then shared by few, which is the knee; the CPU a message goes down with its hearers all the same. Memory grows with memberships, some 300 bytes each, and with the history of more messages.",
        bars: &[],
    },
    Sweep {
        name: "growth-nodes",
        title: "Nodes",
        about: "600 clients, dealt over the nodes; 10 senders on the first, 50 messages a second",
        x: "nodes",
        points: &[1, 2, 3, 5, 10, 20],
        peers: &["chatnode", "nats"],
        point: |nodes| {
            let load =
                "fanout --clients 600 --senders 10 --sender-node 1 --rate 50 --secs 6 --warmup 2";
            Point::Load(nodes, 0, load.to_owned())
        },
        columns: PER_MESSAGE,
        plots: COST_PLOTS,
        why: "The writes to clients are the same 600. What each further node adds is to wake up, take the frame and keep the message, for each message alone at this pace, and its beats: some 0.1 ms a message. When there are more messages a wake-up takes many of them, and one costs a node less than a microsecond (above). Memory is that of so many processes.",
        bars: &[],
    },
    Sweep {
        name: "growth-size",
        title: "Size of a message",
        about: "1000 clients, 10 senders, 50 messages a second",
        x: "bytes of text",
        points: &[10, 100, 1000, 4000],
        peers: &["chatnode", "chat.v1", "floor", "uws"],
        point: |bytes| {
            let load = "fanout --clients 1000 --senders 10 --rate 50 --secs 6 --warmup 2 --bytes";
            Point::Load(1, 0, format!("{load} {bytes}"))
        },
        columns: COST,
        plots: COST_PLOTS,
        why: "Up to a kilobyte the price is that of a write; beyond, bytes begin to count, which the kernel copies, for every server alike. chat.v1 carries some 110 bytes more for each message.",
        bars: &[],
    },
    Sweep {
        name: "growth-history",
        title: "History that is held",
        about: "messages of 100 bytes said before; then 1000 clients, 10 senders, 50 messages a second",
        x: "messages held",
        points: &[0, 1000, 10_000, 100_000],
        peers: &["chatnode", "chat.v1"],
        point: |held| {
            let load = "fanout --clients 1000 --senders 10 --rate 50 --secs 6 --warmup 2";
            Point::Load(1, held, load.to_owned())
        },
        columns: COST,
        plots: COST_PLOTS,
        why: "History costs memory and nothing else: a new message is put at the end, and the oldest goes from the front.",
        bars: &[],
    },
    Sweep {
        name: "growth-joining",
        title: "Joining",
        about: "from the start of a second node to its ready line, and until it has all that the first has",
        x: "messages held",
        points: &[0, 1000, 10_000, 100_000],
        peers: &["chatnode"],
        point: Point::Join,
        columns: &[
            ("until the ready line", "ready_ms"),
            ("until it has all", "same_ms"),
        ],
        plots: &["ready_ms", "same_ms"],
        why: "A node prints its ready line when it has bound its ports; it takes clients when it has all, which is a matter of copying: a microsecond or two a message.",
        bars: &[],
    },
    Sweep {
        name: "growth-repair",
        title: "Repair",
        about: "a node of two is stopped (SIGSTOP) while the other takes messages, and then goes on: from \
                there until it has all",
        x: "messages missed",
        points: &[100, 1000, 10_000, 50_000],
        peers: &["chatnode"],
        point: Point::Freeze,
        columns: &[
            ("until it has all", "same_ms"),
            ("it stood for", "stood_ms"),
        ],
        plots: &["same_ms"],
        why: "A stop of less than two seconds cuts no link: what was said waited at the other end, and is taken as it comes, under a microsecond a message. What has to be fetched in pages costs what it costs a node that joins.",
        bars: &[],
    },
];

const MESH: Sweep = Sweep {
    name: "mesh",
    title: "Messages across the mesh",
    about: "one sender on the first node with 2000 messages in flight, one client a node, plain, copies 0; \
            all nodes share one core",
    x: "nodes",
    points: &[2, 3, 5, 10, 20],
    peers: &["chatnode", "chatnode-tls"],
    point: |nodes| {
        let load = format!(
            "saturate --clients {nodes} --senders 1 --sender-node 1 --inflight 2000 --secs 5 --warmup 2"
        );
        Point::Load(nodes, 0, load)
    },
    columns: &[
        ("messages a second", "messages_per_s"),
        ("CPU a message and node", "cpu_us_per_message_node"),
        ("CPU a message", "cpu_us_per_message"),
        ("server cores", "server_cores"),
        ("p50", "p50_us"),
        ("p99", "p99_us"),
        ("others", "others_cores"),
    ],
    plots: &["messages_per_s", "cpu_us_per_message_node", "p99_us"],
    why: "Every node takes every message, so all together spend more the more they are, and what one costs each node stays the same. The sender pays a tenth of a microsecond more for each further peer.",
    bars: &[(3, TLS_MESH), (10, TLS_MESH)],
};

const MESH_SPREAD: Sweep = Sweep {
    name: "mesh-spread",
    title: "Messages across the mesh, on all cores",
    about: "the same, the nodes on all cores, which they share with the generator",
    points: &[2, 3, 5],
    point: |nodes| {
        let load = format!(
            "saturate --clients {nodes} --senders 1 --sender-node 1 --inflight 2000 --secs 5 --warmup 2"
        );
        Point::Spread(nodes, load)
    },
    plots: &[],
    why: "From three nodes on the cores are full. The sender does not wait for receivers, so frames queue before those that get too little of a core; the percentiles tell of that.",
    bars: &[],
    ..MESH
};

/// How nodes speak to each other, in ZeroMQ and in TLS.
const CARRIERS: &[&str] = &["chatnode", "chatnode-tls"];
const PER_LINK: Metric = Metric("rss_bytes_per_link", "memory a link");
const EXTRA: Metric = Metric("extra_rss_bytes", "memory that a stopped peer costs");

const LINKS: &[Sweep] = &[
    Sweep {
        name: "links-held",
        title: "Links of a node",
        about: "a false peer dials a node again and again, one dial after the other, until the node has \
                answered it, and holds all links, which hear what the node publishes",
        x: "links",
        points: &[200],
        peers: CARRIERS,
        point: Point::Links,
        columns: &[
            ("a dial", "dial_us"),
            ("p50", "dial_p50_us"),
            ("p99", "dial_p99_us"),
            ("CPU of who accepts", "accepting_cpu_us"),
            ("CPU of who dials", "dialling_cpu_us"),
            (PER_LINK.1, PER_LINK.0),
        ],
        plots: &[],
        why: "In TLS a dial is two signatures made, two checked, and two agreements on a secret, half of \
              it on either side; ZeroMQ's greeting is a few writes. What a link keeps is its state and small \
              buffers, which grow while there is much to say and are given back.",
        bars: &[(200, of_tls(PER_LINK, None, 16_384.0))],
    },
    Sweep {
        name: "links-joined",
        title: "Peers of a node",
        about: "nodes join a node one by one, all on one core: from the start of the last until all hear \
                all, what that costs all together, and how the first one's memory has grown",
        x: "peers",
        points: &[2, 9, 19],
        peers: CARRIERS,
        point: Point::Peers,
        columns: &[
            ("until all hear all", "linked_ms"),
            ("CPU in all", "linking_cpu_ms"),
            ("memory a peer", "rss_bytes_per_peer"),
        ],
        plots: &[],
        why: "A peer is a link each way, what its members and log need, and connections for requests, \
              which are kept for a while.",
        bars: &[],
    },
    Sweep {
        name: "links-stopped",
        title: "A peer that is stopped",
        about: "one of three nodes is stopped (SIGSTOP) while a client of the first says 2000 messages of \
                4000 bytes a second: the first one's peak of memory, beside the same without a stop",
        x: "seconds",
        points: &[15],
        peers: CARRIERS,
        point: Point::Stopped,
        columns: &[
            (EXTRA.1, EXTRA.0),
            ("peak", "with_rss_bytes"),
            ("peak without a stop", "without_rss_bytes"),
        ],
        plots: &[],
        why: "Either way a peer that takes nothing for five seconds is cut off; in TLS one that is 8 MiB \
              behind is, too. The history, 64 MiB of it, is in both peaks.",
        bars: &[(15, of_tls(EXTRA, None, 16.0 * 1_048_576.0))],
    },
];

/// All of them, in the order in which they run.
pub(crate) fn sweeps() -> impl Iterator<Item = &'static Sweep> {
    [&MESH, &MESH_SPREAD].into_iter().chain(LINKS).chain(SWEEPS)
}
