//! The same for nodes that meet at a broker: a real one, which each test starts.

use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use base::seal::SealRing;
use tempfile::TempDir;

use super::*;
use crate::carriers::broker::{BrokerCarrier, Me, Seals};

/// How often a broker that starts is tried.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// The link that the hall has in these tests.
const HALL: LinkId = LinkId(u64::MAX);
/// How long a broker may take until nodes meet there: RabbitMQ needs three seconds of a processor.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// A node at a broker, without what its hall says.
#[derive(Debug)]
struct Met(BrokerCarrier);

impl Carrier for Met {
    fn carry(&mut self, command: crate::carriers::Command) {
        self.0.carry(command);
    }
    async fn event(&mut self) -> CarrierEvent {
        loop {
            let event = self.0.event().await;
            if event.link() != HALL {
                return event;
            }
        }
    }
    async fn close(self, grace: Duration) {
        self.0.close(grace).await;
    }
}

/// Programs that run in a folder of their own, and end with the test.
struct Running {
    children: Vec<Child>,
    folder: TempDir,
}

impl Running {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            children: Vec::new(),
            folder,
        }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// Starts one; `scripts/setup` installs it.
    fn start(&mut self, program: &str, args: &[&str], variables: &[(&str, String)]) -> &mut Child {
        // Debian's own command for RabbitMQ changes the user; that of its folder does not.
        let places = ["/usr/lib/rabbitmq/bin", "/usr/bin", "/usr/sbin"];
        let places = places.map(|place| Path::new(place).join(program));
        let found = places.into_iter().find(|place| place.exists());
        let found = found.unwrap_or_else(|| panic!("{program}: run scripts/setup"));
        // When the test is killed the kernel ends it.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(found)
            .args(args)
            .envs(variables.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        self.children.push(child.unwrap());
        self.children.last_mut().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        for child in &mut self.children {
            // Errors: it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A broker.
struct Broker {
    url: String,
    mesh: MeshName,
    seals: Option<SealRing>,
    running: Arc<Running>,
}

impl Broker {
    fn new(url: String, running: Running) -> Self {
        Self {
            url,
            mesh: MeshName::default(),
            seals: None,
            running: Arc::new(running),
        }
    }

    /// At a socket, so that no port is needed.
    fn redis() -> Self {
        let mut running = Running::new();
        let socket = ["--port", "0", "--unixsocket", "socket", "--save", ""];
        running.start("redis-server", &socket, &[]);
        Self::new(format!("redis+unix://{}", running.path("socket")), running)
    }

    fn nats() -> Self {
        let mut running = Running::new();
        let port = free_port();
        running.start("nats-server", &["-a", "127.0.0.1", "-p", &port], &[]);
        Self::new(format!("nats://127.0.0.1:{port}"), running)
    }

    fn zmq_proxy() -> Self {
        let mut running = Running::new();
        let child = running.start("python3", &["-c", PROXY], &[]);
        let mut ports = String::new();
        let told = BufReader::new(child.stdout.take().unwrap()).read_line(&mut ports);
        assert!(told.unwrap() > 0, "python3-zmq: run scripts/setup");
        Self::new(format!("zmq+proxy://127.0.0.1:{}", ports.trim()), running)
    }

    fn rabbitmq() -> Self {
        let mut running = Running::new();
        let [names, port, nodes] = [free_port(), free_port(), free_port()];
        running.start("epmd", &["-port", &names, "-address", "127.0.0.1"], &[]);
        let conf = format!(
            "listeners.tcp.1 = 127.0.0.1:{port}\nvm_memory_high_watermark.absolute = 400MB\n\
             disk_free_limit.absolute = 1MB\n"
        );
        for (name, text) in [("rabbitmq.conf", &*conf), ("plugins", "[].\n")] {
            std::fs::write(running.path(name), text).unwrap();
        }
        let erlang = "+S 1:1 +sbwt none -noinput -kernel inet_dist_use_interface {127,0,0,1}";
        let variables = [
            ("HOME", running.path("")),
            ("ERL_EPMD_PORT", names),
            ("ERL_EPMD_ADDRESS", "127.0.0.1".to_owned()),
            ("RABBITMQ_NODENAME", "conformance@localhost".to_owned()),
            ("RABBITMQ_DIST_PORT", nodes),
            ("RABBITMQ_MNESIA_BASE", running.path("mnesia")),
            ("RABBITMQ_LOG_BASE", running.path("logs")),
            ("RABBITMQ_LOGS", running.path("log")),
            ("RABBITMQ_ENABLED_PLUGINS_FILE", running.path("plugins")),
            ("RABBITMQ_PLUGINS_EXPAND_DIR", running.path("expand")),
            ("RABBITMQ_PID_FILE", running.path("pid")),
            ("RABBITMQ_CONFIG_FILE", running.path("rabbitmq.conf")),
            ("RABBITMQ_CONF_ENV_FILE", "/dev/null".to_owned()),
            ("RABBITMQ_FEATURE_FLAGS_FILE", running.path("flags")),
            // The server takes the place of its script.
            ("RABBITMQ_ALLOW_INPUT", "1".to_owned()),
            ("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", erlang.to_owned()),
        ];
        running.start("rabbitmq-server", &[], &variables);
        Self::new(format!("amqp://127.0.0.1:{port}"), running)
    }

    /// The same broker, with a mesh secret.
    fn sealed(mut self) -> Self {
        self.seals = Some(SealRing::new(&secrets(&[1]).of_brokers()));
        self
    }

    /// The same broker, for a mesh of its own.
    fn of_a_mesh(&self) -> Self {
        let name = format!("m{:x}", rand::random::<u64>());
        Self {
            url: self.url.clone(),
            mesh: name.parse().unwrap(),
            seals: self.seals.clone(),
            running: Arc::clone(&self.running),
        }
    }
}

/// Prints its ports: where publishers come, and where subscribers do.
const PROXY: &str = "\
import zmq
context = zmq.Context()
both = context.socket(zmq.XSUB), context.socket(zmq.XPUB)
ports = [one.bind_to_random_port('tcp://127.0.0.1') for one in both]
print(*ports, sep=',', flush=True)
zmq.proxy(*both)
";

/// A port that nobody has. It is below those that systems give to whoever asks for any.
fn free_port() -> String {
    let ports = std::iter::repeat_with(|| rand::random_range(20_000..32_000_u16));
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    ports.take(100).find(is_free).unwrap().to_string()
}

impl Fixture for Broker {
    type Carrier = Met;
    const SHOWS_ENDS: bool = false;
    async fn bind(&mut self, me: Origin) -> (Met, String) {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let who = Me {
            origin: me,
            name: "ada".to_owned(),
            mesh: self.mesh.clone(),
            seals: self.seals.clone().map(|ring| Seals::new(ring, me)),
        };
        let url = self.url.parse().unwrap();
        let mut carrier = BrokerCarrier::new(url, who, Arc::default(), tasks, &stop);
        let met = async {
            loop {
                carrier.dial(HALL, &self.url, Speech::Hall);
                match carrier.event().await {
                    CarrierEvent::Connected(HALL, _) => return,
                    // The server is not there yet.
                    CarrierEvent::Closed(HALL, _) => tokio::time::sleep(TRY_EVERY).await,
                    other => panic!("{other:?}"),
                }
            }
        };
        timeout(STARTS_WITHIN, met).await.unwrap();
        (Met(carrier), format!("{}#{me}", self.url))
    }
    async fn bind_again(&mut self, _: &str, me: Origin) -> Met {
        self.bind(me).await.0
    }
}

macro_rules! for_each_broker {
    ($($name:ident)*) => {
        mod over_redis {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::redis()).await })*
        }
        mod over_redis_sealed {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::redis().sealed()).await })*
        }
        mod over_nats {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::nats()).await })*
        }
        mod over_nats_sealed {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::nats().sealed()).await })*
        }
        mod over_a_zmq_proxy {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::zmq_proxy()).await })*
        }
        mod over_a_zmq_proxy_sealed {
            $(#[tokio::test] async fn $name() { super::super::$name(super::Broker::zmq_proxy().sealed()).await })*
        }
        /// All of it at one server, since it takes seconds to start: a mesh for each.
        #[tokio::test]
        async fn over_rabbitmq() {
            let rabbit = Broker::rabbitmq();
            $(super::$name(rabbit.of_a_mesh()).await;)*
            let rabbit = rabbit.sealed();
            $(super::$name(rabbit.of_a_mesh()).await;)*
        }
    };
}

for_each_broker! {
    frames_arrive_whole_and_in_order
    an_acknowledgement_reaches_only_the_one_it_is_for
    nothing_of_a_link_comes_after_it_was_hung_up
    two_nodes_hear_each_other
    what_was_published_before_closing_arrives
    what_is_too_long_is_not_sent
}
