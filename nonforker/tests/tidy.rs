//! What no lint can say: layers, the length of files, and that each file says what it is for.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The most lines of a file, its tests not counted.
const FILE_LINES_MAX: usize = 450;

/// The most lines of an example.
const EXAMPLE_LINES_MAX: usize = 60;

/// The most lines of a driver, its tests not counted: beyond it, engine work has leaked down.
const DRIVER_LINES_MAX: usize = 450;

/// A file under `.0` must not contain any of `.1`.
const LAYERS: &[(&str, &[&str])] = &[
    ("src/codec", &["crate::conn", "crate::engine", "crate::driver", "std::net", "std::time"]),
    ("src/conn", &["crate::engine", "crate::driver", "std::net", "std::io", "Instant"]),
    ("src/engine", &["driver::poll", "driver::uring", "rustls::"]),
    ("src/tls", &["crate::conn", "crate::engine", "crate::driver", "crate::codec", "std::net"]),
    ("src/driver", &["crate::engine", "crate::codec", "crate::handler", "crate::config"]),
];

/// Layers that make no system calls.
const PURE: [&str; 3] = ["src/codec", "src/conn", "src/engine"];

/// What makes system calls: crates by their first segment, and parts of the standard library.
const SYSTEM: [&str; 16] = [
    "rustix",
    "mio",
    "io_uring",
    "socket2",
    "libc",
    "nix",
    "signal_hook",
    "fs",
    "File",
    "env",
    "process",
    "thread",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "UnixListener",
];

/// What is in one of these and is only a value: names of errors.
const VALUES: [&str; 1] = ["rustix::io::Errno"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

fn rust_files(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let Ok(entries) = fs::read_dir(folder) else { return files };
    for entry in entries {
        let path = entry.expect("a folder can be listed").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            files.push((path, text));
        }
    }
    files
}

/// The lines before the tests.
fn length(text: &str) -> usize {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().lines().count()
}

#[test]
fn every_file_says_what_it_is_for() {
    let root = root();
    for folder in ["src", "tests", "examples", "../cli", "../load", "../bench", "../tests"] {
        for (path, text) in rust_files(&root.join(folder)) {
            assert!(text.starts_with("//! "), "{} has no header", path.display());
        }
    }
}

#[test]
fn files_stay_short_enough_to_be_one_subject() {
    let root = root();
    for (folder, max) in [
        ("src/driver", DRIVER_LINES_MAX),
        ("src", FILE_LINES_MAX),
        ("tests", FILE_LINES_MAX),
        ("../cli", FILE_LINES_MAX),
        ("../load", FILE_LINES_MAX),
        ("../bench", FILE_LINES_MAX),
        ("../tests", FILE_LINES_MAX),
        ("examples", EXAMPLE_LINES_MAX),
    ] {
        for (path, text) in rust_files(&root.join(folder)) {
            let lines = length(&text);
            assert!(lines <= max, "{} has {lines} lines, at most {max}", path.display());
        }
    }
}

#[test]
fn layers_do_not_know_what_is_above_them() {
    let root = root();
    for (folder, forbidden) in LAYERS {
        let files = rust_files(&root.join(folder));
        assert!(!files.is_empty(), "{folder} is where it is said to be");
        for (path, text) in files {
            let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
            for line in code {
                for word in *forbidden {
                    assert!(!line.contains(word), "{} uses {word}: {line}", path.display());
                }
            }
        }
    }
}

/// The first of [`SYSTEM`] that a line of code names by a path, as in `rustix::net` or `use libc;`.
fn system_word(line: &str) -> Option<&'static str> {
    let line = VALUES.iter().fold(line.to_owned(), |line, value| line.replace(value, ""));
    let is_name = |character: char| character.is_alphanumeric() || character == '_';
    SYSTEM.into_iter().find(|word| {
        line.match_indices(word).any(|(at, _)| {
            let (before, after) = (&line[..at], &line[at + word.len()..]);
            let is_path = after.starts_with("::") || before.ends_with("::");
            is_path && !before.ends_with(is_name) && !after.starts_with(is_name)
        })
    })
}

#[test]
fn the_engine_and_what_is_above_it_make_no_system_calls() {
    for (line, word) in [
        ("use rustix::net::sendto;", Some("rustix")),
        ("use rustix::{io::Errno, net};", Some("rustix")),
        ("    libc::write(1, bytes, 1)", Some("libc")),
        ("use std::fs;", Some("fs")),
        ("    std::thread::sleep(pause);", Some("thread")),
        ("use rustix::io::Errno;", None),
        ("    let files = offs::of(thread);", None),
    ] {
        assert_eq!(system_word(line), word, "{line}");
    }
    for folder in PURE {
        for (path, text) in rust_files(&root().join(folder)) {
            let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
            for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
                let word = system_word(line);
                assert_eq!(word, None, "{} makes a system call: {line}", path.display());
            }
        }
    }
}

/// What is typical of small random generators: constants, and the shifts of xorshift.
const GENERATORS: [&str; 5] =
    ["bf58_476d", "6_364_136_223", "2_654_435_761", "^= self.0 <<", "xorshift"];

#[test]
fn there_is_one_random_generator() {
    let (root, itself) = (root(), Path::new(file!()).file_name().expect("it is a file"));
    for folder in [
        "src",
        "tests",
        "examples",
        "../cli",
        "../load",
        "../bench",
        "../tests",
        "../fuzz/targets",
        "../fuzz/bodies",
    ] {
        for (path, text) in rust_files(&root.join(folder)) {
            if path.ends_with("driver/sim/rng.rs") || path.ends_with(itself) {
                continue;
            }
            let found = GENERATORS.iter().find(|word| text.contains(*word));
            assert_eq!(found, None, "{} has one; take nonforker::sim::Rng", path.display());
        }
    }
}

#[test]
fn the_architecture_fits_on_a_few_pages() {
    let path = root().join("../ARCHITECTURE.md");
    let lines = fs::read_to_string(&path).expect("ARCHITECTURE.md exists").lines().count();
    assert!(lines <= 220, "ARCHITECTURE.md has {lines} lines");
}
