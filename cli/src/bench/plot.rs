//! The latencies by percentile, as SVG: both axes logarithmic, so that the tail has room.

use std::fmt::Write;

use nonforker_load::{Histogram, human};

/// Of the picture, in pixels.
const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Points of the curve.
const POINTS: u32 = 300;

/// What is written below: each is a tenth of what remains.
const MARKS: [&str; 7] = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];

/// The curve of these latencies, under this title.
pub(crate) fn svg(title: &str, latencies: &Histogram<u64>) -> String {
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>\n",
        escape(title)
    );
    if latencies.is_empty() {
        return text + &format!("<text x=\"{LEFT}\" y=\"60\">there are none</text>\n</svg>\n");
    }
    let axes = Axes::new(latencies);
    axes.draw(&mut text);
    let points: Vec<String> = (0..=POINTS)
        .map(|nth| {
            let nines = axes.nines * f64::from(nth) / f64::from(POINTS);
            let at = latencies.value_at_quantile(1.0 - 10f64.powf(-nines));
            format!("{:.1},{:.1}", axes.x(nines), axes.y(at.max(1) as f64))
        })
        .collect();
    let points = points.join(" ");
    text + &format!(
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"#06c\" stroke-width=\"2\"/>\n</svg>\n"
    )
}

/// From values to places.
struct Axes {
    /// To the right: how many nines, 2 for 99 %.
    nines: f64,
    /// Upwards: powers of ten, in nanoseconds.
    low: i32,
    high: i32,
}

impl Axes {
    fn new(latencies: &Histogram<u64>) -> Self {
        let power = |nanos: u64| (nanos.max(1) as f64).log10();
        let low = power(latencies.min()).floor();
        let high = power(latencies.max()).ceil().max(low + 1.0);
        let nines = power(latencies.len()).floor().clamp(1.0, (MARKS.len() - 1) as f64);
        Self { nines, low: small(low), high: small(high) }
    }

    fn x(&self, nines: f64) -> f64 {
        LEFT + nines / self.nines * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, nanos: f64) -> f64 {
        let share = (nanos.log10() - f64::from(self.low)) / f64::from(self.high - self.low);
        HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)
    }

    fn draw(&self, text: &mut String) {
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        // Writing to a String cannot fail.
        for power in self.low..=self.high {
            let label = human(10u64.pow(power.unsigned_abs())).replace(".00", "").replace(".0", "");
            let y = self.y(10f64.powi(power));
            let _ = writeln!(
                text,
                "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 8.0,
                y + 4.0,
            );
        }
        for (nines, label) in (0..=small(self.nines)).zip(MARKS) {
            let x = self.x(f64::from(nines));
            let _ = writeln!(
                text,
                "<path d=\"M{x:.1} {TOP}V{bottom}\" stroke=\"#ddd\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{label}</text>",
                bottom + 20.0,
            );
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "powers of ten of a u64: at most 20")]
fn small(value: f64) -> i32 {
    value as i32
}

/// Text that may stand between tags.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_latencies_are_a_picture_too() {
        let text = svg("idle", &Histogram::new(3).unwrap());
        assert!(text.contains("there are none") && text.ends_with("</svg>\n"), "{text}");
    }

    #[test]
    fn the_curve_stays_within_the_picture_and_rises() {
        let mut latencies = Histogram::new(3).unwrap();
        for nanos in 1..=10_000_u64 {
            latencies.record(nanos * nanos).unwrap();
        }
        let text = svg("a <b> & c", &latencies);
        assert!(text.contains("a &lt;b&gt; &amp; c"), "{text}");
        assert!(text.contains("99.99 %") && !text.contains("99.999 %"), "{text}");
        let points = text.split("points=\"").nth(1).and_then(|rest| rest.split('"').next());
        let mut last = HEIGHT;
        for point in points.unwrap().split(' ') {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((LEFT..=WIDTH - RIGHT).contains(&x), "{point}");
            assert!((TOP - 1.0..=last).contains(&y), "{point} after {last}");
            last = y;
        }
    }
}
