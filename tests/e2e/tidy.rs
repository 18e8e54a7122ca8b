//! The tree read as text: rules that neither compiler nor clippy knows.

mod floors;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::harness::process::workspace;

/// Longest source file, in lines.
const LINES_MAX: usize = 500;

fn files(folders: &[&str], ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left: Vec<_> = folders
        .iter()
        .map(|folder| workspace().join(folder))
        .collect();
    while let Some(folder) = left.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() {
                if name != "node_modules" && name != "target" && name != ".git" {
                    left.push(path);
                }
            } else if path.extension().is_some_and(|found| found == ending) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn shown(path: &Path) -> String {
    path.strip_prefix(workspace())
        .unwrap_or(path)
        .display()
        .to_string()
}

fn none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

/// The part of a file that is not its `#[cfg(test)] mod tests { … }` at the end.
fn without_tests(text: &str) -> &str {
    text.find("#[cfg(test)]\nmod tests {")
        .map_or(text, |place| &text[..place])
}

fn sources() -> Vec<PathBuf> {
    let found = files(&["registry", "chatnode", "tests"], "rs");
    assert!(found.len() > 20, "the tree was not found: {found:?}");
    found
}

/// Program code: without the files that are modules of `#[cfg(test)]` only.
fn programs() -> Vec<PathBuf> {
    let mut found = files(&["registry/src", "registry/base/src", "chatnode/src"], "rs");
    let mut of_tests = Vec::new();
    for path in &found {
        let name = path.file_stem().unwrap_or_default();
        let folder = path.with_file_name("");
        let is_root = name == "lib" || name == "main" || name == "mod";
        let folder = if is_root { folder } else { folder.join(name) };
        for piece in text(path).split("#[cfg(test)]\nmod ").skip(1) {
            if let Some((module, _)) = piece.split_once([';', ' ']) {
                of_tests.push(folder.join(module));
            }
        }
    }
    found.retain(|path| {
        !of_tests
            .iter()
            .any(|tests| path.with_extension("").starts_with(tests))
    });
    found
}

/// Goal: each file says what it is. Method: the first line of each is `//!`.
#[test]
fn each_file_opens_with_what_it_is() {
    let bad: Vec<_> = sources()
        .iter()
        .filter(|path| !text(path).starts_with("//! "))
        .map(|path| shown(path))
        .collect();
    none("files without //! at the top", &bad);
}

/// Goal: files are read in one sitting. Method: count lines.
#[test]
fn no_file_is_longer_than_500_lines() {
    let mut all = sources();
    for ending in ["js", "css", "html"] {
        all.extend(files(&["www", "tests"], ending));
    }
    let long = |path: &PathBuf| {
        let count = text(path).lines().count();
        (count > LINES_MAX).then(|| format!("{}: {count}", shown(path)))
    };
    let bad: Vec<_> = all.iter().filter_map(long).collect();
    none("files over 500 lines", &bad);
}

/// Goal: links in the documents lead somewhere. Method: each relative target exists, and its
/// heading too.
#[test]
fn relative_links_in_documents_resolve() {
    let mut bad = Vec::new();
    for document in files(&["."], "md") {
        let folder = document.parent().map(Path::to_owned).unwrap_or_default();
        let whole = text(&document);
        for piece in whole.split("](").skip(1) {
            let Some((target, _)) = piece.split_once(')') else {
                continue;
            };
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, heading) = target.split_once('#').unwrap_or((target, ""));
            let file = if path.is_empty() {
                document.clone()
            } else {
                folder.join(path)
            };
            let there =
                file.exists() && (heading.is_empty() || anchors(&text(&file)).contains(heading));
            if !there {
                bad.push(format!("{}: {target}", shown(&document)));
            }
        }
    }
    none("links that lead nowhere", &bad);
}

fn anchors(document: &str) -> BTreeSet<String> {
    let slug = |heading: &str| {
        heading
            .to_lowercase()
            .chars()
            .filter_map(|c| match c {
                ' ' => Some('-'),
                c if c.is_alphanumeric() || c == '-' || c == '_' => Some(c),
                _ => None,
            })
            .collect()
    };
    document
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| slug(line.trim_start_matches('#').trim()))
        .collect()
}

/// Goal: no text of a stranger becomes markup. Method: the page's code never names the ways.
#[test]
fn the_page_never_makes_markup_of_text() {
    let mut bad = Vec::new();
    for path in files(&["www"], "js") {
        let text = text(&path);
        for word in [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
        ] {
            if text.contains(word) {
                bad.push(format!("{}: {word}", shown(&path)));
            }
        }
    }
    none("ways from text to markup", &bad);
}

