//! Times in words.

/// Nanoseconds with the unit that suits them: `"999 ns"`, `"1.5 µs"`, `"2.50 ms"`, `"3.00 s"`.
///
/// ```
/// assert_eq!(nonforker_load::human(2_500_000), "2.50 ms");
/// ```
#[must_use]
pub fn human(nanos: u64) -> String {
    match nanos as f64 {
        value if value < 1e3 => format!("{value} ns"),
        value if value < 1e6 => format!("{:.1} µs", value / 1e3),
        value if value < 1e9 => format!("{:.2} ms", value / 1e6),
        value => format!("{:.2} s", value / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_the_unit_that_suits() {
        let texts = [999, 1500, 2_500_000, 3_000_000_000].map(human);
        assert_eq!(texts, ["999 ns", "1.5 µs", "2.50 ms", "3.00 s"]);
    }
}
