//! What holds for the connections of one service: its own limits, or else those of the server.
//!
//! They are put together when the server starts, and whenever its limits change. Every connection
//! has a pointer to those of its service, so that to read one costs no more than to read a field.

use std::{rc::Rc, sync::Arc, time::Duration};

use super::{
    group::{AddressKey, net_of},
    slot::ServiceId,
    stats::Counters,
};
use crate::{address::Peer, conn::outbound::Watermarks, driver::nanos, service_limits::AllLimits};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Rules {
    pub(crate) service: ServiceId,
    pub(crate) counters: Arc<Counters>,
    pub(crate) marks: Watermarks,
    pub(crate) frames_per_turn: usize,
    pub(crate) frame_timeout: Option<Duration>,
    pub(crate) write_timeout: Option<Duration>,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) unused_timeout: Option<Duration>,
    pub(crate) linger_timeout: Duration,
    pub(crate) connect_timeout: Duration,
    pub(crate) answer_timeout: Option<Duration>,
    /// Callbacks that take so many nanoseconds are slow. The largest number of all if none is.
    pub(crate) slow: u64,
    /// How many places are kept for the service, and how many it may have.
    pub(crate) reserved: usize,
    pub(crate) connections_max: usize,
    /// The service whose connections each need one of this service, too.
    pub(crate) upstreams_of: Option<ServiceId>,
    /// Its connections are there for many clients, none of which may have them closed.
    pub(crate) serves_clients: bool,
    per_ip_max: Option<usize>,
    /// Where connections from one address are counted: with those of other services, or alone.
    per_ip_of: Option<ServiceId>,
    per_net_max: Option<usize>,
    /// How many bits of an address say which network it is in.
    pub(super) net_prefix: (u8, u8),
    /// How many connections a second a network may open.
    pub(super) accept_rate: Option<usize>,
}

impl Rules {
    /// Those of each service that has these counters.
    pub(crate) fn of_all(limits: &AllLimits, counters: &[Arc<Counters>]) -> Vec<Rc<Self>> {
        let services = (0..).zip(&limits.services).zip(counters);
        services
            .map(|((id, own), counters)| {
                let counters = Arc::clone(counters);
                let limits = own.over(&limits.server);
                Rc::new(Self {
                    service: id,
                    counters,
                    marks: limits.watermarks(),
                    frames_per_turn: limits.frames_per_turn,
                    frame_timeout: limits.frame_timeout,
                    write_timeout: limits.write_timeout,
                    idle_timeout: limits.idle_timeout,
                    unused_timeout: limits.unused_timeout,
                    linger_timeout: limits.linger_timeout,
                    connect_timeout: limits.connect_timeout,
                    answer_timeout: limits.answer_timeout,
                    slow: limits.slow_handler.map_or(u64::MAX, nanos),
                    reserved: own.reserved(),
                    upstreams_of: own.upstreams_of(),
                    serves_clients: own.serves_clients(),
                    connections_max: limits.max_connections.unwrap_or(usize::MAX),
                    per_ip_max: limits.max_connections_per_ip,
                    per_net_max: limits.max_connections_per_net,
                    net_prefix: limits.net_prefix,
                    accept_rate: limits.accept_rate,
                    per_ip_of: own.counts_addresses_alone().then_some(id),
                })
            })
            .collect()
    }

    /// Where a connection of this peer is counted and how many there may be, where that is bounded: for
    /// its address, and for its network.
    pub(super) fn caps(&self, peer: &Peer) -> [Option<(AddressKey, usize)>; 2] {
        let Some(ip) = peer.ip() else { return [None, None] };
        let per_ip = self.per_ip_max.map(|max| ((self.per_ip_of, (ip, u8::MAX)), max));
        let per_net = self.per_net_max.map(|max| ((None, net_of(ip, self.net_prefix)), max));
        [per_ip, per_net]
    }
}
