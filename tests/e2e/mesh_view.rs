//! The mesh view in a real browser, as an operator looks at it while nodes come and go.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::json;

use crate::harness::apart::Proxied;
use crate::harness::browser::Browser;
use crate::harness::sealed::Over;
use crate::harness::{
    Client, Cluster, Instant, NOISE, Node, Outcome, PATIENCE, eventually, say, secs,
};

/// The page asks each node about once a second; this is what is promised of a death.
const SEEN_DEAD: std::time::Duration = secs(5);

/// What the page shows at one moment, by whatever way.
#[derive(Debug, Deserialize)]
struct Seen {
    /// Status by origin, in the picture.
    nodes: BTreeMap<String, String>,
    /// Names by origin, in the table.
    rows: BTreeMap<String, String>,
    /// State and whether it is drawn as one-way, by speaker and hearer.
    links: BTreeMap<String, (String, bool)>,
    /// Newest first.
    events: Vec<String>,
    /// Empty while it is hidden.
    notice: String,
    summary: String,
    /// What a screen reader was told last.
    announced: String,
}

async fn seen(browser: &Browser) -> anyhow::Result<Seen> {
    let script = "const all = (what) => [...document.querySelectorAll(what)]; \
        const by = (items, key, value) => Object.fromEntries(items.map(it => [key(it), value(it)])); \
        const notice = document.getElementById('notice'); \
        return { \
          nodes: by(all('#picture g.node'), it => it.dataset.origin, it => it.dataset.status), \
          rows: by(all('#nodes tbody tr'), it => it.dataset.origin, it => it.textContent), \
          links: by(all('#picture g.link'), it => it.dataset.key, \
            it => [it.dataset.state, it.classList.contains('one-way')]), \
          events: all('#events li span').map(it => it.textContent), \
          notice: notice.hidden ? '' : notice.textContent, \
          summary: document.getElementById('summary').textContent, \
          announced: document.getElementById('announce').textContent }";
    Ok(serde_json::from_value(browser.script(script).await?)?)
}

/// Waits until what the page shows is as wanted.
async fn shows(
    browser: &Browser,
    what: &str,
    within: std::time::Duration,
    wanted: impl Fn(&Seen) -> bool,
) -> anyhow::Result<Seen> {
    eventually(within, what, async || {
        let seen = seen(browser).await?;
        anyhow::ensure!(wanted(&seen), "the page shows {seen:?}");
        Ok(seen)
    })
    .await
}

async fn operator(node: &Node) -> anyhow::Result<Browser> {
    Browser::open(&format!("{}/mesh", node.http)).await
}

/// Whether each of these hears each other, by the picture, the table and the summary.
fn whole(seen: &Seen, nodes: &[&Node]) -> bool {
    let count = nodes.len();
    let up = |one: &Node, other: &Node| {
        let key = format!("{}>{}", one.origin, other.origin);
        seen.links.get(&key) == Some(&("up".to_owned(), false))
    };
    let pairs = nodes
        .iter()
        .flat_map(|one| nodes.iter().map(move |other| (one, other)));
    let all = pairs
        .filter(|(one, other)| one.origin != other.origin)
        .all(|(one, other)| up(one, other));
    let alive = nodes.iter().all(|node| {
        let told = format!("alive{} of {}", count - 1, count - 1);
        seen.nodes.get(&node.origin).map(String::as_str) == Some("up")
            && seen
                .rows
                .get(&node.origin)
                .is_some_and(|row| row.contains(&told))
    });
    all && alive && seen.summary.contains(&format!("{count} nodes"))
}

fn happened(seen: &Seen, words: &[&str]) -> bool {
    seen.events
        .iter()
        .any(|event| words.iter().all(|word| event.contains(word)))
}

