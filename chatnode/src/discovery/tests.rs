//! Discovery against real registries in this process, and against things that pretend to be.

use std::net::SocketAddr;

use base::serve::listen;
use rand::SeedableRng as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

use super::*;

const PATIENCE: Duration = Duration::from_secs(15);
const LEASE: Duration = Duration::from_secs(6);

/// A registry that can be killed and started again where it was.
struct TestRegistry {
    addr: SocketAddr,
    tasks: Tasks,
}

impl TestRegistry {
    fn start(addr: SocketAddr) -> Self {
        let tasks = Tasks::new();
        let listener = listen(addr).unwrap();
        let addr = listener.local_addr().unwrap();
        registry::run(LEASE, listener, None, &tasks);
        Self { addr, tasks }
    }

    fn new() -> Self {
        Self::start("127.0.0.1:0".parse().unwrap())
    }

    fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    async fn stop(self) -> SocketAddr {
        assert_eq!(self.tasks.drain(PATIENCE).await, 0);
        self.addr
    }

    async fn ids(&self) -> Vec<String> {
        let listed = Client::new(&self.url())
            .unwrap()
            .list(None, None)
            .await
            .unwrap();
        let registry::client::Listed::Changed(listing) = listed else {
            panic!("no list")
        };
        listing.nodes.into_iter().map(|node| node.id).collect()
    }
}

fn identity(number: u16) -> Identity {
    let mut rng = rand::rngs::StdRng::seed_from_u64(number.into());
    Identity {
        origin: Origin::generate(&mut rng),
        name: format!("node {number}"),
        http: format!("http://127.0.0.1:{}", 20_000 + number),
        publisher: format!("tcp://127.0.0.1:{}", 30_000 + number),
    }
}

/// Registries, and at no address is a node.
fn registries_only(registries: &[String]) -> Sources<'_> {
    Sources {
        registries,
        keys: None,
        discover: &[],
        meet: Arc::new(|_| Box::pin(async { Err(Fault::refused()) })),
        hears: Arc::new(|_| false),
    }
}

struct TestNode {
    me: Identity,
    views: watch::Receiver<View>,
    discovery: Discovery,
    tasks: Tasks,
}

impl TestNode {
    fn start(number: u16, registries: &[String]) -> Self {
        let (me, tasks) = (identity(number), Tasks::new());
        let sources = registries_only(registries);
        let discovery = Discovery::start(&sources, &me, &MeshName::default(), &tasks).unwrap();
        Self {
            me,
            views: discovery.views(),
            discovery,
            tasks,
        }
    }

    async fn sees(&mut self, what: &str, is_so: impl Fn(&View) -> bool) -> View {
        let seen = tokio::time::timeout(PATIENCE, self.views.wait_for(is_so)).await;
        let view = seen.map(|view| view.unwrap().clone());
        view.unwrap_or_else(|_| panic!("never {what}: {:?}", self.views.borrow()))
    }

    async fn sees_nodes(&mut self, numbers: &[u16]) -> View {
        let wanted: BTreeMap<Origin, String> = numbers
            .iter()
            .map(|n| (identity(*n).origin, identity(*n).publisher))
            .collect();
        let what = format!("sees {numbers:?}");
        self.sees(&what, |view| {
            let seen = view
                .members
                .iter()
                .map(|(origin, listed)| (*origin, listed.publisher.clone()));
            seen.collect::<BTreeMap<_, _>>() == wanted
        })
        .await
    }

    async fn sees_states(&mut self, states: &[&str]) -> View {
        let is_so = |view: &View| {
            view.sources
                .iter()
                .map(|r| r.state)
                .eq(states.iter().copied())
        };
        self.sees(&format!("sees registries {states:?}"), is_so)
            .await
    }
}

