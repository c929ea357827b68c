//! Sizes as people write them, for the log.

use std::fmt;

/// A number of bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size(pub(super) usize);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: usize = 1 << 10;
        for (unit, name) in [(KIB * KIB * KIB, "GiB"), (KIB * KIB, "MiB")] {
            if self.0 >= unit {
                let (whole, tenths) = (self.0 / unit, self.0 % unit / KIB * 10 / (unit / KIB));
                return match tenths {
                    0 => write!(f, "{whole} {name}"),
                    _ => write!(f, "{whole}.{tenths} {name}"),
                };
            }
        }
        if self.0 >= KIB {
            write!(f, "{} KiB", self.0 / KIB)
        } else {
            write!(f, "{} bytes", self.0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Size;

    #[test]
    fn sizes_are_short_and_not_larger_than_they_are() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1024, "1 KiB"),
            (943_717, "921 KiB"),
            (1 << 20, "1 MiB"),
            (3 << 19, "1.5 MiB"),
            ((1 << 30) - 1, "1023.9 MiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text);
        }
    }
}
