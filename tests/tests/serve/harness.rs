//! Starts a server for a test, and asserts at its end what every test asserts.

use std::{
    any::{Any, type_name},
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::FileExt,
    panic::{AssertUnwindSafe, catch_unwind},
    process::{Command, ExitStatus, Stdio},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle, sleep},
    time::{Duration, Instant},
};

use nonforker::{Address, DriverKind, Error, Handle, Server, Stats, codec::Lines};

use crate::{client::Client, log::Log};

/// Every driver there is. Each case runs on each of them.
const DRIVERS: &[(&str, DriverKind)] = &[("poll", DriverKind::Poll), ("uring", DriverKind::Uring)];

/// How long anything may take before a test gives it up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Any free port.
pub(crate) const ANY: &str = "127.0.0.1:0";

/// How long the server is watched for work it should not do, and how much it may do meanwhile.
const IDLE: Duration = Duration::from_millis(60);
const IDLE_WORK_MAX: Duration = Duration::from_millis(15);

/// One test on one driver.
pub(crate) struct Case {
    pub(crate) driver: DriverKind,
}

/// Runs `test` on every driver, on each in a process of its own and at the same time: most of the
/// time is waiting. A test is otherwise alone. A failure names the test and the driver.
pub(crate) fn on_every_driver<F: Fn(&Case)>(test: F) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    const DRIVER: &str = "NONFORKER_TEST_DRIVER";
    if let Ok(name) = std::env::var(DRIVER) {
        let driver = DRIVERS.iter().find(|driver| driver.0 == name).expect("its parent knows it");
        return on_driver(driver, test);
    }
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let this = thread::current();
    // With one test at a time the test harness gives its thread no name.
    let Some(name) = this.name().filter(|&name| name != "main") else {
        return DRIVERS.iter().for_each(|driver| on_driver(driver, &test));
    };
    let children = DRIVERS.iter().map(|&(driver, _)| {
        let mut again = again(name);
        again.env(DRIVER, driver).stdout(Stdio::piped()).stderr(Stdio::piped());
        (driver, again.spawn().expect("a test can run its own program"))
    });
    for (driver, child) in children.collect::<Vec<_>>() {
        let output = child.wait_with_output().expect("the child can be waited for");
        let errors = String::from_utf8_lossy(&output.stderr);
        for line in errors.lines().filter(|line| line.starts_with("skipped: ")) {
            // Past the test harness, which keeps the output of tests that pass to itself.
            let _ = writeln!(io::stderr(), "{line}");
        }
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("running 1 test"), "{name} is the name of a test: {said}");
        assert!(output.status.success(), "on {driver}: {}\n{said}\n{errors}", output.status);
    }
}

fn on_driver<F: Fn(&Case)>(&(driver_name, driver): &(&str, DriverKind), test: F) {
    let name = type_name::<F>().trim_start_matches('&').trim_end_matches("::{{closure}}");
    if let Err(error) = try_out(driver) {
        let mut cause: &dyn std::error::Error = &error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let _ = writeln!(io::stderr(), "skipped: {name} on {driver_name}: {cause}");
        return;
    }
    let run = catch_unwind(AssertUnwindSafe(|| test(&Case { driver })));
    if let Err(payload) = run {
        panic!("{name} on {driver_name}: {}", message(&*payload));
    }
}

/// Whether this system has a driver.
fn try_out(driver: DriverKind) -> nonforker::Result<()> {
    let server = Server::new().driver(driver).serve(ANY, Lines::new(), |_, _| {});
    match server.bind() {
        Err(error @ Error::NoUring(_)) => Err(error),
        // Whatever else is wrong is the test's own to find.
        _ => Ok(()),
    }
}

fn message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

