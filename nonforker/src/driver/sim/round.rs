//! Whose turn it is: links on which something may be possible, one look after the other.
//!
//! ```text
//!  look_at ────────▶ ready ──────▶ round: each has one turn, as far as the sink takes it
//!  look_again_at ──▶ served ─▶ behind all that became ready before the next look
//! ```

use rustix::io::Errno;

use super::{
    SimDriver, SimSocket,
    link::{End, State},
    sides::Side,
    trace::What,
    world::{LinkId, World},
};
use crate::driver::{Completion, Next, Sink};

impl World {
    /// A link's turn comes.
    pub(crate) fn look_at(&mut self, link: LinkId) {
        if !std::mem::replace(&mut self.links[link].queued, true) {
            let shard = self.links[link].shard;
            self.sides[shard].ready.push_back(link);
        }
    }

    /// The same for a link that has just had its share.
    pub(super) fn look_again_at(&mut self, link: LinkId) {
        if !std::mem::replace(&mut self.links[link].queued, true) {
            let shard = self.links[link].shard;
            self.sides[shard].served.push_back(link);
        }
    }

    /// Puts the links that had their share behind the others. Returns how many links have a turn in
    /// this look.
    pub(super) fn begin_round(&mut self, shard: usize) -> usize {
        let Side { ready, served, .. } = &mut self.sides[shard];
        ready.append(served);
        ready.len()
    }
}

impl SimDriver {
    /// Gives every link of the round one turn, as far as the sink takes it.
    pub(super) fn serve_round(&mut self, sink: &mut impl Sink<SimSocket>) {
        let mut next = Next::Return;
        while self.round > 0 && next != Next::Enough {
            self.round -= 1;
            // The world must be free while the link is served.
            let link = self.world().sides[self.shard].ready.pop_front();
            let Some(link) = link else { break };
            next = self.serve(link, sink);
        }
    }

    /// Gives a link one turn: an urgent byte, a send, a read, an end.
    fn serve(&self, link: LinkId, sink: &mut impl Sink<SimSocket>) -> Next {
        let mut world = self.world();
        world.links[link].queued = false;
        let State::Adopted(token) = world.links[link].state else { return Next::Return };
        if let Some(byte) = world.links[link].urgent.take() {
            world.note(link, What::ServerSeesUrgent(byte));
            drop(world);
            sink.take(Completion::Urgent { token, byte });
            world = self.world();
        }
        if world.links[link].sending.is_some() {
            world.go_on_sending(token, link);
        }
        if world.links[link].receiving {
            return self.receive(world, token, link, sink);
        }
        if world.links[link].up_end == End::Reset
            && world.links[link].sending.is_none()
            && !std::mem::replace(&mut world.links[link].end_reported, true)
        {
            drop(world);
            return sink.take(Completion::Failed { token, error: Errno::CONNRESET.into() });
        }
        Next::Return
    }
}
