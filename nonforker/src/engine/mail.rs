//! Mail from other threads into the shard: closures for a service, answers to tickets, and what other
//! shards publish.
//!
//! ```text
//!  any thread ── post ──▶ queue ── the first letter wakes the driver ──▶ a turn reads up to 1,024
//! ```
//!
//! Letters are read in the order in which they were posted. The driver is woken for the first letter
//! behind those that the shard has taken, and not for those that follow: `awake` is set and cleared
//! under the lock of the queue. So a letter is either taken, or its wake-up comes after the taking.
//!
//! All of it is bounded. A post for which there is no room is refused. A message of another shard is
//! not, since nobody waits there: subscribers miss it, and that it was lost is noted for each topic.
//! There are no more of those than topics with subscribers.

use std::{
    any::Any,
    collections::{BTreeMap, VecDeque},
    fmt, mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::{
    core::{COLLECTED_MAX, Core},
    resolver::Found,
    shard::Shard,
    slot::ServiceId,
    table::Table,
    tickets::Answered,
    topics::Published,
};
use crate::{
    driver::Waker,
    error::{Gone, PostError},
};

/// The most letters that one turn reads, so that mail does not keep connections waiting.
const LETTERS_PER_TURN: usize = 1024;

/// How many bytes the messages of other shards may have that wait for a shard, one message aside: those
/// of all shards together have a sixteenth of the memory budget.
pub(super) const fn mail_bytes_max(budget: usize, shards: usize) -> usize {
    budget / 16 / shards
}

/// What is called in the shard for a service, its types erased.
pub(crate) trait Errand: Send {
    /// Runs it with the service's handler. It does not panic.
    fn run(
        self: Box<Self>,
        handler: &mut dyn Any,
        core: &mut Core,
        table: &mut Table,
        id: ServiceId,
    );
}

/// One piece of mail.
pub(crate) enum Letter {
    Post { service: ServiceId, errand: Box<dyn Errand> },
    Answer(Answered),
    Resolved { host: String, found: Found },
    Publish(Published),
}

/// How many messages of a topic were lost, since there was no room for them.
pub(super) type Missed = BTreeMap<(ServiceId, Arc<[u8]>), u64>;

impl fmt::Debug for Letter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Post { service, .. } => write!(f, "Post to {service}"),
            Self::Resolved { host, .. } => write!(f, "Resolved {host}"),
            Self::Answer(Answered { token, id, .. }) => write!(f, "Answer {id} for {token:?}"),
            Self::Publish(Published { service, .. }) => write!(f, "Publish for {service}"),
        }
    }
}

/// Where other threads post to a shard. It lives as long as anybody can post.
#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
}

#[derive(Debug, Default)]
struct Queue {
    letters: VecDeque<Letter>,
    /// How many of them are posts.
    posts: usize,
    /// How many posts there may be, and as many messages.
    posts_max: usize,
    /// How many messages of other shards there are, and of how many bytes.
    published: usize,
    bytes: usize,
    /// How many bytes those may have, if they are several.
    bytes_max: usize,
    missed: Missed,
    /// The driver was woken for what is here.
    awake: bool,
    /// The server has ended.
    ended: bool,
}

