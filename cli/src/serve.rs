//! `nonforker serve`: puts the server together from the settings, says where it listens, runs it.

use std::{
    io::{self, IsTerminal},
    num::NonZeroUsize,
    process::ExitCode,
    time::Duration,
};

use nonforker::{
    Address, BytesCodec, DriverKind, Handle, Limits, Networks, Server, Shards, codec::Encode,
};

use crate::{
    access::AccessArgs,
    allocator,
    args::{self, Driver, LastLine, LimitArgs, ListenArgs, ProgramArgs, ServeArgs, TimeoutArgs},
    codecs::{UseCodec, Wanted},
    console,
    ending::Ending,
    exec,
    handlers::Handler,
    log::Log,
    signals::Signals,
    tls::{self, Reload, TlsArgs},
    values::Codec,
    worker,
};

/// Serves until a signal ends it.
pub(crate) fn run(args: &ServeArgs) -> Result<ExitCode, Ending> {
    let (settings, codec) = (args.clone(), args.service.codec.clone());
    host(
        &args.program,
        &args.tls,
        move || server(&settings),
        |addresses| announce(addresses, &codec),
    )
}

/// Runs the server that `make` makes, on one thread or several, until a signal ends it. `announce` says
/// where it listens.
pub(crate) fn host(
    program: &ProgramArgs,
    tls: &TlsArgs,
    make: impl Fn() -> Result<Server, Ending> + Send + Sync + 'static,
    announce: impl FnOnce(&[Address]),
) -> Result<ExitCode, Ending> {
    allocator::set_up();
    // What the program was started with is not for those that it starts.
    close_fds::set_fds_cloexec(3, &[]);
    let _log = Log::start(program.level(), program.log_format)?;
    if let Err(error) = nonforker::raise_descriptor_limit() {
        tracing::warn!("cannot raise the limit of descriptors: {error}");
    }
    // From here on no signal leaves the file of a Unix socket behind.
    let signals = Signals::take_over()?;
    // What is wrong with the settings is said here.
    let server = make()?;
    if program.shards > 1 || program.pin {
        let make = move || make().unwrap_or_default();
        let running = Shards::new(program.shards, make).pin(program.pin).bind()?;
        let handle = running.handle();
        obey(signals, program, tls, running.handle(), running.addresses().len())?;
        if !program.quiet {
            announce(running.addresses());
        }
        return end(&handle, running.wait());
    }
    let server = server.bind()?;
    let handle = server.handle();
    obey(signals, program, tls, server.handle(), server.addresses().len())?;
    if !program.quiet {
        announce(server.addresses());
    }
    end(&handle, server.run())
}

/// Obeys signals. SIGHUP reads certificates again, and the lists of who may connect, where there are
/// files with them.
fn obey(
    signals: Signals,
    program: &ProgramArgs,
    tls: &TlsArgs,
    server: Handle,
    listeners: usize,
) -> Result<(), Ending> {
    let lists = program.config.as_ref().map(|_| {
        let server = server.clone();
        Box::new(move || reload_lists(&server, listeners)) as Reload
    });
    let certificates = tls::reload(tls, server.clone(), listeners);
    signals.obey(server, certificates.into_iter().chain(lists).collect())
}

/// Reads the settings again, and follows the lists in them. Flags win over the file, as at the start.
fn reload_lists(server: &Handle, listeners: usize) {
    match args::from(std::env::args_os()) {
        Ok(task) => {
            let Some(new) = task.access() else { return };
            let set = |listener| server.set_access(listener, new.access());
            match (0..listeners).try_for_each(set) {
                Ok(()) => tracing::info!("SIGHUP: who may connect is read again"),
                Err(error) => tracing::warn!("SIGHUP: nothing changes: {error}"),
            }
        }
        Err(Ending::Usage(what)) => {
            tracing::warn!("SIGHUP: nothing changes: {}", console::one_line(&what));
        }
        Err(_) => tracing::warn!("SIGHUP: nothing changes: the file cannot be read"),
    }
}

fn end(handle: &Handle, ended: nonforker::Result<()>) -> Result<ExitCode, Ending> {
    let stats = handle.stats();
    let nonforker::Stats { accepted, unasked, unknown_ids, bad_lines, .. } = stats;
    // What workers sent was no request.
    let of_clients = (0..).map_while(|service| handle.service_stats(service));
    let requests: u64 = of_clients.filter(|of| of.accepted > 0).map(|of| of.frames).sum();
    if unasked + unknown_ids + bad_lines > 0 {
        // Workers have said what reached nobody.
        tracing::info!(connections = accepted, requests, unasked, unknown_ids, bad_lines, "ended");
    } else {
        tracing::info!(connections = accepted, requests, "ended");
    }
    ended?;
    Ok(ExitCode::SUCCESS)
}

/// A server with these limits that serves nothing yet.
pub(crate) fn empty(program: &ProgramArgs, listen: &ListenArgs, limits: Limits) -> Server {
    let driver = match program.driver {
        Driver::Auto => DriverKind::Auto,
        Driver::Poll => DriverKind::Poll,
        Driver::Uring => DriverKind::Uring,
    };
    Server::new().limits(limits).unix_mode(listen.unix_mode).driver(driver)
}