/// Goal: the crate that carries frames can be changed in one place.
#[test]
fn only_one_file_names_the_zeromq_crate() {
    let uses = |path: &&PathBuf| {
        text(path).lines().any(|line| {
            let code = line.split("//").next().unwrap_or_default();
            code.contains("zeromq::") || code.contains("use zeromq")
        })
    };
    let named: Vec<_> = files(&["registry/src", "registry/base/src", "chatnode/src"], "rs")
        .iter()
        .filter(uses)
        .map(|path| shown(path))
        .filter(|path| !path.starts_with("chatnode/src/carriers/zmq"))
        .collect();
    none("other files that name zeromq", &named);
}

/// Goal: what decides is pure: input and time in, effects out. Method: the ground floors and the
/// sessions name no runtime, no sockets and no clock. The simulator is what lies around a node, and no
/// part of its core.
#[test]
fn the_core_names_no_runtime_no_socket_and_no_clock() {
    let mut bad = Vec::new();
    let rooms = ["model", "core", "wire"].map(|room| format!("chatnode/src/{room}"));
    let mut core = files(&rooms.each_ref().map(String::as_str), "rs");
    for file in ["core.rs", "clients/session.rs"] {
        core.push(workspace().join("chatnode/src").join(file));
    }
    core.retain(|path| !shown(path).contains("/core/sim/"));
    for path in core {
        for (number, line) in text(&path).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for word in [
                "tokio",
                "axum",
                "hyper",
                "reqwest",
                "TcpStream",
                "TcpListener",
                "UdpSocket",
                "Instant::now",
                "SystemTime",
                "zeromq",
                "std::fs",
                "std::thread",
            ] {
                if code.contains(word) {
                    bad.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
            }
        }
    }
    none("the core is not pure", &bad);
}

/// Goal: nothing that a stranger sends makes a program panic by carelessness.
/// Method: no `unwrap()` outside tests, and no `expect("")` without a reason.
#[test]
fn no_unwrap_outside_tests() {
    let mut bad = Vec::new();
    for path in programs() {
        let whole = text(&path);
        for (number, line) in without_tests(&whole).lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            if code.contains(".unwrap()") || code.contains(".expect(\"\")") {
                bad.push(format!("{}:{}", shown(&path), number + 1));
            }
        }
    }
    none("unwrap outside tests", &bad);
}

/// Goal: no test is switched off, and none sleeps instead of waiting for a fact.
/// Method: the tests' sources name no `#[ignore]` and no `thread::sleep`.
#[test]
fn no_test_is_switched_off() {
    let mut bad = Vec::new();
    for path in sources() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text(&path).lines().enumerate() {
            for word in ["#[ignore", "should_panic", "thread::sleep"] {
                if line.contains(word) {
                    bad.push(format!("{}:{}: {word}", shown(&path), number + 1));
                }
            }
        }
    }
    none("tests switched off", &bad);
}

/// Goal: the flags and variables that the documents name exist. Method: each `CHATNODE_…` and
/// `REGISTRY_…` of the documents is in the `--help` of its program.
#[tokio::test]
async fn variables_in_the_documents_exist() {
    use crate::harness::PATIENCE;
    use crate::harness::process::Launch;
    let mut bad = Vec::new();
    for (program, prefix) in [("chatnode", "CHATNODE_"), ("registry", "REGISTRY_")] {
        let help = Launch::new(program, ["--help"])
            .to_end(PATIENCE)
            .await
            .unwrap()
            .stdout;
        for document in files(&["."], "md") {
            let whole = text(&document);
            for (place, _) in whole.match_indices(prefix) {
                let name: String = whole[place..]
                    .chars()
                    .take_while(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || *c == '_')
                    .collect();
                if name.len() > prefix.len() && !help.contains(&name) {
                    bad.push(format!("{}: {name}", shown(&document)));
                }
            }
        }
    }
    none("variables that no program has", &bad);
}

/// Goal: a merge is finished before it is committed. Method: no file holds a conflict's marks.
#[test]
fn no_file_holds_the_marks_of_a_conflict() {
    let mut bad = Vec::new();
    for ending in ["rs", "js", "css", "html", "md", "toml"] {
        for path in files(&["."], ending) {
            let marks = ["<".repeat(7), ">".repeat(7)];
            for (number, line) in text(&path).lines().enumerate() {
                if marks.iter().any(|mark| line.starts_with(mark)) {
                    bad.push(format!("{}:{}", shown(&path), number + 1));
                }
            }
        }
    }
    none("unfinished merges", &bad);
}
