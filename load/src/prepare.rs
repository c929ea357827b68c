//! From flags to connections under load: how many of which kind, what they send, and how.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use socket2::Socket;

use super::{
    client::Check,
    connect,
    faults::Faults,
    flags::{BenchArgs, Mode},
    load::{Load, Manner, READ_BYTES, Role},
    messages::Messages,
};
use crate::ending::Ending;

/// Opens the connections, and gets everything ready that needs no measuring.
pub(crate) fn load<'r>(args: &BenchArgs, interrupted: &'r AtomicBool) -> Result<Load<'r>, Ending> {
    let senders = usize::from(args.load.mode == Mode::Broadcast);
    let normal = args.load.connections.saturating_add(senders);
    connect::reserve(normal.saturating_add(args.company.count()))?;
    let roles = roles(args);
    let manner = manner(args);
    let in_flight = manner.in_flight.max(manner.flood_in_flight);
    let (codec, size) = (&args.load.codec, args.load.size);
    let messages =
        Messages::new(codec, size, roles.len(), in_flight, READ_BYTES).map_err(Ending::Usage)?;
    let mut faults = Faults::default();
    let sockets = open(args, roles, interrupted, &mut faults)?;
    let mut load = Load::new(sockets, messages, manner, interrupted)?;
    load.faults = faults;
    Ok(load)
}

/// What each connection is; the normal ones first, the sender of a broadcast last.
fn roles(args: &BenchArgs) -> Vec<Role> {
    let (count, company) = (args.load.connections, &args.company);
    let groups = match args.load.mode {
        Mode::Echo => vec![
            (Role::Normal, count),
            (Role::Flooding, company.flooding),
            (Role::NeverReading, company.never_reading),
            (Role::Trickling, company.trickling),
        ],
        Mode::Idle => vec![(Role::Idle, count)],
        Mode::Broadcast => vec![(Role::Receiver, count), (Role::Sender, 1)],
    };
    groups.into_iter().flat_map(|(role, count)| std::iter::repeat_n(role, count)).collect()
}

fn manner(args: &BenchArgs) -> Manner {
    let (load, company) = (&args.load, &args.company);
    let check = match (load.no_verify, load.codec.end().last()) {
        (false, _) => Check::Same,
        (true, Some(&end)) => Check::Ends(end),
        (true, None) => Check::Length,
    };
    Manner {
        in_flight: load.in_flight.get(),
        flood_in_flight: if company.flooding > 0 { company.flood_in_flight.get() } else { 0 },
        check,
        timeout: load.timeout,
        trickle_interval: company.trickle_interval,
        rate: load.rate,
        spin: load.spin,
    }
}

/// Opens as many as can be: what comes after a failure is not tried.
fn open(
    args: &BenchArgs,
    roles: Vec<Role>,
    interrupted: &AtomicBool,
    faults: &mut Faults,
) -> Result<Vec<(Role, Socket)>, Ending> {
    let wanted = roles.len();
    let mut sockets = Vec::with_capacity(wanted);
    for role in roles {
        let nth = sockets.len();
        let opened = connect::open(&args.address, nth, args.load.timeout);
        // A signal may have ended the attempt.
        if interrupted.load(Relaxed) {
            return Err(Ending::Failed("interrupted before all connections were open".into()));
        }
        match opened {
            Ok(socket) => sockets.push((role, socket)),
            Err(error) if nth == 0 => {
                let address = &args.address;
                return Err(Ending::Failed(format!("cannot connect to {address}: {error}")));
            }
            Err(error) => {
                let left = (wanted - nth) as u64;
                faults.not_opened(left, format_args!("cannot open connection {nth}: {error}"));
                break;
            }
        }
    }
    Ok(sockets)
}
