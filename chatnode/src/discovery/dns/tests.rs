//! Who is taken to be at an address, by hellos that the test answers, in time that the test lets pass.

use std::sync::{Arc, Mutex};

use super::super::{Board, Entry, Seat, View};
use super::*;

/// The one address of the name.
const AT: &str = "127.0.0.9:80";

type Script = Arc<Mutex<Result<Identity, Fault>>>;

fn identity(origin: &str) -> Identity {
    Identity {
        origin: origin.parse().unwrap(),
        name: "n".to_owned(),
        http: "http://127.0.0.9:80".to_owned(),
        publisher: "tcp://127.0.0.9:9".to_owned(),
    }
}

/// A talk about this name, who answers at all of its addresses, and what becomes of it.
fn dns(name: &str, first: Result<Identity, Fault>) -> (Dns, Script, Arc<Board>, Arc<Mutex<usize>>) {
    let url: crate::discovery::url::DiscoverUrl = name.parse().unwrap();
    let crate::discovery::url::DiscoverUrl::Dns(name) = url else {
        panic!("a name of DNS")
    };
    let entry = Entry {
        url: "dns".to_owned(),
        knows_who_lives: false,
    };
    let board = Arc::new(Board::new(vec![entry]));
    let script = Arc::new(Mutex::new(first));
    let asked = Arc::<Mutex<usize>>::default();
    let (answers, count) = (Arc::clone(&script), Arc::clone(&asked));
    let meet: Meet = Arc::new(move |_| {
        *count.lock().unwrap() += 1;
        let answer = answers.lock().unwrap().clone();
        Box::pin(async move { answer })
    });
    let seat = Seat::new(Arc::clone(&board), 0);
    // Who has the origin `d…` is not heard.
    let hears: Hears = Arc::new(|origin| !origin.as_str().starts_with('d'));
    let dns = Dns::new(name, "aaaaaaaaaa".parse().unwrap(), (meet, hears), seat);
    (dns, script, board, asked)
}

fn view(board: &Board) -> View {
    board.view.borrow().clone()
}

fn members(board: &Board) -> Vec<String> {
    let members = view(board).members;
    members.keys().map(ToString::to_string).collect()
}

/// Goal: who has answered is a member until somebody else answers or nobody listens, and one that is slow
/// stays. Method: an address where one thing after the other answers, each asked for when its time has come.
#[tokio::test(start_paused = true)]
async fn a_node_stays_a_member_until_it_is_known_to_be_gone() {
    let (mut dns, script, board, asked) = dns("dns+127.0.0.9:80", Ok(identity("bbbbbbbbbb")));
    dns.poll(POLL_EVERY).await;
    assert_eq!(members(&board), ["bbbbbbbbbb"]);
    assert_eq!(view(&board).listed, None, "DNS does not know who lives");
    assert!(view(&board).is_settled());
    let slow = Fault::new(Why::TimedOut, "slow");
    for (answer, wanted, error) in [
        (Err(slow), &["bbbbbbbbbb"][..], "slow"),
        (Ok(identity("cccccccccc")), &["cccccccccc"], ""),
        (Err(Fault::refused()), &[], "nobody listens"),
        (Ok(identity("aaaaaaaaaa")), &[], ""),
        (Ok(identity("bbbbbbbbbb")), &["bbbbbbbbbb"], ""),
        (Err(Fault::new(Why::OtherMesh, "red")), &[], "red"),
    ] {
        *script.lock().unwrap() = answer;
        tokio::time::advance(ASK_AGAIN).await;
        dns.poll(POLL_EVERY).await;
        assert_eq!(members(&board), wanted);
        let source = &view(&board).sources[0];
        assert!(source.error.contains(error) && source.error.is_empty() == error.is_empty());
        assert_eq!(source.state, "up");
    }
    // Who has answered is not asked with each poll; whoever has not is.
    *script.lock().unwrap() = Ok(identity("bbbbbbbbbb"));
    dns.poll(POLL_EVERY).await;
    let before = *asked.lock().unwrap();
    dns.poll(POLL_EVERY).await;
    assert_eq!(*asked.lock().unwrap(), before);
    // Nor is who is found and not heard left alone.
    *script.lock().unwrap() = Ok(identity("dddddddddd"));
    tokio::time::advance(ASK_AGAIN).await;
    dns.poll(POLL_EVERY).await;
    dns.poll(POLL_EVERY).await;
    assert_eq!(*asked.lock().unwrap(), before + 2);
}

