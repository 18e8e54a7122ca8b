//! What a name may be, and that each has one spelling.

use super::*;

#[test]
fn rooms_are_letters_digits_and_three_signs() {
    for good in [
        "lobby",
        "a",
        "..a",
        "Größe-1_2.3",
        "日本",
        "__proto__",
        &"x".repeat(64),
    ] {
        assert!(good.parse::<RoomName>().is_ok(), "{good}");
    }
    for bad in [
        "", ".", "..", "a/b", "a b", "\u{200B}", "a\n", "🦀", "\u{3164}",
    ] {
        assert!(bad.parse::<RoomName>().is_err(), "{bad:?}");
    }
    assert!("x".repeat(65).parse::<RoomName>().is_err());
}

#[derive(serde::Deserialize)]
struct Table {
    good: Vec<(String, String, String)>,
    bad: Vec<(String, String)>,
}

/// Goal: rooms are named in any language, in one spelling each, and the page thinks so too.
/// Method: a table that the page is tested with as well.
#[test]
fn rooms_of_any_language_have_one_spelling() {
    let table = include_str!("../../../../tests/tables/rooms.json");
    let table: Table = serde_json::from_str(table).unwrap();
    for (typed, spelled, why) in &table.good {
        let room: RoomName = typed.parse().expect(why);
        assert_eq!(room.as_str(), spelled, "{why}");
        assert_eq!(spelled.parse(), Ok(room.clone()), "{why}");
        assert_eq!(RoomName::of_peer(typed), Ok(room), "{why}");
    }
    for (typed, why) in &table.bad {
        assert!(typed.parse::<RoomName>().is_err(), "{why}: {typed:?}");
    }
}

/// Goal: whatever the first version took is taken from its nodes and its files. Method: the names
/// that grow most when they are normalised.
#[test]
fn what_an_older_node_took_is_taken_from_it() {
    let grows = "\u{958}".repeat(64);
    assert!(grows.parse::<RoomName>().is_err());
    let room = RoomName::of_peer(&grows).unwrap();
    assert_eq!(room.as_str().chars().count(), 128);
    assert_eq!(RoomName::of_peer(room.as_str()), Ok(room));
    let name = "\u{FB2C}\u{F73}\u{F73}".repeat(10);
    assert!(name.parse::<UserName>().is_err());
    assert!(UserName::of_peer(&name).is_ok());
}

/// Goal: two that look the same are one member; marks that a language needs are no zalgo; a `mid` is
/// bytes.
#[test]
fn a_name_has_one_spelling_and_a_mid_is_left_as_it_is() {
    let same = |a: &str, b: &str| a.parse::<UserName>() == b.parse::<UserName>();
    assert!(same("Zoe\u{308}", "Zo\u{EB}"));
    assert!(same("\u{1112}\u{1161}\u{11AB}", "한"));
    assert!("e\u{301}".repeat(32).parse::<UserName>().is_ok());
    for good in ["ज़िंदगी", "မြို့", "می\u{200C}خواهم", "ශ්\u{200D}රී"]
    {
        assert!(good.parse::<UserName>().is_ok(), "{good}");
    }
    for bad in ["a\u{200C}b", "a\u{301}\u{302}\u{303}\u{304}\u{306}\u{307}"] {
        assert!(bad.parse::<UserName>().is_err(), "{bad}");
    }
    let mid: Mid = "e\u{301}".parse().unwrap();
    assert_eq!(mid.as_str(), "e\u{301}");
}

#[test]
fn names_show_all_that_they_hold() {
    for good in [
        "ada",
        "Ada Lovelace",
        "Zoë",
        "李",
        "🦀",
        "e\u{301}",
        &"é".repeat(32),
    ] {
        assert!(good.parse::<UserName>().is_ok(), "{good}");
    }
    let tricks = [
        "",
        " ",
        " ada",
        "a\u{200B}b",
        "\u{202E}ada",
        "\u{FEFF}",
        "\u{3164}",
        "\u{E0041}",
        "a\nb",
        "a\0",
        "\u{1B}[2J",
        "\u{2028}",
        "\u{E000}",
    ];
    for bad in tricks {
        assert!(bad.parse::<UserName>().is_err(), "{bad:?}");
    }
    assert!(
        format!("a{}", "\u{301}".repeat(60))
            .parse::<UserName>()
            .is_err()
    );
    assert!("x".repeat(33).parse::<UserName>().is_err());
    let refused = "a\u{200B}".parse::<UserName>().unwrap_err();
    assert_eq!(refused.code(), "name_invalid");
    assert!(refused.to_string().contains("U+200B"));
}

#[test]
fn ids_are_an_origin_and_a_number() {
    let id: EntryId = "k3f7q2m7xa.42".parse().unwrap();
    assert_eq!((id.origin.as_str(), id.seq), ("k3f7q2m7xa", 42));
    assert_eq!(id.to_string(), "k3f7q2m7xa.42");
    for bad in [
        "",
        "k3f7q2m7xa",
        "k3f7q2m7xa.",
        "k3f7q2m7xa.-1",
        "k3f7q2m7xa.+1",
        "K3f7q2m7xa.1",
    ] {
        assert!(bad.parse::<EntryId>().is_err(), "{bad:?}");
    }
    assert!(
        "k3f7q2m7xa.18446744073709551616"
            .parse::<EntryId>()
            .is_err()
    );
}
