//! Each program is a house: its modules are the rooms, and they lie on floors. A room uses only
//! what lies below it, and rooms on one floor do not know each other. Whatever names a path
//! (`crate::…`, `super::…`) uses it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{programs, text, without_tests};
use crate::harness::process::workspace;

/// The floors of a program, from the ground up. What is not listed lies above all.
type Floors = &'static [&'static [&'static str]];

/// One node: what rooms lie on which floor.
const CHATNODE: Floors = &[
    &["model"],
    &["core"],
    &["wire"],
    &["carriers", "clients", "discovery", "disk", "peers"],
    &["shell"],
    &["http"],
    &["config"],
    &["ports"],
];
/// The registry.
const REGISTRY: Floors = &[
    &["api"],
    &["client", "directory", "metrics"],
    &["state"],
    &["http"],
    &["config"],
];

/// Rooms between whose own files there is no circle either.
const NO_CIRCLES: &[&str] = &["model", "core", "wire", "disk"];

/// A module, as its path below the crate: `core::log`.
type Module = Vec<String>;

/// What a file uses of its own crate.
#[derive(Debug)]
struct File {
    shown: String,
    module: Module,
    uses: BTreeSet<Module>,
}

/// Reads the files of one program.
fn read(src: &Path, paths: &[PathBuf]) -> Vec<File> {
    let mut files = Vec::new();
    for path in paths {
        let Ok(inner) = path.strip_prefix(src) else {
            continue;
        };
        let mut module: Module = inner
            .with_extension("")
            .components()
            .map(|part| part.as_os_str().to_string_lossy().into_owned())
            .collect();
        if module == ["lib"] || module == ["main"] {
            module.clear();
        }
        let whole = text(path);
        files.push(File {
            shown: inner.display().to_string(),
            uses: uses(&module, without_tests(&whole)),
            module,
        });
    }
    files
}

/// The paths that a text names, each as far as it is a path of modules.
fn uses(module: &Module, text: &str) -> BTreeSet<Module> {
    let mut found = BTreeSet::new();
    for line in statements(text) {
        for start in ["crate::", "super::", "self::"] {
            for (place, _) in line.match_indices(start) {
                let before = line[..place].chars().next_back();
                if before.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != ':') {
                    found.extend(spread(module, &line[place..]));
                }
            }
        }
    }
    found
}

/// The text without comments, a `use` over several lines as one.
fn statements(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        let line = line.trim_start();
        let line = line.split("//").next().unwrap_or_default();
        if open {
            let last = found.last_mut().expect("one is open");
            last.push_str(line);
        } else {
            found.push(line.to_owned());
        }
        let last = found.last().expect("one was pushed");
        let is_use = last.trim_start_matches("pub ").starts_with("use ")
            || last.starts_with("pub(") && last.contains(") use ");
        open = is_use && !last.contains(';');
    }
    found
}

/// All paths of one tree like `crate::a::{b::C, d}`, from the crate's root.
fn spread(module: &Module, tree: &str) -> Vec<Module> {
    let mut at = module.clone();
    let mut rest = tree;
    while let Some((word, next)) = rest.split_once("::") {
        match word {
            "crate" => at.clear(),
            "super" => drop(at.pop()),
            "self" => {}
            word if is_word(word) => at.push(word.to_owned()),
            _ => break,
        }
        rest = next;
    }
    if let Some(list) = rest.strip_prefix('{') {
        let mut found = Vec::new();
        for part in parts(list) {
            found.extend(spread(&at, &format!("self::{part}")));
        }
        return found;
    }
    let word: String = rest
        .chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect();
    if !word.is_empty() && word != "self" {
        at.push(word);
    }
    vec![at]
}

/// The parts of a list in braces, up to its end.
fn parts(list: &str) -> Vec<String> {
    let (mut found, mut depth) = (vec![String::new()], 0);
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                found.push(String::new());
                continue;
            }
            _ => {}
        }
        let part = found.last_mut().expect("never empty");
        part.push(c);
    }
    found.iter().map(|part| part.trim().to_owned()).collect()
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_alphanumeric() || c == '_')
}

/// On which floor a room lies.
fn floor(floors: Floors, room: &str) -> usize {
    let place = floors.iter().position(|rooms| rooms.contains(&room));
    place.unwrap_or(floors.len())
}

