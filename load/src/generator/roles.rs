//! What each kind of connection does when the kernel has news of it.

use std::io::{self, Read};

use mio::event::Event;

use super::Generator;
use crate::{
    client::{Client, Fault},
    clock::nanos,
};

/// The kinds of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Asks, reads, asks again. Its latencies are those that are reported.
    Normal,
    /// As a normal one, with more in flight, and only counted.
    Flooding,
    /// Sends requests for as long as they are taken, and reads nothing.
    NeverReading,
    /// Sends a byte now and then; throws away what it gets.
    Trickling,
    /// Sends a request when the run wants one, and no other.
    Idle,
    /// Gets every line of the sender.
    Receiver,
    /// Sends lines to all; throws away what it gets.
    Sender,
}

impl Role {
    /// Whether it is there to be a burden, and nothing is asked of the server for it.
    pub(super) fn is_slow(self) -> bool {
        matches!(self, Self::NeverReading | Self::Trickling)
    }

    pub(super) fn is_broadcast(self) -> bool {
        matches!(self, Self::Receiver | Self::Sender)
    }
}

/// A round of a broadcast: lines of the sender that all have to get.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// Receivers that lack some of it.
    left: usize,
}

impl Generator<'_> {
    /// Sends the first requests.
    pub(crate) fn begin(&mut self) {
        for nth in 0..self.clients.len() {
            let now = self.clock.now();
            let went = match self.clients[nth].role {
                Role::Normal if self.schedule.is_none() => {
                    self.ask(nth, self.manner.in_flight, now)
                }
                Role::Flooding => self.ask(nth, self.manner.flood_in_flight, now),
                Role::NeverReading => {
                    self.again.push_back(nth);
                    Ok(())
                }
                Role::Normal | Role::Trickling | Role::Idle | Role::Receiver | Role::Sender => {
                    Ok(())
                }
            };
            self.drop_if_failed(nth, went);
        }
        let now = self.clock.now();
        if let Some(schedule) = &mut self.schedule {
            schedule.begin(now);
        }
        self.next_round();
    }

    /// Has every idle connection that is open send one request.
    pub(crate) fn ask_once(&mut self) {
        for nth in 0..self.clients.len() {
            if self.clients[nth].stream.is_none() {
                continue;
            }
            let now = self.clock.now();
            let went = self.ask(nth, 1, now);
            self.drop_if_failed(nth, went);
        }
    }

    /// Does for one connection what an event makes possible.
    pub(super) fn serve(&mut self, nth: usize, event: &Event) -> Result<(), Fault> {
        let client = &self.clients[nth];
        let has_input = event.is_readable() || event.is_read_closed() || event.is_error();
        match client.role {
            Role::Normal | Role::Flooding | Role::Idle | Role::Receiver => {
                let replies =
                    if has_input { self.receive(nth, event.is_read_closed())? } else { 0 };
                if replies > 0 { self.reply(nth, replies) } else { self.flush(nth) }
            }
            Role::NeverReading if event.is_read_closed() || event.is_error() => Err(Fault::Closed),
            Role::NeverReading => {
                if !self.again.contains(&nth) {
                    self.again.push_back(nth);
                }
                Ok(())
            }
            Role::Trickling | Role::Sender => {
                if has_input {
                    self.discard(nth)?;
                }
                self.flush(nth)
            }
        }
    }

    /// Counts replies, and does what follows from them.
    fn reply(&mut self, nth: usize, replies: usize) -> Result<(), Fault> {
        let now = self.clock.now();
        let Self { clients, tally, schedule, .. } = self;
        let client = &mut clients[nth];
        let role = client.role;
        match (role, schedule) {
            (Role::Flooding, _) => {
                tally.flooding += replies as u64;
                client.answered(replies, |at, _| tally.saw(now - at));
            }
            (Role::Normal, Some(schedule)) => {
                tally.messages += replies as u64;
                for due in schedule.due_before(nth, client.replies(), replies) {
                    tally.record(now.saturating_sub(due), 1);
                }
            }
            _ => {
                tally.messages += replies as u64;
                client.answered(replies, |at, count| tally.record(now - at, count));
            }
        }
        match role {
            Role::Normal if self.schedule.is_none() && self.asks => self.ask(nth, replies, now),
            Role::Flooding if self.asks => self.ask(nth, replies, now),
            Role::Receiver if self.clients[nth].awaited() == 0 => {
                self.delivered();
                Ok(())
            }
            _ => self.flush(nth),
        }
    }

    /// Sends `count` requests in one write.
    pub(super) fn ask(&mut self, nth: usize, count: usize, now: u64) -> Result<(), Fault> {
        let client = &mut self.clients[nth];
        client.ask(count, &self.messages);
        client.stamp(count, now);
        client.flush(&self.messages)
    }

    /// Writes what is left from before.
    pub(super) fn flush(&mut self, nth: usize) -> Result<(), Fault> {
        let client = &mut self.clients[nth];
        let unsent = client.unsent();
        client.flush(&self.messages)?;
        self.has_moved |= client.unsent() < unsent;
        Ok(())
    }

    /// Reads what there is, and returns how many replies are complete with it.
    ///
    /// A read that does not fill the buffer has emptied the socket, unless its end has been seen:
    /// then only reading it is the end.
    fn receive(&mut self, nth: usize, is_finished: bool) -> Result<usize, Fault> {
        let client = &mut self.clients[nth];
        let mut replies = 0;
        let reads_on = is_finished
            || client.stream.as_ref().is_some_and(|stream| !stream.is_emptied_by_a_short_read());
        while let Some(count) = read(client, &mut self.buffer)? {
            self.has_moved = true;
            replies += client.take(&self.buffer[..count], &self.messages, self.manner.check)?;
            if count < self.buffer.len() && !reads_on {
                break;
            }
        }
        Ok(replies)
    }

    /// Reads what there is, and forgets it.
    fn discard(&mut self, nth: usize) -> Result<(), Fault> {
        while read(&mut self.clients[nth], &mut self.buffer)?.is_some() {}
        Ok(())
    }

    /// The connections that never read send one piece each, then it is the others' turn.
    pub(super) fn push_again(&mut self) {
        for _ in 0..self.again.len() {
            let Some(nth) = self.again.pop_front() else { return };
            match self.clients[nth].push(&self.messages, super::READ_BYTES) {
                Ok(0) => {}
                Ok(sent) => {
                    self.tally.slow_bytes += sent as u64;
                    self.again.push_back(nth);
                }
                Err(fault) => self.drop_if_failed(nth, Err(fault)),
            }
        }
    }

    /// The connections that trickle send a byte, if it is time to.
    pub(super) fn trickle(&mut self, now: u64) {
        if now < self.next_trickle {
            return;
        }
        self.next_trickle = now + nanos(self.manner.trickle_interval);
        for nth in 0..self.clients.len() {
            if self.clients[nth].role != Role::Trickling {
                continue;
            }
            match self.clients[nth].push(&self.messages, 1) {
                Ok(sent) => self.tally.slow_bytes += sent as u64,
                Err(fault) => self.drop_if_failed(nth, Err(fault)),
            }
        }
    }

    /// Has the sender send the next lines to all, if there is one.
    fn next_round(&mut self) {
        let Some((sender, receivers)) = self.clients.split_last_mut() else { return };
        if sender.role != Role::Sender || self.open == 0 || !self.asks {
            return;
        }
        let now = self.clock.now();
        let lines = self.manner.in_flight;
        let open = receivers.iter_mut().filter(|receiver| receiver.stream.is_some());
        self.round = Round { left: open.map(|one| one.expect(lines, now)).count() };
        let went = sender.send(lines, &self.messages);
        self.drop_if_failed(self.clients.len() - 1, went);
    }

    /// A receiver has all of the round, or is gone.
    pub(super) fn delivered(&mut self) {
        self.round.left = self.round.left.saturating_sub(1);
        if self.round.left == 0 {
            self.next_round();
        }
    }
}

/// Reads once: None if there is nothing, or the connection is gone.
fn read(client: &mut Client, buffer: &mut [u8]) -> Result<Option<usize>, Fault> {
    let Some(stream) = client.stream.as_mut() else { return Ok(None) };
    loop {
        match stream.read(buffer) {
            Ok(0) => return Err(Fault::Closed),
            Ok(count) => return Ok(Some(count)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Fault::Broken(error)),
        }
    }
}
