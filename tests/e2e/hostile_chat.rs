//! Hostile requests on an open WebSocket: well-formed frames with ill will in them.

use serde_json::json;

use crate::harness::{Client, Node, Outcome, PATIENCE, Plain, eventually, say};
use crate::hostile::still_chats;

/// What hostile input may make a node's memory grow by.
const GROWTH_MAX: u64 = 8 << 20;

/// Goal: texts at and over the limit, blank ones, markup. Method: what is accepted arrives as it
/// was sent; what is refused has its code.
#[tokio::test]
async fn texts_arrive_as_they_were_sent_or_are_refused() -> Outcome {
    let node = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::joined(&node, "eve", "tea").await?;
    let marks = format!("a{}", "\u{301}".repeat(500));
    let verbatim = [
        "x".repeat(4096),
        "ä".repeat(2048),
        "<img src=x onerror=alert(1)>".to_owned(),
        "[x](javascript:alert(1))".to_owned(),
        "a\nb".to_owned(),
        "\u{202E}abc".to_owned(),
        "a\u{2028}b\u{2029}c".to_owned(),
        "\"\\/\u{7f}".to_owned(),
        marks,
        "%s%n{}${id}".to_owned(),
        "👩‍👩‍👧‍👦".to_owned(),
        "{\"msg\":{}}".to_owned(),
    ];
    for text in &verbatim {
        client.send("tea", text).await?;
        client.message(PATIENCE, text).await?;
    }
    let refused = [
        ("x".repeat(4097), "text_too_long"),
        ("ä".repeat(2049), "text_too_long"),
        (String::new(), "text_empty"),
        ("  \n\t ".to_owned(), "text_empty"),
    ];
    for (text, code) in refused {
        let error = client
            .refusal("send", json!({ "room": "tea", "text": text }))
            .await?;
        assert_eq!(error.code, code, "{}", error.message);
    }
    Ok(())
}

/// Goal: room names that are words of paths or of JavaScript do no harm; ten thousand new rooms
/// leave the memory flat. Method: join, chat, leave; then 10 000 joins and leaves.
#[tokio::test]
async fn odd_rooms_do_no_harm_and_empty_rooms_cost_nothing() -> Outcome {
    let mut node = Node::start(["--registry", "none", "--rate-limit", "0"]).await?;
    let client = Client::hello(&node, "eve").await?;
    for room in [
        "",
        ".",
        "..",
        "a/b",
        "a b",
        "a\0",
        "\u{200B}",
        "a\nb",
        &"x".repeat(65),
    ] {
        let refused = client.refusal("join", json!({ "room": room })).await?;
        assert_eq!(refused.code, "room_invalid");
    }
    for room in [
        "__proto__",
        "constructor",
        "日本語",
        "a..b",
        "-",
        &"ß".repeat(64),
    ] {
        client.join(room).await?;
        client.send(room, "hello").await?;
        let shown = |record: &crate::harness::record::Record| {
            record.messages.last().map(|(_, last)| last.room == room)
        };
        let shown = client.until(PATIENCE, "is shown it", shown).await?;
        assert!(shown, "a message of another room than {room}");
        client.ask("leave", json!({ "room": room })).await?;
    }
    let before = node.process.usage()?.rss;
    let mut refused = 0;
    for count in 0..10_000 {
        let room = format!("room{count}");
        let join = client.ask("join", json!({ "room": room })).await;
        match join {
            Ok(_) => drop(client.ask("leave", json!({ "room": room })).await?),
            Err(error) => {
                error.downcast::<crate::harness::wire::Refused>()?;
                refused += 1;
            }
        }
    }
    let growth = node.process.usage()?.rss.saturating_sub(before);
    say!(
        "10000 rooms: {refused} refused, memory grew by {} KiB",
        growth >> 10
    );
    assert!(growth <= GROWTH_MAX, "memory grew by {growth} bytes");
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: a send without join is allowed and is seen by those in the room; history and who of a room
/// that nobody knows are empty. Method: one in the room, one outside.
#[tokio::test]
async fn a_send_without_join_reaches_the_room() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let outside = Client::hello(&node, "outside").await?;
    let inside = Client::joined(&node, "inside", "tea").await?;
    outside.send("tea", "from outside").await?;
    inside.message(PATIENCE, "from outside").await?;
    assert!(
        outside.messages().is_empty(),
        "who has not joined is shown nothing"
    );
    let history = outside.ask("history", json!({ "room": "nowhere" })).await?;
    assert_eq!(history["messages"], json!([]));
    let who = outside.ask("who", json!({ "room": "nowhere" })).await?;
    assert_eq!(who["count"], 0);
    Ok(())
}

