//! The rules of the house, read off the source files.

use std::fs;
use std::path::{Path, PathBuf};

use paxflow::config::SETTINGS;

const FILE_LINES_MAX: usize = 600;
const FN_LINES_MAX: usize = 70;
/// Modules without I/O, without a clock and without async: time is an argument.
const PURE: [&str; 3] = ["src/event/", "src/batch.rs", "src/market.rs"];
/// Where statements for the database may stand.
const WITH_SQL: [&str; 4] = ["src/apply/", "src/audit/", "src/db/", "src/cli/"];

struct Source {
    /// From the project's root.
    path: String,
    text: String,
}

impl Source {
    /// The lines with their numbers, without comments and without the tests at the end of a file.
    fn code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        let lines = code
            .lines()
            .enumerate()
            .map(|(index, line)| (index + 1, line));
        lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
    }

    fn is_tests(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs")
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    collect(&root().join(directory), &mut found);
    assert!(!found.is_empty(), "no source in {directory}");
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path
                .strip_prefix(root())
                .unwrap()
                .to_str()
                .unwrap()
                .to_owned();
            found.push(Source {
                path: name,
                text: fs::read_to_string(&path).unwrap(),
            });
        }
    }
}

/// Places in `src`, outside tests, that hold one of some words though they must not.
fn offenders(words: &[&str], allowed: impl Fn(&str) -> bool) -> Vec<String> {
    let sources = sources("src");
    let checked = sources
        .iter()
        .filter(|source| !source.is_tests() && !allowed(&source.path));
    checked
        .flat_map(|source| {
            let lines = source
                .code()
                .filter(|(_, line)| words.iter().any(|word| line.contains(word)));
            lines
                .map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim()))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(offenders.is_empty(), "{rule}:\n{}", offenders.join("\n"));
}

#[test]
fn only_the_broker_knows_lapin() {
    assert_none(
        "lapin outside the broker module",
        &offenders(&["lapin"], |path| {
            path == "src/broker.rs" || path.starts_with("src/broker/")
        }),
    );
}

#[test]
fn only_the_configuration_reads_the_environment() {
    let reads = ["env::var", "env::vars", "dotenvy::", "env = \""];
    assert_none(
        "the environment is read",
        &offenders(&reads, |path| path == "src/config.rs"),
    );
}

#[test]
fn statements_stand_where_the_database_is_worked_on() {
    let allowed = |path: &str| WITH_SQL.iter().any(|place| path.starts_with(place));
    let statements = [
        "sqlx::query",
        "sqlx::raw_sql",
        "SELECT ",
        "INSERT INTO",
        "DELETE FROM",
    ];
    assert_none(
        "SQL outside apply, audit, db, cli",
        &offenders(&statements, allowed),
    );
}

#[test]
fn the_pure_modules_have_no_async_no_clock_and_no_io() {
    let impure = |path: &str| !PURE.iter().any(|pure| path.starts_with(pure));
    let words = [
        "tokio",
        "async ",
        ".await",
        "Utc::now",
        "Instant",
        "SystemTime",
        "std::fs",
        "sqlx",
        "tracing::",
    ];
    assert_none("impure", &offenders(&words, impure));
}

#[test]
fn nothing_panics_outside_tests() {
    let words = [
        ".unwrap()",
        ".expect(",
        "panic!(",
        "unreachable!(",
        "todo!(",
        "unimplemented!(",
        // Where nobody reads.
        " print!(",
        " println!(",
        " eprint!(",
        " eprintln!(",
    ];
    assert_none("may panic", &offenders(&words, |_| false));
}

#[test]
fn no_file_is_longer_than_600_lines() {
    let long: Vec<_> = ["src", "tests", "benches"]
        .into_iter()
        .flat_map(sources)
        .filter(|source| source.text.lines().count() > FILE_LINES_MAX)
        .map(|source| format!("{}: {} lines", source.path, source.text.lines().count()))
        .collect();
    assert_none("too long", &long);
}

#[test]
fn no_function_is_longer_than_70_lines() {
    let mut long = Vec::new();
    for source in ["src", "tests", "benches"].into_iter().flat_map(sources) {
        let mut open: Option<(usize, usize, &str)> = None;
        for (number, line) in (1..).zip(source.text.lines()) {
            let indent = line.len() - line.trim_start().len();
            let head = line.trim_start();
            if open.is_none() && !head.ends_with(';') && is_fn(head) {
                open = Some((number, indent, head));
            }
            // rustfmt puts the closing brace below the first letter of the function.
            if let Some((first, depth, name)) = open
                && (line == format!("{}}}", " ".repeat(depth))
                    || (number == first && line.ends_with('}')))
            {
                if number - first >= FN_LINES_MAX {
                    long.push(format!(
                        "{}:{first}: {} lines: {name}",
                        source.path,
                        number - first + 1
                    ));
                }
                open = None;
            }
        }
    }
    assert_none("too long", &long);
}

fn is_fn(line: &str) -> bool {
    let words = ["pub ", "pub(crate) ", "pub(super) ", "const ", "async "];
    let mut rest = line;
    while let Some(shorter) = words.iter().find_map(|word| rest.strip_prefix(word)) {
        rest = shorter;
    }
    rest.starts_with("fn ")
}

#[test]
fn every_dependency_has_its_reason() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let mut section = "";
    let mut bare = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            section = line;
        } else if section.contains("dependencies") && line.contains('=') && !line.starts_with('#') {
            let reason = line.rsplit_once(" # ").map_or("", |(_, reason)| reason);
            if reason.len() < 10 {
                bare.push(line.to_owned());
            }
        }
    }
    assert_none("no reason", &bare);
}

#[test]
fn the_only_tls_is_rustls_with_ring() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).unwrap();
    let unwanted = [
        "openssl-sys",
        "openssl",
        "native-tls",
        "aws-lc-rs",
        "aws-lc-sys",
    ];
    let found: Vec<_> = lock
        .lines()
        .filter_map(|line| line.strip_prefix("name = \"")?.strip_suffix('"'))
        .filter(|name| unwanted.contains(name))
        .map(str::to_owned)
        .collect();
    assert_none("unwanted", &found);
    assert!(lock.contains("name = \"ring\""));
}

#[test]
fn the_readme_lists_every_setting() {
    let readme = fs::read_to_string(root().join("README.md")).expect("there is a README.md");
    let rows: Vec<_> = readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    let missing: Vec<_> = SETTINGS
        .iter()
        .filter(|setting| {
            let name = format!("`{}`", setting.name);
            let default = match setting.default {
                "" => "none",
                default => default,
            };
            // Name, form, default, meaning.
            !rows.iter().any(|row| {
                let cells: Vec<_> = row.split('|').skip(1).map(str::trim).collect();
                cells[0] == name && cells.get(2) == Some(&default)
            })
        })
        .map(|setting| format!("{} (default: {})", setting.name, setting.default))
        .collect();
    assert_none("not in README's table with this default", &missing);
}
