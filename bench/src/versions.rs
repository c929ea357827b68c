//! Which version of each peer was measured. A table without it cannot be repeated.

use std::{fs, path::Path, process::Command};

use crate::peers::{Kind, Peer};

/// The version of what a peer is made of, as far as it is known. `root` is where the repository is.
pub(crate) fn version(peer: &Peer, root: &Path) -> Option<String> {
    match peer.kind {
        Kind::C(_, None) => first_line("cc", &["--version"]),
        Kind::C(_, Some((_, package))) => debian(package),
        Kind::Rust("nonforker", ..) | Kind::Nonforker(_) => commit(root),
        Kind::Rust(package, program, _) => {
            let lock =
                fs::read_to_string(root.join("bench/peers").join(package).join("Cargo.lock"))
                    .ok()?;
            let of = if program == "framed" { "tokio-util" } else { package };
            locked(&lock, of).map(|version| format!("{of} {version}"))
        }
        Kind::Go(_) => first_line("go", &["version"]),
        Kind::Node(_) => first_line("node", &["--version"]),
        Kind::Python(_, package) => {
            let python = root.join("target/peers/python/bin/python");
            let script = format!("import importlib.metadata as m; print(m.version('{package}'))");
            first_line(&python.to_string_lossy(), &["-c", &script])
        }
        Kind::Perl(_) => first_line("perl", &["-e", "print $^V"]),
        Kind::RedisServer => debian("redis-server"),
        Kind::NatsServer => debian("nats-server"),
    }
}

fn commit(root: &Path) -> Option<String> {
    let root = root.to_string_lossy();
    first_line("git", &["-C", &root, "describe", "--always", "--dirty"])
}

fn debian(package: &str) -> Option<String> {
    let version = first_line("dpkg-query", &["--show", "--showformat=${Version}", package])?;
    Some(format!("{package} {version}"))
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().next().filter(|_| output.status.success()).map(|line| line.trim().to_owned())
}

/// The version of a package in a lock file.
fn locked(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name).skip(1);
    let version = lines.next()?.strip_prefix("version = \"")?.strip_suffix('"')?;
    Some(version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PEERS;

    #[test]
    fn versions_are_read_from_lock_files() {
        let lock =
            "[[package]]\nname = \"mio\"\nversion = \"1.2.5\"\n\n[[package]]\nname = \"mi\"\n";
        assert_eq!(locked(lock, "mio").as_deref(), Some("1.2.5"));
        assert_eq!(locked(lock, "mi"), None);
        assert_eq!(locked(lock, "tokio"), None);
    }

    #[test]
    fn every_peer_in_rust_has_a_lock_file_with_its_version() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for peer in PEERS {
            if !matches!(peer.kind, Kind::Rust("nonforker", ..))
                && matches!(peer.kind, Kind::Rust(..))
            {
                assert!(version(peer, &root).is_some(), "{}", peer.name);
            }
        }
    }
}
