//! The harness of brokers: what later tests build on does what it says, on real servers.

use std::net::SocketAddr;
use std::process::Stdio;

use anyhow::{Result, ensure};
use rustix::process::Pid;
use tokio::net::TcpStream;
use tokio::time::timeout;
use zeromq::{PubSocket, Socket, SocketRecv, SocketSend, SubSocket, ZmqMessage};

use crate::harness::engines::Broker;
use crate::harness::engines::amqp::Amqp;
use crate::harness::engines::nats::{Lines, Nats};
use crate::harness::engines::path::Path;
use crate::harness::engines::rabbit::Rabbit;
use crate::harness::engines::rabbit_home::Home;
use crate::harness::engines::redis::{KEEPS, Redis, Reply, Resp};
use crate::harness::engines::sentinels::Sentinels;
use crate::harness::engines::server::runs_in;
use crate::harness::engines::zmq_proxy::ZmqProxy;
use crate::harness::{Outcome, PATIENCE, eventually, ms};

/// A server that answers does so within this, even on a busy machine; one that is stopped never.
const UNANSWERED: tokio::time::Duration = ms(300);

/// What a server leaves: a process, its folder, its ports.
struct Traces {
    pid: Pid,
    folder: std::path::PathBuf,
    addresses: Vec<SocketAddr>,
}

impl Traces {
    fn of(broker: &mut impl Broker) -> Result<Self> {
        let pid = broker.server().id()?;
        Ok(Self {
            pid: Pid::from_raw(pid).expect("it is not zero"),
            folder: broker.server().folder().to_owned(),
            addresses: broker.addresses(),
        })
    }

    /// Waits until there are none.
    async fn vanish(&self) -> Result<()> {
        eventually(PATIENCE, "nothing of the server is left", async || {
            ensure!(!runs_in(self.pid, &self.folder), "it runs");
            ensure!(!self.folder.exists(), "{} is there", self.folder.display());
            for &address in &self.addresses {
                let taken = TcpStream::connect(address).await.is_ok();
                ensure!(!taken, "somebody listens on {address}");
            }
            Ok(())
        })
        .await
    }
}

/// It is killed, comes back at the same place, is stopped and goes on.
async fn lives_through_faults(broker: &mut impl Broker) -> Result<()> {
    let (url, pid) = (broker.url(), broker.server().id()?);
    broker.kill().await?;
    for address in broker.addresses() {
        ensure!(
            TcpStream::connect(address).await.is_err(),
            "{address} lives"
        );
    }
    assert!(broker.kill().await.is_err(), "nothing is left to kill");
    broker.again().await?;
    assert_eq!(broker.url(), url);
    assert_ne!(broker.server().id()?, pid);
    broker.pause().await?;
    let answered = timeout(UNANSWERED, broker.answers()).await;
    assert!(answered.is_err(), "a stopped server answers: {answered:?}");
    broker.resume()?;
    broker.is_ready().await
}

/// It does all that, and leaves nothing.
async fn lives_and_vanishes(mut broker: impl Broker) -> Result<()> {
    lives_through_faults(&mut broker).await?;
    let traces = Traces::of(&mut broker)?;
    assert!(runs_in(traces.pid, &traces.folder));
    drop(broker);
    traces.vanish().await
}

/// Goal: servers can be killed, started again where they were, stopped as they stand, and are gone
/// with the test. Method: do it to each.
#[tokio::test]
async fn servers_come_back_where_they_were_and_leave_nothing() -> Outcome {
    lives_and_vanishes(Redis::start().await?).await?;
    lives_and_vanishes(Nats::start().await?).await?;
    lives_and_vanishes(ZmqProxy::start().await?).await?;
    Ok(())
}

/// Goal: a test that panics leaves no server, nor does one that is killed, also if the server is
/// stopped. Method: panic in a thread that has one; forget one in a thread that ends, which for the
/// kernel is the one that started it.
#[tokio::test]
async fn a_test_that_panics_or_is_killed_leaves_no_server() -> Outcome {
    let (traces, ended) = with_a_stopped_redis(|_redis| panic!("on purpose"))?;
    assert!(ended.is_err(), "it panics");
    traces.vanish().await?;

    let (traces, ended) = with_a_stopped_redis(std::mem::forget)?;
    assert!(matches!(ended, Ok(Ok(()))), "it does not panic");
    eventually(PATIENCE, "the kernel ends it", async || {
        ensure!(!runs_in(traces.pid, &traces.folder), "it runs");
        Ok(())
    })
    .await?;
    // What a killed test leaves is a folder of some bytes.
    std::fs::remove_dir_all(&traces.folder)?;
    traces.vanish().await?;
    Ok(())
}

