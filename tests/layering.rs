//! The plan of the house, held: who may import whom (ARCHITECTURE.md), read from the source itself.
//!
//! Test code is not looked at: a test may stand anything beside the idea it tests.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Modules named for an idea: pure.
const IDEAS: [&str; 10] = [
    "approval",
    "audit",
    "detect",
    "dialect",
    "envoy_lint",
    "exchange",
    "grant",
    "identity",
    "mask",
    "policy",
];

/// Composition: may know everything.
const COMPOSITION: [&str; 4] = ["app", "cli", "lib", "main"];

/// What each module may import of ours. A path of two names allows that one module only.
const TABLE: [(&str, &[&str]); 19] = [
    ("approval", &["identity"]),
    ("audit", &[]),
    ("detect", &[]),
    ("dialect", &[]),
    ("envoy_lint", &[]),
    ("grant", &["approval", "identity", "policy"]),
    ("identity", &[]),
    ("mask", &["detect"]),
    ("policy", &["approval", "detect", "identity", "mask"]),
    (
        "exchange",
        &[
            "approval", "audit", "detect", "dialect", "identity", "mask", "policy",
        ],
    ),
    (
        "config",
        &[
            "approval",
            "audit",
            "detect",
            "dialect",
            "exchange",
            "grant",
            "identity",
            // Where secrets and keys are, as values; how they are read and fetched is none of its business.
            "keys::introspect::IntrospectionSource",
            "keys::jwks::KeySource",
            "keys::jwks::Place",
            "keys::secret",
            "keys::source",
            "mask",
            "policy",
        ],
    ),
    ("grpc", &["approval", "audit", "exchange", "identity"]),
    ("http", &["approval", "grant", "identity"]),
    ("index", &["audit", "store"]),
    ("kafka", &["approval", "audit", "store"]),
    ("keys", &["identity", "runtime::clock"]),
    (
        "runtime",
        &[
            "approval", "audit", "config", "detect", "exchange", "grant", "identity", "kafka",
            "keys", "mask", "policy", "store",
        ],
    ),
    ("store", &["approval", "audit"]),
    ("telemetry", &["exchange"]),
];

/// What no idea may name: IO, clocks, the environment, the runtime, and the crates that do such things.
const OUTSIDE: [&str; 24] = [
    "tokio",
    "tokio_stream",
    "tokio_util",
    "tonic",
    "axum",
    "reqwest",
    "rdkafka",
    "rustix",
    "envoy_types",
    "tracing",
    "indicatif",
    "anyhow",
    "std::env",
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::os",
    "std::time::Instant",
    "std::time::SystemTime",
    "jiff::Zoned",
    "jiff::Timestamp::now",
    "Timestamp::now",
];

/// Of what is forbidden, these are values, or traits of values, that do nothing by themselves.
const VALUES: [&str; 4] = [
    "std::io::Write",
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
];