/// Goal: forged positions are an error or `recovered:false`; never a crash, and never messages of
/// another room. Method: a table of `since`.
#[tokio::test]
async fn forged_positions_are_refused_or_not_recovered() -> Outcome {
    let mut node = Node::start(["--registry", "none"]).await?;
    let origin = node.origin.clone();
    let client = Client::hello(&node, "eve").await?;
    client.send("secret", "of another room").await?;
    client.send("tea", "here").await?;
    let many: Vec<_> = (0..3000)
        .map(|count| format!("aaaaaaaaaa.{count}"))
        .collect();
    let invalid = [
        json!(["x"]),
        json!([7]),
        json!("x"),
        json!([format!("{origin}.-1")]),
        json!([format!("{origin}.18446744073709551616")]),
        json!([format!("{origin}.1e3")]),
        json!(["AAAAAAAAAA.1"]),
        json!({}),
    ];
    for since in invalid {
        let error = client
            .refusal("join", json!({ "room": "tea", "since": since }))
            .await?;
        assert!(
            ["id_invalid", "bad_request"].contains(&&*error.code),
            "{since}: {error}"
        );
    }
    let too_many: Vec<_> = (0..513).map(|count| count.to_string()).collect();
    let long = "m".repeat(65);
    for (mids, code) in [
        (json!(too_many), "bad_request"),
        (json!([""]), "mid_invalid"),
        (json!([long]), "mid_invalid"),
        (json!("x"), "bad_request"),
        (json!([7]), "bad_request"),
    ] {
        let body = json!({ "room": "tea", "since": [], "mids": mids });
        let error = client.refusal("join", body).await?;
        assert_eq!(error.code, code, "{mids}");
    }
    // More of this node's own log than there is cannot have been seen. Of another origin it can:
    // its entries may have died with it, and then nothing is missed.
    let unknown = [
        (json!([format!("{origin}.18446744073709551615")]), false),
        (json!([format!("{origin}.999")]), false),
        (json!(["aaaaaaaaaa.1"]), true),
    ];
    for (since, recovered) in unknown {
        let body = json!({ "room": "tea", "since": since, "history": 10 });
        let joined = client.join_with(body).await?;
        assert_eq!(joined.recovered, Some(recovered), "{since}");
        assert!(
            joined.messages.iter().all(|msg| msg.room == "tea"),
            "{joined:?}"
        );
        client.ask("leave", json!({ "room": "tea" })).await?;
    }
    let answered = client
        .ask("join", json!({ "room": "tea", "since": many }))
        .await;
    if let Err(error) = answered {
        error.downcast::<crate::harness::wire::Refused>()?;
    }
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: what a client says of origin, id, time and sender is ignored.
#[tokio::test]
async fn the_node_decides_origin_number_time_and_sender() -> Outcome {
    let node = Node::start(["--registry", "none"]).await?;
    let client = Client::joined(&node, "eve", "tea").await?;
    let body = json!({
        "room": "tea", "text": "forged", "id": "aaaaaaaaaa.7", "origin": "aaaaaaaaaa",
        "seq": 99, "ts": 1, "from": "ada", "user": "ada",
    });
    let sent = client.send_with(body).await?;
    let message = client.message(PATIENCE, "forged").await?;
    assert_eq!((message.from.as_str(), &message.id), ("eve", &sent.id));
    assert_eq!((message.origin(), message.seq()), (node.origin.as_str(), 1));
    assert!(message.ts > 1_700_000_000_000_000, "{message:?}");
    Ok(())
}

/// Goal: the bare-text door holds the same limits. Method: a text that is too long, a binary frame, an
/// empty text, a bad room: the rest of the room is not disturbed.
#[tokio::test]
async fn the_bare_text_door_holds_the_same_limits() -> Outcome {
    let mut node = Node::start(["--registry", "none"]).await?;
    let witness = Plain::connect(&node, "").await?;
    assert!(
        Plain::connect(&node, "?room=a%2Fb").await.is_err(),
        "a bad room was let in"
    );
    let rude = Plain::connect(&node, "").await?;
    rude.say(&"x".repeat(4097));
    rude.say("");
    let closed = {
        let huge = Plain::connect(&node, "").await?;
        huge.say(&"x".repeat(70 * 1024));
        huge.closed(PATIENCE).await?
    };
    assert_eq!(closed.code, 1009);
    let late = Plain::connect(&node, "").await?;
    late.say("fence");
    witness.line(PATIENCE, "fence").await?;
    assert_eq!(witness.lines(), ["fence"]);
    still_chats(&mut node).await?;
    Ok(())
}

/// Goal: half-made connections and connections that vanish leave nothing behind. Method: 300 times
/// open, hello, join, vanish; members, files and clients are as before.
#[tokio::test]
async fn connections_that_vanish_leave_nothing_behind() -> Outcome {
    let mut node = Node::start(["--registry", "none"]).await?;
    let watcher = Client::joined(&node, "watcher", "tea").await?;
    let before = node.process.usage()?.files;
    for count in 0..300 {
        let client = Client::joined(&node, &format!("ghost{count}"), "tea").await?;
        client.vanish();
    }
    eventually(PATIENCE, "the ghosts are gone", async || {
        let who = watcher.ask("who", json!({ "room": "tea" })).await?;
        let files = node.process.usage()?.files;
        let clients = node.mesh().await?.clients;
        // The look itself holds a connection or two.
        anyhow::ensure!(
            who["count"] == 1 && clients == 1 && files <= before + 3,
            "{who}, {clients} clients, {files} files, {before} before"
        );
        Ok(())
    })
    .await?;
    still_chats(&mut node).await?;
    Ok(())
}