/// Starts a server in a thread that does this with it and ends; how.
fn with_a_stopped_redis(end: fn(Redis)) -> Result<(Traces, std::thread::Result<Result<()>>)> {
    let (told, hears) = std::sync::mpsc::channel();
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let mut redis = runtime.block_on(Redis::start())?;
        runtime.block_on(redis.pause())?;
        told.send(Traces::of(&mut redis)?)?;
        end(redis);
        Ok(())
    });
    Ok((hears.recv()?, thread.join()))
}

/// Goal: what Redis keeps it has after `kill -9`, or not, as the test wishes; its subscribers can
/// be looked at and cut, its limits set, its users made. Method: do so.
#[tokio::test]
async fn redis_does_what_an_operator_tells_it() -> Outcome {
    let mut redis = Redis::with(&KEEPS).await?;
    redis.command(&["SET", "kept", "tea"]).await?;
    redis.kill().await?;
    redis.again().await?;
    assert_eq!(redis.command(&["GET", "kept"]).await?.text()?, "tea");
    redis.kill().await?;
    redis.again_empty().await?;
    assert_eq!(redis.command(&["GET", "kept"]).await?, Reply::Nothing);

    let mut subscriber = Resp::connect(redis.address()).await?;
    subscriber.ask(&["SUBSCRIBE", "tea"]).await?;
    let published = redis.command(&["PUBLISH", "tea", "said"]).await?;
    assert_eq!(published, Reply::Number(1));
    assert_eq!(subscriber.next().await?.texts().last(), Some(&"said"));
    let list = redis.command(&["CLIENT", "LIST"]).await?;
    assert!(list.text()?.contains("sub=1"), "{list:?}");
    let kill = ["CLIENT", "KILL", "TYPE", "pubsub"];
    assert_eq!(redis.command(&kill).await?, Reply::Number(1));
    assert!(subscriber.next().await.is_err(), "it was killed");

    let limit = ["client-output-buffer-limit", "pubsub 1048576 524288 1"];
    redis
        .command(&["CONFIG", "SET", limit[0], limit[1]])
        .await?;
    let set = redis.command(&["CONFIG", "GET", limit[0]]).await?;
    assert!(set.texts()[1].contains(limit[1]), "{set:?}");

    let may = ["on", ">secret", "resetchannels", "&tea", "+subscribe"];
    let user = [&["ACL", "SETUSER", "ada"], &may[..]].concat();
    redis.command(&user).await?;
    let mut ada = Resp::connect(redis.address()).await?;
    ada.ask(&["AUTH", "ada", "secret"]).await?;
    ada.ask(&["SUBSCRIBE", "tea"]).await?;
    let refused = ada.ask(&["SUBSCRIBE", "milk"]).await.unwrap_err();
    assert!(format!("{refused:#}").contains("NOPERM"), "{refused:#}");
    let url = redis.url_as("ada", "secret");
    assert_eq!(url, redis.url().replace("//", "//ada:secret@"));
    Ok(())
}

/// Goal: the master can be given up while it lives, or be lost, and all sentinels agree on who has
/// taken over. Method: have the operator change them; kill the new one.
#[tokio::test]
async fn sentinels_change_the_master() -> Outcome {
    let mut all = Sentinels::start().await?;
    let url = all.url();
    assert!(url.starts_with("redis+sentinel://127.0.0.1:"), "{url}");
    assert_eq!(url.matches("127.0.0.1:").count(), 3, "{url}");
    assert_eq!(all.master().await?, 0);
    all.failover().await?;
    all.switched_to(1).await?;
    all.could_switch().await?;
    all.redis[1].kill().await?;
    all.switched_to(0).await?;
    all.sentinels[0].kill().await?;
    all.sentinels[0].again().await?;
    assert_eq!(all.master().await?, 0);
    let mut traces = vec![Traces::of(&mut all.redis[0])?];
    for sentinel in &mut all.sentinels {
        traces.push(Traces::of(sentinel)?);
    }
    drop(all);
    for traces in traces {
        traces.vanish().await?;
    }
    Ok(())
}

