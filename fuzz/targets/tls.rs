//! See `bodies/tls.rs`.
#![no_main]

use std::panic;

#[path = "../bodies/tls.rs"]
mod body;

/// A panic inside of the library is the end of that connection, on either side, and nothing else: it has been
/// seen to assert, where a record that is broken came behind its own close_notify.
fn let_the_library_panic() {
    let abort = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if !panic.location().is_some_and(|at| at.file().contains("/rustls-0.")) {
            abort(panic);
        }
    }));
}

libfuzzer_sys::fuzz_target!(init: let_the_library_panic(), |input: body::Input| body::run(input));
