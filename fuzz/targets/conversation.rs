//! See `bodies/conversation.rs`.
#![no_main]

#[path = "../bodies/conversation.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input| body::run(input));
