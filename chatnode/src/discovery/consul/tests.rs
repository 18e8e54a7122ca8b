//! The rules of Consul's index, and what an instance has to say to be a node.

use super::*;

#[test]
fn an_index_that_went_back_begins_anew_and_none_waits_behind_nothing() {
    for (before, told, next) in [
        (0, 7, 7),
        (7, 7, 7),
        (7, 9, 9),
        (9, 7, 0),
        (0, 0, 1),
        (5, 0, 0),
    ] {
        assert_eq!(next_index(before, told), next, "{before} {told}");
    }
}

/// A list as Consul documents it, with what other programs say, and what nodes may not.
#[test]
fn only_instances_that_speak_as_nodes_do_are_candidates() {
    let node = json!({ "mesh": "main", "name": "n", "http": "http://10.0.0.7:80", "pub": "tcp://10.0.0.7:9" });
    let with = |key: &str, value: Value| {
        let mut meta = node.clone();
        meta[key] = value;
        meta
    };
    let without = |key: &str| {
        let mut meta = node.clone();
        meta.as_object_mut().unwrap().remove(key);
        meta
    };
    for (meta, is_one) in [
        (node.clone(), true),
        (with("version", json!("1.2")), true),
        (without("pub"), true),
        (without("mesh"), false),
        (without("name"), false),
        (json!(null), false),
        (json!({}), false),
        (with("http", json!("http://0.0.0.0:80")), false),
        (with("pub", json!("ipc:///tmp/x")), false),
        (with("name", json!("a\u{7}b")), false),
    ] {
        let row = json!({
            "Node": { "Node": "n1", "Address": "10.0.0.7" },
            "Service": { "ID": "bbbbbbbbbb", "Service": "chat", "Tags": [], "Meta": meta, "Port": 80,
                "CreateIndex": 7, "ModifyIndex": 9 },
            "Checks": [{ "Status": "passing" }],
        });
        let instance: Instance = serde_json::from_value(row).unwrap();
        let found = candidate(instance);
        assert_eq!(found.is_some(), is_one, "{meta}");
        if let Some(found) = found {
            assert_eq!((found.id.as_str(), found.since), ("bbbbbbbbbb", 7));
            assert!(!found.said.endpoints.contains_key("version"));
        }
    }
}
