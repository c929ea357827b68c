//! What the compiler says of the mistakes that every second server meets: the first line of its
//! message says what to do.
//!
//! Only that line is compared: the rest is the compiler's own, and changes with it.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::Command,
    time::SystemTime,
};

struct Case {
    name: &'static str,
    /// What `main` does with `Server::new()`, called `server`.
    does: &'static str,
    /// What the first line of the message contains: nothing if it is right.
    says: &'static [&'static str],
}

/// The right way comes first: with it the library is found.
const CASES: &[Case] = &[
    Case {
        name: "a reply",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line));"#,
        says: &[],
    },
    Case {
        name: "a question mark needs no annotation",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |conn, line| {
            conn.send(std::str::from_utf8(line)?);
            Ok(())
        });"#,
        says: &[],
    },
    Case {
        name: "so it does in a timer",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |conn, line| {
            let line = line.to_vec();
            conn.after(std::time::Duration::from_secs(1), move |_, conn| {
                conn.send(std::str::from_utf8(&line)?);
                Ok(())
            })?;
            Ok(())
        });"#,
        says: &[],
    },
    Case {
        name: "an error of one's own",
        does: r#"fn obey(_: &[u8]) -> Result<(), std::fmt::Error> { Ok(()) }
        server.serve("127.0.0.1:0", Lines::new(), |_conn, line| Ok(obey(line)?));"#,
        says: &[],
    },
    Case {
        name: "a server on a thread of its own",
        does: r#"drop(server);
        let _ = Server::spawn(|| {
            Server::new().serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line))
        });"#,
        says: &[],
    },
    Case {
        name: "the reply is returned",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |_conn, line| line.to_vec());"#,
        says: &["a closure returns nothing or `Ok(())`, not `Vec<u8>`", "conn.send(..)"],
    },
    Case {
        name: "the reply is returned, borrowed",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |_conn, line| line);"#,
        says: &["a closure returns nothing or `Ok(())`, not `&[u8]`", "conn.send(..)"],
    },
    Case {
        name: "the error is returned as it is",
        does: r#"fn obey(_: &[u8]) -> Result<(), std::fmt::Error> { Ok(()) }
        server.serve("127.0.0.1:0", Lines::new(), |_conn, line| obey(line));"#,
        says: &["not `Result<(), std::fmt::Error>`", "`Ok(call()?)`"],
    },
    Case {
        name: "a reply that is no text",
        does: r#"server.serve("127.0.0.1:0", Lines::new(), |conn, line| conn.send(line.len()));"#,
        says: &["Lines` cannot send a `usize`", "`.to_string()`"],
    },
    Case {
        name: "a reply that is no bytes",
        does: r#"server.serve("127.0.0.1:0", Raw::new(), |conn, _| conn.send(Some("text")));"#,
        says: &["Raw` cannot send a `Option<&str>`", "`.to_string()`"],
    },
    Case {
        name: "a reply that is none of the protocol",
        does: r#"server.serve("127.0.0.1:0", Resp::new(), |conn, _| conn.send("text"));"#,
        says: &["Resp` cannot send a `&str`"],
    },
    Case {
        name: "a server moves to another thread",
        does: r#"std::thread::spawn(move || server.run());"#,
        says: &["UseServerSpawn", "cannot be sent between threads"],
    },
    Case {
        name: "a bound server moves to another thread",
        does: r#"let bound = server.bind().unwrap();
        std::thread::spawn(move || bound.run());"#,
        says: &["RunByServerSpawn", "cannot be sent between threads"],
    },
    Case {
        name: "a server is made where it does not run",
        does: r#"let _ = Server::spawn(move || server);"#,
        says: &["UseServerSpawn", "cannot be sent between threads"],
    },
];

/// Where the library and what it needs lies, and this program beside them.
fn libraries() -> PathBuf {
    let program = env::current_exe().expect("a test knows its own program");
    program.parent().expect("it lies in a folder").to_owned()
}

/// The builds of the library that there are, the newest first.
fn builds() -> Vec<PathBuf> {
    let entries = fs::read_dir(libraries()).expect("the folder can be listed");
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let is_library = |path: &PathBuf| {
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        name.is_some_and(|name| name.starts_with("libnonforker-") && name.ends_with(".rlib"))
    };
    let mut builds: Vec<PathBuf> = paths.filter(is_library).collect();
    let modified = |path: &PathBuf| path.metadata().and_then(|data| data.modified()).ok();
    builds.sort_by_key(|path| std::cmp::Reverse(modified(path).unwrap_or(SystemTime::UNIX_EPOCH)));
    builds
}

/// What the compiler says first of a case: nothing if it is right. `None` without a compiler.
fn compile(case: &Case, library: &Path) -> Option<String> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("mistakes");
    fs::create_dir_all(&folder).expect("a folder");
    let source = folder.join("main.rs");
    let text = format!(
        "#![allow(warnings)]\nuse nonforker::{{Server, codec::{{Lines, Raw, Resp}}}};\n\
         fn main() {{\n    let server = Server::new();\n    {}\n}}\n",
        case.does
    );
    fs::write(&source, text).expect("a file can be written");
    let compiler = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(compiler)
        .args(["--edition", "2024", "--emit", "metadata", "--error-format", "short"])
        .arg("--extern")
        .arg(format!("nonforker={}", library.display()))
        .arg("-L")
        .arg(format!("dependency={}", libraries().display()))
        .arg("-o")
        .arg(folder.join("main.rmeta"))
        .arg(&source)
        .output()
        .ok()?;
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said.lines().find(|line| line.contains("error")).unwrap_or_default();
    assert!(first.is_empty() == output.status.success(), "{}: {said}", case.name);
    Some(first.to_owned())
}

#[test]
fn the_first_line_of_a_message_says_what_to_do() {
    let builds = builds();
    let newest = builds.first().expect("the library is built before its tests");
    if compile(&CASES[0], newest).is_none() {
        // Past the test harness, which keeps the output of tests that pass to itself.
        let _ = writeln!(io::stderr(), "skipped: there is no rustc");
        return;
    }
    // Another compiler may have left builds there that this one does not read.
    let is_right =
        |library: &&PathBuf| compile(&CASES[0], library).is_some_and(|said| said.is_empty());
    let library = builds.iter().find(is_right).expect("a build that this compiler reads");
    let mut wrong = Vec::new();
    for case @ Case { name, says, .. } in CASES {
        let said = compile(case, library).expect("there was a compiler a moment ago");
        let is_expected =
            said.is_empty() == says.is_empty() && says.iter().all(|words| said.contains(words));
        if !is_expected {
            wrong.push(format!("{name}: {said:?} does not say {says:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