/// Goal: NATS has the limits and users that a test gives it, also later, and sends away one user or
/// all. Method: do so, looking on as clients.
#[tokio::test]
async fn nats_does_what_an_operator_tells_it() -> Outcome {
    let lines = "max_payload: 4096\nlame_duck_grace_period: \"100ms\"";
    let mut nats = Nats::with(lines, &["ada", "bob"]).await?;
    let at = nats.address();
    assert!(Lines::of(at, "eve").await.is_err(), "nobody knows her");
    let mut ada = Lines::of(at, "ada").await?;
    let mut bob = Lines::of(at, "bob").await?;
    assert_eq!(ada.info["max_payload"], 4096);
    assert_eq!(nats.url_as("ada"), format!("nats://ada:of-ada@{at}"));

    nats.disconnect("ada").await?;
    ended(&mut ada).await?;
    bob.pong().await?;
    let mut ada = Lines::of(at, "ada").await?;

    let lines = lines.replace("4096", "8192");
    nats.reload(&lines).await?;
    assert_eq!(Lines::connect(at).await?.info["max_payload"], 8192);
    ada.pong().await?;
    let seen = nats.monitored("connz?auth=true").await?;
    assert_eq!(seen["connections"][0]["authorized_user"], "bob", "{seen}");

    nats.is_lame().await?;
    ended(&mut bob).await?;
    ended(&mut ada).await?;
    nats.is_gone().await?;
    nats.again().await?;
    Ok(())
}

/// Reads what there still is, until the connection ends.
async fn ended(client: &mut Lines) -> Result<()> {
    let to_end = async { while client.next().await.is_ok() {} };
    Ok(timeout(PATIENCE, to_end).await?)
}

/// Goal: two NATS servers are one to their clients, and find each other again. Method: subscribe at
/// one, publish at the other; kill one.
#[tokio::test]
async fn nats_servers_find_each_other() -> Outcome {
    let mut both = Nats::cluster().await?;
    let [one, other] = both.each_ref().map(Nats::address);
    assert_eq!(Nats::url_of(&both), format!("nats://{one},{other}"));
    for round in 0..2 {
        let mut hears = Lines::of(one, "any").await?;
        hears.tell("SUB tea 1").await?;
        hears.pong().await?;
        let mut says = Lines::of(other, "any").await?;
        // The other server may not know yet that somebody listens here.
        eventually(PATIENCE, "it is heard", async || {
            says.tell("PUB tea 4\r\nsaid").await?;
            says.pong().await?;
            let heard = timeout(UNANSWERED, hears.next()).await??;
            ensure!(heard == "MSG tea 1 4", "{heard}");
            Ok(())
        })
        .await?;
        if round == 0 {
            both[1].kill().await?;
            both[1].again().await?;
            both[0].is_linked().await?;
            both[1].is_linked().await?;
        }
    }
    Ok(())
}

/// Goal: the forwarder forwards. Method: a publisher and a subscriber.
#[tokio::test]
async fn the_forwarder_forwards() -> Outcome {
    let proxy = ZmqProxy::start().await?;
    let [publishers, subscribers] = proxy.addresses()[..] else {
        panic!("two ports");
    };
    let url = proxy.url();
    assert_eq!(
        url,
        format!("zmq+proxy://{publishers},{}", subscribers.port())
    );
    let mut hears = SubSocket::new();
    hears.connect(&format!("tcp://{subscribers}")).await?;
    hears.subscribe("tea").await?;
    let mut says = PubSocket::new();
    says.connect(&format!("tcp://{publishers}")).await?;
    // Nobody is told when a subscription has come through.
    eventually(PATIENCE, "it is heard", async || {
        says.send(ZmqMessage::from("tea is ready")).await?;
        let heard = timeout(UNANSWERED, hears.recv()).await??;
        ensure!(
            heard.get(0).is_some_and(|part| part == "tea is ready"),
            "{heard:?}"
        );
        Ok(())
    })
    .await?;
    Ok(())
}

