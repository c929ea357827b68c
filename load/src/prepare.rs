//! From settings to connections under load: how many of which kind, what they send, and how.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use crate::{
    client::Check,
    connect::{self, Opener},
    error::Error,
    faults::Faults,
    generator::{Generator, Manner, READ_BYTES, Role},
    load::{Load, Mode},
    messages::Messages,
    stream::Stream,
};

/// Opens the connections, and gets everything ready that needs no measuring.
pub(crate) fn prepare<'r>(
    load: &Load,
    interrupted: &'r AtomicBool,
) -> Result<Generator<'r>, Error> {
    let senders = usize::from(load.mode == Mode::Broadcast);
    let normal = load.connections.saturating_add(senders);
    connect::reserve(normal.saturating_add(load.company()))?;
    let roles = roles(load);
    let manner = manner(load);
    let in_flight = manner.in_flight.max(manner.flood_in_flight);
    let messages = Messages::new(&load.codec, load.size, roles.len(), in_flight, READ_BYTES)
        .map_err(Error::Settings)?;
    let mut faults = Faults::default();
    let streams = open(load, roles, interrupted, &mut faults)?;
    let mut generator = Generator::new(streams, messages, manner, interrupted)?;
    generator.faults = faults;
    Ok(generator)
}

/// What each connection is; the normal ones first, the sender of a broadcast last.
fn roles(load: &Load) -> Vec<Role> {
    let count = load.connections;
    let groups = match load.mode {
        Mode::Echo => vec![
            (Role::Normal, count),
            (Role::Flooding, load.flooding),
            (Role::NeverReading, load.never_reading),
            (Role::Trickling, load.trickling),
        ],
        Mode::Idle => vec![(Role::Idle, count)],
        Mode::Broadcast => vec![(Role::Receiver, count), (Role::Sender, 1)],
    };
    groups.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count)).collect()
}

fn manner(load: &Load) -> Manner {
    let check = match (load.verify, load.codec.end().last()) {
        (true, _) => Check::Same,
        (false, Some(&end)) => Check::Ends(end),
        (false, None) => Check::Length,
    };
    Manner {
        in_flight: load.in_flight,
        flood_in_flight: if load.flooding > 0 { load.flood_in_flight } else { 0 },
        check,
        timeout: load.timeout,
        trickle_interval: load.trickle_interval,
        rate: load.rate,
        spin: load.spin,
    }
}

/// Opens as many as can be: what comes after a failure is not tried.
fn open(
    load: &Load,
    roles: Vec<Role>,
    interrupted: &AtomicBool,
    faults: &mut Faults,
) -> Result<Vec<(Role, Stream)>, Error> {
    let connect_error = |source| Error::Connect { address: load.address.clone(), source };
    let opener = Opener::new(load).map_err(connect_error)?;
    let wanted = roles.len();
    let mut streams = Vec::with_capacity(wanted);
    for role in roles {
        let nth = streams.len();
        let opened = opener.open(nth);
        // A signal may have ended the attempt.
        if interrupted.load(Relaxed) {
            return Err(Error::Interrupted { when: "before all connections were open" });
        }
        match opened {
            Ok(stream) => streams.push((role, stream)),
            Err(source) if nth == 0 => return Err(connect_error(source)),
            Err(error) => {
                let left = (wanted - nth) as u64;
                faults.not_opened(left, format_args!("cannot open connection {nth}: {error}"));
                break;
            }
        }
    }
    Ok(streams)
}
