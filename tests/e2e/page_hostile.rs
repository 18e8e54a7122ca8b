//! Names and texts with every trick: inert, and unmixed with what is around them.

use serde_json::json;

use crate::harness::browser::{Browser, CONNECTED};
use crate::harness::{Client, Cluster, Outcome, PATIENCE};

/// Texts that try to be more than text.
const TEXTS: [&str; 14] = [
    "<script>window.hit=1</script> <svg/onload=window.hit=1>",
    "&lt;b&gt; &amp;",
    "<img src=x onerror=\"window.hit=1;alert(1)\">",
    "[here](javascript:window.hit=1) javascript:window.hit=1",
    "https://example.com/\"onmouseover=\"window.hit=1",
    "[x](data:text/html,<script>window.hit=1</script>)",
    "`<svg onload=window.hit=1>` **<iframe srcdoc=x>** ```\n<style>*{display:none}</style>\n```",
    "**bold *and `code** over* each` other ```",
    "clears the screen \u{1B}[2J and rings \u{7}",
    "\u{202E}turned around\u{202D} and \u{2067}isolated",
    "https://example.com/\u{202E}gnp.exe",
    "tags \u{E0041}\u{E0042} fillers \u{3164}\u{FFA0} marks \u{FEFF}\u{200B}\u{2060}",
    "\u{5E9}\u{5DC}\u{5D5}\u{5DD}, hello, \u{645}\u{631}\u{62D}\u{628}\u{627}",
    ":constructor: :__proto__: @__proto__ @constructor",
];

/// Names that no node of ours lets in; another program's might.
const NAMES: [&str; 8] = [
    "\u{202E}nimda",
    "\u{2067}ada",
    "a\u{200B}d\u{FEFF}a",
    "\u{3164}",
    "ada\nbob\u{0}",
    "<b onclick=hit=1>ada</b>",
    "__proto__",
    "\u{430}dmin \u{5E9}\u{5DC}\u{5D5}\u{5DD}",
];

/// The highest that a short row may be: some lines.
const ROW_MAX_PX: f64 = 220.0;

/// Rows whose parts are not where they are in an innocent row: the name begins at one edge for
/// all, times read from left to right, and the time stands within its row; and what is said of who
/// types reads from left to right behind a name that turns.
const MIXED: &str = "const wrong = []; \
     const ends = (node) => { const text = node.nodeType === 3 ? node : \
     document.createTreeWalker(node, NodeFilter.SHOW_TEXT).nextNode(); \
     if (!text || text.data.length < 2) return null; const at = (from) => { const range = \
     document.createRange(); \
     range.setStart(text, from); range.setEnd(text, from + 1); return \
     range.getBoundingClientRect().left; }; \
     return [at(0), at(text.data.length - 1)]; }; \
     const rows = [...document.querySelectorAll('#transcript li.message')]; \
     const edge = rows[0].querySelector('.from').getBoundingClientRect().left; \
     for (const row of rows) { const name = `${row.querySelector('.from').textContent}: \
     ${row.querySelector('.text').textContent}`; \
     const box = row.getBoundingClientRect(); const time = row.querySelector('time'); const when \
     = time.getBoundingClientRect(); \
     const from = row.querySelector('.from').getBoundingClientRect(); \
     if (from.width > 1 && from.height > 1 && Math.abs(from.left - edge) > 1.5) \
     wrong.push(`${name}: the name begins at ${from.left}, not ${edge}`); \
     const digits = ends(time); if (digits && when.width > 1 && digits[0] >= digits[1]) \
     wrong.push(`${name}: the time is turned`); \
     if (when.left < box.left - 1 || when.right > box.right + 1 || when.top < box.top - 1 || \
     when.bottom > box.bottom + 1) \
     wrong.push(`${name}: the time is outside its row`); \
     if (row.querySelector('.text').textContent === 'innocent') { const text = \
     ends(row.querySelector('.text')); \
     if (text[0] >= text[1]) wrong.push(`${name}: turned by a neighbour`); } } \
     const typing = document.querySelector('#typing'); let words = 0; \
     for (const text of typing.childNodes) if (text.nodeType === 3 && text.data.trim().length > \
     2) { \
     const turned = ends(text); words += 1; \
     if (turned[0] >= turned[1]) wrong.push(`${typing.textContent}: turned by a name`); } \
     if (words === 0) wrong.push(`typing is shown as ${typing.textContent}`); return wrong";

