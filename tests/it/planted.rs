//! The bugs that `tests/planted-bugs` plants still fit the program, and the tests that notice them exist.
//!
//! A file of `tests/planted` says in `harm:` what a user would suffer and in `red:` which test must fail;
//! then, after `@@` and the name of a file, the lines to change as in a diff, without any numbers.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// So many at least.
const BUGS_MIN: usize = 10;

#[derive(Default)]
struct Bug {
    harm: String,
    red: Vec<String>,
    hunks: Vec<Hunk>,
}

#[derive(Default)]
struct Hunk {
    file: String,
    old: String,
    new: String,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> Bug {
    let mut bug = Bug::default();
    for line in fs::read_to_string(path).unwrap().lines() {
        if let Some(harm) = line.strip_prefix("harm: ") {
            bug.harm = harm.to_owned();
        } else if let Some(test) = line.strip_prefix("red: ") {
            bug.red.push(test.to_owned());
        } else if let Some(file) = line.strip_prefix("@@ ") {
            let file = file.to_owned();
            bug.hunks.push(Hunk {
                file,
                ..Hunk::default()
            });
        } else {
            let hunk = bug.hunks.last_mut().expect("a file comes before its lines");
            let (sign, text) = line.split_at_checked(1).unwrap_or((" ", ""));
            match sign {
                "-" => hunk.old += &format!("{text}\n"),
                "+" => hunk.new += &format!("{text}\n"),
                " " => {
                    hunk.old += &format!("{text}\n");
                    hunk.new += &format!("{text}\n");
                }
                _ => panic!("{}: {line:?}", path.display()),
            }
        }
    }
    bug
}

fn bugs() -> BTreeMap<String, Bug> {
    let files = fs::read_dir(root().join("tests/planted")).unwrap();
    let bugs = files.map(|file| {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, read(&path))
    });
    bugs.collect()
}

#[test]
fn every_planted_bug_fits_its_file_exactly_once() {
    let bugs = bugs();
    assert!(bugs.len() >= BUGS_MIN, "only {} bugs", bugs.len());
    for (name, bug) in &bugs {
        assert!(bug.harm.len() > 20, "{name} says no harm");
        assert!(!bug.hunks.is_empty(), "{name} changes nothing");
        for Hunk { file, old, new } in &bug.hunks {
            let text = fs::read_to_string(root().join(file)).unwrap();
            let times = text.matches(old).count();
            assert_eq!(times, 1, "{name} fits {file} {times} times:\n{old}");
            assert_ne!(old, new, "{name} changes nothing");
            assert!(!file.starts_with("tests/"), "{name} changes a test");
        }
    }
}

#[test]
fn every_planted_bug_names_tests_that_exist() {
    for (name, bug) in &bugs() {
        assert!(!bug.red.is_empty(), "{name} names no test");
        for test in &bug.red {
            let (module, function) = test.rsplit_once("::").expect("a test has a module");
            let file = format!("tests/it/{}.rs", module.replace("::", "/"));
            let text = fs::read_to_string(root().join(&file)).unwrap();
            let found = text.contains(&format!("fn {function}("));
            assert!(found, "{name}: there is no {function} in {file}");
        }
    }
}