/// Goal: a node's path to a broker can fail in one direction alone, or in both, and heals for who
/// dials again. Method: a client of Redis, with and without such a path.
#[tokio::test]
async fn a_path_to_a_broker_fails_in_either_direction() -> Outcome {
    let redis = Redis::start().await?;
    let path = Path::to(&redis).await?;
    let near: SocketAddr = path.url.trim_start_matches("redis://").parse()?;
    let subscribers = async || redis.command(&["PUBSUB", "NUMSUB", "tea"]).await;
    let none = |reply: &Reply| matches!(reply, Reply::Many(it) if it[1] == Reply::Number(0));

    // It can speak and hears nothing.
    let mut client = Resp::connect(near).await?;
    client.ask(&["PING"]).await?;
    path.deafen();
    let unheard = timeout(UNANSWERED, client.ask(&["SUBSCRIBE", "tea"])).await;
    assert!(unheard.is_err(), "{unheard:?}");
    assert!(!none(&subscribers().await?), "it was not heard");
    // So does one that comes now; and the first one stays deaf.
    let mut second = Resp::connect(near).await?;
    assert!(timeout(UNANSWERED, second.ask(&["PING"])).await.is_err());
    path.pass();
    assert!(timeout(UNANSWERED, client.ask(&["PING"])).await.is_err());
    assert!(timeout(UNANSWERED, second.ask(&["PING"])).await.is_err());
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await?;

    // It hears and cannot speak.
    let mut client = Resp::connect(near).await?;
    client.ask(&["SUBSCRIBE", "milk"]).await?;
    path.mute();
    let unheard = timeout(UNANSWERED, client.ask(&["SUBSCRIBE", "tea"])).await;
    assert!(unheard.is_err(), "{unheard:?}");
    assert!(none(&subscribers().await?), "it was heard");
    redis.command(&["PUBLISH", "milk", "said"]).await?;
    assert_eq!(client.next().await?.texts().last(), Some(&"said"));

    path.black_hole();
    redis.command(&["PUBLISH", "milk", "said"]).await?;
    assert!(timeout(UNANSWERED, client.next()).await.is_err());
    path.cut();
    assert!(client.next().await.is_err(), "it was cut");
    path.pass();
    Resp::connect(near).await?.ask(&["PING"]).await?;
    Ok(())
}

/// Goal: RabbitMQ can be killed, comes back with what it kept or without, is stopped and goes on,
/// blocks who publishes in a memory alarm, closes one connection; and a test has that of the test
/// before it, in order, however that one ended. Method: do so, looking on as clients.
#[tokio::test]
async fn rabbitmq_does_what_an_operator_tells_it() -> Outcome {
    let mut rabbit = Rabbit::start().await?;
    let (at, vhost) = (rabbit.address(), rabbit.vhost.clone());
    assert_eq!(rabbit.url(), format!("amqp://guest:guest@{at}/{vhost}"));
    let ada = Amqp::open(at, &vhost, "ada").await?;
    let _bob = Amqp::open(at, &vhost, "bob").await?;
    let mut seen = rabbit.connections().await?;
    seen.sort_by(|one, other| one.name.cmp(&other.name));
    let names: Vec<_> = seen.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names, ["ada", "bob"]);
    rabbit.disconnect(&seen[0].id).await?;
    let why = ada.closed().await?;
    assert!(why.contains("by the operator"), "{why}");

    // Here a test fails in the middle of things; the next one comes.
    rabbit.alarm(true).await?;
    assert_eq!(rabbit.connections().await?[0].state, "blocking");
    rabbit.pause().await?;
    let waiting = timeout(UNANSWERED, Rabbit::start()).await;
    assert!(waiting.is_err(), "two tests have it");
    let pid = rabbit.server().id()?;
    drop(rabbit);
    let mut rabbit = Rabbit::start().await?;
    assert_eq!(rabbit.server().id()?, pid);
    assert_ne!(rabbit.vhost, vhost);
    let _eve = Amqp::open(at, &rabbit.vhost, "eve").await?;
    assert_eq!(rabbit.connections().await?[0].state, "running");

    // With what it kept, then without.
    lives_through_faults(&mut rabbit).await?;
    Amqp::open(at, &vhost, "bob").await?;
    rabbit.kill().await?;
    rabbit.again_empty().await?;
    Amqp::open(at, &rabbit.vhost, "eve").await?;
    let refused = Amqp::open(at, &vhost, "bob").await.unwrap_err();
    assert!(format!("{refused:#}").contains("vhost"), "{refused:#}");
    Ok(())
}

/// Goal: what RabbitMQ needs beside it, and its folder, outlive a test and end with the run.
/// Method: a run of its own, which is a program that waits for the end of its input.
#[tokio::test]
async fn what_tests_share_ends_with_the_run() -> Outcome {
    let mut run = std::process::Command::new("cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()?;
    let pid = Pid::from_raw(i32::try_from(run.id())?).expect("it is not zero");
    let home = Home::of(pid).await?;
    let (folder, names) = (home.folder().to_owned(), home.names());
    drop(home);
    TcpStream::connect(names).await?;
    drop(run.stdin.take());
    run.wait()?;
    eventually(PATIENCE, "nothing is left", async || {
        ensure!(!folder.exists(), "{} is there", folder.display());
        ensure!(TcpStream::connect(names).await.is_err(), "epmd is there");
        Ok(())
    })
    .await?;
    Ok(())
}
