//! What the page makes of words: marks, names, emoji, and what a search finds.

use serde_json::json;
use thirtyfour::Key;

use crate::harness::browser::Browser;
use crate::harness::{Client, Cluster, Outcome, PATIENCE};

/// Messages before and behind the one that is sought: more than the page has in its document.
const AROUND: usize = 700;

/// Goal: a small Markdown, addresses and names are drawn as what they are, and nothing else is; a
/// name and an emoji are completed while one types, by keyboard. Method: another client says them
/// all; a person at the page types the start of a name and of an emoji.
#[tokio::test]
async fn marks_names_and_emoji_are_drawn_and_completed() -> Outcome {
    let cluster = Cluster::with(1, &["--rate-limit", "0"]).await?;
    let node = &cluster.nodes[0];
    let browser = Browser::person(node, "ada").await?;
    let eve = Client::joined(node, "evelyn", "lobby").await?;
    let text = "**bold** and *slant* and `code` for @ada, see https://example.org/a?b=c and \
         javascript:alert(1) or <b>this</b> :tada:\n```\nlet x = 1;\n```";
    eve.send("lobby", text).await?;
    browser
        .holds("document.querySelector('#transcript .text pre') !== null")
        .await?;
    let drawn = browser
        .script(
            "const text = document.querySelector('#transcript li.message .text'); \
             const of = (what) => [...text.querySelectorAll(what)].map(node => node.textContent); \
             const link = text.querySelector('a'); \
             return { bold: of('strong'), slant: of('em'), code: of('code'), me: of('.mention.me'), \
               links: of('a'), href: link.href, rel: link.rel, markup: text.textContent.includes('<b>this</b>'), \
               tada: text.textContent.includes('\\u{1F389}') };",
        )
        .await?;
    let expected = json!({
        "bold": ["bold"], "slant": ["slant"], "code": ["code", "let x = 1;"], "me": ["@ada"],
        "links": ["https://example.org/a?b=c"], "href": "https://example.org/a?b=c",
        "rel": "noopener noreferrer nofollow", "markup": true, "tada": true,
    });
    assert_eq!(drawn, expected);
    browser
        .holds("document.querySelector('#members').textContent.includes('evelyn')")
        .await?;

    browser.element("compose").await?.click().await?;
    for (typed, becomes) in [
        ("@eve", "@evelyn "),
        ("thanks :tad", "@evelyn thanks \u{1F389}"),
    ] {
        browser.keys(typed).await?;
        browser
            .holds("!document.querySelector('#options').hidden")
            .await?;
        browser.keys(Key::Tab).await?;
        let becomes = serde_json::to_string(becomes)?;
        browser
            .holds(&format!(
                "document.querySelector('#compose').value.startsWith({becomes})"
            ))
            .await?;
    }
    browser.keys("!\u{E007}").await?;
    eve.message(PATIENCE, "@evelyn thanks \u{1F389} !").await?;
    browser.no_complaints(&[]).await?;
    Ok(())
}

/// Goal: a search finds what was said long ago, and leads to it in its place; so does the address
/// of a message. Method: a message among many hundreds; search it by keyboard; then open its
/// address in a fresh page.
#[tokio::test]
async fn what_was_said_long_ago_is_found_and_shown_in_its_place() -> Outcome {
    let cluster = Cluster::with(1, &["--rate-limit", "0"]).await?;
    let node = &cluster.nodes[0];
    let eve = Client::joined(node, "eve", "lobby").await?;
    let mut sought = String::new();
    for number in 0..=2 * AROUND {
        let text = match number {
            AROUND => "the caf\u{e9} needle of the stack".to_owned(),
            _ => format!("straw {number}"),
        };
        let sent = eve.send("lobby", &text).await?;
        if number == AROUND {
            sought = sent.id;
        }
    }
    let browser = Browser::person(node, "ada").await?;
    browser.shows(&format!("straw {}", 2 * AROUND)).await?;
    let in_view = format!(
        "(() => {{ const node = document.querySelector('li.message[data-id=\"{sought}\"]'); \
         if (!node) return false; const box = node.getBoundingClientRect(); \
         const view = document.querySelector('#scroller').getBoundingClientRect(); \
         return box.top >= view.top && box.bottom <= view.bottom; }})()"
    );
    browser.chord(Key::Control, "k").await?;
    browser
        .holds("document.activeElement.id === 'search-input'")
        .await?;
    browser.keys("\"caf\u{e9} needle\"\u{E007}").await?;
    let hits = "document.querySelectorAll('#search-results button[data-hit]')";
    browser.holds(&format!("{hits}.length === 1")).await?;
    browser
        .script(&format!("{hits}[0].focus(); return true"))
        .await?;
    browser.keys(Key::Enter).await?;
    browser.holds(&in_view).await?;
    browser
        .holds("!document.querySelector('#search').open")
        .await?;
    browser.no_complaints(&[]).await?;

    let fresh = Browser::open(&format!("{}/#lobby/{sought}", node.http)).await?;
    fresh.holds(&in_view).await?;
    fresh.no_complaints(&[]).await?;
    Ok(())
}
