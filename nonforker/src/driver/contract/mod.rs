//! The seam's contract, as cases that every driver has to pass.
//!
//! ```text
//!  Client ──▶ kernel, or simulated network ──▶ Driver ──▶ Bench ──▶ case
//!  (Rig)                                             (log holds every report against the rules)
//! ```
//!
//! A case is a function over a [`Bench`]: what peers do, what is asked of the driver, and what it
//! must report. What holds in every case, such as "nothing after `Closed`", is asserted in
//! [`log`] for every single report. Nothing here knows the engine.
//!
//! The simulated driver runs the same table as the drivers of sockets do, in a network without
//! faults. A new driver is a [`Rig`] and a line at the end of this file. A case is a function in the
//! file of its subject and its name in the table below; one that only a kernel can be asked for has
//! its reason there.

mod accepting;
mod bench;
mod closing;
mod connecting;
mod kernel;
mod kernel_cases;
mod log;
mod receiving;
mod sending;
mod simulated;
#[cfg(target_os = "linux")]
mod uring_cases;
mod waiting;

use std::{
    fmt,
    io::{self, Write},
};

use self::bench::Bench;
use super::{Driver, Options, Probing};
use crate::address::{Address, Peer};

/// What carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Unix,
}

/// A driver under test, with a network in which peers can be played.
trait Rig: Sized {
    type Driver: Driver;
    type Client: Client;
    type Target: Target<Client = Self::Client>;

    /// The driver's name.
    const NAME: &'static str;
    /// Whether its listeners want urgent bytes.
    const URGENT: bool;
    /// Every case is run over each of them.
    const TRANSPORTS: &'static [Transport];

    /// A network, or `None` if the driver does not exist on this system.
    fn new(transport: Transport, options: Options) -> Option<(Self, Self::Driver)>;

    /// An address where nobody listens yet.
    fn address(&mut self) -> Address;

    /// Connects, without waiting to be accepted.
    fn connect(&mut self, address: &Address) -> io::Result<Self::Client>;

    /// A server for the driver to connect to. If it is `late` it answers attempts only some time after
    /// [`let_in`](Target::let_in); `None` if this transport has no such server.
    fn target(&mut self, late: bool) -> Option<Self::Target>;

    /// An address where nobody listens, and nobody will.
    fn nowhere(&mut self) -> Address;

    /// Whether urgent bytes are known on this transport.
    fn has_urgent(&self) -> bool;

    /// Whether the limits of this process may be lowered. If not, the present test is run in a
    /// process of its own, where they may.
    fn is_alone() -> bool;

    /// Runs `body` while nothing can be accepted for want of descriptors.
    fn without_descriptors(bench: &mut Bench<Self>, body: impl FnOnce(&mut Bench<Self>));
}

/// A peer. It never waits: time passes only while the driver does.
trait Client {
    /// Sends as much of `bytes` as is taken now, and returns how much that was.
    fn send(&mut self, bytes: &[u8]) -> usize;
    /// Sends a byte beside the stream. Returns whether it was taken.
    fn send_urgent(&mut self, byte: u8) -> bool;
    /// Receives what has arrived.
    fn receive(&mut self) -> Heard;
    /// Finishes sending.
    fn shutdown_write(&mut self);
    /// Breaks the connection.
    fn reset(self);
    /// Closes in order.
    fn close(self);
    /// What the other side is to see.
    fn peer(&self) -> Peer;
}

/// A server that the driver connects to.
trait Target {
    type Client;

    fn address(&self) -> Address;
    /// From now on attempts may succeed.
    fn let_in(&mut self);
    /// The other end of a connection, as soon as there is one.
    fn accept(&mut self) -> Option<Self::Client>;
}

/// What a peer received.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Nothing,
    Bytes(Vec<u8>),
    End,
    Reset,
}

/// The most bytes of one `Received` in every case.
const READ_MAX: usize = 1024;

const OPTIONS: Options = Options {
    read_max: READ_MAX,
    backlog: 1024,
    unix_mode: 0o640,
    probing: Probing { keepalive: None, user_timeout: None },
    shared: false,
};