#[tokio::test]
async fn nodes_see_each_other_come_and_leave() {
    let registry = TestRegistry::new();
    let urls = [registry.url()];
    let mut one = TestNode::start(1, &urls);
    assert!(!one.views.borrow().is_settled());
    let alone = one.sees_nodes(&[]).await;
    assert!(alone.sources.len() == 1);
    one.sees("settled", View::is_settled).await;
    let begun = Instant::now();
    let mut two = TestNode::start(2, &urls);
    let view = one.sees_nodes(&[2]).await;
    two.sees_nodes(&[1]).await;
    assert!(
        begun.elapsed() < Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    let listed = &view.members[&two.me.origin];
    assert_eq!(
        (listed.name.as_str(), &listed.http),
        ("node 2", &two.me.http)
    );
    two.discovery.leave().await;
    assert_eq!(registry.ids().await, [one.me.origin.to_string()]);
    one.sees_nodes(&[]).await;
    // A stop of the tasks leaves too.
    assert_eq!(one.tasks.drain(PATIENCE).await, 0);
    assert!(registry.ids().await.is_empty());
}

#[tokio::test]
async fn a_registry_that_is_replaced_between_two_polls_is_noticed() {
    let registry = TestRegistry::new();
    let urls = [registry.url()];
    let mut one = TestNode::start(1, &urls);
    one.sees_states(&["up"]).await;
    let registry = TestRegistry::start(registry.stop().await);
    let begun = Instant::now();
    while registry.ids().await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn the_view_is_the_union_of_all_registries() {
    let (a, b) = (TestRegistry::new(), TestRegistry::new());
    let (only_a, only_b) = ([a.url()], [b.url()]);
    let mut both = TestNode::start(1, &[a.url(), b.url(), a.url()]);
    let mut at_a = TestNode::start(2, &only_a);
    let mut at_b = TestNode::start(3, &only_b);
    both.sees_nodes(&[2, 3]).await;
    both.sees_states(&["up", "up"]).await;
    at_a.sees_nodes(&[1]).await;
    at_b.sees_nodes(&[1]).await;
    let b_addr = b.stop().await;
    both.sees_states(&["up", "down"]).await;
    both.sees_nodes(&[2, 3]).await;
    // It answers again: its old word is replaced by its new one.
    at_b.discovery.leave().await;
    let _b = TestRegistry::start(b_addr);
    both.sees_states(&["up", "up"]).await;
    both.sees_nodes(&[2]).await;
}

#[tokio::test]
async fn a_node_starts_without_its_registry_and_joins_when_it_appears() {
    let addr = TestRegistry::new().stop().await;
    let mut one = TestNode::start(1, &[format!("http://{addr}")]);
    let view = one.sees_states(&["down"]).await;
    assert!(view.is_settled(), "refused is an answer");
    let registry = TestRegistry::start(addr);
    one.sees_states(&["up"]).await;
    let begun = Instant::now();
    while registry.ids().await.is_empty() {
        assert!(begun.elapsed() < Duration::from_secs(3));
    }
}

#[tokio::test]
async fn of_two_nodes_that_tell_one_endpoint_the_elder_gives_way() {
    let registry = TestRegistry::new();
    let tasks = Tasks::new();
    let urls = [registry.url()];
    let (one, two) = (
        identity(1),
        Identity {
            origin: identity(2).origin,
            ..identity(1)
        },
    );
    let mesh = MeshName::default();
    let starts = [&one, &two]
        .map(|me| Discovery::start(&registries_only(&urls), me, &mesh, &tasks).unwrap());
    // Whoever came first gives way, and says which two there are.
    let begun = Instant::now();
    let said = loop {
        let errors = starts
            .each_ref()
            .map(|it| it.views().borrow().sources[0].error.clone());
        match errors {
            [error, none] | [none, error] if none.is_empty() && !error.is_empty() => break error,
            _ => assert!(begun.elapsed() < PATIENCE, "{errors:?}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    let both = [&one, &two].map(|me| me.origin.as_str());
    assert!(both.iter().all(|origin| said.contains(origin)), "{said}");
    // From then on nothing changes: neither throws the other out.
    let client = Client::new(&registry.url()).unwrap();
    let registry::client::Listed::Changed(listing) = client.list(None, None).await.unwrap() else {
        panic!("no list")
    };
    assert_eq!(listing.nodes.len(), 1);
    let wait = Some(Duration::from_secs(4));
    let later = client.list(Some(&listing.token), wait).await.unwrap();
    assert_eq!(
        later,
        registry::client::Listed::Unchanged,
        "they took turns"
    );
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

/// Something that answers each request with what `answer` makes of its head, then closes.
async fn impostor(
    tasks: &Tasks,
    answer: impl Fn(&str) -> String + Send + Sync + 'static,
) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let stopping = tasks.stopping();
    tasks.spawn(async move {
        loop {
            let accepted = tokio::select! {
                () = stopping.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            let (mut stream, _): (TcpStream, _) = accepted.unwrap();
            let mut head = vec![0; 4096];
            let count = stream.read(&mut head).await.unwrap_or(0);
            let answer = answer(&String::from_utf8_lossy(&head[..count]));
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    url
}

fn ok(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

const REGISTERED: &str =
    r#"{"epoch":"e","version":1,"lease_ms":6000,"renew_ms":0,"observed":"127.0.0.1"}"#;

#[tokio::test]
async fn what_a_registry_lists_is_checked() {
    let node = |id: &str, publisher: &str, http: &str| {
        serde_json::json!({"id": id, "name": "\u{202E}x", "age_ms": 0,
            "endpoints": {"pub": publisher, "http": http}})
    };
    let (me, good) = (identity(1), identity(2));
    let endpoints = [
        ("ipc:///etc/x", "http://a:1"),
        ("tcp://0.0.0.0:1", "http://a:1"),
        ("tcp://a:0", "http://a:1"),
        ("tcp://169.254.169.254:80", "http://a:1"),
        ("http://a:1", "http://a:1"),
        ("tcp://a:1", "javascript:alert(1)"),
        ("tcp://a:1", "http://a/x?y"),
        ("tcp://a:1", ""),
    ];
    let mut nodes: Vec<_> = endpoints
        .iter()
        .zip(10..)
        .map(|((publisher, http), n)| node(identity(n).origin.as_str(), publisher, http))
        .collect();
    nodes.push(node("../../etc/passwd", "tcp://a:1", "http://a:1"));
    nodes.push(node("", "tcp://a:1", "http://a:1"));
    nodes.push(node(me.origin.as_str(), "tcp://a:1", "http://a:1"));
    nodes.push(node(good.origin.as_str(), &good.publisher, &good.http));
    let list = serde_json::json!({"epoch": "e", "version": 1, "token": "e.1", "nodes": nodes});
    let tasks = Tasks::new();
    let url = impostor(&tasks, move |head| {
        if head.starts_with("PUT") {
            ok(REGISTERED)
        } else {
            ok(&list.to_string())
        }
    });
    let mut one = TestNode::start(1, &[url.await]);
    let view = one.sees_nodes(&[2]).await;
    assert_eq!(
        view.members[&good.origin].name,
        good.origin.as_str(),
        "a name to be shown is visible"
    );
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn where_long_polls_are_cut_plain_ones_do() {
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let tasks = Tasks::new();
    let url = impostor(&tasks, move |head| {
        if head.starts_with("PUT") {
            return ok(REGISTERED);
        }
        let is_long = head.contains("wait=");
        let _ = tell.send(is_long);
        match (is_long, head.contains("since=")) {
            // As a proxy does it that has waited long enough.
            (true, _) => {
                "HTTP/1.1 504 Gateway Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
                    .to_owned()
            }
            (false, true) => "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n".to_owned(),
            (false, false) => ok(r#"{"epoch":"e","version":1,"token":"e.1","nodes":[]}"#),
        }
    });
    let mut one = TestNode::start(1, &[url.await]);
    one.sees_states(&["up"]).await;
    let mut seen = Vec::new();
    while seen.len() < 9 {
        seen.push(
            tokio::time::timeout(PATIENCE, told.recv())
                .await
                .unwrap()
                .unwrap(),
        );
    }
    assert_eq!(
        seen,
        [false, true, false, true, false, true, false, false, false]
    );
    assert_eq!(
        one.views.borrow().sources[0].state,
        "up",
        "a cut poll is no dead registry"
    );
    assert_eq!(tasks.drain(PATIENCE).await, 0);
}

#[tokio::test]
async fn a_url_that_is_none_is_refused_and_no_registry_is_fine() {
    let tasks = Tasks::new();
    let (me, mesh) = (identity(1), MeshName::default());
    assert!(
        Discovery::start(
            &registries_only(&["ftp://a".to_owned()]),
            &me,
            &mesh,
            &tasks
        )
        .is_err()
    );
    let none = Discovery::start(&registries_only(&[]), &me, &mesh, &tasks).unwrap();
    assert!(none.views().borrow().is_settled());
    none.leave().await;
}

/// Goal: only a list that is believed to have all who live proves that somebody is gone; who is found elsewhere
/// is not on it. Method: three sources in each state.
#[test]
fn only_lists_that_are_believed_prove_who_is_gone() {
    let entry = |knows_who_lives| Entry {
        url: String::new(),
        knows_who_lives,
    };
    let entries = [entry(true), entry(true), entry(false)];
    let seen = |state, number| Seen {
        state,
        members: BTreeMap::from([(identity(number).origin, Listed::default())]),
        ..Seen::default()
    };
    let listed = |states: [State; 3]| {
        let seen: Vec<_> = states
            .into_iter()
            .zip(1..)
            .map(|(it, nth)| seen(it, nth))
            .collect();
        let view = merge(&entries, &seen);
        assert_eq!(view.members.len(), 3, "all stay members");
        view.listed
    };
    let all = |numbers: &[u16]| Some(numbers.iter().map(|nth| identity(*nth).origin).collect());
    let (up, down) = (State::Up, State::Down);
    assert_eq!(listed([up, up, up]), all(&[1, 2, 3]));
    assert_eq!(listed([up, down, up]), all(&[1, 3]));
    assert_eq!(listed([up, down, down]), all(&[1, 3]));
    assert_eq!(listed([down, down, up]), None);
    // With a mesh secret a source that is not in TLS is a hint.
    for (url, knows, tls) in [
        ("dns+a:1", false, false),
        ("etcd://a/b", true, false),
        ("consul+https://a/b", true, true),
    ] {
        let url: DiscoverUrl = url.parse().unwrap();
        assert_eq!((url.knows_who_lives(), url.is_in_tls()), (knows, tls));
    }
}