impl Mailbox {
    /// For so many posts, and messages of so many bytes.
    pub(crate) fn new(posts_max: usize, bytes_max: usize, waker: Waker) -> Self {
        Self { queue: Mutex::new(Queue { posts_max, bytes_max, ..Queue::default() }), waker }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Posts what `seal` makes of `contents`, which come back if there is no room. They are in their box
    /// already: nobody waits for the lock while one is made.
    pub(crate) fn post<T>(
        &self,
        contents: Box<T>,
        seal: impl FnOnce(Box<T>) -> Letter,
    ) -> Result<(), (Box<T>, PostError)> {
        self.waker.check_thread();
        let mut queue = self.queue();
        if queue.ended {
            return Err((contents, PostError::Ended));
        }
        if queue.posts >= queue.posts_max {
            return Err((contents, PostError::Full));
        }
        queue.posts += 1;
        self.push(queue, seal(contents));
        Ok(())
    }

    /// Posts an answer. For each ticket there is room.
    pub(crate) fn post_answer(&self, letter: Letter) -> Result<(), Gone> {
        self.waker.check_thread();
        let queue = self.queue();
        if queue.ended {
            drop(queue);
            // What the answer holds may panic, and that is for its thread.
            return Err(Gone);
        }
        self.push(queue, letter);
        Ok(())
    }

    /// Posts a message of another shard. If there is no room for it, subscribers miss it.
    pub(super) fn publish(&self, published: &Published) {
        self.waker.check_thread();
        let mut queue = self.queue();
        if queue.ended {
            return;
        }
        let bytes = queue.bytes.saturating_add(published.encoded.len());
        if queue.published > 0 && (queue.published >= queue.posts_max || bytes > queue.bytes_max) {
            let topic = (published.service, Arc::clone(&published.topic));
            *queue.missed.entry(topic).or_default() += 1;
            return;
        }
        queue.published += 1;
        queue.bytes = bytes;
        self.push(queue, Letter::Publish(published.clone()));
    }

    /// Whether letters wait in it.
    pub(super) fn has_letters(&self) -> bool {
        !self.queue().letters.is_empty()
    }

    fn push(&self, mut queue: MutexGuard<'_, Queue>, letter: Letter) {
        queue.letters.push_back(letter);
        let wakes = !mem::replace(&mut queue.awake, true);
        // A thread that is woken finds the queue free.
        drop(queue);
        if wakes {
            self.waker.wake();
        }
    }

    /// Moves letters to `taken`, which is empty: the oldest first. Returns whether more are left, and
    /// what was missed.
    fn take(&self, taken: &mut VecDeque<Letter>) -> (bool, Missed) {
        let mut queue = self.queue();
        let missed = mem::take(&mut queue.missed);
        if queue.letters.len() <= LETTERS_PER_TURN {
            // In one piece, so that nobody waits for the lock.
            mem::swap(&mut queue.letters, taken);
            (queue.posts, queue.published, queue.bytes, queue.awake) = (0, 0, 0, false);
            return (false, missed);
        }
        taken.extend(queue.letters.drain(..LETTERS_PER_TURN));
        for letter in &*taken {
            match letter {
                Letter::Post { .. } => queue.posts -= 1,
                Letter::Publish(Published { encoded, .. }) => {
                    queue.published -= 1;
                    queue.bytes -= encoded.len();
                }
                Letter::Answer(_) | Letter::Resolved { .. } => {}
            }
        }
        (true, missed)
    }
}

/// The shard's side of its [`Mailbox`].
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) mailbox: Arc<Mailbox>,
    /// Letters that were taken and not read.
    taken: VecDeque<Letter>,
    /// More are in the mailbox.
    more: bool,
    missed: Missed,
}

impl Mail {
    pub(crate) fn new(mailbox: Mailbox) -> Self {
        Self {
            mailbox: Arc::new(mailbox),
            taken: VecDeque::new(),
            more: false,
            missed: Missed::new(),
        }
    }

    /// Whether letters were left for the next turn, for which nobody wakes the driver.
    pub(super) fn is_left(&self) -> bool {
        self.more || !self.taken.is_empty()
    }

    /// Takes letters out of the mailbox if all that were taken before are read. If not, there may be
    /// more in it: the wake-up for those is used up.
    fn fetch(&mut self) {
        if self.taken.is_empty() {
            (self.more, self.missed) = self.mailbox.take(&mut self.taken);
        } else {
            self.more = true;
        }
    }

    pub(super) fn set_max(&self, posts_max: usize, bytes_max: usize) {
        let mut queue = self.mailbox.queue();
        (queue.posts_max, queue.bytes_max) = (posts_max, bytes_max);
    }
}

impl Drop for Mail {
    /// The server ends. What was posted and not read is thrown away.
    fn drop(&mut self) {
        let mut queue = self.mailbox.queue();
        queue.ended = true;
        let unread = mem::take(&mut queue.letters);
        // What a letter holds may post as it is dropped.
        drop(queue);
        for letter in mem::take(&mut self.taken).into_iter().chain(unread) {
            discard(letter);
        }
    }
}

