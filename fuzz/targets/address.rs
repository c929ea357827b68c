//! Whatever is taken for an address prints as one that means the same.
#![no_main]

use libfuzzer_sys::fuzz_target;
use nonforker::Address;

fuzz_target!(|text: &str| {
    match text.parse::<Address>() {
        Ok(address) => assert_eq!(address.to_string().parse(), Ok(address)),
        Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
    }
});
