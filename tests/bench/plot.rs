//! Line plots as SVG, both axes logarithmic.

use crate::report::short;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 58.0;
/// Told apart without colour vision too (Okabe and Ito), and by their marks.
const COLOURS: [&str; 7] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000",
];

/// A line with its name.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// What a plot shows.
#[derive(Debug)]
pub(crate) struct Plot<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) lines: &'a [Line],
}

/// A logarithmic axis between two powers of ten, or tighter if all lies between.
#[derive(Debug, Clone, Copy)]
struct Axis {
    from: f64,
    to: f64,
    at: f64,
    length: f64,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone, at: f64, length: f64) -> Self {
        let least = values.clone().fold(f64::INFINITY, f64::min);
        let most = values.fold(0.0, f64::max);
        let (least, most) = if most > 0.0 {
            (least, most)
        } else {
            (1.0, 10.0)
        };
        let mut axis = Self {
            from: below(least),
            to: above(most),
            at,
            length,
        };
        if axis.from >= axis.to {
            axis.to = axis.from * 10.0;
        }
        axis
    }

    fn place(&self, value: f64) -> f64 {
        self.at + (value / self.from).log10() / (self.to / self.from).log10() * self.length
    }

    /// Lines of the grid: 1, 2 and 5 of each power of ten, less on a long axis, more on a short one.
    fn ticks(&self) -> Vec<f64> {
        let powers = (self.to / self.from).log10();
        let steps: &[f64] = match powers {
            _ if powers > 4.0 => &[1.0],
            _ if powers > 0.6 => &[1.0, 2.0, 5.0],
            _ => &[
                1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0,
            ],
        };
        let mut ticks = Vec::new();
        let mut power = 10f64.powf(self.from.log10().floor());
        while power <= self.to * 1.001 {
            let of_power = steps.iter().map(|step| step * power);
            ticks.extend(
                of_power.filter(|tick| *tick >= self.from * 0.999 && *tick <= self.to * 1.001),
            );
            power *= 10.0;
        }
        ticks
    }
}

/// The next of 1, 2 and 5 times a power of ten, downwards.
fn below(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let step = [5.0, 2.0, 1.0]
        .into_iter()
        .find(|step| step * power <= value * 1.000_001);
    step.unwrap_or(1.0) * power
}

fn above(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    let step = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|step| step * power >= value * 0.999_999);
    step.unwrap_or(10.0) * power
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

impl Plot<'_> {
    /// The picture.
    pub(crate) fn svg(&self) -> String {
        // A logarithm has no place for zero: such points are left out.
        let points = || {
            let all = self.lines.iter().flat_map(|line| &line.points);
            all.filter(|(x, y)| *x > 0.0 && *y > 0.0)
        };
        let x = Axis::of(points().map(|point| point.0), LEFT, WIDTH - LEFT - RIGHT);
        let y = Axis::of(
            points().map(|point| point.1),
            HEIGHT - BOTTOM,
            TOP + BOTTOM - HEIGHT,
        );
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"13\" fill=\"#222\" role=\"img\">\n\
             <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n",
            title = escaped(self.title)
        );
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for tick in x.ticks() {
            let at = x.place(tick);
            line(&mut svg, (at, TOP), (at, bottom));
            text(&mut svg, (at, bottom + 18.0), "middle", &short(tick));
        }
        for tick in y.ticks() {
            let at = y.place(tick);
            line(&mut svg, (LEFT, at), (right, at));
            text(&mut svg, (LEFT - 8.0, at + 4.0), "end", &short(tick));
        }
        text(
            &mut svg,
            (f64::midpoint(LEFT, right), HEIGHT - 16.0),
            "middle",
            &escaped(self.x),
        );
        let middle = f64::midpoint(TOP, bottom);
        svg += &format!(
            "<text transform=\"translate(18 {middle}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
            escaped(self.y)
        );
        for (number, line) in self.lines.iter().enumerate() {
            curve(&mut svg, line, (x, y), number);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64)) {
    *svg += &format!(
        "<line x1=\"{:.1}\" y1=\"{:.1}\" x2=\"{:.1}\" y2=\"{:.1}\" stroke=\"#ddd\"/>\n",
        from.0, from.1, to.0, to.1
    );
}

fn text(svg: &mut String, at: (f64, f64), anchor: &str, text: &str) {
    *svg += &format!(
        "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{text}</text>\n",
        at.0, at.1
    );
}

/// A line, its points, and its name on the right.
fn curve(svg: &mut String, line: &Line, axes: (Axis, Axis), number: usize) {
    let colour = COLOURS[number % COLOURS.len()];
    let seen = line.points.iter().filter(|(x, y)| *x > 0.0 && *y > 0.0);
    let places: Vec<_> = seen
        .map(|(x, y)| (axes.0.place(*x), axes.1.place(*y)))
        .collect();
    let joined: Vec<_> = places
        .iter()
        .map(|(x, y)| format!("{x:.1},{y:.1}"))
        .collect();
    *svg += &format!(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n",
        joined.join(" ")
    );
    let key = (WIDTH - RIGHT + 22.0, TOP + 12.0 + 22.0 * number as f64);
    for (x, y) in places.into_iter().chain([key]) {
        let mark = match number % 3 {
            0 => format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"/>\n"),
            1 => format!(
                "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"8\" height=\"8\" fill=\"{colour}\"/>\n",
                x - 4.0,
                y - 4.0
            ),
            _ => format!(
                "<path d=\"M{:.1} {:.1}l10 0l-5 -9z\" fill=\"{colour}\"/>\n",
                x - 5.0,
                y + 4.0
            ),
        };
        svg.push_str(&mark);
    }
    text(
        svg,
        (key.0 + 12.0, key.1 + 4.0),
        "start",
        &escaped(&line.name),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Goal: a plot shows each point where it belongs, and none outside. Method: two lines over
    /// five powers of ten, one with a zero; the coordinates are read back.
    #[test]
    fn each_point_is_within_the_frame_and_a_zero_is_left_out() {
        let points = vec![(10.0, 0.15), (100.0, 3.0), (100_000.0, 800.0)];
        let lines = [
            Line {
                name: "a & b".to_owned(),
                points,
            },
            Line {
                name: "c".to_owned(),
                points: vec![(10.0, 0.0), (1000.0, 1.0)],
            },
        ];
        let plot = Plot {
            title: "t",
            x: "clients",
            y: "µs",
            lines: &lines,
        };
        let svg = plot.svg();
        assert!(svg.contains("a &amp; b") && !svg.contains("NaN") && !svg.contains("inf"));
        let curves: Vec<_> = svg.split("points=\"").skip(1).collect();
        let counts: Vec<_> = curves
            .iter()
            .map(|curve| {
                curve
                    .split('"')
                    .next()
                    .unwrap_or_default()
                    .split(' ')
                    .count()
            })
            .collect();
        assert_eq!(counts, [3, 1]);
        for point in curves[0].split('"').next().unwrap_or_default().split(' ') {
            let (x, y) = point.split_once(',').expect("two numbers");
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!(
                (LEFT..=WIDTH - RIGHT).contains(&x) && (TOP..=HEIGHT - BOTTOM).contains(&y),
                "{point}"
            );
        }
    }
}
