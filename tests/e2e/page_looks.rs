//! The main states of the page, light and dark, wide and narrow: each judged by axe-core, and
//! pictured for people.

use serde_json::json;
use thirtyfour::Key;

use crate::harness::browser::{Browser, CONNECTED, Screen};
use crate::harness::{Client, Cluster, Node, Outcome, PATIENCE, say};

/// The screens: a desk, a phone, and the smallest that must do.
const WIDE: Screen = Screen::of(1280, 860);
const PHONE: Screen = Screen::of(390, 844);
const SMALL: Screen = Screen::of(320, 568);

/// What people say, and who; ada is the one at the page.
const TALK: &[(&str, &str)] = &[
    ("mira", "Morning! The new node in Lisbon is up since 7:40."),
    (
        "jonas",
        "I saw it join. Every peer heard it within a second",
    ),
    (
        "jonas",
        "and the page just went on when I stopped mine to update it.",
    ),
    ("ada", "Nice. Did anybody lose a message?"),
    (
        "mira",
        "None. I sent 500 while it was down and counted them afterwards:",
    ),
    (
        "mira",
        "```\nfor n in $(seq 500); do\n  curl -s -d \"{\\\"text\\\":\\\"$n\\\"}\" \
        $NODE/api/rooms/test/messages\ndone\n```",
    ),
    (
        "noor",
        "\u{645}\u{631}\u{62D}\u{628}\u{627}\u{60C} \u{64A}\u{639}\u{645}\u{644} \
        \u{647}\u{646}\u{627} \u{623}\u{64A}\u{636}\u{627}\u{64B} \u{1F44B}",
    ),
    (
        "lin",
        "The notes on how to upgrade are at https://example.org/mesh/upgrade, tell me what is \
        missing.",
    ),
    (
        "ada",
        "Reading them now. One thing: say **first** that `SIGTERM` lets clients move before the \
        node closes.",
    ),
    ("lin", "Good point, I will put it at the top."),
];

/// Puts this state on every screen: pictures of it, and what axe says of it.
async fn look(browser: &Browser, state: &str, faults: &mut Vec<String>) -> anyhow::Result<()> {
    for (name, screen, pictured, judged) in [
        ("wide", WIDE, true, true),
        ("phone", PHONE, true, false),
        ("small", SMALL, false, true),
    ] {
        for (scheme, screen) in [("light", screen), ("dark", screen.in_the_dark())] {
            browser.on(screen.without_motion()).await?;
            settled(browser, screen, state, faults).await?;
            if pictured {
                browser.picture(&format!("{state}-{name}-{scheme}")).await?;
            }
            if judged && let Err(fault) = browser.axe(&format!("{state}, {name}, {scheme}")).await {
                faults.push(format!("{fault:#}"));
            }
        }
    }
    browser.on(WIDE.without_motion()).await
}

/// Waits until the page has this screen and nothing moves. On a screen without motion nothing does
/// at any time: a fault otherwise.
async fn settled(
    browser: &Browser,
    screen: Screen,
    state: &str,
    faults: &mut Vec<String>,
) -> anyhow::Result<()> {
    let width = format!("window.innerWidth === {}", screen.width);
    browser.holds(&width).await?;
    let moving = "document.getAnimations().filter(one => one.playState === 'running')\
                  .map(one => one.effect.target.id || one.effect.target.className)";
    let moves = browser.script(&format!("return {moving}")).await?;
    if moves != json!([]) {
        faults.push(format!("motion where none is preferred, {state}: {moves}"));
    }
    browser.holds(&format!("{moving}.length === 0")).await
}

/// The conversation, in the order written; what is the reader's is typed on the page.
async fn converse(node: &Node, browser: &Browser) -> anyhow::Result<Vec<Client>> {
    let mut people: Vec<Client> = Vec::new();
    for name in ["mira", "jonas", "noor", "lin"] {
        people.push(Client::joined(node, name, "lobby").await?);
    }
    for (from, text) in TALK {
        match people.iter().find(|person| person.name == *from) {
            Some(person) => {
                person.send("lobby", text).await?;
            }
            None => browser.say(text).await?,
        }
        let start = text.chars().take(12).collect::<String>();
        let start = serde_json::to_string(start.trim_start_matches("`").trim())?;
        let shown = format!(
            "[...document.querySelectorAll('#transcript li.message:not([data-id=\"\"]) .text')]\
             .some(text => text.textContent.includes({start}))"
        );
        browser.holds(&shown).await?;
    }
    Ok(people)
}