/// Serves what `add` serves at an address, at all addresses.
pub(crate) fn listen(
    args: &ListenArgs,
    tls: &TlsArgs,
    access: &AccessArgs,
    add: impl FnOnce(Address) -> Result<Server, Ending>,
) -> Result<Server, Ending> {
    let Some((first, more)) = args.listen.split_first() else {
        return Err(nonforker::Error::NothingToServe.into());
    };
    let server = access.guard(add(first.clone())?);
    let server = match args.proxy_protocol {
        true => server.proxy_protocol(args.proxy_from.iter().cloned().collect::<Networks>()),
        false => server,
    };
    let server = tls::secure(server, tls)?;
    Ok(more.iter().cloned().fold(server, Server::also_on))
}

fn server(args: &ServeArgs) -> Result<Server, Ending> {
    let limits = limits(&args.limits, &args.timeouts, &args.tls, &args.access);
    let server = empty(&args.program, &args.listen, limits);
    let service = &args.service;
    listen(&args.listen, &args.tls, &args.access, |first| {
        match (&args.worker.worker, &args.exec.exec) {
            (_, Some(command)) => exec::serve(server, first, command, &args.exec),
            (Some(command), None) => worker::serve(server, first, command, service, &args.worker),
            (None, None) => {
                let codec = Wanted {
                    codec: &service.codec,
                    last_line: service.last_line.unwrap_or(LastLine::Take),
                    max: service.max_frame,
                    longer: service.max_frame,
                };
                codec.hand_to(Answers { server, at: first, handler: service.handler })
            }
        }
    })
}

/// A server that is to have its handler, as soon as the codec is known.
struct Answers {
    server: Server,
    at: Address,
    handler: Handler,
}

impl UseCodec for Answers {
    type Made = Server;

    fn with<C>(self, codec: C, _longer: C) -> Result<Server, Ending>
    where
        C: BytesCodec + Encode<Vec<u8>> + Encode<String>,
    {
        Ok(self.handler.serve(self.server, self.at, codec))
    }
}

/// The limits that the settings ask for.
pub(crate) fn limits(
    limits: &LimitArgs,
    timeouts: &TimeoutArgs,
    tls: &TlsArgs,
    access: &AccessArgs,
) -> Limits {
    let low = |set: Limits| match limits.low_watermark {
        Some(low) => set.low_watermark(low),
        None => set,
    };
    let set = low(Limits::new())
        .max_connections(limits.max_connections.map(NonZeroUsize::get))
        .max_connections_per_ip(limits.max_connections_per_ip.map(NonZeroUsize::get))
        .high_watermark(limits.high_watermark)
        .output_cap(limits.output_cap)
        .memory_budget(limits.memory_budget)
        .read_per_turn(limits.read_per_turn)
        .frames_per_turn(limits.frames_per_turn.get())
        .remote_max(limits.remote_max.get())
        .tickets_max(limits.tickets_max.get())
        .answer_timeout(timeouts.answer_timeout.0)
        .backlog(limits.backlog)
        .idle_timeout(timeouts.idle_timeout.0)
        .unused_timeout(timeouts.unused_timeout.0)
        .frame_timeout(timeouts.frame_timeout.0)
        .write_timeout(timeouts.write_timeout.0)
        .keepalive(timeouts.keepalive.0)
        .keepalive_interval(timeouts.keepalive_interval)
        .keepalive_count(u32::try_from(timeouts.keepalive_count.get()).unwrap_or(u32::MAX))
        .tcp_user_timeout(timeouts.tcp_user_timeout.0)
        .drain_timeout(timeouts.drain_timeout.0.unwrap_or(Duration::MAX))
        .handshake_timeout(timeouts.handshake_timeout)
        .handshakes_max(tls.max_handshakes.get())
        .linger_timeout(timeouts.linger_timeout)
        .slow_handler(timeouts.slow_handler.0)
        .busy_poll(timeouts.busy_poll.0);
    access.limit(set)
}

/// Where it listens, one line for each address.
pub(crate) fn listening(addresses: &[Address]) -> String {
    let line =
        |address: &Address| format!("listening on {}\n", console::one_line(&address.to_string()));
    addresses.iter().map(line).collect()
}

/// Says where it listens, and to a person how to try it.
fn announce(addresses: &[Address], codec: &Codec) {
    let mut text = listening(addresses);
    if let Some(first) = addresses.first()
        && io::stdout().is_terminal()
    {
        let client = match first {
            Address::Tcp(address) => {
                let ip = match (address.ip().is_unspecified(), address.is_ipv6()) {
                    (true, false) => "127.0.0.1".into(),
                    (true, true) => "::1".into(),
                    _ => address.ip().to_string(),
                };
                format!("{ip} {}", address.port())
            }
            other => format!("-U {}", other.to_string().trim_start_matches("unix:")),
        };
        let options = if *codec == Codec::StrictCrlf { "-C " } else { "" };
        let client = console::one_line(&client);
        text.push_str(&format!("try it: nc {options}{client}      end it: Ctrl-C\n"));
    }
    console::print(io::stdout(), &text);
}
