//! See `bodies/scenarios.rs`.
#![no_main]

#[path = "../bodies/scenarios.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input| body::run(input));