/// Goal: one sees the mesh live: all nodes and each direction between them; a killed node dies
/// before one's eyes, its client moves, a new node appears; and when the very node dies that
/// served the page, the page goes on through the others and says so.
/// Method: a browser on `/mesh` of the first of three nodes, with the policy of the embedded page;
/// kill -9 the third, start a fourth, kill -9 the first.
#[tokio::test]
async fn one_sees_nodes_die_and_come_and_the_page_outlives_its_node() -> Outcome {
    let mut cluster = Cluster::start(3).await?;
    let browser = operator(&cluster.nodes[0]).await?;
    let all: Vec<_> = cluster.nodes.iter().collect();
    let first = shows(&browser, "all hear all", PATIENCE, |seen| whole(seen, &all)).await?;
    assert_eq!(first.links.len(), 6, "{first:?}");
    assert_eq!(first.notice, "");

    let client = Client::joined(&cluster.nodes[2], "ada", "lobby").await?;
    let third = cluster.nodes[2].origin.clone();
    let name = &third[..4];
    shows(&browser, "the client is shown", PATIENCE, |seen| {
        // One client, one room, and then where history is kept.
        seen.rows[&third].contains("11memory")
    })
    .await?;
    let killed = Instant::now();
    cluster.nodes[2].process.kill().await?;
    let seen = shows(&browser, "it is shown dead", SEEN_DEAD + NOISE, |seen| {
        seen.nodes.get(&third).map(String::as_str) == Some("dead")
            && happened(seen, &[name, "died"])
    })
    .await?;
    let took = killed.elapsed();
    say!("shown dead {took:?} after kill -9");
    assert!(
        !seen.links.keys().any(|key| key.contains(&third)),
        "the dead have no links: {seen:?}"
    );
    drop(client);
    let _moved = Client::joined(&cluster.nodes[1], "ada", "lobby").await?;
    shows(&browser, "the client moved", PATIENCE, |seen| {
        happened(seen, &["1 client moved to", &cluster.nodes[1].origin[..4]])
    })
    .await?;
    shows(&browser, "it was read out", PATIENCE, |seen| {
        !seen.announced.is_empty()
    })
    .await?;

    let fourth = cluster.add().await?.origin.clone();
    let alive = [&cluster.nodes[0], &cluster.nodes[1], &cluster.nodes[3]];
    shows(&browser, "the new node appears", PATIENCE, |seen| {
        whole(seen, &alive) && happened(seen, &[&fourth[..4], "joined"])
    })
    .await?;

    cluster.nodes[0].process.kill().await?;
    let first = cluster.nodes[0].origin.clone();
    let alive = [&cluster.nodes[1], &cluster.nodes[3]];
    let seen = shows(&browser, "the page goes on", SEEN_DEAD + NOISE, |seen| {
        whole(seen, &alive) && !seen.notice.is_empty()
    })
    .await?;
    assert!(seen.notice.contains("goes on through"), "{seen:?}");
    assert_eq!(seen.nodes[&first], "dead");
    assert!(
        happened(&seen, &["served this page is gone"]),
        "{:?}",
        seen.events
    );
    Ok(())
}

/// Goal: a path that is broken in one direction is seen as that, and so is its healing.
/// Method: a proxy between two nodes swallows what one says; the way back stands.
#[tokio::test]
async fn a_one_way_break_is_seen_as_one() -> Outcome {
    let pair = Proxied::start(Over::Zmq).await?;
    let (near, far) = (&pair.near, &pair.far);
    let browser = operator(far).await?;
    shows(&browser, "both directions", PATIENCE, |seen| {
        whole(seen, &[near, far])
    })
    .await?;
    pair.proxy.black_hole();
    let broken = format!("{}>{}", far.origin, near.origin);
    let back = format!("{}>{}", near.origin, far.origin);
    let seen = shows(&browser, "one direction is broken", PATIENCE, |seen| {
        seen.links.get(&broken).is_some_and(|(_, one_way)| *one_way)
            && happened(seen, &[&near.origin[..4], "no longer hears"])
    })
    .await?;
    assert_ne!(seen.links[&broken].0, "up");
    assert_eq!(seen.links[&back], ("up".to_owned(), false));
    assert!(
        [&near.origin, &far.origin]
            .iter()
            .all(|origin| seen.nodes[*origin] == "up"),
        "nobody died of it: {seen:?}"
    );
    pair.proxy.pass();
    shows(&browser, "it is healed", PATIENCE, |seen| {
        whole(seen, &[near, far]) && happened(seen, &[&near.origin[..4], "hears", "again"])
    })
    .await?;
    Ok(())
}

