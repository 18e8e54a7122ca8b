//! The scenarios, whom they are measured on, and what chatnode is held to.

/// All peers, by name. `chat.v1` is chatnode, its clients speaking chat.v1; `chatnode-tls` has a mesh
/// secret; the others of its name meet at a broker.
pub(crate) const PEERS: [&str; 14] = [
    "chatnode",
    "chat.v1",
    "chatnode-tls",
    "chatnode-redis",
    "chatnode-nats",
    "chatnode-amqp",
    "chatnode-proxy",
    "floor",
    "floor-batch",
    "uws",
    "nats",
    "nats-tls",
    "socketio",
    "socketio-streams",
];

/// A figure of a measurement: its field in the generator's JSON, and its name.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Metric(pub(crate) &'static str, pub(crate) &'static str);

const CPU: Metric = Metric("cpu_us_per_delivery", "CPU a delivery");
const CPU_BYTE: Metric = Metric("cpu_ns_per_byte", "CPU a delivered byte");
const P99: Metric = Metric("p99_us", "latency p99");
const RSS: Metric = Metric("rss_bytes_per_conn", "memory a connection");
const ACCEPT: Metric = Metric("cpu_us_per_accept", "CPU an accept");

/// What is asked of a figure of `whose`, as a ratio to the same of `against`, or, without it, as it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bar {
    pub(crate) whose: &'static str,
    pub(crate) metric: Metric,
    pub(crate) against: Option<&'static str>,
    /// May not be passed.
    pub(crate) bar: Option<f64>,
    /// Should not be passed.
    pub(crate) aim: Option<f64>,
    /// More is better: bar and aim are to be reached.
    pub(crate) at_least: bool,
}

const fn bar(metric: Metric, against: &'static str, bar: f64, aim: f64) -> Bar {
    own(metric, Some(against), Some(bar), Some(aim))
}

const fn own(
    metric: Metric,
    against: Option<&'static str>,
    bar: Option<f64>,
    aim: Option<f64>,
) -> Bar {
    let whose = "chatnode";
    Bar {
        whose,
        metric,
        against,
        bar,
        aim,
        at_least: false,
    }
}

const fn of_chat(metric: Metric, bar: Option<f64>) -> Bar {
    let whose = "chat.v1";
    Bar {
        whose,
        ..own(metric, Some("chatnode"), bar, None)
    }
}

/// What a mesh secret may cost.
pub(crate) const fn of_tls(metric: Metric, against: Option<&'static str>, bar: f64) -> Bar {
    let whose = "chatnode-tls";
    Bar {
        whose,
        ..own(metric, against, Some(bar), None)
    }
}

/// What chatnodes at a broker may cost, its processes included; without a bar the ratio is told.
const fn at_broker(whose: &'static str, against: &'static str, bar: Option<f64>) -> Bar {
    Bar {
        whose,
        ..own(CPU, Some(against), bar, None)
    }
}

/// chat.v1 may cost so much more than plain for each byte that is delivered.
const CHAT: Bar = of_chat(CPU_BYTE, Some(1.25));
/// Which is not the same as what it costs for each message; that is told beside.
const CHAT_TOO: Bar = of_chat(CPU, None);

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    pub(crate) nodes: usize,
    pub(crate) peers: &'static [&'static str],
    /// Arguments of the load generator.
    pub(crate) load: &'static str,
    /// The figure that progress lines tell.
    pub(crate) metric: Metric,
    pub(crate) bars: &'static [Bar],
}

const LONE: &[&str] = &["chatnode", "chat.v1", "floor", "uws", "socketio"];
const FULL: &[&str] = &["chatnode", "chat.v1", "uws", "floor-batch"];

/// Engine by engine, what people use on the same one beside chatnodes on it; first, those without.
const ON_ENGINES: &[&str] = &[
    "chatnode",
    "chatnode-redis",
    "socketio",
    "socketio-streams",
    "chatnode-nats",
    "nats",
    "chatnode-amqp",
    "chatnode-proxy",
];

