//! Name servers that answer, refuse and hang, and who waits for them.

use std::sync::Condvar;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A name server of a test: names that begin with `dead` hang until it is let go.
#[derive(Debug, Default)]
struct Server {
    asked: AtomicUsize,
    hanging: AtomicUsize,
    hanging_most: AtomicUsize,
    refuses: Mutex<bool>,
    let_go: Mutex<bool>,
    rings: Condvar,
}

impl Server {
    fn resolver(self: &Arc<Self>) -> Resolver {
        let server = Arc::clone(self);
        Resolver::new(move |host| server.lookup(host))
    }

    fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if host.starts_with("dead") {
            let hanging = self.hanging.fetch_add(1, Ordering::SeqCst) + 1;
            self.hanging_most.fetch_max(hanging, Ordering::SeqCst);
            let waiting = self.let_go.lock().unwrap();
            drop(self.rings.wait_while(waiting, |gone| !*gone).unwrap());
            self.hanging.fetch_sub(1, Ordering::SeqCst);
            return Err(io::ErrorKind::TimedOut.into());
        }
        if *self.refuses.lock().unwrap() {
            return Err(io::Error::other("nobody knows"));
        }
        Ok(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])
    }

    fn let_go(&self) {
        *self.let_go.lock().unwrap() = true;
        self.rings.notify_all();
    }
}

/// As if the answers had been kept for long enough.
fn forget_answers(resolver: &Resolver) {
    let mut state = resolver.state();
    state.names.values_mut().for_each(|known| known.last = None);
}

#[tokio::test]
async fn an_address_is_not_looked_up() {
    let resolver = Resolver::new(|_| panic!("it is none"));
    for (host, ip) in [("127.0.0.1", "127.0.0.1"), ("::1", "::1"), ("[::1]", "::1")] {
        let ip: IpAddr = ip.parse().unwrap();
        assert_eq!(resolver.addresses(host).await.unwrap()[..], [ip]);
    }
}

/// Goal: many who ask for one name cost one lookup, and who asks soon after none.
#[tokio::test]
async fn a_name_is_looked_up_once_whoever_asks() {
    let server = Arc::new(Server::default());
    let resolver = server.resolver();
    let asks = (0..100).map(|_| resolver.addresses("here"));
    for answer in futures::future::join_all(asks).await {
        assert_eq!(answer.unwrap().len(), 2);
    }
    assert_eq!(resolver.addresses("here").await.unwrap().len(), 2);
    assert_eq!(server.asked.load(Ordering::SeqCst), 1);
}

/// Goal: forty names whose server hangs hold so many threads and no more; who asks for them is told
/// in time; a name that answers does so in time as well, once the dead are known; and all threads
/// end when nothing is asked.
#[tokio::test]
async fn names_that_hang_hold_few_threads_and_no_other_name() {
    let server = Arc::new(Server::default());
    let resolver = server.resolver();
    let all_dead = async || {
        let names: Vec<String> = (0..40).map(|nth| format!("dead{nth}")).collect();
        let asks = names.iter().map(|name| resolver.addresses(name));
        for answer in futures::future::join_all(asks).await {
            assert!(answer.is_err(), "{answer:?}");
        }
    };
    let begun = Instant::now();
    all_dead().await;
    assert!(
        begun.elapsed() < 2 * LOOKUP_WAIT_MAX,
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(server.hanging_most.load(Ordering::SeqCst), LOOKUPS_MAX);
    server.let_go();
    while server.hanging.load(Ordering::SeqCst) > 0 || resolver.state().threads > 0 {
        tokio::task::yield_now().await;
    }
    // They hang again, and are known to.
    *server.let_go.lock().unwrap() = false;
    server.hanging_most.store(0, Ordering::SeqCst);
    forget_answers(&resolver);
    all_dead().await;
    let hanging = server.hanging_most.load(Ordering::SeqCst);
    assert_eq!(hanging, LOOKUPS_TROUBLED_MAX);
    assert_eq!(resolver.addresses("here").await.unwrap().len(), 2);
    server.let_go();
    while resolver.state().threads > 0 {
        tokio::task::yield_now().await;
    }
    let state = resolver.state();
    assert!(state.waiting.is_empty() && state.troubled.is_empty());
    assert_eq!(state.troubled_under_way, 0);
}

/// Goal: while a name cannot be looked up any more, its last addresses are used.
#[tokio::test]
async fn addresses_outlive_their_name_server() {
    let server = Arc::new(Server::default());
    let resolver = server.resolver();
    resolver.addresses("here").await.unwrap();
    assert!(resolver.addresses("nowhere").await.is_ok());
    *server.refuses.lock().unwrap() = true;
    forget_answers(&resolver);
    assert_eq!(resolver.addresses("here").await.unwrap().len(), 2);
    assert_eq!(
        resolver.addresses("here").await.unwrap().len(),
        2,
        "a failure that is kept"
    );
    let unknown = resolver.addresses("never seen").await;
    assert!(
        matches!(unknown, Err(LookupError::Failed(..))),
        "{unknown:?}"
    );
    assert_eq!(server.asked.load(Ordering::SeqCst), 4);
}

/// Goal: names are bounded; those that nobody waits for make room.
#[tokio::test]
async fn names_are_bounded() {
    let server = Arc::new(Server::default());
    let resolver = server.resolver();
    for nth in 0..NAMES_MAX {
        let mut known = Known::new();
        known.asked = true;
        resolver
            .state()
            .names
            .insert(format!("n{nth}").into(), known);
    }
    let refused = resolver.addresses("here").await;
    assert_eq!(refused, Err(LookupError::Full("here".to_owned())));
    resolver
        .state()
        .names
        .values_mut()
        .for_each(|known| known.asked = false);
    assert!(resolver.addresses("here").await.is_ok());
    assert_eq!(resolver.state().names.len(), 1);
}

/// Goal: that a name is not known yet is told apart from that nobody has it, through an HTTP client.
#[tokio::test]
async fn a_request_tells_whether_its_host_is_not_known_yet() {
    let server = Arc::new(Server::default());
    *server.refuses.lock().unwrap() = true;
    let http = crate::tls::http_client(None)
        .no_proxy()
        .dns_resolver(server.resolver())
        .build()
        .unwrap();
    for (url, undecided) in [("http://dead:9/", true), ("http://nowhere:9/", false)] {
        let error = http.get(url).send().await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
        assert_eq!(is_undecided(&error), undecided, "{error:?}");
    }
    server.let_go();
}

/// Goal: who follows a name hears what it is now: an answer that is older than it wants is asked for again,
/// and what was good once is no answer. Method: a name server that is well, and then refuses.
#[tokio::test]
async fn who_follows_a_name_hears_what_it_is_now() {
    let server = Arc::new(Server::default());
    let resolver = server.resolver();
    let asked = || server.asked.load(Ordering::SeqCst);
    let long = Duration::from_secs(60);
    for (age, times) in [(long, 1), (long, 1), (Duration::ZERO, 2)] {
        assert_eq!(resolver.lately("chat", age).await.unwrap().len(), 2);
        assert_eq!(asked(), times);
    }
    *server.refuses.lock().unwrap() = true;
    assert!(resolver.lately("chat", Duration::ZERO).await.is_err());
    // Others go on with what was good.
    assert_eq!(resolver.addresses("chat").await.unwrap().len(), 2);
    assert_eq!(asked(), 3);
    assert_eq!(resolver.lately("[::1]", long).await.unwrap().len(), 1);
}
