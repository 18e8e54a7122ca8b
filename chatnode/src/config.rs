//! The node's configuration: a flag and a variable for each value. The text here is `--help`.

mod bridge;
mod bus;
mod data;
mod discover;
mod help;
mod keep;
mod lines;
mod parse;
mod reach;
mod secret;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use base::endpoint::{Endpoint, Host};
use base::process::{Failure, ListenAddr, LogFormat};
use clap::builder::BoolishValueParser;

use crate::model::mesh_name::MeshName;

use self::bus::Buses;
use self::help::AFTER_HELP;
pub(crate) use self::reach::Told;
use crate::carriers::broker::bridge::BridgeUrl;
use crate::carriers::broker::keeper::KeepUrl;
use crate::carriers::parts::PlainForm;
use crate::core::memory::Retention;
use crate::discovery::url::DiscoverUrl;
use crate::disk::DiskRetention;

/// Fewest messages that may be retained: below, a client that blinks could not resume.
const RETAIN_MESSAGES_MIN: usize = 1000;
/// Fewest bytes that history on disk may be held to.
const DATA_BYTES_MIN: u64 = 16 << 20;
/// Least memory for history.
const RETAIN_BYTES_MIN: usize = 1 << 20;

/// One node of a chatmesh: a WebSocket chat server that finds its peers and needs no broker.
///
/// Start a registry, then any number of nodes; each serves the chat page, and what is said on one
/// is read on all. A node registers, hears of the others at once, and subscribes to each: these are
/// its peers.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "chatnode", version, after_help = AFTER_HELP)]
pub struct Config {
    /// What to do instead of running a node.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Where to serve the page, the WebSocket and the API. A port alone is on 127.0.0.1. Without
    /// this flag a free port is taken; a port that is given and in use is an error.
    #[arg(long, env = "CHATNODE_HTTP", value_name = "PORT|ADDR:PORT")]
    http: Option<ListenAddr>,

    /// Where this node publishes what it says to other nodes (a ZeroMQ PUB socket). A port alone is
    /// on the address of --http. Without this flag a free port is taken.
    #[arg(long = "pub", env = "CHATNODE_PUB", value_name = "PORT|ADDR:PORT")]
    publisher: Option<String>,