/// Uses that point up, or across.
fn wrong_ways(floors: Floors, files: &[File]) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in files {
        let Some(room) = file.module.first() else {
            continue;
        };
        let own = floor(floors, room);
        for used in file.uses.iter().filter_map(|path| path.first()) {
            // What begins with a capital is something of the root, not a room.
            let theirs = floor(floors, used);
            if used != room && (theirs > own || (theirs == own && own < floors.len())) {
                wrong.push(format!("{} uses {used}", file.shown));
            }
        }
    }
    wrong.sort();
    wrong.dedup();
    wrong
}

/// The file in which a path lies: the longest module that it begins with.
fn home<'a>(files: &'a [File], path: &Module) -> Option<&'a File> {
    let holds = |file: &&File| path.starts_with(&file.module);
    let found = files.iter().filter(holds);
    found.max_by_key(|file| file.module.len())
}

/// A circle of files, if there is one among those of these rooms.
fn circle(files: &[File], rooms: &[&str]) -> Option<Vec<String>> {
    let inside = |file: &File| {
        file.module
            .first()
            .is_some_and(|room| rooms.contains(&room.as_str()))
    };
    let mut graph: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for file in files.iter().filter(|file| inside(file)) {
        let homes = file.uses.iter().filter_map(|path| home(files, path));
        let homes = homes.filter(|home| inside(home) && home.module != file.module);
        graph.insert(&file.shown, homes.map(|home| home.shown.as_str()).collect());
    }
    // Whoever uses nothing that is left is in no circle.
    loop {
        let left: BTreeSet<_> = graph.keys().copied().collect();
        let before = graph.len();
        graph.retain(|_, used| used.iter().any(|file| left.contains(file)));
        if graph.len() == before {
            break;
        }
    }
    let mut at = *graph.keys().next()?;
    let mut way = vec![at];
    loop {
        at = graph[at].iter().find(|file| graph.contains_key(*file))?;
        if let Some(start) = way.iter().position(|file| *file == at) {
            return Some(way[start..].iter().map(|&file| file.to_owned()).collect());
        }
        way.push(at);
    }
}

/// Goal: whoever reads from the ground up never needs what stands above. Method: no file names a
/// room above its own, or beside it on the same floor; in some rooms its files make no circle.
#[test]
fn rooms_use_only_what_lies_below_them() {
    let paths = programs();
    let mut wrong = Vec::new();
    for (program, floors) in [("chatnode", CHATNODE), ("registry", REGISTRY)] {
        let files = read(&workspace().join(program).join("src"), &paths);
        assert!(files.len() > 10, "{program} was not found");
        wrong.extend(wrong_ways(floors, &files));
        if let Some(way) = circle(&files, NO_CIRCLES) {
            wrong.push(format!("a circle: {}", way.join(" -> ")));
        }
    }
    super::none("uses that point up or across", &wrong);
}

/// Goal: the check itself finds what it is for. Method: a bad tree, and good ones like it.
#[test]
fn the_check_of_floors_finds_a_bad_tree() {
    let file = |shown: &str, text: &str| {
        let module = shown.trim_end_matches(".rs").split('/');
        let module: Module = module.map(str::to_owned).collect();
        File {
            shown: shown.to_owned(),
            uses: uses(&module, text),
            module,
        }
    };
    let good = [
        file("model/names.rs", "use std::fmt;\n// crate::http is above\n"),
        file(
            "core/log.rs",
            "use super::peers::Peer;\nuse crate::model::names::{self, Origin};\n",
        ),
        file("core/peers.rs", "use crate::model::names;\n"),
        file(
            "shell.rs",
            "fn f() { crate::disk::open(); self::turn::end(); }\n",
        ),
        file("disk.rs", "use crate::{core::log, model};\n"),
    ];
    assert_eq!(wrong_ways(CHATNODE, &good), Vec::<String>::new());
    assert_eq!(circle(&good, &["core", "model"]), None);
    let bad = [
        file(
            "core/log.rs",
            "use super::peers::Peer;\npub(crate) use crate::{\n    model::names,\n    wire::frame,\n};\n",
        ),
        file(
            "core/peers.rs",
            "fn f() { super::super::http::serve(super::log::Log) }\n",
        ),
        file("disk.rs", "use super::clients::session;\n"),
        file("model/names.rs", "use crate::core::log;\n"),
    ];
    let wrong = [
        "core/log.rs uses wire",
        "core/peers.rs uses http",
        "disk.rs uses clients",
        "model/names.rs uses core",
    ];
    assert_eq!(wrong_ways(CHATNODE, &bad), wrong);
    let way = circle(&bad, &["core"]).expect("log and peers use each other");
    assert_eq!(way, ["core/log.rs", "core/peers.rs"]);
}