/// A hole in what came, a message that was refused, and one that waits.
async fn trouble(browser: &Browser) -> anyhow::Result<()> {
    let gap = json!({ "room": "lobby", "origin": "strange2aa", "after": 7, "through": 9 });
    browser.told(&json!({ "gap": gap })).await?;
    let full = json!({ "code": "text_too_long", "message": "the text is too long for this node" });
    browser.refuse(&full).await?;
    browser.on(WIDE.without_motion()).await?;
    browser.say("This one is refused.").await?;
    browser
        .holds("document.querySelector('li.message[data-state=failed]') !== null")
        .await?;
    let busy = json!({ "code": "rate_limited", "message": "wait", "retry_ms": 600_000 });
    browser.refuse(&busy).await?;
    browser.say("This one waits for its turn.").await?;
    browser
        .holds("document.querySelector('li.message[data-state=sending]') !== null")
        .await?;
    Ok(())
}

/// Goal: the main states break no rule of axe-core (WCAG 2.2 AA and best practice), light and
/// dark, wide and 320 px; and people can look at each of them.
/// Method: an empty room; a conversation of several people on three nodes; messages that wait, that
/// were refused, and a gap; the drawers; a node that is killed. Pictures of all go to the folder
/// `screenshots` beside the build.
#[tokio::test]
async fn the_main_states_break_no_rule_of_accessibility_and_are_pictured() -> Outcome {
    let mut cluster = Cluster::start(3).await?;
    let faults = &mut Vec::new();
    let browser = Browser::start().await?;
    browser.tap().await?;
    browser.driver.goto(&cluster.nodes[0].http).await?;
    browser.status(CONNECTED, PATIENCE).await?;
    browser.take_name("ada").await?;
    browser.status(CONNECTED, PATIENCE).await?;
    look(&browser, "empty", faults).await?;

    let people = converse(&cluster.nodes[1], &browser).await?;
    browser.type_in("room-input", "release\u{E007}").await?;
    browser
        .script("document.querySelector('#rooms [data-room=lobby]').click()")
        .await?;
    people[3]
        .send("release", "Tagged. Packages are building.")
        .await?;
    people[3].send("release", "Done, all green.").await?;
    browser.holds("/^\\(2\\)/.test(document.title)").await?;
    browser.element("compose").await?.click().await?;
    people[1].ask("typing", json!({ "room": "lobby" })).await?;
    browser
        .holds("document.querySelector('#typing').textContent.includes('jonas')")
        .await?;
    look(&browser, "conversation", faults).await?;

    for list in ["rooms", "members"] {
        browser.on(PHONE.without_motion()).await?;
        let open = format!(
            "[...document.querySelectorAll('button[aria-controls]')].find(button => document\
             .getElementById(button.getAttribute('aria-controls'))?.querySelector('#{list}')).click()"
        );
        browser.script(&open).await?;
        settled(&browser, PHONE, &format!("{list} opening"), faults).await?;
        for (scheme, screen) in [("light", PHONE), ("dark", PHONE.in_the_dark())] {
            browser.on(screen.without_motion()).await?;
            browser.picture(&format!("{list}-phone-{scheme}")).await?;
            if let Err(fault) = browser.axe(&format!("{list} open, {scheme}")).await {
                faults.push(format!("{fault:#}"));
            }
        }
        browser.keys(Key::Escape).await?;
    }

    trouble(&browser).await?;
    look(&browser, "trouble", faults).await?;

    for node in &mut cluster.nodes {
        node.process.kill().await?;
    }
    browser
        .status(&["reconnecting", "offline"], PATIENCE)
        .await?;
    look(&browser, "reconnecting", faults).await?;
    say!("{} looks with faults", faults.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    browser
        .no_complaints(&["WebSocket connection to", "net::ERR_CONNECTION_REFUSED"])
        .await?;
    Ok(())
}

/// Goal: the same of the mesh view, with a node that has just been killed. Method: five nodes that
/// talk, one is killed; its death is on the pictures.
#[tokio::test]
async fn the_mesh_view_breaks_no_rule_of_accessibility_and_is_pictured() -> Outcome {
    let mut cluster = Cluster::with(5, &["--rate-limit", "0"]).await?;
    let browser = Browser::open(&format!("{}/mesh", cluster.nodes[0].http)).await?;
    let talk = async |from: usize, name: &str| -> anyhow::Result<Client> {
        let client = Client::joined(&cluster.nodes[from], name, "lobby").await?;
        for number in 0..60 {
            client.send("lobby", &number.to_string()).await?;
        }
        Ok(client)
    };
    let mut people = Vec::new();
    for (place, name) in ["ada", "bob", "eve", "lin", "mira"].into_iter().enumerate() {
        people.push(talk(place, name).await?);
    }
    browser
        .holds("document.querySelectorAll('#picture g.link[data-state=up]').length === 20")
        .await?;
    let dead = cluster.nodes[4].origin.clone();
    cluster.nodes[4].process.kill().await?;
    browser
        .holds(&format!(
            "document.querySelector('#picture g.node[data-origin=\"{dead}\"]')\
                 ?.dataset.status === 'dead'"
        ))
        .await?;
    let mut faults = Vec::new();
    look(&browser, "mesh", &mut faults).await?;
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}