/// Goal: what is in no answer any more is forgotten after a while, not at once; and of many addresses only so
/// many are kept. Method: answers that the test makes.
#[tokio::test(start_paused = true)]
async fn an_address_that_is_in_no_answer_is_forgotten_after_a_while() {
    let (mut dns, _, board, asked) = dns("dns+127.0.0.9:80", Ok(identity("bbbbbbbbbb")));
    let other: SocketAddr = "127.0.0.8:80".parse().unwrap();
    dns.note(&BTreeSet::from([other]), Instant::now());
    dns.ask(Instant::now(), true).await;
    assert_eq!(*asked.lock().unwrap(), 1);
    dns.poll(POLL_EVERY).await;
    assert!(dns.places.contains_key(&other) && dns.places.len() == 2);
    tokio::time::advance(KEPT).await;
    dns.poll(POLL_EVERY).await;
    let left: Vec<_> = dns.places.keys().map(ToString::to_string).collect();
    assert_eq!(left, [AT]);
    assert_eq!(members(&board), ["bbbbbbbbbb"]);
    let many = (1..=u16::MAX).map(|port| SocketAddr::new(other.ip(), port));
    dns.note(&many.collect(), Instant::now());
    assert_eq!(dns.places.len(), ADDRESSES_MAX);
}

/// Who is found on another machine and tells an address on loopback would lead this one to itself.
#[test]
fn loopback_told_from_another_machine_is_no_way_there() {
    let far: SocketAddr = "192.0.2.7:80".parse().unwrap();
    let fault = reachable(far, identity("bbbbbbbbbb")).unwrap_err();
    assert_eq!(fault.why, Why::Loopback);
    assert!(fault.text.contains("192.0.2.7"), "{}", fault.text);
    let here = AT.parse().unwrap();
    assert!(reachable(here, identity("bbbbbbbbbb")).is_ok());
    let told = Identity {
        http: "http://192.0.2.7:80".to_owned(),
        publisher: String::new(),
        ..identity("bbbbbbbbbb")
    };
    assert!(reachable(far, told).is_ok());
}

/// Goal: a secret that only one of two has is no accident, and is told as such; many faults are a short text.
#[tokio::test(start_paused = true)]
async fn another_secret_is_told_and_many_faults_are_a_short_text() {
    let fault = Fault::new(Why::OtherKey, "another secret");
    let (mut dns, _, board, _) = dns("dns+127.0.0.9:80", Err(fault));
    let ports = (1..=20).map(|port| SocketAddr::new(IpAddr::from([127, 0, 0, 1]), port));
    dns.note(&ports.collect(), Instant::now());
    dns.ask(Instant::now(), true).await;
    tell(&dns.places, dns.me, &dns.seat, Ok(()));
    let source = &view(&board).sources[0];
    assert!(source.has_other_secret && source.is_up());
    assert!(source.error.ends_with("and 16 more"), "{}", source.error);
}

/// Goal: an address that no node has, such as one that means this machine itself, or a cloud's service, is not
/// asked. Method: such addresses beside a good one.
#[tokio::test(start_paused = true)]
async fn addresses_that_may_not_be_dialled_are_not_asked() {
    let (mut dns, _, board, asked) = dns("dns+127.0.0.9:80", Ok(identity("bbbbbbbbbb")));
    let bad = [
        "0.0.0.0:80",
        "169.254.169.254:80",
        "224.0.0.1:80",
        "[::]:80",
        "127.0.0.9:0",
    ];
    dns.note(&bad.map(|it| it.parse().unwrap()).into(), Instant::now());
    dns.poll(POLL_EVERY).await;
    assert_eq!((*asked.lock().unwrap(), members(&board).len()), (1, 1));
}

/// Goal: whoever is slow at one address does not keep those at others from being found. Method: one that
/// answers at once, and many that never do.
#[tokio::test(start_paused = true)]
async fn addresses_that_are_silent_delay_nobody_else() {
    let (mut dns, _, board, _) = dns("dns+127.0.0.9:80", Err(Fault::refused()));
    dns.meet = Arc::new(|at| {
        Box::pin(async move {
            if at.ends_with(":80") {
                return Ok(identity("bbbbbbbbbb"));
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
            Err(Fault::new(Why::TimedOut, "slow"))
        })
    });
    let silent = (81..=580).map(|port| SocketAddr::new(IpAddr::from([127, 0, 0, 9]), port));
    dns.note(&silent.collect(), Instant::now());
    let begun = Instant::now();
    let mut views = board.view.subscribe();
    tokio::select! {
        () = dns.poll(POLL_EVERY) => panic!("it was told when all had been asked"),
        view = views.wait_for(|view| view.members.len() == 1) => assert!(view.is_ok()),
    }
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