impl Case {
    /// Starts what `build` makes of an empty server.
    pub(crate) fn start(&self, build: impl FnOnce(Server) -> Server + Send + 'static) -> Running {
        let driver = self.driver;
        let descriptors = open_descriptors();
        let (log, tell) = (Log::default(), mpsc::channel());
        let (tell, told) = (tell.0, tell.1);
        let thread = thread::spawn({
            let log = log.clone();
            move || {
                let _log = log.install();
                let bound = build(Server::new().driver(driver)).bind()?;
                let task = fs::read_link("/proc/thread-self").ok();
                let started = (bound.addresses().to_vec(), bound.handle(), task);
                tell.send(started).expect("the test waits for the server");
                bound.run()
            }
        });
        match told.recv_timeout(PATIENCE) {
            Ok((addresses, handle, task)) => Running {
                clock: task.as_ref().and_then(|task| {
                    File::open(format!("/proc/{}/schedstat", task.display())).ok()
                }),
                addresses,
                handle: Some(handle),
                task: task.map(|task| format!("/proc/{}", task.display())),
                log,
                thread: Some(thread),
                descriptors,
                panics: AtomicU64::new(0),
            },
            Err(_) => panic!("the server does not start: {:?}", thread.join()),
        }
    }

    /// The driver under test, for servers that are not started.
    pub(crate) fn server(&self) -> Server {
        Server::new().driver(self.driver)
    }
}

/// A server that runs. Dropped, it is drained, and what every test asserts is asserted.
pub(crate) struct Running {
    addresses: Vec<Address>,
    /// Holds the descriptor that wakes the server, until the end.
    handle: Option<Handle>,
    /// The folder of the server's thread in `/proc`.
    task: Option<String>,
    /// Its processor time, open as long as it runs: there may be no descriptor to open it again.
    clock: Option<File>,
    pub(crate) log: Log,
    thread: Option<JoinHandle<nonforker::Result<()>>>,
    descriptors: usize,
    panics: AtomicU64,
}

impl Running {
    /// The first address it listens at.
    pub(crate) fn address(&self) -> &Address {
        &self.addresses[0]
    }

    /// All of them.
    pub(crate) fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// A new client.
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    pub(crate) fn handle(&self) -> &Handle {
        self.handle.as_ref().expect("it is given up last")
    }

    pub(crate) fn stats(&self) -> Stats {
        self.handle().stats()
    }

    /// That many panics of handlers are part of the test.
    pub(crate) fn expect_panics(&self, count: u64) {
        self.panics.store(count, Relaxed);
    }

    /// Waits until the server has received so many bytes in all.
    pub(crate) fn has_received(&self, bytes: usize) {
        let bytes = bytes as u64;
        wait_until("the server has received it all", || self.stats().received_bytes >= bytes);
    }

    /// Waits until so many connections were accepted in all.
    pub(crate) fn has_accepted(&self, count: u64) {
        wait_until("all are accepted", || self.stats().accepted >= count);
    }

    /// Waits until so many connections are open now.
    pub(crate) fn holds(&self, open: u64) {
        wait_until(&format!("{open} connections are open"), || {
            let stats = self.stats();
            stats.accepted + stats.outgoing - stats.closed == open
        });
    }

    /// Waits until nothing happens any more: no bytes go either way for a while.
    pub(crate) fn settles(&self) {
        let mut before = self.stats();
        let mut since = Instant::now();
        wait_until("the server comes to rest", || {
            let now = self.stats();
            if now != before {
                (before, since) = (now, Instant::now());
            }
            since.elapsed() >= Duration::from_millis(80)
        });
    }

    /// The numbers of this process and of the server's thread, where the system tells.
    pub(crate) fn process_and_thread(&self) -> Option<(u32, u32)> {
        let mut parts = self.task.as_ref()?.split('/').skip(2).step_by(2);
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    }

    /// The processor time the server's thread has used, where the system tells.
    pub(crate) fn processor_time(&self) -> Option<Duration> {
        let mut text = [0; 64];
        let length = self.clock.as_ref()?.read_at(&mut text, 0).ok()?;
        let text = std::str::from_utf8(&text[..length]).ok()?;
        text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
    }