/// Those with engines that people already run, beside what they use on the same one.
pub(crate) const ENGINES: &[Scenario] = &[
    Scenario {
        name: "hop-3-engines",
        about: "as hop-3: the way between 3 nodes, over a broker, whose CPU is in the figure",
        nodes: 3,
        peers: ON_ENGINES,
        load: "fanout --clients 30 --senders 10 --sender-node 1 --rate 1000 --bytes 100 --secs 5 --warmup 2",
        metric: CPU,
        bars: &[
            at_broker("chatnode-redis", "socketio", None),
            at_broker("chatnode-redis", "socketio-streams", None),
            at_broker("chatnode-nats", "nats", Some(1.0)),
        ],
    },
    Scenario {
        name: "fanout-3-engines",
        about: "as fanout-3: 3 nodes with 300 clients each, over a broker, whose CPU is in the figure",
        nodes: 3,
        peers: ON_ENGINES,
        load: "fanout --clients 900 --senders 10 --sender-node 1 --rate 50 --bytes 100 --secs 10 --warmup 2",
        metric: CPU,
        bars: &[
            at_broker("chatnode-redis", "socketio", Some(0.5)),
            at_broker("chatnode-redis", "socketio-streams", None),
            at_broker("chatnode-nats", "nats", None),
        ],
    },
];

/// All scenarios, in the order in which they run.
pub(crate) fn scenarios() -> impl Iterator<Item = &'static Scenario> {
    SCENARIOS.iter().chain(ENGINES)
}

/// Those that are measured without being asked for by name.
const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "fanout-1",
        about: "1000 clients, 10 senders, together 50 messages a second: lone messages",
        nodes: 1,
        peers: LONE,
        load: "fanout --clients 1000 --senders 10 --rate 50 --bytes 100 --secs 10 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "floor", 1.15, 1.05), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "fanout-burst",
        about: "as fanout-1, ten messages at once, five times a second",
        nodes: 1,
        peers: &["chatnode", "chat.v1", "uws", "floor"],
        load: "fanout --clients 1000 --senders 10 --rate 50 --burst 10 --bytes 100 --secs 10 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "uws", 1.1, 0.8), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "saturate-1000",
        about: "1000 clients, 8 senders, 32 messages in flight: all that the server can do",
        nodes: 1,
        peers: FULL,
        load: "saturate --clients 1000 --senders 8 --inflight 32 --bytes 100 --secs 5 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "uws", 1.25, 1.0), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "saturate-100",
        about: "the same with 100 clients",
        nodes: 1,
        peers: FULL,
        load: "saturate --clients 100 --senders 8 --inflight 32 --bytes 100 --secs 5 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "uws", 1.15, 0.9), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "saturate-senders",
        about: "1000 clients of whom 200 send, 200 messages in flight",
        nodes: 1,
        peers: FULL,
        load: "saturate --clients 1000 --senders 200 --inflight 200 --bytes 100 --secs 5 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "uws", 0.1, 0.04), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "fanout-3",
        about: "as fanout-1 on 3 nodes with 300 clients each, all senders on the first; the floor has \
                one node with all 900, as there is no floor of three",
        nodes: 3,
        peers: &["chatnode", "chat.v1", "floor", "socketio"],
        load: "fanout --clients 900 --senders 10 --sender-node 1 --rate 50 --bytes 100 --secs 10 --warmup 2",
        metric: CPU,
        bars: &[bar(CPU, "floor", 1.35, 1.15), CHAT, CHAT_TOO],
    },
    Scenario {
        name: "hop-3",
        about: "3 nodes with 10 clients each, 1000 messages a second: the way between the nodes, which \
                a large fan-out hides",
        nodes: 3,
        peers: &["chatnode", "chat.v1", "chatnode-tls", "nats", "nats-tls"],
        load: "fanout --clients 30 --senders 10 --sender-node 1 --rate 1000 --bytes 100 --secs 5 --warmup 2",
        metric: CPU,
        bars: &[
            bar(CPU, "nats", 1.0, 0.7),
            own(P99, None, Some(1000.0), None),
            own(P99, Some("nats"), None, Some(1.0)),
            of_tls(CPU, Some("chatnode"), 1.15),
            of_tls(P99, Some("chatnode"), 1.25),
            of_tls(CPU, Some("nats-tls"), 0.7),
            CHAT,
            CHAT_TOO,
        ],
    },
    Scenario {
        name: "idle",
        about: "10 000 connections that do nothing (chat.v1 says hello and joins a room)",
        nodes: 1,
        peers: &["chatnode", "chat.v1", "uws", "floor"],
        load: "idle --clients 10000 --senders 0 --hold 3",
        metric: RSS,
        bars: &[
            own(RSS, None, Some(1536.0), Some(1024.0)),
            bar(ACCEPT, "uws", 1.3, 1.0),
        ],
    },
];