/// Goal: the page is for everybody: a node is chosen by keyboard and told in words, focus comes
/// back when its details close; and on a narrow screen nothing but the tables scrolls sideways.
/// Method: two nodes; keys alone; a window of 320 px; measure the document.
#[tokio::test]
async fn the_mesh_view_is_used_by_keyboard_and_fits_a_narrow_screen() -> Outcome {
    let cluster = Cluster::start(2).await?;
    let (one, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let browser = operator(one).await?;
    shows(&browser, "both nodes", PATIENCE, |seen| {
        whole(seen, &[one, other])
    })
    .await?;
    let node = format!("#picture g.node[data-origin='{}']", other.origin);
    browser
        .script(&format!("document.querySelector(\"{node}\").focus()"))
        .await?;
    let label = browser
        .script("return document.activeElement.querySelector('title')?.textContent")
        .await?;
    let told = format!(
        "Node {}, alive, hears 1 and is heard by 1 of 1 others",
        &other.origin[..4]
    );
    assert_eq!(label, told.as_str());
    browser
        .driver
        .active_element()
        .await?
        .send_keys("\u{E007}")
        .await?;
    let details = browser.element("details").await?.text().await?;
    for part in [&*other.origin, &*other.http, "1 of 1", "from ", "to "] {
        assert!(details.contains(part), "no {part:?} in {details:?}");
    }
    browser.type_in("close", "\u{E007}").await?;
    let focused = browser
        .script("return [document.getElementById('details').hidden, document.activeElement.dataset.origin]")
        .await?;
    assert_eq!(focused, json!([true, other.origin]));
    browser.driver.set_window_rect(0, 0, 320, 800).await?;
    eventually(PATIENCE, "the window is narrow", async || {
        let width = browser.script("return innerWidth").await?;
        anyhow::ensure!(width.as_u64() <= Some(320), "{width}");
        Ok(())
    })
    .await?;
    let over = browser
        .script(
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth",
        )
        .await?;
    assert_eq!(over, 0, "it scrolls sideways");
    Ok(())
}

/// Goal: a page that nobody sees asks nobody, and shows the present when it is looked at again.
/// Method: each request of the page is noted with whether it was hidden; another tab covers it
/// until that one has seen a node die; then back.
#[tokio::test]
async fn a_hidden_mesh_view_asks_nobody_and_catches_up_when_seen() -> Outcome {
    let mut cluster = Cluster::start(3).await?;
    let browser = operator(&cluster.nodes[0]).await?;
    let all: Vec<_> = cluster.nodes.iter().collect();
    shows(&browser, "all hear all", PATIENCE, |seen| whole(seen, &all)).await?;
    let noted = "const ask = window.fetch; window.asked = []; \
        window.fetch = (...all) => { asked.push(document.hidden); return ask(...all); }; \
        window.hidings = 0; \
        document.addEventListener('visibilitychange', () => { hidings += document.hidden ? 1 : 0; })";
    browser.script(noted).await?;
    eventually(PATIENCE, "it asks", async || {
        let asked = browser.script("return asked.length").await?;
        anyhow::ensure!(asked.as_u64() > Some(3), "{asked}");
        Ok(())
    })
    .await?;
    let covered = browser.driver.window().await?;
    let cover = browser.driver.new_tab().await?;
    browser.driver.switch_to_window(cover).await?;
    browser
        .driver
        .goto(&format!("{}/mesh", cluster.nodes[1].http))
        .await?;
    shows(&browser, "the other tab too", PATIENCE, |seen| {
        whole(seen, &all)
    })
    .await?;
    cluster.nodes[2].process.kill().await?;
    let third = cluster.nodes[2].origin.clone();
    let dead = |seen: &Seen| seen.nodes.get(&third).map(String::as_str) == Some("dead");
    shows(&browser, "it died in the other tab", PATIENCE, dead).await?;
    browser.driver.switch_to_window(covered).await?;
    shows(&browser, "it died here too", PATIENCE, dead).await?;
    let noted = browser.script("return [hidings, asked]").await?;
    assert!(noted[0].as_u64() >= Some(1), "it was never hidden: {noted}");
    let hidden = noted[1].as_array().unwrap();
    assert!(
        hidden.iter().all(|hidden| *hidden == false),
        "it asked while hidden: {noted}"
    );
    Ok(())
}