    /// Asserts that the server sleeps while nobody wants anything.
    pub(crate) fn is_idle(&self) {
        let Some(before) = self.processor_time() else { return };
        sleep(IDLE);
        let Some(after) = self.processor_time() else { return };
        let work = after.saturating_sub(before);
        assert!(work < IDLE_WORK_MAX, "the idle server worked {work:?} of {IDLE:?}");
    }

    /// Waits for the end of a server that was told to end, when its clients are gone too.
    /// Asserts all but idleness.
    pub(crate) fn ends(mut self) {
        self.join(0);
    }

    /// As [`ends`](Self::ends), and expects that so many connections were cut off.
    pub(crate) fn ends_cutting_off(mut self, connections: usize) {
        self.join(connections);
    }

    fn join(&mut self, cut_off: usize) {
        let Some(thread) = self.thread.take() else { return };
        wait_until("the server ends", || thread.is_finished());
        let result = thread.join();
        let stats = self.stats();
        match result {
            Ok(Ok(())) => assert_eq!(cut_off, 0, "nobody was cut off"),
            Ok(Err(error @ Error::CutOff { connections })) => {
                assert_eq!(connections, cut_off, "{error}");
                let text = format!("{error} {error:?}");
                assert_eq!(text.matches(&cut_off.to_string()).count(), 2, "it says how many");
            }
            _ => panic!("the server ended with {result:?}"),
        }
        let begun = stats.accepted + stats.outgoing;
        assert_eq!(begun, stats.closed, "every connection is closed: {stats:?}");
        assert_eq!(stats.defects, 0, "defects: {stats:?}");
        assert_eq!(stats.panics, self.panics.load(Relaxed), "panics of handlers: {stats:?}");
        (self.handle, self.clock) = (None, None);
        wait_until("the descriptors are given back", || open_descriptors() <= self.descriptors);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if thread::panicking() {
            if let Some(handle) = &self.handle {
                handle.stop();
            }
            return;
        }
        if self.thread.is_none() {
            return;
        }
        self.holds(0);
        wait_until(&format!("no buffer is in use: {:?}", self.stats()), || {
            self.stats().buffered_bytes == 0
        });
        self.is_idle();
        self.handle().drain();
        self.join(0);
    }
}

/// Waits until `is_so`, and panics if that takes too long.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "in {PATIENCE:?} it did not come about that {what}");
        sleep(Duration::from_micros(300));
    }
}

/// How many descriptors this process has open, where the system tells.
pub(crate) fn open_descriptors() -> usize {
    fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Runs `test`, the caller, once more in a process of its own. Whether this is that process.
pub(crate) fn is_in_its_own_process(test: &str) -> bool {
    let Some(status) = in_its_own_process(test) else { return true };
    assert!(status.success(), "{test}, in a process of its own: {status}");
    false
}

/// Runs `test`, the caller, once more in a process of its own, and returns how that ended; `None`
/// if this is that process.
pub(crate) fn in_its_own_process(test: &str) -> Option<ExitStatus> {
    const ALONE: &str = "NONFORKER_TEST_ALONE";
    if std::env::var(ALONE).is_ok_and(|alone| alone == test) {
        return None;
    }
    let mut again = again(test);
    let mut child = again.env(ALONE, test).spawn().expect("a test can run its own program");
    let until = Instant::now() + 2 * PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            return Some(status);
        }
        if Instant::now() > until {
            child.kill().expect("the child can be killed");
        }
        sleep(Duration::from_millis(5));
    }
}

/// This program, to run `test` of it and no other.
fn again(test: &str) -> Command {
    let program = std::env::current_exe().expect("a test knows its own program");
    let mut command = Command::new(program);
    command.args([test, "--exact", "--nocapture"]).stdin(Stdio::null());
    command
}
