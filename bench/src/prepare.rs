//! From a peer to a command that can be run: builds it, or installs what it needs.
//!
//! Everything goes into `target/peers`. What cannot be had is an error that says why, and the
//! comparison goes on without it.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    env,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    peers::{Job, Kind, Libraries, Peer},
    process::{Result, Stop, run, say},
};

/// How long it may take to build or install one thing.
const LIMIT: Duration = Duration::from_secs(900);

/// What a port is written as in a command.
const PORT: &str = "{port}";

/// A peer that can be started.
#[derive(Clone, Debug)]
pub(crate) struct Ready {
    pub(crate) peer: &'static Peer,
    command: Vec<String>,
}

impl Ready {
    /// The command that serves at `port`.
    pub(crate) fn command(&self, port: u16) -> Vec<String> {
        let port = port.to_string();
        self.command.iter().map(|word| word.replace(PORT, &port)).collect()
    }
}

/// Peers that cannot be had, and why.
pub(crate) type Skipped = Vec<(&'static str, String)>;

/// Builds and installs.
#[derive(Debug)]
pub(crate) struct Workshop<'s> {
    root: PathBuf,
    stop: &'s Stop,
    /// Of ours the library is measured, in a program as small as those of its peers.
    of_library: bool,
    /// What has been done, and how it ended.
    done: RefCell<BTreeMap<String, Result<()>>>,
}

impl<'s> Workshop<'s> {
    pub(crate) fn new(stop: &'s Stop) -> Self {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = here.parent().unwrap_or(here).to_owned();
        Self { root, stop, of_library: false, done: RefCell::default() }
    }

    /// One for which the library itself, without the program around it, is the peer of others.
    pub(crate) fn of_library(stop: &'s Stop) -> Self {
        Self { of_library: true, ..Self::new(stop) }
    }

