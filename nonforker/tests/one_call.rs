//! How many functions are called from one place: each is a name to look up, and most are better a
//! part of their caller.
//!
//! A function counts if it is not public, is none of a trait's, and is outside of tests. Where it is
//! called is found by its name, so one that shares its name with another is taken for called often.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// The most that may be called from one place, per thousand. It may only become less.
const PER_THOUSAND_MAX: usize = 200;

/// Every file of the library with its code: without tests and comments.
fn code(folder: &Path, files: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("a folder can be listed") {
        let path = entry.expect("a folder can be listed").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if path.is_dir() {
            if name != "contract" {
                code(&path, files);
            }
        } else if !["tests.rs", "oracles.rs", "torture.rs"].contains(&name) {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            files.push((path, lines.collect::<Vec<_>>().join("\n")));
        }
    }
}

/// The name of the function that a line begins to define, and whether it is public.
fn defined(line: &str) -> Option<(&str, bool)> {
    let (before, behind) = line.split_once("fn ")?;
    let is_definition = before.split_whitespace().all(|word| {
        word.starts_with("pub") || ["const", "unsafe", "super)", "crate)"].contains(&word)
    });
    let name = behind.split(|at: char| !at.is_alphanumeric() && at != '_').next()?;
    (is_definition && !name.is_empty()).then_some((name, before.trim_start().starts_with("pub ")))
}

/// How often each name is used: called, or passed on.
fn uses(files: &[(PathBuf, String)]) -> HashMap<&str, usize> {
    let mut uses = HashMap::new();
    for (_, text) in files {
        let is_part = |at: char| at.is_alphanumeric() || at == '_';
        let mut rest = text.as_str();
        while let Some(start) = rest.find(is_part) {
            let from = &rest[start..];
            let (name, behind) = from.split_at(from.find(|at| !is_part(at)).unwrap_or(from.len()));
            let is_used = ["(", "::<", ")", ",", ";"].iter().any(|&next| behind.starts_with(next));
            if is_used {
                *uses.entry(name).or_insert(0) += 1;
            }
            // What is behind `fn` is a definition.
            rest = match name {
                "fn" => behind.trim_start().trim_start_matches(is_part),
                _ => behind,
            };
        }
    }
    uses
}

#[test]
fn few_functions_are_called_from_one_place() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    code(&root, &mut files);
    let uses = uses(&files);
    let mut folders = BTreeMap::<String, (usize, usize)>::new();
    for (path, text) in &files {
        let inner = path.strip_prefix(&root).expect("it is in there");
        let folder = inner.parent().and_then(|at| at.iter().next()).unwrap_or_default();
        let (once, all) = folders.entry(folder.to_string_lossy().into_owned()).or_default();
        let mut is_trait = false;
        for line in text.lines() {
            if line.starts_with("impl") || line.contains("trait ") && !line.starts_with(' ') {
                is_trait = !line.starts_with("impl") || line.contains(" for ");
            } else if line.starts_with('}') {
                is_trait = false;
            }
            if let Some((name, false)) = defined(line)
                && !is_trait
            {
                *all += 1;
                *once += usize::from(uses.get(name) == Some(&1));
            }
        }
    }
    let (once, all) = folders.values().fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1));
    println!("called from one place, and all: {once} of {all}; {folders:?}");
    assert!(all > 500, "the functions are found");
    assert!(once * 1000 <= all * PER_THOUSAND_MAX, "{once} of {all}: {folders:?}");
}
