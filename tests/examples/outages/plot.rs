//! The plot: latency and hit rate over time, as an SVG.

use std::fmt::Write as _;

use crate::figures::Bucket;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
/// Where the panels begin and end.
const LATENCY: (f64, f64) = (56.0, 300.0);
const HITS: (f64, f64) = (336.0, 456.0);
const HEIGHT: f64 = 500.0;
/// Milliseconds at the bottom and at the top of the scale, which is logarithmic.
const SCALE: (f64, f64) = (0.5, 1000.0);

/// A time in which something is wrong.
pub(crate) struct Span {
    pub(crate) name: &'static str,
    /// In seconds.
    pub(crate) begin: f64,
    pub(crate) end: f64,
}

pub(crate) fn svg(title: &str, buckets: &[Bucket], spans: &[Span], lasts: f64) -> String {
    let x = |seconds: f64| LEFT + seconds / lasts * (WIDTH - LEFT - RIGHT);
    let y = |ms: f64| {
        let share = (ms.clamp(SCALE.0, SCALE.1) / SCALE.0).log10() / (SCALE.1 / SCALE.0).log10();
        LATENCY.1 - share * (LATENCY.1 - LATENCY.0)
    };
    let hits = |share: f64| HITS.1 - share * (HITS.1 - HITS.0);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <title>{title}</title>\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    for Span { name, begin, end } in spans {
        let (from, to) = (x(*begin), x(*end));
        let width = (to - from).max(2.0);
        let height = HITS.1 - LATENCY.0;
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{height}\" fill=\"#f3d9d3\"/>\n\
             <text x=\"{from:.1}\" y=\"{}\" fill=\"#8a2b14\">{name}</text>",
            LATENCY.0,
            LATENCY.0 - 6.0,
        );
    }
    grid(&mut out, lasts, &x, &y, &hits);
    for (values, colour) in [
        (
            buckets.iter().map(|b| (b.at, b.max)).collect::<Vec<_>>(),
            "#c9b26b",
        ),
        (buckets.iter().map(|b| (b.at, b.p99)).collect(), "#d1701f"),
        (buckets.iter().map(|b| (b.at, b.p50)).collect(), "#1f5f8b"),
    ] {
        line(
            &mut out,
            values.into_iter().map(|(at, ms)| (x(at), y(ms))),
            colour,
        );
    }
    let rates = buckets
        .iter()
        .filter_map(|b| Some((x(b.at), hits(b.hit_rate?))));
    line(&mut out, rates, "#2f7d4f");
    for bucket in buckets.iter().filter(|bucket| bucket.errors > 0) {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" fill=\"#c00\" text-anchor=\"middle\">✗</text>",
            x(bucket.at),
            LATENCY.0 + 12.0,
        );
    }
    out.push_str("</svg>\n");
    out
}

fn grid(
    out: &mut String,
    lasts: f64,
    x: &impl Fn(f64) -> f64,
    y: &impl Fn(f64) -> f64,
    hits: &impl Fn(f64) -> f64,
) {
    let right = WIDTH - RIGHT;
    let mut rule = |at: f64, label: String, colour: &str| {
        let _ = writeln!(
            out,
            "<path d=\"M{LEFT} {at:.1}H{right}\" stroke=\"{colour}\" stroke-width=\"0.5\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
            LEFT - 6.0,
            at + 4.0,
        );
    };
    for ms in [1.0, 10.0, 100.0, 1000.0] {
        rule(
            y(ms),
            format!("{ms} ms"),
            if ms == 100.0 { "#000" } else { "#bbb" },
        );
    }
    for percent in [0.0, 50.0, 100.0] {
        rule(hits(percent / 100.0), format!("{percent} %"), "#bbb");
    }
    let mut seconds = 0.0;
    while seconds <= lasts {
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{seconds} s</text>",
            x(seconds),
            HITS.1 + 18.0,
        );
        seconds += 10.0;
    }
    let legend = [
        (LATENCY.0 - 26.0, LEFT, "#000", "latency of a request:"),
        (LATENCY.0 - 26.0, LEFT + 130.0, "#1f5f8b", "p50"),
        (LATENCY.0 - 26.0, LEFT + 162.0, "#d1701f", "p99"),
        (LATENCY.0 - 26.0, LEFT + 194.0, "#a58c3f", "max"),
        (LATENCY.0 - 26.0, LEFT + 228.0, "#c00", "✗ errors"),
        (HITS.0 - 8.0, LEFT, "#2f7d4f", "hits among reads"),
    ];
    for (y, x, colour, text) in legend {
        let _ = writeln!(
            out,
            "<text x=\"{x}\" y=\"{y}\" fill=\"{colour}\">{text}</text>"
        );
    }
}

fn line(out: &mut String, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
    let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let points = points.join(" ");
    let _ = writeln!(
        out,
        "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>"
    );
}
