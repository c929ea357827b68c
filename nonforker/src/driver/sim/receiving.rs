//! How simulated bytes are received, and the end of a stream is seen.

use std::{cell::RefMut, time::Duration};

use rustix::io::Errno;

use super::{
    SimDriver, SimSocket,
    events::Event,
    link::End,
    trace::What,
    world::{LinkId, World},
};
use crate::driver::{Completion, Next, Sink, Token};

impl SimDriver {
    /// Gives the server bytes that have arrived, or the end of the stream.
    pub(super) fn receive(
        &self,
        mut world: RefMut<'_, World>,
        token: Token,
        link: LinkId,
        sink: &mut impl Sink<SimSocket>,
    ) -> Next {
        let faults = world.faults;
        if world.links[link].arrived() > 0 {
            if world.rng.chance(faults.would_block) {
                let after = Duration::from_micros(1 + world.rng.below(10_000));
                world.schedule_in(after, Event::Look(link));
                return Next::Return;
            }
            if world.torture.strikes() || world.rng.chance(faults.reset) {
                world.break_link(link);
                world.look_at(link);
                return Next::Return;
            }
            let mut count = world.links[link].arrived().min(self.options.read_max);
            if world.rng.chance(faults.short_read) {
                count = world.rng.between(1, count);
            }
            world.note(link, What::ServerReceives(count));
            let (mut up, start) = world.links[link].lend();
            drop(world);
            let next = sink.received(token, &mut up[start..start + count]);
            let mut world = self.world();
            let state = &mut world.links[link];
            state.give_back(up, start + count);
            if state.is_finished() && world.rng.chance(world.faults.end_with_bytes) {
                return Self::end(world, token, link, sink);
            }
            let state = &world.links[link];
            if state.arrived() > 0 || state.up_end != End::Open {
                world.look_again_at(link);
            }
            return next;
        }
        Self::end(world, token, link, sink)
    }

    /// Reports the end of a stream, if it has come.
    fn end(
        mut world: RefMut<'_, World>,
        token: Token,
        link: LinkId,
        sink: &mut impl Sink<SimSocket>,
    ) -> Next {
        let Some(end) = world.links[link].take_end() else { return Next::Return };
        let completion = match end {
            End::Reset => Completion::Failed { token, error: Errno::CONNRESET.into() },
            End::Open | End::Finished => Completion::EndOfStream { token },
        };
        world.note(link, What::ServerSeesEnd);
        if !world.links[link].end_reported {
            world.look_at(link);
        }
        drop(world);
        sink.take(completion)
    }
}