#[test]
fn every_module_imports_only_what_the_table_allows() {
    let house = House::read();
    let table: BTreeMap<_, _> = TABLE.into_iter().collect();
    let unknown: Vec<_> = house
        .modules
        .keys()
        .filter(|name| !table.contains_key(name.as_str()) && !COMPOSITION.contains(&name.as_str()))
        .collect();
    assert!(
        unknown.is_empty(),
        "say in the table what these may import: {unknown:?}"
    );
    let mut wrong = Vec::new();
    for (module, allowed) in &table {
        for used in house.paths(module) {
            let Some(path) = used.path.strip_prefix("crate::") else {
                continue;
            };
            let itself = covers(module, path);
            if !itself && !allowed.iter().any(|allowed| covers(allowed, path)) {
                wrong.push(format!("{module} must not import crate::{path} ({used})"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn an_idea_names_no_io_no_clock_and_no_runtime() {
    let house = House::read();
    let mut wrong = Vec::new();
    for idea in IDEAS {
        for used in house.paths(idea) {
            // Imported whole, `time` would hide `Instant` from this reader.
            let whole = used.path == "std::time";
            let forbidden = whole || OUTSIDE.iter().any(|outside| covers(outside, &used.path));
            if forbidden && !VALUES.contains(&used.path.as_str()) {
                wrong.push(format!("{idea} must not name {} ({used})", used.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_table_has_no_right_that_nobody_uses() {
    let house = House::read();
    let mut idle = Vec::new();
    for (module, allowed) in TABLE {
        let used: Vec<_> = house
            .paths(module)
            .filter_map(|used| used.path.strip_prefix("crate::"))
            .collect();
        // Configuration and the runtime may know every idea, whether they happen to today or not.
        let idea = |name: &str| IDEAS.contains(&name) && ["config", "runtime"].contains(&module);
        for right in allowed {
            if !idea(right) && !used.iter().any(|path| covers(right, path)) {
                idle.push(format!("{module} -> {right}"));
            }
        }
    }
    assert!(idle.is_empty(), "{idle:?}");
}

/// Whether `path` is `prefix` or below it.
fn covers(prefix: &str, path: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A path as the source names it, and where.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Used {
    path: String,
    file: PathBuf,
}

impl std::fmt::Display for Used {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "src/{}", self.file.display())
    }
}

/// Every module of the crate's root, with the paths its files name.
struct House {
    modules: BTreeMap<String, BTreeSet<Used>>,
}

impl House {
    fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut files = Vec::new();
        collect(&root, &mut files);
        let texts: BTreeMap<PathBuf, String> = files
            .into_iter()
            .map(|file| {
                let text = without_comments_and_strings(&fs::read_to_string(&file).unwrap());
                (file.strip_prefix(&root).unwrap().to_owned(), text)
            })
            .collect();
        let tests: Vec<PathBuf> = texts
            .iter()
            .flat_map(|(file, text)| test_modules(file, text))
            .collect();
        let mut modules: BTreeMap<String, BTreeSet<Used>> = BTreeMap::new();
        for (file, text) in &texts {
            let stem = file.with_extension("");
            if tests.iter().any(|test| stem.starts_with(test)) {
                continue;
            }
            let first = stem.iter().next().unwrap().to_str().unwrap().to_owned();
            let paths = named(&without_tests(text)).into_iter().map(|path| Used {
                path,
                file: file.clone(),
            });
            modules.entry(first).or_default().extend(paths);
        }
        assert!(
            modules.len() > TABLE.len(),
            "too few modules found: is the source where it was?"
        );
        Self { modules }
    }

    fn paths(&self, module: &str) -> impl Iterator<Item = &Used> {
        self.modules
            .get(module)
            .unwrap_or_else(|| panic!("the table names `{module}`, which is no module"))
            .iter()
    }
}

fn collect(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, into);
        } else if path.extension().is_some_and(|end| end == "rs") {
            into.push(path);
        }
    }
}

/// The modules that `file` declares under `#[cfg(test)]` in files of their own.
fn test_modules(file: &Path, text: &str) -> Vec<PathBuf> {
    let below = match file.file_stem().unwrap().to_str().unwrap() {
        "mod" | "lib" | "main" => file.parent().unwrap().to_owned(),
        _ => file.with_extension(""),
    };
    text.split("#[cfg(test)]")
        .skip(1)
        .filter_map(|rest| {
            let declaration = rest.trim_start().split([';', '{']).next()?;
            let name = declaration.rsplit_once("mod ")?.1.trim();
            Some(below.join(name))
        })
        .collect()
}

/// The text up to an inline module of tests, which stands last by our style.
fn without_tests(text: &str) -> String {
    match text.find("#[cfg(test)]\nmod tests {") {
        Some(at) => text[..at].to_owned(),
        None => text.to_owned(),
    }
}

/// Blanks comments and string contents; enough of Rust's lexis for formatted source.
fn without_comments_and_strings(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '/' if chars.peek() == Some(&'/') => {
                while chars.peek().is_some_and(|c| *c != '\n') {
                    chars.next();
                }
            }
            '\'' => {
                // A character, or a lifetime: only the former can hide a quote.
                kept.push(c);
                match chars.peek() {
                    Some('\\') => {
                        chars.next();
                        chars.next();
                    }
                    Some('"') => {
                        chars.next();
                    }
                    _ => {}
                }
            }
            '"' => {
                let hashes = kept.chars().rev().take_while(|c| *c == '#').count();
                let raw = kept[..kept.len() - hashes].ends_with('r');
                let mut closing = None;
                while let Some(c) = chars.next() {
                    match (c, raw) {
                        ('\\', false) => {
                            chars.next();
                        }
                        ('"', false) => break,
                        ('"', true) => closing = Some(0),
                        ('#', true) if closing.is_some() => closing = closing.map(|n| n + 1),
                        (_, true) => closing = None,
                        _ => {}
                    }
                    if closing == Some(hashes) && raw {
                        break;
                    }
                }
            }
            _ => kept.push(c),
        }
    }
    kept
}

/// Every path of two or more names in `text`, groups written out.
fn named(text: &str) -> BTreeSet<String> {
    let mut paths = BTreeSet::new();
    for part in text.split(';') {
        if let Some(at) = part.find("use ").filter(|at| starts_word(part, *at)) {
            write_out("", part[at + 4..].trim(), &mut paths);
        }
    }
    let mut rest = text;
    while let Some(at) = rest.find("::") {
        let start = rest[..at]
            .rfind(|c: char| !is_path(c))
            .map_or(0, |before| before + 1);
        let end = rest[at..]
            .find(|c: char| !is_path(c))
            .map_or(rest.len(), |after| at + after);
        // Where a group follows, the `use` tree was written out above.
        if !rest[end..].starts_with('{') {
            paths.insert(rest[start..end].trim_matches(':').to_owned());
        }
        rest = &rest[end.max(at + 2)..];
    }
    paths
}

fn is_path(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

fn starts_word(text: &str, at: usize) -> bool {
    !text[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Writes the `use` tree `tree` out below `prefix`.
fn write_out(prefix: &str, tree: &str, into: &mut BTreeSet<String>) {
    let tree = tree.trim();
    let join = |name: &str| {
        let name = name
            .split(" as ")
            .next()
            .unwrap_or_default()
            .trim_end_matches("::")
            .trim();
        if prefix.is_empty() {
            name.to_owned()
        } else {
            format!("{prefix}::{name}")
        }
    };
    let Some((head, group)) = tree.split_once('{') else {
        into.insert(join(tree));
        return;
    };
    let prefix = if head.trim().is_empty() {
        prefix.to_owned()
    } else {
        join(head.trim())
    };
    let group = group.rsplit_once('}').map_or(group, |(inside, _)| inside);
    let (mut depth, mut from) = (0, 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                write_out(&prefix, &group[from..at], into);
                from = at + 1;
            }
            _ => {}
        }
    }
    if !group[from..].trim().is_empty() {
        write_out(&prefix, &group[from..], into);
    }
}

#[test]
fn the_reader_of_the_source_sees_what_is_there() {
    let text = without_comments_and_strings(
        "// crate::comment::x\nuse std::{fs, net::{IpAddr, TcpStream as T}};\nuse crate::{a::B, c};\n\
         fn f() { let _ = \"crate::string::x\"; crate::inline::call(); let _ = r#\"crate::raw \" ::x\"#; tokio::spawn(g::<'\"'>()) }",
    );
    let paths = named(&text);
    for seen in [
        "std::fs",
        "std::net::IpAddr",
        "std::net::TcpStream",
        "crate::a::B",
        "crate::c",
        "crate::inline::call",
        "tokio::spawn",
    ] {
        assert!(paths.contains(seen), "`{seen}` is not in {paths:?}");
    }
    let hidden = ["comment", "string", "raw"];
    assert!(
        !paths
            .iter()
            .any(|path| hidden.iter().any(|part| path.contains(part)))
    );
}
