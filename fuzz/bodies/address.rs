//! Whatever is taken for an address prints as one that means the same.

use nonforker::Address;

/// Any text.
pub type Input<'a> = &'a str;

/// Parses it, and what it prints as.
pub fn run(text: Input<'_>) {
    match text.parse::<Address>() {
        Ok(address) => assert_eq!(address.to_string().parse(), Ok(address)),
        Err(error) => assert!(!error.to_string().contains('\n'), "one line: {error}"),
    }
}
