//! See `bodies/resp.rs`.
#![no_main]

#[path = "../bodies/resp.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input<'_>| body::run(input));
