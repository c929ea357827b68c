//! See `bodies/address.rs`.
#![no_main]

#[path = "../bodies/address.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: body::Input<'_>| body::run(input));
