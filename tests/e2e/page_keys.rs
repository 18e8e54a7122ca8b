//! The page by keyboard only, and on every screen from a small phone to 4K.

use serde::Deserialize;
use thirtyfour::Key;

use crate::harness::browser::{Browser, CONNECTED, Screen};
use crate::harness::{Client, Cluster, Outcome, PATIENCE, secs};

/// Where the focus is: what it is on, whether that can be seen there, and whether one sees that it
/// has the focus: an outline, or a ring around the field that it is in.
const FOCUS: &str = "const node = document.activeElement; \
     if (!node || node === document.body) return { what: '', seen: true, ringed: true, inside: \
     '' }; \
     const ring = (of) => { const style = getComputedStyle(of); \
     return (style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) > 0) \
     || (of !== node && style.boxShadow !== 'none' && of.matches(':focus-within')); }; \
     const box = node.getBoundingClientRect(); \
     return { what: node.id || node.dataset.room || node.getAttribute('aria-label') \
     || node.textContent.trim() || node.tagName, \
     inside: node.closest('aside, main')?.id ?? '', \
     seen: node.checkVisibility({ visibilityProperty: true, opacityProperty: true }) \
     && box.width > 0 && box.height > 0 && box.right > 0 && box.bottom > 0 \
     && box.left < innerWidth && box.top < innerHeight, \
     ringed: ring(node) || ring(node.parentElement) }";

/// Nothing moves.
const STILL: &str = "document.getAnimations().every(one => one.playState !== 'running')";

/// The button that opens the panel with this list.
fn opener(list: &str) -> String {
    format!(
        "[...document.querySelectorAll('button[aria-controls]')].find(button => \
         document.getElementById(button.getAttribute('aria-controls'))?.querySelector('#{list}'))"
    )
}

#[derive(Debug, Deserialize)]
struct Focus {
    what: String,
    inside: String,
    seen: bool,
    ringed: bool,
}

async fn focus(browser: &Browser) -> anyhow::Result<Focus> {
    let focus: Focus = serde_json::from_value(browser.script(FOCUS).await?)?;
    anyhow::ensure!(focus.seen, "the focus cannot be seen: {focus:?}");
    anyhow::ensure!(focus.ringed, "nothing shows the focus: {focus:?}");
    Ok(focus)
}

/// Presses Tab until the focus is where this says, and looks at each stop on the way.
async fn tab_to(browser: &Browser, is_there: &str) -> anyhow::Result<()> {
    let mut stops = Vec::new();
    for _ in 0..40 {
        browser.keys(Key::Tab).await?;
        stops.push(focus(browser).await?.what);
        let there = browser
            .script(&format!(
                "const node = document.activeElement; return Boolean({is_there})"
            ))
            .await?;
        if there == true {
            return Ok(());
        }
    }
    anyhow::bail!("Tab does not lead to {is_there}, only to {stops:?}")
}

/// Presses Enter, and waits until what that set in motion stands still.
async fn enter(browser: &Browser) -> anyhow::Result<()> {
    browser.keys(Key::Enter).await?;
    browser.holds(STILL).await
}

/// Takes another name, in the field of it.
async fn rename(browser: &Browser) -> anyhow::Result<()> {
    tab_to(browser, "node.id === 'name'").await?;
    let all = browser.driver.action_chain().key_down(Key::Control);
    all.send_keys("a").key_up(Key::Control).perform().await?;
    browser.keys("ada\u{E007}").await?;
    let named = "document.querySelector('#members').textContent.includes('ada')";
    browser.holds(named).await?;
    // And the field says so, too.
    browser
        .holds_within(secs(3), "document.querySelector('#name').value === 'ada'")
        .await
}

/// Goal: from load to a sent message, another name, another room, the members and back by Tab, Enter and Escape
/// only, on a phone and on a desktop, and one always sees where the focus is.
/// Method: real keys; at each stop the computed outline and the place of what has the focus.
#[tokio::test]
async fn everything_is_done_by_keyboard_and_the_focus_is_always_seen() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let eve = Client::joined(&cluster.nodes[0], "eve", "lobby").await?;
    let browser = Browser::start().await?;
    for (place, screen) in [Screen::of(390, 844), Screen::of(1280, 900)]
        .into_iter()
        .enumerate()
    {
        browser.on(screen.without_motion()).await?;
        browser.driver.goto(&cluster.nodes[0].http).await?;
        browser.driver.refresh().await?;
        browser.status(CONNECTED, PATIENCE).await?;
        let text = format!("by keys {place}");
        // The first stop leads to writing at once.
        browser.keys(Key::Tab).await?;
        focus(&browser).await?;
        enter(&browser).await?;
        browser
            .holds("document.activeElement.id === 'compose'")
            .await?;
        browser.keys(format!("{text}\u{E007}")).await?;
        eve.message(PATIENCE, &text).await?;
        assert_eq!(
            focus(&browser).await?.what,
            "compose",
            "after a message was sent"
        );

        let narrow = screen.width < 600;
        let room = format!("room{place}");
        if narrow {
            tab_to(&browser, &format!("node === {}", opener("rooms"))).await?;
            enter(&browser).await?;
            browser
                .holds("document.activeElement.closest('aside') !== null")
                .await?;
            // Behind an open drawer nothing takes the focus.
            for _ in 0..12 {
                browser.keys(Key::Tab).await?;
                let at = focus(&browser).await?;
                assert!(at.inside != "room", "behind the drawer: {at:?}");
            }
        }
        tab_to(&browser, "node.id === 'room-input'").await?;
        browser.keys(format!("{room}\u{E007}")).await?;
        let current = "document.querySelector('#rooms [aria-current=true]').dataset.room";
        browser.holds(&format!("{current} === '{room}'")).await?;
        if narrow {
            tab_to(&browser, &format!("node === {}", opener("rooms"))).await?;
            enter(&browser).await?;
        }
        tab_to(&browser, "node.dataset.room === 'lobby'").await?;
        enter(&browser).await?;
        browser.holds(&format!("{current} === 'lobby'")).await?;
        browser
            .holds("document.querySelector('#members').textContent.includes('eve')")
            .await?;
        if narrow {
            let members = opener("members");
            tab_to(&browser, &format!("node === {members}")).await?;
            enter(&browser).await?;
            let inside =
                "document.activeElement.closest('aside')?.querySelector('#members') != null";
            browser.holds(inside).await?;
            browser.keys(Key::Escape).await?;
            browser
                .holds(&format!("document.activeElement === {members}"))
                .await?;
            focus(&browser).await?;
            browser.back_tab().await?;
            focus(&browser).await?;
        }
    }
    rename(&browser).await?;
    browser.no_complaints(&[]).await?;
    Ok(())
}

