//! What the server warns of while a test runs.

use std::{
    fmt::Debug,
    sync::{Arc, LazyLock, Mutex},
};

use tracing::{
    Dispatch, Event, Metadata, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};

/// How often a warning was given, and how often it was left out.
#[derive(Clone, Copy, Default)]
pub(crate) struct Count {
    pub(crate) given: u64,
    pub(crate) left_out: u64,
}

/// Collects what is said, from information to errors.
#[derive(Clone, Default)]
struct Listener(Arc<Mutex<Vec<Said>>>);

/// Something the server said.
pub(crate) struct Said {
    pub(crate) message: String,
    pub(crate) left_out: u64,
}

#[derive(Default)]
struct Fields {
    message: String,
    left_out: u64,
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            self.message = format!("{value:?}");
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == "left_out" {
            self.left_out = value;
        }
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= tracing::Level::INFO
    }

    fn event(&self, event: &Event<'_>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let Fields { message, left_out } = fields;
        self.0.lock().expect("nothing panics here").push(Said { message, left_out });
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

/// What is said while `during` runs.
pub(crate) fn said(during: impl FnOnce()) -> Vec<Said> {
    // With one listener alone, what another thread says first is taken for what nobody ever wants
    // to hear. So there is always another.
    static ANOTHER: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(Listener::default()));
    LazyLock::force(&ANOTHER);
    let listener = Listener::default();
    tracing::subscriber::with_default(listener.clone(), during);
    std::mem::take(&mut *listener.0.lock().expect("nothing panics here"))
}

/// How much is said about something while `during` runs.
pub(crate) fn warnings(about: &str, during: impl FnOnce()) -> Count {
    let about = said(during).into_iter().filter(|said| said.message.contains(about));
    about.fold(Count::default(), |count, said| Count {
        given: count.given + 1,
        left_out: count.left_out + said.left_out,
    })
}