    /// A registry, where nodes say that they are alive and find each other. Repeat for several: the
    /// node registers with all and knows every node that any of them lists, so one may die. `none`
    /// uses no registry. Default http://127.0.0.1:7171, or tls://127.0.0.1:7171 with --mesh-secret, or
    /// none with --sub, --discover, or a broker for --bus.
    #[arg(
        long,
        env = "CHATNODE_REGISTRY",
        value_name = "URL|none",
        value_delimiter = ','
    )]
    registry: Vec<String>,

    /// Where else nodes find each other: dns+HOST:PORT, a name with an address for each node and the port
    /// of their HTTP (a headless service of Kubernetes, a service of Compose); dnssrv+_http._tcp.HOST, the
    /// same by service records, which tell the ports; consul://HOST:8500/NAME, a service of Consul;
    /// etcd://HOST1:2379,HOST2/PREFIX, keys of etcd; consul+https:// and etcd+https:// in TLS;
    /// registry+http://HOST:PORT is as --registry http://HOST:PORT. DNS is asked as the system asks, or at
    /// the server that ?server=IP:PORT names. Repeat for several: a node is found that any of them lists,
    /// so one may die. No registry is used then unless --registry names one. Other users of this machine
    /// see what stands in a command line: put consul://TOKEN@HOST/NAME and etcd://USER:PASSWORD@HOST/PREFIX
    /// into the variable, where spaces part several, or into --discover-file.
    #[arg(
        long,
        env = "CHATNODE_DISCOVER",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ' '
    )]
    discover: Vec<String>,

    /// A file of what --discover takes, one on each line.
    #[arg(long, env = "CHATNODE_DISCOVER_FILE", value_name = "FILE")]
    discover_file: Option<PathBuf>,

    /// By what nodes meet: `zmq`, from node to node, which is the default (in TLS with --mesh-secret), or
    /// the URL of a broker: redis://HOST:PORT, rediss://, valkey://, redis+unix:///PATH,
    /// redis+sentinel://HOST:PORT/NAME, nats://HOST1,HOST2 (servers of one cluster; in TLS
    /// tls+nats://), amqp://HOST/VHOST?heartbeat=SECONDS and amqps:// for RabbitMQ, with user and
    /// password as in redis://USER:PASSWORD@HOST; or zmq+proxy://HOST:PORT,PORT, a trusted proxy of ZeroMQ,
    /// first where publishers come (XSUB), then where subscribers do (XPUB). A broker needs no registry.
    /// Repeat for several: all that is said goes by each, what comes first is taken, and one may die.
    /// Nodes meet if they share one. Other users of this machine see what stands in a command line: put
    /// passwords into the variable, where spaces part several, or into --bus-file.
    #[arg(
        long,
        env = "CHATNODE_BUS",
        hide_env_values = true,
        value_name = "zmq|URL",
        value_delimiter = ' '
    )]
    bus: Vec<String>,

    /// A file of what --bus takes, one on each line.
    #[arg(long, env = "CHATNODE_BUS_FILE", value_name = "FILE")]
    bus_file: Option<PathBuf>,

    /// Foreign programs with which the room `lobby` is joined, at a broker of theirs: those of the textbook at
    /// redis://HOST:PORT/CHANNEL (bare texts; rediss:// too), as in redis://127.0.0.1/chat_messages, and at
    /// amqp://HOST:PORT/EXCHANGE or /VHOST/EXCHANGE (a fanout exchange, JSON with text and timestamp; amqps://
    /// too). What clients of the whole mesh say in `lobby` goes out, and what comes in goes out by no other
    /// way. Give it to as many nodes as you like: one bridges, and when it dies another takes over. One of
    /// each kind; spaces part them in the variable.
    #[arg(
        long,
        env = "CHATNODE_BRIDGE",
        hide_env_values = true,
        value_name = "URL",
        value_delimiter = ' '
    )]
    bridge: Vec<String>,

    /// A keeper: a broker that keeps what is said here until it is on the disk of an archive, and so is one
    /// more copy, which outlives all nodes. amqp://HOST[/VHOST] (RabbitMQ, a durable queue), nats://HOST1,HOST2
    /// (a stream of JetStream) or redis://HOST (a stream), with user, password and TLS as for --bus. Then
    /// `copies: 1` is answered when the keeper has the message. With --data besides, this node is an
    /// archive: it takes in what the keeper holds, and what is not taken in yet outlasts all restarts. Give
    /// --keep to all nodes, and --data to one or some; each archive beyond the first has a name of its own,
    /// ?archive=NAME. Put a URL with a password into the variable.
    #[arg(
        long,
        env = "CHATNODE_KEEP",
        hide_env_values = true,
        value_name = "URL"
    )]
    keep: Option<String>,

    /// The name of the mesh, the nodes that share what is said: 1 to 32 letters, digits, '_' or
    /// '-'. Nodes of meshes with other names are strangers: they do not hear each other, though one
    /// registry lists them or --peer names one. Give each mesh of a network a name of its own.
    #[arg(
        long,
        env = "CHATNODE_MESH",
        value_name = "NAME",
        default_value_t = MeshName::default()
    )]
    pub(crate) mesh: MeshName,

    /// Another chatnode, named by `pub` in its ready line; repeat for several.
    /// The two then hear each other without any registry. It is enough that one names the other.
    #[arg(
        long,
        env = "CHATNODE_PEER",
        value_name = "tcp://HOST:PORT|tls://HOST:PORT",
        value_delimiter = ','
    )]
    peer: Vec<String>,

    /// Static mode: a ZeroMQ publisher of `chat <text>`, of whatever make, named by its port on
    /// 127.0.0.1 or by its endpoint; repeat for several. What it says becomes this node's own
    /// message in the room `lobby`, and what this node's clients say there is published in that
    /// form too. What is lost on that way stays lost. Uses no registry unless --registry names one.
    #[arg(
        long,
        env = "CHATNODE_SUB",
        value_name = "PORT|tcp://HOST:PORT",
        value_delimiter = ','
    )]
    sub: Vec<String>,

    /// In which form what this node's clients say is published to foreign programs: in one part, `chat
    /// <text>`, as in the textbook's third edition, or in two, `chat_messages` and the text, as in its
    /// fourth. Both are heard.
    #[arg(
        long,
        env = "CHATNODE_SUB_FORM",
        value_name = "FORM",
        value_enum,
        default_value = "one"
    )]
    sub_form: PlainForm,

    /// The host under which others find this node: a name or an IP address, without a port.
    /// Default: the address that --http and --pub are bound to; if that is a wildcard such as
    /// 0.0.0.0, the local address of this node's way to the first registry or peer that is not on
    /// loopback. What is bound to loopback is told by that address all the same, since its peers
    /// are on this machine; behind a proxy or tunnel this flag is then the name by which clients
    /// may ask.
    #[arg(long, env = "CHATNODE_ADVERTISE", value_name = "HOST")]
    advertise: Option<String>,

    /// Serve this folder instead of the embedded page, without the page's Content-Security-Policy.
    #[arg(long, env = "CHATNODE_WWW", value_name = "DIR")]
    pub(crate) www: Option<PathBuf>,

    /// What people call this node, 1 to 32 characters, as the page /mesh shows it. Default: made
    /// from its origin, the random id of this start.
    #[arg(long, env = "CHATNODE_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Keep the history on disk in this folder, which is made if it is not there: a message is
    /// acknowledged when it is written and synced, and survives kill -9 and power loss. Without
    /// this flag history is in memory only. One folder is for one node.
    #[arg(long, env = "CHATNODE_DATA", value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,

    /// Messages kept in --data; the oldest beyond are removed. 0 is no limit, else at least 1000.
    #[arg(
        long,
        env = "CHATNODE_DATA_MESSAGES",
        value_name = "N",
        default_value_t = 0
    )]
    data_messages: u64,

    /// Bytes that the history in --data may take, its index for search included; the oldest
    /// messages are removed. The database's write-ahead log, some 20 MB, comes on top. 0 is no
    /// limit, else at least 16777216 (16 MiB).
    #[arg(
        long,
        env = "CHATNODE_DATA_BYTES",
        value_name = "BYTES",
        default_value_t = 0
    )]
    data_bytes: u64,

    /// Days after which a message is removed from --data. 0 is never.
    #[arg(
        long,
        env = "CHATNODE_DATA_DAYS",
        value_name = "DAYS",
        default_value_t = 0
    )]
    data_days: u32,

    /// Messages a second that one client may send; twice as many may come at once. 0 is no limit,
    /// for benchmarks and trusted back ends.
    #[arg(
        long,
        env = "CHATNODE_RATE_LIMIT",
        value_name = "N",
        default_value_t = 20
    )]
    pub(crate) rate_limit: u32,

    /// Messages of history held in memory, over all rooms; the oldest go first. At least 1000.
    #[arg(
        long,
        env = "CHATNODE_RETAIN_MESSAGES",
        value_name = "N",
        default_value_t = 100_000
    )]
    retain_messages: usize,

    /// Bytes of history held in memory, bookkeeping included; the oldest go first. At least
    /// 1048576.
    #[arg(long, env = "CHATNODE_RETAIN_BYTES", value_name = "BYTES", default_value_t = 64 << 20)]
    retain_bytes: usize,

    /// A web origin whose pages may use this node besides its own and those of live nodes, such as
    /// `https://chat.example.com` behind a proxy; repeat for several.
    #[arg(
        long,
        env = "CHATNODE_ALLOW_ORIGIN",
        value_name = "URL",
        value_delimiter = ','
    )]
    allow_origin: Vec<String>,

    /// The mesh secret: whoever has it is a node, and nobody else hears or says anything between nodes.
    /// A file of lines that `chatnode secret` prints, the same on all nodes; nobody but its owner may
    /// read it. All that goes between nodes, and to registries, is then in TLS, through the port of
    /// --http; registries are tls://HOST:PORT, with --mesh-secret too. The first line is presented, all
    /// are accepted; the file is read again when it changes, and at SIGHUP.
    #[arg(long, env = "CHATNODE_MESH_SECRET", value_name = "FILE")]
    pub(crate) mesh_secret: Option<PathBuf>,

    /// Allow what nodes say to each other (PUB, SUB and /mesh/ over HTTP) on addresses other than
    /// loopback: PUB is then on the address of --http. Nothing in it is encrypted or authenticated:
    /// whoever reaches it reads all rooms and can stop the node. The variable is 1, true, yes or
    /// on, or 0, false, no or off.
    #[arg(long, env = "CHATNODE_INSECURE_MESH", value_parser = BoolishValueParser::new())]
    pub(crate) insecure_mesh: bool,

    /// How logs look on stderr. RUST_LOG chooses what is logged (error, warn, info, debug).
    #[arg(
        long,
        env = "CHATNODE_LOG",
        value_name = "FORMAT",
        value_enum,
        default_value = "text"
    )]
    pub(crate) log: LogFormat,
}