/// What sticks out of the window to a side: the document, or anything that can be focused.
const OUTSIDE: &str = "const wide = []; const root = document.documentElement; \
     if (root.scrollWidth > root.clientWidth) wide.push(`document: ${root.scrollWidth} px`); \
     if (document.body.scrollWidth > root.clientWidth) wide.push(`body: \
     ${document.body.scrollWidth} px`); \
     const all = 'a[href], button, input, textarea, select, summary, [tabindex]'; \
     for (const node of document.querySelectorAll(all)) { \
     if (node.closest('[inert], [hidden]') || node.disabled || node.tabIndex < 0 \
     || !node.checkVisibility({ visibilityProperty: true })) continue; \
     node.focus(); if (document.activeElement !== node) continue; \
     const box = node.getBoundingClientRect(); const name = node.id || node.textContent || \
     node.outerHTML; \
     if (box.left < -1 || box.right > root.clientWidth + 1) \
     wide.push(`${name}: from ${box.left} to ${box.right}`); \
     if (box.bottom < 1 || box.top > innerHeight - 1) \
     wide.push(`${name}: from ${box.top} down to ${box.bottom}`); } return wide";

/// Goal: from 320 px to 4K nothing sticks out to a side, and whatever takes the focus is on the
/// screen then. Method: long words, addresses, code and names; five widths, with drawers shut and
/// open; the boxes of the document and of each thing that takes the focus.
#[tokio::test]
async fn nothing_sticks_out_at_any_width() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let long_name = "an-unbelievably-long-name-of-32-";
    let eve = Client::joined(&cluster.nodes[0], long_name, "lobby").await?;
    let word = "Donaudampfschifffahrtselektrizitäten".repeat(8);
    for text in [
        word.as_str(),
        &format!("https://example.com/{}", "a/long/path/".repeat(20)),
        &format!("```\nlet {} = 1;\n```", "x".repeat(300)),
        &format!("`{}` **{}**", "y".repeat(200), "z".repeat(200)),
        "\u{5E9}\u{5DC}\u{5D5}\u{5DD} \u{5E2}\u{5D5}\u{5DC}\u{5DD}",
        "fence",
    ] {
        eve.send("lobby", text).await?;
    }
    let browser = Browser::person(&cluster.nodes[0], "ada").await?;
    let long_room = "a-room-with-a-name-that-is-as-long-as-a-name-of-a-room-can-be-64";
    browser
        .type_in("room-input", format!("{long_room}\u{E007}"))
        .await?;
    browser
        .script("document.querySelector('#rooms [data-room=lobby]').click()")
        .await?;
    browser.shows("fence").await?;
    browser.say(&word).await?;
    for (width, height) in [
        (320, 568),
        (390, 844),
        (768, 1024),
        (1440, 900),
        (3840, 2160),
    ] {
        browser
            .on(Screen::of(width, height).without_motion())
            .await?;
        browser
            .holds(&format!("document.documentElement.clientWidth === {width}"))
            .await?;
        for panel in ["", "rooms", "members"] {
            let button = opener(panel);
            if panel.is_empty()
                || browser
                    .script(&format!(
                        "const button = {button}; const shut = button?.checkVisibility() && \
                 button.getAttribute('aria-expanded') === 'false'; if (shut) button.click(); \
                 return Boolean(shut)"
                    ))
                    .await?
                    == true
            {
                browser.holds(STILL).await?;
                let outside = browser.script(OUTSIDE).await?;
                assert_eq!(
                    outside,
                    serde_json::json!([]),
                    "{width} px wide, open: {panel:?}"
                );
                browser.keys(Key::Escape).await?;
            }
        }
    }
    browser.no_complaints(&[]).await?;
    Ok(())
}
