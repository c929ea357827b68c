//! A scripted server, to which the simulated one connects.

use std::{net::IpAddr, time::Duration};

use super::{client::Client, net::Net};
use crate::{
    address::{Address, AddressError},
    driver::sim::connecting::{Answer, SimTarget},
};

impl Net {
    /// A server of the script: connections that the simulated server [asks for](crate::Conn::connect)
    /// at `address` come to it. Where there is none, they are refused. It may be a service that the
    /// handlers call, a database, say.
    ///
    /// # Panics
    ///
    /// If `address` is none, or has a server already.
    ///
    /// # Examples
    ///
    /// ```
    /// use nonforker::{
    ///     CloseReason, Conn, Connections, Handler, Outcome, Server, codec::Lines, sim::Simulation,
    /// };
    ///
    /// struct Caller;
    ///
    /// impl Handler for Caller {
    ///     type Codec = Lines;
    ///     type Session = ();
    ///
    ///     fn started(&mut self, all: &mut Connections<'_, Self>) -> Outcome {
    ///         all.connect::<Self>("10.0.0.9:7", ())?;
    ///         Ok(())
    ///     }
    ///
    ///     fn frame(&mut self, conn: &mut Conn<'_, Self>, line: &[u8]) -> Outcome {
    ///         conn.send(line);
    ///         Ok(())
    ///     }
    ///
    ///     fn closed(&mut self, conn: &mut Conn<'_, Self>, reason: &CloseReason) {
    ///         if let CloseReason::ConnectFailed(_) = reason {
    ///             let _ = conn.connect::<Self>("10.0.0.9:8", ());
    ///         }
    ///     }
    /// }
    ///
    /// let server = || Server::new().service(Lines::new(), Caller).also_on("127.0.0.1:1");
    /// Simulation::new(server).run(|net| {
    ///     net.listen("10.0.0.9:7").refuse();
    ///     let other = net.listen("10.0.0.9:8").accept();
    ///     other.send("echo this\n");
    ///     other.expect("echo this\n");
    /// });
    /// ```
    #[must_use]
    pub fn listen<A>(&self, address: A) -> Listener
    where
        A: TryInto<Address, Error: Into<AddressError>>,
    {
        let address: Result<Address, AddressError> = address.try_into().map_err(Into::into);
        let address = address.expect("a simulated server has an address");
        let mut world = self.world();
        let is_taken = world.targets.all.iter().any(|target| target.address == address);
        assert!(!is_taken, "a server of the script is at {address} already");
        world.targets.all.push(SimTarget::new(address.clone(), Answer::Accepts));
        drop(world);
        Listener { net: self.clone(), address }
    }

    /// Gives the name of a host these addresses, in this order. One without a name has none.
    pub fn name(&self, host: &str, addresses: &[IpAddr]) {
        self.world().names.set(host, addresses.to_vec());
    }
}

/// A server of the script: see [`Net::listen`].
///
/// It accepts until it is made to do something else.
#[derive(Clone, Debug)]
pub struct Listener {
    net: Net,
    address: Address,
}

impl Listener {
    /// Where it is.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// Waits for a connection, and takes it. For a script the other end of it is a client like others.
    ///
    /// # Panics
    ///
    /// If none comes.
    #[track_caller]
    #[must_use]
    pub fn accept(&self) -> Client {
        self.net.until(|world| {
            let mut targets = world.targets.all.iter();
            targets.any(|target| target.address == self.address && !target.backlog.is_empty())
        });
        let client = self.accepted();
        assert!(
            client.is_some(),
            "nobody connects to {} ({})",
            self.address,
            self.net.why_in_vain(),
        );
        client.expect("that is asserted")
    }

    /// Takes a connection, if there is one by now.
    #[must_use]
    pub fn accepted(&self) -> Option<Client> {
        let link = self.net.world().take_called(&self.address)?;
        Some(Client::new(self.net.clone(), link))
    }

    /// How many attempts to connect have reached it.
    #[must_use]
    pub fn attempts(&self) -> usize {
        let world = self.net.world();
        let mut targets = world.targets.all.iter();
        targets.find(|target| target.address == self.address).map_or(0, |target| target.reached)
    }

    /// Refuses whatever comes from now on.
    pub fn refuse(&self) {
        self.answer(Answer::Refuses);
    }

    /// Answers no attempt from now on, as a host that is down.
    pub fn keep_silent(&self) {
        self.answer(Answer::Silent);
    }

    /// Accepts from now on, also those that it did not answer.
    pub fn accept_all(&self) {
        self.answer(Answer::Accepts);
    }

    fn answer(&self, answer: Answer) {
        self.net.world().set_answer(&self.address, answer);
    }

    /// Answers each attempt that begins from now on so much later.
    pub fn answer_after(&self, delay: Duration) {
        let mut world = self.net.world();
        let mut targets = world.targets.all.iter_mut();
        if let Some(target) = targets.find(|target| target.address == self.address) {
            target.delay = delay;
        }
    }
}