/// Goal: whatever a name or text holds, it is shown inert: no dialog, no element that does
/// anything, no row higher than its few lines, nothing around it reordered. Method: texts through a
/// node, names as another program's node would pass them on; elements, addresses, boxes of rows and
/// of single letters.
#[tokio::test]
async fn hostile_names_and_texts_are_inert_and_stay_in_their_place() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let node = &cluster.nodes[0];
    let browser = Browser::start().await?;
    browser.tap().await?;
    browser.driver.goto(&node.http).await?;
    browser.status(CONNECTED, PATIENCE).await?;
    let (eve, bob) = tokio::join!(
        Client::joined(node, "eve", "lobby"),
        Client::joined(node, "bob", "lobby")
    );
    let (eve, bob) = (eve?, bob?);
    bob.send("lobby", "innocent").await?;
    let marks = format!("Z{}", "\u{300}\u{489}".repeat(250));
    for text in TEXTS.iter().copied().chain([marks.as_str()]) {
        eve.send("lobby", text).await?;
        bob.send("lobby", "innocent").await?;
    }
    let last = eve.send("lobby", "fence").await?;
    browser.shows("fence").await?;
    for text in &TEXTS[..2] {
        browser.shows(text).await?;
    }
    let zalgo = format!("Z{}", "\u{300}\u{489}".repeat(30));
    for (place, name) in NAMES.iter().copied().chain([zalgo.as_str()]).enumerate() {
        for (half, from) in [name, "bob"].into_iter().enumerate() {
            let number = place * 2 + half + 1;
            let msg = json!({
                "room": "lobby", "id": format!("strange2aa.{number}"), "from": from,
                "ts": last.ts + number as u64, "text": "innocent",
            });
            browser.told(&json!({ "msg": msg })).await?;
        }
    }
    let typing = json!({ "room": "lobby", "name": NAMES[0] });
    browser.told(&json!({ "typing": typing })).await?;
    let names = json!({ "room": "lobby", "joined": NAMES, "left": [], "count": 12 });
    browser.told(&json!({ "members": names })).await?;
    let rows = 1 + 2 * (TEXTS.len() + 1) + 1 + 2 * (NAMES.len() + 1);
    let all = format!("document.querySelectorAll('#transcript li.message').length === {rows}");
    browser.holds(&all).await?;

    let active = "script, img, iframe, object, embed, style, link, form, input, svg, math, video, \
                  audio, meta, base, [onclick], [onload], [onerror], [style]";
    let found = browser
        .script(&format!(
            "const texts = document.querySelectorAll(':is(#transcript, #members, #typing) \
             :is(.text, .from, .member, bdi)'); const inside = [...texts].flatMap(text => \
             [...text.querySelectorAll('{active}')]); return [typeof window.hit, \
             inside.map(node => node.outerHTML), \
             [...document.querySelectorAll('.from *, .member *')].length, \
             [...document.querySelectorAll('#transcript a')].filter(a => \
             !/^https?:$/.test(a.protocol) \
             || !/noopener/.test(a.rel)).map(a => a.outerHTML), \
             Object.keys(Object.prototype).length]"
        ))
        .await?;
    assert_eq!(found, json!(["undefined", [], 0, [], 0]));
    let high = browser
        .script(&format!(
            "return [...document.querySelectorAll('#transcript li.message')].filter(row => \
             row.getBoundingClientRect().height > {ROW_MAX_PX}).map(row => \
             row.textContent.slice(0, 80))"
        ))
        .await?;
    assert_eq!(high, json!([]), "rows too high");
    // What marks pile up is painted outside the lines; it must not be painted over other rows.
    let open = browser
        .script(
            "const shuts = (node) => { const style = getComputedStyle(node); \
             return /hidden|clip/.test(style.overflowY) || \
             /paint|content|strict/.test(style.contain); }; \
             return [...document.querySelectorAll('#transcript li.message .text')].filter(text \
             => { \
             let node = text; while (node.id !== 'transcript' && !shuts(node)) node = \
             node.parentElement; \
             return node.id === 'transcript'; }).length",
        )
        .await?;
    assert_eq!(open, 0, "rows that paint over others");
    assert_eq!(browser.script(MIXED).await?, json!([]));
    browser.no_complaints(&[]).await?;
    Ok(())
}

/// Goal: one message cannot push all others out of reach. Method: the longest texts that a node
/// takes, all line feeds, all one word; the height of their rows in windows.
#[tokio::test]
async fn a_text_of_nothing_but_lines_does_not_fill_many_screens() -> Outcome {
    let cluster = Cluster::start(1).await?;
    let browser = Browser::person(&cluster.nodes[0], "ada").await?;
    let eve = Client::joined(&cluster.nodes[0], "eve", "lobby").await?;
    let lines = format!("top{}bottom", "\n".repeat(4000));
    for text in [lines.as_str(), &"w".repeat(4096), "fence"] {
        eve.send("lobby", text).await?;
    }
    browser.shows("fence").await?;
    let screens = browser
        .script(
            "return Math.max(...[...document.querySelectorAll('#transcript li.message')].map(row \
            => \
             row.getBoundingClientRect().height)) / innerHeight",
        )
        .await?;
    let screens = screens.as_f64().unwrap();
    assert!(screens < 3.0, "a row of {screens:.1} screens");
    browser.no_complaints(&[]).await?;
    Ok(())
}
