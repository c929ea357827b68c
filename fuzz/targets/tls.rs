//! See `bodies/tls.rs`.
#![no_main]

#[path = "../bodies/tls.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input| body::run(input));