/// What `chatnode` does instead of running a node.
#[derive(Debug, Clone, clap::Subcommand)]
pub(crate) enum Command {
    /// Print a new mesh secret, a line that makes a program a node; or the line for registries.
    Secret {
        /// Print what belongs to this file of secrets and makes a registry, and no node.
        #[arg(long, value_name = "FILE")]
        registry: Option<PathBuf>,
    },
}

/// The configuration, checked: every value parsed, every relation holds.
#[derive(Debug, Clone)]
pub(crate) struct Checked {
    /// Where HTTP listens.
    pub(crate) http: SocketAddr,
    /// Where PUB listens, if nodes meet without a broker.
    pub(crate) publisher: SocketAddr,
    /// By what nodes meet.
    pub(crate) buses: Buses,
    /// Bridges to foreign programs.
    pub(crate) bridges: Vec<BridgeUrl>,
    /// What keeps what is said besides.
    pub(crate) keep: Option<KeepUrl>,
    /// Whether there is a mesh secret: what goes between nodes is in TLS, through HTTP's port.
    pub(crate) is_sealed: bool,
    /// Whether the mesh may be on other addresses than loopback, though nobody has to prove anything.
    pub(crate) insecure_mesh: bool,
    /// The registries; none turns them off.
    pub(crate) registries: Vec<Endpoint>,
    /// Where else nodes are found.
    pub(crate) discover: Vec<DiscoverUrl>,
    /// The host that others are told.
    pub(crate) advertise: Option<Host>,
    /// PUB endpoints of chatnodes.
    pub(crate) peers: Vec<Endpoint>,
    /// PUB endpoints of foreign publishers.
    pub(crate) subs: Vec<Endpoint>,
    /// In which form they are spoken to.
    pub(crate) sub_form: PlainForm,
    /// How much history.
    pub(crate) retention: Retention,
    /// Web origins, as browsers write them.
    pub(crate) allow_origins: Vec<String>,
}

