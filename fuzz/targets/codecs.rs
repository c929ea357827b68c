//! See `bodies/codecs.rs`.
#![no_main]

#[path = "../bodies/codecs.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input<'_>| body::run(input));
