//! For how many more connections of a service there is room, so that a health port answers while the
//! public port is full.
//!
//! ```text
//!  all places ─┬─ taken
//!              ├─ kept: what the other services have reserved and not taken
//!              └─ room, as far as the service's own bound allows
//! ```

use super::{core::Core, desk::Desk, slot::ServiceId};

impl Core {
    /// Whether there is room for another connection of `service`, as far as this shard knows.
    pub(super) fn has_room(&self, service: ServiceId, connections_max: usize) -> bool {
        room(&self.desks, service, connections_max) > 0
    }

    /// Takes a place for a connection of `service`. Another shard may have taken the last one.
    pub(super) fn take_place(&mut self, service: ServiceId, connections_max: usize) -> bool {
        let took = self.group.take_place(&mut self.desks, service, connections_max);
        self.desks[service as usize].taken += usize::from(took);
        took
    }

    /// Leaves a place again.
    pub(super) fn leave_place(&mut self, service: ServiceId) {
        self.desks[service as usize].taken -= 1;
        self.group.leave_place(service);
    }
}

impl Desk {
    /// How many places the connections of the service take, in all shards.
    const fn all_taken(&self) -> usize {
        self.taken + self.elsewhere
    }

    /// How many places are its own: one for each client, if it has the other sides of a relay.
    fn kept(&self, desks: &[Self]) -> usize {
        let clients = self.rules.upstreams_of.and_then(|clients| desks.get(clients as usize));
        clients.map_or(0, Self::all_taken).max(self.rules.reserved)
    }
}

/// For how many more connections of `service` there is room, of `connections_max` in all.
pub(super) fn room(desks: &[Desk], service: ServiceId, connections_max: usize) -> usize {
    let Some(desk) = desks.get(service as usize) else { return 0 };
    let places = desks.iter().map(|desk| (desk.all_taken(), desk.kept(desks)));
    let (reserved, taken) = (desk.kept(desks), desk.all_taken());
    let room = room_of(places, (taken, reserved), connections_max);
    // A client of a relay needs a place for the other side.
    let is_relayed = desks.iter().any(|desk| desk.rules.upstreams_of == Some(service));
    let room = if is_relayed { room / 2 } else { room };
    room.min(desk.rules.connections_max.saturating_sub(taken))
}

/// The same, where `places` has how many each service has taken and how many it has reserved, and
/// `own` is among them.
fn room_of(
    places: impl Iterator<Item = (usize, usize)>,
    own: (usize, usize),
    connections_max: usize,
) -> usize {
    let kept = |(taken, reserved): (usize, usize)| reserved.saturating_sub(taken);
    let not_free: usize = places.map(|place| place.0 + kept(place)).sum();
    // If the server may suddenly have fewer connections than it has, what is reserved still counts.
    connections_max.saturating_add(kept(own)).saturating_sub(not_free).max(kept(own))
}

/// Whether the end of a connection of the service `ends` gives `waits` a place.
pub(super) fn helps(desks: &[Desk], ends: ServiceId, waits: ServiceId) -> bool {
    let (Some(ends_at), Some(waits_at)) = (desks.get(ends as usize), desks.get(waits as usize))
    else {
        return false;
    };
    // A place that is reserved is taken by nobody else.
    let is_shared = ends_at.all_taken() > ends_at.rules.reserved;
    ends == waits || is_shared && waits_at.all_taken() < waits_at.rules.connections_max
}

#[cfg(test)]
mod tests {
    use super::room_of;

    #[test]
    fn reserved_places_are_kept_for_their_service() {
        // What each service has taken and reserved, of 10 places, and for how many it has room.
        for (places, rooms) in [
            (vec![(0, 0)], vec![10]),
            (vec![(10, 0)], vec![0]),
            (vec![(0, 0), (0, 3)], vec![7, 10]),
            (vec![(7, 0), (0, 3)], vec![0, 3]),
            (vec![(7, 0), (2, 3)], vec![0, 1]),
            (vec![(5, 0), (4, 3)], vec![1, 1]),
            (vec![(0, 0), (10, 3)], vec![0, 0]),
            (vec![(0, 4), (0, 3)], vec![7, 6]),
            (vec![(2, 4), (5, 3)], vec![3, 1]),
            (vec![(20, 0), (1, 3)], vec![0, 2]),
        ] {
            for (own, &room) in rooms.iter().enumerate() {
                let found = room_of(places.iter().copied(), places[own], 10);
                assert_eq!(found, room, "of {places:?}, service {own}");
            }
        }
    }
}
