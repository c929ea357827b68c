//! A peer that runs: started on its own core, ended by its process id when it goes out of scope.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use crate::{
    prepare::{Ready, is_there},
    process::{self, Result, Stop, now, pause},
};

/// How long a server may take until it listens.
const START_MAX: Duration = Duration::from_secs(30);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    pub(crate) address: SocketAddr,
    child: Child,
}

impl Server {
    /// Starts `ready` on a core, and waits until it listens. `wrapper` is a command that runs another.
    pub(crate) fn start(
        ready: &Ready,
        core: Option<usize>,
        wrapper: &[String],
        stop: &Stop,
    ) -> Result<Self> {
        let command = |port| Ok(ready.command(port));
        Self::begin(ready.peer.name, command, core, wrapper, stop)
    }

    /// Starts what serves at a port, on a core, and waits until it listens.
    pub(crate) fn run(
        name: &'static str,
        command: impl FnOnce(u16) -> Result<Vec<String>>,
        core: Option<usize>,
        stop: &Stop,
    ) -> Result<Self> {
        Self::begin(name, command, core, &[], stop)
    }

    fn begin(
        name: &'static str,
        command: impl FnOnce(u16) -> Result<Vec<String>>,
        core: Option<usize>,
        wrapper: &[String],
        stop: &Stop,
    ) -> Result<Self> {
        let port = free_port().map_err(|error| format!("cannot find a port: {error}"))?;
        let mut words: Vec<String> = Vec::new();
        if is_there("setpriv") {
            // Whatever becomes of us, it does not outlive us.
            words.extend(["setpriv", "--pdeathsig", "KILL"].map(ToString::to_string));
        }
        if let Some(core) = core {
            words.extend(["taskset".into(), "-c".into(), core.to_string()]);
        }
        words.extend_from_slice(wrapper);
        words.extend(command(port)?);
        let (program, arguments) = words.split_first().ok_or("a command has no words")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| format!("cannot start {name}: {error}"))?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let mut server = Self { name, address, child };
        server.wait_until_it_listens(stop)?;
        Ok(server)
    }

    fn wait_until_it_listens(&mut self, stop: &Stop) -> Result<()> {
        let deadline = now() + START_MAX;
        while TcpStream::connect(self.address).is_err() {
            stop.check()?;
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(format!("{} ended at once: {status}", self.name));
            }
            if now() > deadline {
                return Err(format!("{} does not listen", self.name));
            }
            pause(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Its process; programs that start others are not among those that are started directly.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to end, and waits until it has; ends it if it does not.
    pub(crate) fn end(mut self, limit: Duration, stop: &Stop) -> Result<()> {
        let pid = i32::try_from(self.pid()).map_err(|error| error.to_string())?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .map_err(|error| format!("cannot end {}: {error}", self.name))?;
        process::wait(&mut self.child, limit, Some(stop)).map(drop)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// A client of a server, which waits for at most `timeout`.
pub(crate) fn connect(address: SocketAddr, timeout: Duration) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    Ok(stream)
}

/// A port that is free now.
fn free_port() -> std::io::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