    /// A path in the repository.
    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.root.join(below)
    }

    /// The release program, which is our echo server and the load.
    pub(crate) fn nonforker(&self) -> Result<PathBuf> {
        self.once("nonforker", || {
            let mut command = self.cargo(&self.root, "target");
            command.args(["--package", "nonforker-cli"]);
            self.run(&mut command, "cannot build nonforker")
        })?;
        Ok(self.path("target/release/nonforker"))
    }

    /// Those of `peers` that can be had. The others are printed, with the reason, and left out.
    pub(crate) fn prepare_all(&self, peers: &[&'static Peer]) -> Result<(Vec<Ready>, Skipped)> {
        let (mut ready, mut skipped) = (Vec::new(), Vec::new());
        for (at, peer) in peers.iter().enumerate() {
            say(format_args!(
                "preparing {}/{}: {} ({:?})",
                at + 1,
                peers.len(),
                peer.name,
                peer.job
            ));
            match self.prepare(peer) {
                Ok(command) => ready.push(Ready { peer, command }),
                Err(why) => {
                    self.stop.check()?;
                    say(format_args!("skipped: {}: {why}", peer.name));
                    skipped.push((peer.name, why));
                }
            }
        }
        Ok((ready, skipped))
    }

    fn prepare(&self, peer: &Peer) -> Result<Vec<String>> {
        let mut command = self.plain(peer)?;
        if peer.job == Job::Tls {
            let [certificate, key] = self.certificate()?;
            match peer.kind {
                Kind::Nonforker(_) => {
                    command.extend(["--tls-cert".into(), certificate, "--tls-key".into(), key]);
                }
                _ => command.extend([certificate, key]),
            }
        }
        Ok(command)
    }

    /// A certificate with an elliptic key, as most have, and the key.
    fn certificate(&self) -> Result<[String; 2]> {
        self.tool("openssl", "openssl")?;
        let folder = self.folder("tls")?;
        let files = ["certificate.pem", "key.pem"]
            .map(|name| folder.join(name).to_string_lossy().into_owned());
        self.once("certificate", || {
            let [certificate, key] = &files;
            let mut command = Command::new("openssl");
            command.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]);
            command.args(["-nodes", "-days", "3650", "-subj", "/CN=localhost"]);
            command.args(["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out"]);
            self.run(command.arg(certificate), "cannot make a certificate")
        })?;
        Ok(files)
    }

    /// How it is started, but for its certificate.
    fn plain(&self, peer: &Peer) -> Result<Vec<String>> {
        let text = |path: PathBuf| path.to_string_lossy().into_owned();
        let source = |file: &str| text(self.path("bench/peers").join(file));
        Ok(match peer.kind {
            Kind::C(file, libraries) => vec![text(self.c(file, libraries)?), PORT.into()],
            Kind::Rust(package, program, rest) => {
                let mut command = vec![text(self.rust(package, program)?), PORT.into()];
                command.extend(rest.iter().map(ToString::to_string));
                command
            }
            Kind::Nonforker(driver) if self.of_library => {
                vec![text(self.rust("nonforker", "echo")?), PORT.into(), driver.into()]
            }
            Kind::Nonforker(driver) => {
                let program = text(self.nonforker()?);
                let address = format!("127.0.0.1:{PORT}");
                [&program, "serve", "--quiet", "--driver", driver, "--listen", &address]
                    .map(ToString::to_string)
                    .into()
            }
            Kind::Go(file) => vec![text(self.go(file)?), PORT.into()],
            Kind::Node(file) => {
                self.tool("node", "nodejs")?;
                vec!["node".into(), source(file), PORT.into()]
            }
            Kind::Python(file, package) => {
                vec![text(self.python(package)?), source(file), PORT.into()]
            }
            Kind::Perl(file) => {
                self.tool("perl", "perl")?;
                vec!["perl".into(), source(file), PORT.into()]
            }
            Kind::NatsServer => {
                self.tool("nats-server", "nats-server")?;
                ["nats-server", "--addr", "127.0.0.1", "--port", PORT]
                    .map(ToString::to_string)
                    .into()
            }
            Kind::RedisServer => {
                self.tool("redis-server", "redis-server")?;
                let flags = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"];
                let mut command = vec!["redis-server".into(), "--port".into(), PORT.into()];
                command.extend(flags.map(ToString::to_string));
                command
            }
        })
    }

    /// The program of this file in C.
    pub(crate) fn c(&self, file: &str, libraries: Libraries) -> Result<PathBuf> {
        self.tool("cc", "gcc")?;
        let name = Path::new(file).file_stem().unwrap_or_default();
        let program = self.folder("c")?.join(name);
        let compile = || {
            let mut command = Command::new("cc");
            command.args(["-O2", "-o"]).arg(&program).arg(self.path("bench/peers").join(file));
            let libraries = libraries.map_or(&[][..], |(libraries, _)| libraries);
            command.args(libraries.iter().map(|library| format!("-l{library}")));
            self.run(&mut command, "cannot compile it")
        };
        self.once(file, || match (compile(), libraries) {
            (Err(_), Some((_, package))) => {
                self.install(package)?;
                compile()
            }
            (result, _) => result,
        })?;
        Ok(program)
    }

    fn rust(&self, package: &str, program: &str) -> Result<PathBuf> {
        // Two packages may have programs of the same name, and cargo puts both into one place.
        let own = self.folder(&format!("programs/{package}"))?.join(program);
        self.once(&format!("peers/{package}/{program}"), || {
            let folder = self.path("bench/peers").join(package);
            let mut command = self.cargo(&folder, "target/peers");
            command.args(["--bin", program]);
            // What ours depends on is in the library's hands.
            command.args((package != "nonforker").then_some("--locked"));
            self.run(&mut command, "cannot build it")?;
            let built = self.path("target/peers/release").join(program);
            std::fs::copy(&built, &own)
                .map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
            Ok(())
        })?;
        Ok(own)
    }

    fn go(&self, file: &str) -> Result<PathBuf> {
        self.tool("go", "golang-go")?;
        let name = Path::new(file).file_stem().unwrap_or_default();
        let program = self.folder("go")?.join(name);
        self.once(file, || {
            let mut command = Command::new("go");
            command.arg("build").arg("-o").arg(&program);
            command.arg(self.path("bench/peers").join(file)).env("GO111MODULE", "off");
            self.run(&mut command, "cannot build it")
        })?;
        Ok(program)
    }

    /// The interpreter of a virtual environment that has `package`.
    fn python(&self, package: &str) -> Result<PathBuf> {
        self.tool("python3", "python3")?;
        let folder = self.path("target/peers/python");
        let python = folder.join("bin/python");
        self.once("python", || {
            if python.is_file() {
                return Ok(());
            }
            let make = || {
                let mut command = Command::new("python3");
                command.args(["-m", "venv"]).arg(&folder);
                self.run(&mut command, "cannot make a virtual environment")
            };
            make().or_else(|_| self.install("python3-venv").and_then(|()| make()))
        })?;
        self.once(&format!("peers/{package}"), || {
            let mut command = Command::new(&python);
            command.args(["-m", "pip", "install", "--quiet", package]);
            self.run(&mut command, "cannot install it from PyPI")
        })?;
        Ok(python)
    }

    fn cargo(&self, folder: &Path, target: &str) -> Command {
        let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(folder).args(["build", "--release", "--quiet", "--target-dir"]);
        command.arg(self.path(target));
        command
    }

    /// Makes sure that a program is there.
    pub(crate) fn tool(&self, program: &str, package: &str) -> Result<()> {
        if is_there(program) {
            return Ok(());
        }
        self.install(package)?;
        match is_there(program) {
            true => Ok(()),
            false => Err(format!("{package} is installed, and there is no {program}")),
        }
    }

    /// Installs a package of Debian's.
    fn install(&self, package: &str) -> Result<()> {
        self.once(&format!("debian {package}"), || {
            if !is_there("apt-get") {
                return Err(format!("{package} is not installed, and there is no apt-get"));
            }
            say(format_args!("  installing {package}"));
            let apt = |arguments: &[&str]| {
                let mut command = Command::new("apt-get");
                command.arg("-qq").args(arguments).env("DEBIAN_FRONTEND", "noninteractive");
                self.run(&mut command, format!("cannot install {package}"))
            };
            // The lists may be old or none; then installing fails, and says so.
            let _ = self.once("apt-get update", || apt(&["update"]));
            apt(&["install", "-y", package])
        })
    }

    fn folder(&self, below: &str) -> Result<PathBuf> {
        let folder = self.path("target/peers").join(below);
        std::fs::create_dir_all(&folder)
            .map_err(|error| format!("cannot make {}: {error}", folder.display()))?;
        Ok(folder)
    }

    fn run(&self, command: &mut Command, what: impl std::fmt::Display) -> Result<()> {
        run(command, LIMIT, self.stop)?.success(what).map(drop)
    }

    /// Does `what` the first time; later says how it ended.
    fn once(&self, what: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        if let Some(result) = self.done.borrow().get(what) {
            return result.clone();
        }
        let result = work();
        self.done.borrow_mut().insert(what.into(), result.clone());
        result
    }
}

/// Whether a program is on the path.
pub(crate) fn is_there(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::PEERS;

    #[test]
    fn the_port_is_put_where_it_belongs() {
        let command = ["x", "--listen", "127.0.0.1:{port}"].map(ToString::to_string).into();
        let ready = Ready { peer: &PEERS[0], command };
        assert_eq!(ready.command(1685), ["x", "--listen", "127.0.0.1:1685"]);
    }

    #[test]
    fn programs_are_looked_for_on_the_path() {
        assert!(is_there("sh"));
        assert!(!is_there("no-such-program-anywhere"));
    }
}