fn refuse<T>(why: impl Into<String>) -> Result<T, Failure> {
    Err(Failure::Config(why.into()))
}

/// Any port of loopback.
const LOOPBACK: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// An IPv4 address in the clothes of IPv6 is one: peers and browsers are told it as such.
fn plain(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

impl Config {
    /// Checks values and their relations, before any port is bound.
    ///
    /// # Errors
    /// One line that says what, where, and how to mend it.
    pub(crate) fn check(&self) -> Result<Checked, Failure> {
        self.check_data()?;
        self.check_secret()?;
        let http = plain(self.http.map_or(LOOPBACK, |addr| addr.socket_addr()));
        let buses = self.buses()?;
        let bridges = self.bridges()?;
        let publisher = self.publisher(http)?;
        let (registries, discover) = self.sources(buses.direct)?;
        if let Some(name) = &self.name
            && let Err(why) = name.parse::<crate::model::names::UserName>()
        {
            return refuse(format!("--name {name:?}: {why}"));
        }
        for (flag, given, least) in [
            (
                "--retain-messages",
                self.retain_messages,
                RETAIN_MESSAGES_MIN,
            ),
            ("--retain-bytes", self.retain_bytes, RETAIN_BYTES_MIN),
        ] {
            if given < least {
                return refuse(format!("{flag} {given}: it is at least {least}"));
            }
        }
        if let Some(dir) = &self.www
            && !dir.is_dir()
        {
            return refuse(format!("--www {}: no such folder", dir.display()));
        }
        let advertise = self.advertise.as_deref().map(parse::advertised);
        let is_sealed = self.mesh_secret.is_some();
        let peers = self.peer.iter().map(|text| parse::peer(text, is_sealed));
        let subs = self.sub.iter().map(|text| parse::sub(text));
        Ok(Checked {
            http,
            publisher,
            is_sealed,
            insecure_mesh: self.insecure_mesh,
            registries,
            discover,
            buses,
            bridges,
            keep: self.keep()?,
            advertise: advertise.transpose()?,
            peers: peers.collect::<Result<_, _>>()?,
            subs: subs.collect::<Result<_, _>>()?,
            sub_form: self.sub_form,
            retention: Retention {
                messages: self.retain_messages,
                bytes: self.retain_bytes,
            },
            allow_origins: self
                .allow_origin
                .iter()
                .map(|text| parse::web_origin("--allow-origin", text))
                .collect::<Result<_, _>>()?,
        })
    }

    /// Where PUB listens, beside HTTP at this address.
    fn publisher(&self, http: SocketAddr) -> Result<SocketAddr, Failure> {
        let publisher = match &self.publisher {
            // The mesh follows HTTP's address only where that is safe.
            None if !self.insecure_mesh && !http.ip().is_loopback() => LOOPBACK,
            None => SocketAddr::new(http.ip(), 0),
            Some(text) => match text.parse::<u16>() {
                Ok(port) => SocketAddr::new(http.ip(), port),
                Err(_) => match text.parse::<ListenAddr>() {
                    Ok(addr) => plain(addr.socket_addr()),
                    Err(why) => return refuse(format!("--pub {text:?}: {why}")),
                },
            },
        };
        if !publisher.ip().is_loopback() && self.mesh_secret.is_some() {
            return refuse(format!(
                "--pub {publisher}: with --mesh-secret PUB is for foreign programs on this machine \
                 (--sub), as with --pub 127.0.0.1:{}; nodes use the port of --http",
                publisher.port()
            ));
        }
        if !publisher.ip().is_loopback() && !self.insecure_mesh {
            return refuse(format!(
                "--pub {publisher}: the mesh is neither encrypted nor authenticated, so it stays on \
                 loopback, as with --pub 127.0.0.1:{}; add --insecure-mesh if every program on that \
                 network is trusted",
                publisher.port()
            ));
        }
        let overlap = http.ip() == publisher.ip()
            || http.ip().is_unspecified()
            || publisher.ip().is_unspecified();
        if http.port() == publisher.port() && http.port() != 0 && overlap {
            return refuse(format!(
                "--pub {publisher}: --http has that port; choose another, or leave --pub out for any \
                 free one"
            ));
        }
        Ok(publisher)
    }

    /// How much is kept on disk.
    pub(crate) fn disk_retention(&self) -> DiskRetention {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        DiskRetention {
            messages: self.data_messages,
            bytes: self.data_bytes,
            age: (self.data_days > 0).then(|| DAY * self.data_days),
        }
    }
}

#[cfg(test)]
mod tests;