/// Drops what a user gave us, whose code may panic. Returns what it panicked with.
pub(crate) fn discard<T>(given: T) -> Option<Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(|| drop(given))).err()
}

impl<S> Shard<S> {
    /// Reads the mail, up to a bound. It has a bound of its own on replies, so that clients whose
    /// replies fill a turn do not keep it waiting.
    pub(super) fn read_mail(&mut self) {
        self.core.mail.fetch();
        let before = self.core.collected;
        while self.core.collected < before.saturating_add(COLLECTED_MAX)
            && let Some(letter) = self.core.mail.taken.pop_front()
        {
            let Self { core, table, services, .. } = self;
            match letter {
                Letter::Post { service, errand } => {
                    if let Some(typed) = services.get_mut(service as usize) {
                        errand.run(typed.handler(), core, table, service);
                    }
                }
                Letter::Answer(answered) => self.answer(answered),
                Letter::Resolved { host, found } => self.resolved(host, found),
                Letter::Publish(published) => self.published(published),
            }
        }
        if !self.core.mail.missed.is_empty() {
            let missed = mem::take(&mut self.core.mail.missed);
            self.missed(missed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        any::Any,
        collections::VecDeque,
        sync::{
            Arc,
            atomic::{AtomicUsize, Ordering::Relaxed},
        },
    };

    use super::{Errand, LETTERS_PER_TURN, Letter, Mail, Mailbox};
    use crate::{
        driver::Waker,
        engine::{core::Core, slot::ServiceId, table::Table},
        error::PostError,
    };

    struct Nothing;

    impl Errand for Nothing {
        fn run(self: Box<Self>, _: &mut dyn Any, _: &mut Core, _: &mut Table, _: ServiceId) {}
    }

    fn post(mailbox: &Mailbox) -> Result<(), PostError> {
        let seal = |errand: Box<Nothing>| Letter::Post { service: 0, errand };
        mailbox.post(Box::new(Nothing), seal).map_err(|(_, error)| error)
    }

    #[test]
    fn what_is_posted_while_letters_are_left_is_not_forgotten() {
        let mut mail = Mail::new(Mailbox::new(10, 10, Waker::new(|| {})));
        let mailbox = Arc::clone(&mail.mailbox);
        assert_eq!((post(&mailbox), post(&mailbox)), (Ok(()), Ok(())));
        mail.fetch();
        // The turn is over after the first of them, and then another one wakes the driver.
        mail.taken.pop_front();
        assert_eq!(post(&mailbox), Ok(()));
        mail.fetch();
        mail.taken.pop_front();
        assert!(mail.taken.is_empty() && mail.is_left(), "nobody wakes the driver again");
        mail.fetch();
        assert_eq!((mail.taken.len(), mail.more), (1, false));
    }

    #[test]
    fn many_letters_are_one_wake_up_and_none_is_without() {
        let wakes = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&wakes);
        let waker = Waker::new(move || _ = count.fetch_add(1, Relaxed));
        let mail = Mail::new(Mailbox::new(LETTERS_PER_TURN + 2, 10, waker));
        let mailbox = Arc::clone(&mail.mailbox);
        let mut taken = VecDeque::new();
        for _ in 0..LETTERS_PER_TURN + 2 {
            assert_eq!(post(&mailbox), Ok(()));
        }
        assert_eq!(post(&mailbox), Err(PostError::Full));
        assert_eq!(wakes.load(Relaxed), 1);
        assert!(mailbox.take(&mut taken).0, "two are left, and the shard knows it");
        assert_eq!(post(&mailbox), Ok(()));
        assert_eq!(wakes.load(Relaxed), 1, "the shard comes again by itself");
        taken.clear();
        assert!(!mailbox.take(&mut taken).0);
        assert_eq!(taken.len(), 3);
        assert_eq!(post(&mailbox), Ok(()));
        assert_eq!(wakes.load(Relaxed), 2, "what comes behind the taking wakes it again");
        drop(mail);
        assert_eq!(post(&mailbox), Err(PostError::Ended));
    }
}