/// Runs `case` over every transport of a driver.
fn run<R: Rig>(case: fn(&mut Bench<R>)) {
    for &transport in R::TRANSPORTS {
        match R::new(transport, OPTIONS) {
            Some((rig, driver)) => case(&mut Bench::new(rig, driver, transport)),
            None => skip(format_args!("no {} on this system", R::NAME)),
        }
    }
}

/// Says, past the test harness, that something could not be tested here.
fn skip(why: fmt::Arguments<'_>) {
    // Where nobody can be told, nobody is told.
    let _ = writeln!(io::stderr(), "skipped: {why}");
}

/// `name: rig, cases` makes a module of tests. Behind a case that does not run over every driver
/// stands the reason.
macro_rules! tests {
    ($name:ident: $rig:ty, $($subject:ident { $($case:ident $(=> $why:literal)?,)* })*) => {
        mod $name {
            $($(
                $(#[doc = $why])?
                #[test]
                fn $case() {
                    super::run::<$rig>(super::$subject::$case);
                }
            )*)*
        }
    };
}

/// The table of cases: what every driver has to do, and what only a driver of this system's sockets
/// can be asked to do.
macro_rules! table {
    (everywhere $name:ident: $rig:ty) => {
        tests! {
            $name: $rig,
            accepting {
                an_accepted_connection_has_its_peer_and_can_be_adopted,
                a_listener_tells_where_it_is,
                an_address_has_one_listener,
                an_address_is_free_again_when_its_listener_is_closed,
                each_listener_reports_under_its_own_number,
                a_dropped_connection_is_refused,
                while_accepting_is_off_nobody_is_reported,
                running_out_of_descriptors_turns_accepting_off,
                a_crowd_is_accepted_without_sleeping_on_it,
                a_closed_listener_refuses_and_leaves_connections_alone,
            }
            receiving {
                bytes_arrive_in_order_however_they_are_cut,
                whoever_has_more_comes_again_without_an_edge,
                two_floods_take_turns,
                whoever_floods_comes_after_whoever_has_just_sent,
                what_was_sent_before_adoption_arrives,
                nothing_is_lost_while_receiving_is_off,
                receiving_stops_in_the_middle_of_a_flood,
                the_end_comes_once_and_behind_all_data,
                an_end_while_receiving_is_off_is_not_lost,
                an_urgent_byte_comes_beside_the_stream,
                an_urgent_byte_arrives_while_receiving_is_off,
                a_storm_of_urgent_bytes_passes,
                urgent_bytes_nobody_wants_leave_the_stream_alone,
            }
            sending {
                a_buffer_comes_back_when_it_is_sent,
                a_peer_that_reads_late_gets_everything_exactly,
                connections_send_and_receive_at_the_same_time,
                sending_to_a_peer_that_has_gone_fails,
                a_reset_gives_back_what_was_in_flight,
                after_shutting_down_we_still_receive,
                what_is_not_awaited_is_reported_when_a_wait_ends,
            }
            connecting {
                a_connection_that_was_made_works_as_one_that_was_accepted,
                an_attempt_that_nobody_takes_fails,
                an_attempt_that_is_under_way_is_slept_on,
                an_abandoned_attempt_is_not_heard_of,
                an_attempt_that_is_abandoned_at_once_is_not_heard_of,
                a_connection_that_was_made_and_is_dropped_is_closed,
                many_attempts_end_each_by_itself,
            }
            closing {
                what_was_sent_before_a_close_arrives,
                a_close_gives_back_what_was_in_flight,
                a_close_with_a_reset_is_seen_as_one,
                a_close_discards_what_was_ready,
                a_reset_while_receiving_is_reported_once,
                a_reset_is_reported_though_nothing_is_asked_for,
                a_reset_behind_the_end_is_reported,
                a_slot_in_use_again_hears_nothing_of_its_former_owner,
                five_hundred_peers_leave_at_once,
                five_hundred_connections_close_at_once,
            }
            waiting {
                a_wait_lasts_as_long_as_it_should,
                a_wait_is_not_rounded_up_to_a_millisecond,
                who_has_nothing_to_say_lets_it_sleep,
                a_wake_up_before_the_wait_is_not_lost,
                a_sink_that_has_work_is_returned_to,
                an_awaited_send_is_not_slept_on,
                a_sink_that_has_enough_gets_the_rest_next,
            }
        }
    };
    (kernel_only $name:ident: $rig:ty) => {
        tests! {
            $name: $rig,
            kernel_cases {
                another_thread_ends_a_wait => "A simulation has one thread.",
                a_unix_socket_has_the_mode_it_is_given => "The simulated network has no files.",
                a_stale_unix_socket_is_replaced => "The simulated network has no files.",
                a_unix_socket_in_use_is_left_alone => "The simulated network has no files.",
                a_file_that_is_no_socket_is_left_alone => "The simulated network has no files.",
                a_unix_socket_may_have_a_name_and_no_file => "The simulated network has no files.",
                a_unix_socket_goes_with_its_listener => "The simulated network has no files.",
                a_unix_socket_that_is_not_ours_any_more_stays => "The simulated network has no files.",
                a_passed_descriptor_does_not_cut_the_stream => "Descriptors are a kernel's.",
            }
        }
    };
}

table!(everywhere sim: crate::driver::contract::simulated::Simulated<
    crate::driver::contract::simulated::Prompt,
>);
table!(everywhere late_sim: crate::driver::contract::simulated::Simulated<
    crate::driver::contract::simulated::Late,
>);
table!(everywhere cutting_sim: crate::driver::contract::simulated::Simulated<
    crate::driver::contract::simulated::Cutting,
>);

/// A driver of this system's sockets passes all of them.
macro_rules! kernel_driver {
    ($name:ident: $driver:ident, $kernel:ident) => {
        table!(everywhere $name: crate::driver::contract::kernel::Sockets<
            crate::driver::contract::kernel::$driver,
        >);
        table!(kernel_only $kernel: crate::driver::contract::kernel::Sockets<
            crate::driver::contract::kernel::$driver,
        >);
    };
}

kernel_driver!(poll: Poll, poll_in_the_kernel);
#[cfg(target_os = "linux")]
kernel_driver!(uring: Uring, uring_in_the_kernel);
#[cfg(target_os = "linux")]
kernel_driver!(uring_for_urgent: UringForUrgent, uring_for_urgent_in_the_kernel);
#[cfg(target_os = "linux")]
kernel_driver!(tight_uring: TightUring, tight_uring_in_the_kernel);

/// What is special about io_uring, with room and without: these cases read the driver's own counts.
#[cfg(target_os = "linux")]
macro_rules! uring_cases {
    ($name:ident: $driver:ident { $($case:ident,)* }) => {
        tests! {
            $name: crate::driver::contract::kernel::Sockets<
                crate::driver::contract::kernel::$driver,
            >,
            uring_cases { $($case,)* }
        }
    };
}

#[cfg(target_os = "linux")]
uring_cases!(uring_and_the_kernel: Uring {
    a_short_send_comes_back_with_its_rest,
    a_receive_that_is_armed_brings_one_piece_after_receiving_is_off,
    a_send_that_a_close_overtakes_is_reported_exactly,
    a_driver_can_be_dropped_with_everything_in_flight,
    a_flood_waits_in_the_kernel,
});
#[cfg(target_os = "linux")]
uring_cases!(tight_uring_and_the_kernel: TightUring {
    without_a_buffer_nobody_spins_and_nothing_is_lost,
    completions_that_do_not_fit_are_not_lost,
    a_batch_that_does_not_fit_is_handed_over_in_parts,
    a_short_send_comes_back_with_its_rest,
    a_receive_that_is_armed_brings_one_piece_after_receiving_is_off,
    a_send_that_a_close_overtakes_is_reported_exactly,
    a_driver_can_be_dropped_with_everything_in_flight,
    a_flood_waits_in_the_kernel,
});
