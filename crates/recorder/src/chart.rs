//! The chart of a recording: replicas with the decisions, CPU and latency over one time axis.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    coord::{Shift, types::RangedCoordf64},
    prelude::*,
};

use crate::{
    analysis::{desired, probes},
    computation::Decision,
    record::{ObservationKind, Record, State},
    report::Report,
};

const WIDTH: i32 = 960;
/// The only size of text, in pixels: it can still be read when the chart is shown at half its size.
const TEXT: i32 = 20;
/// The same size in the unit of plotters.
const FONT: (&str, f64) = ("sans-serif", 1.24 * TEXT as f64);
/// An estimate, since the font depends on the viewer.
const LETTER: i32 = 11;
const LINE: i32 = 28;
/// The width of the labels beside the plots, and the margin on the other side.
const LEFT: i32 = 84;
const RIGHT: i32 = 16;
/// The height of a legend above a plot.
const LEGEND: i32 = 2 * LINE;
/// The heights of a swatch in a legend, for a line and for anything else.
const THIN: i32 = 3;
const THICK: i32 = 14;
/// The most rows of labels above one another; further decisions have a mark only.
const MAX_ROWS: i32 = 8;
/// Samples of CPU that are further apart than this leave a gap: metrics-server measures every 15 s.
const LONGEST_SAMPLE: f64 = 20.0;
/// Responses that are further apart than this leave a gap: there is one request a second.
const LONGEST_PAUSE: f64 = 5.0;

/// Legible on a white and on a dark background, since the chart has none of its own; people with
/// any colour vision tell the blue from the orange.
const GREY: RGBColor = RGBColor(115, 123, 134);
const BLUE: RGBColor = RGBColor(31, 136, 229);
const ORANGE: RGBColor = RGBColor(230, 126, 34);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
/// Points with a time and a value; between two lines nothing was observed.
type Lines = Vec<Vec<(f64, f64)>>;

/// An SVG without a background.
///
/// # Errors
/// If it cannot be drawn.
pub fn draw(report: &Report) -> Result<String> {
    let chart = Chart::new(report.record, marks(&report.decisions));
    let rows = chart.marks.iter().filter_map(|mark| mark.row);
    let row_count = rows.max().map_or(0, |row| row + 1);
    // The title, the legend of the replicas and the labels of the traffic come first.
    let head = 3 * LINE + row_count * LINE + 8;
    let cpu = head + 230;
    let latency = cpu + LEGEND + 150;
    let height = latency + LEGEND + 130 + 2 * LINE + 8;
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        let areas = root.split_by_breakpoints([] as [i32; 0], [cpu, latency]);
        let [replicas, cpu, latency] = &areas[..] else {
            unreachable!("three areas")
        };
        let title = format!("Scaling of {}", report.deployment);
        text(&root, &title, (LEFT, 4))?;
        let plot = chart.replicas(replicas, head)?;
        chart.label(&root, &plot)?;
        chart.cpu(cpu)?;
        chart.latency(latency)?;
        root.present()?;
    }
    Ok(svg)
}

/// A decision in the chart: its time, the replicas after it, and its reason in a word.
struct Mark {
    at: f64,
    replicas: u32,
    label: String,
    /// The row of its label above the plot, from below; none if there are too many.
    row: Option<i32>,
}

fn marks(decisions: &[Decision]) -> Vec<Mark> {
    let mut marks = Vec::new();
    let mut last = None;
    for decision in decisions {
        let Decision { from, to, .. } = decision;
        let reason = decision.constraints.last().map_or("", |one| one.label());
        let change = if from == to {
            // Nothing new: no change, for the same reason as the decision before.
            if last == Some(reason) {
                continue;
            }
            to.to_string()
        } else {
            format!("{from}→{to}")
        };
        last = Some(reason);
        marks.push(Mark {
            at: decision.at,
            replicas: *to,
            label: format!("{change} {reason}").trim_end().into(),
            row: None,
        });
    }
    marks
}

struct Chart<'a> {
    record: &'a Record,
    /// The axis, in seconds since the start of the traffic.
    time: Range<f64>,
    /// When the last observation was made.
    end: f64,
    marks: Vec<Mark>,
}

impl<'a> Chart<'a> {
    fn new(record: &'a Record, marks: Vec<Mark>) -> Self {
        let start = -record.time_origin();
        let end = (record.end() + start).max(1.0 + start);
        // The axis is long enough for the labels of the last marks.
        let with_room = |mark: &Mark| {
            let room = (WIDTH - RIGHT - LEFT - text_width(&mark.label)).max(WIDTH / 4);
            start + (mark.at - start) * f64::from(WIDTH - RIGHT - LEFT) / f64::from(room)
        };
        let mut chart = Self {
            record,
            time: start..marks.iter().map(with_room).fold(end, f64::max),
            end,
            marks,
        };
        chart.place_labels();
        chart
    }

    /// The pixel of a time.
    fn x(&self, seconds: f64) -> i32 {
        let share = (seconds - self.time.start) / (self.time.end - self.time.start);
        LEFT + (share * f64::from(WIDTH - RIGHT - LEFT)) as i32
    }

    /// A label starts at the line of its mark, so that a line crosses no label if those that come
    /// later are further below.
    fn place_labels(&mut self) {
        for index in (0..self.marks.len()).rev() {
            let Mark { at, label, .. } = &self.marks[index];
            let end = self.x(*at) + text_width(label) + 12;
            let later = self.marks[index + 1..].iter();
            let covered = later.filter(|mark| self.x(mark.at) < end);
            let highest = covered.filter_map(|mark| mark.row).max();
            let row = highest.map_or(0, |row| row + 1);
            self.marks[index].row = (row < MAX_ROWS).then_some(row);
        }
    }

    fn replicas<'b>(&self, area: &Area<'b>, head: i32) -> Result<Plot<'b>> {
        let legend = [
            ("desired", ORANGE.mix(1.0), THIN),
            ("ready", BLUE.mix(0.65), THICK),
            ("not ready yet", BLUE.mix(0.3), THICK),
            ("minimum, maximum", GREY.mix(1.0), THIN),
        ];
        draw_legend(area, LINE + 6, "Replicas:", &legend)?;
        let existing = self.steps(|state| Some(state.deployment.as_ref()?.existing));
        let ready = self.steps(|state| Some(state.deployment.as_ref()?.ready));
        let min = self.steps(|state| Some(state.autoscaler()?.rules.min));
        let max = self.steps(|state| Some(state.autoscaler()?.rules.max));
        let desired = self.steps(desired);
        let most = most(&[&desired, &existing, &max]) * 1.04;
        let mut plot = self.plot(area, head, 0.0..most, 5, None, &|count| {
            format!("{count:.0}")
        })?;
        for (lines, color) in [(existing, BLUE.mix(0.3)), (ready, BLUE.mix(0.5))] {
            for line in lines {
                plot.draw_series(AreaSeries::new(line, 0.0, color))?;
            }
        }
        draw_lines(&mut plot, min, GREY.stroke_width(1))?;
        draw_lines(&mut plot, max, GREY.stroke_width(1))?;
        draw_lines(&mut plot, desired, ORANGE.stroke_width(3))?;
        Ok(plot)
    }

    /// Labels each load where it starts, or as far to the right as it fits. Marks each decision,
    /// and labels it above the plot.
    fn label(&self, root: &Area, plot: &Plot) -> Result<()> {
        for load in self.record.traffic() {
            let x = self
                .x(load.start_seconds)
                .min(WIDTH - text_width(load.label));
            text(root, load.label, (x, 2 * LINE + 6))?;
        }
        let (_, heights) = plot.plotting_area().get_pixel_range();
        for mark in &self.marks {
            let (x, y) = plot.backend_coord(&(mark.at, f64::from(mark.replicas)));
            root.draw(&Circle::new((x, y), 5, ORANGE.filled()))?;
            if let Some(row) = mark.row {
                let label = heights.start - 8 - (row + 1) * LINE;
                root.draw(&PathElement::new([(x, y), (x, label + 4)], ORANGE))?;
                text(root, &mark.label, (x + 5, label))?;
            }
        }
        Ok(())
    }

    fn cpu(&self, area: &Area) -> Result<()> {
        let target = self.steps(State::target_millicores);
        let now = target.last().and_then(|line| line.last());
        let name = now.map_or("target".into(), |(_, target)| {
            format!("target {target:.0}m")
        });
        let legend = [
            ("average", BLUE.mix(1.0), THIN),
            ("lowest to highest", BLUE.mix(0.3), THICK),
            (&name, ORANGE.mix(1.0), THIN),
        ];
        draw_legend(area, LINE - 4, "CPU per pod:", &legend)?;
        let [lowest, average, highest] = self.usage();
        let most = most(&[&highest, &target]) * 1.08;
        let mut plot = self.plot(area, LEGEND, 0.0..most, 4, None, &|cpu| {
            format!("{cpu:.0}m")
        })?;
        for (lowest, mut highest) in lowest.into_iter().zip(highest) {
            highest.extend(lowest.into_iter().rev());
            plot.draw_series([Polygon::new(highest, BLUE.mix(0.3))])?;
        }
        draw_lines(&mut plot, average, BLUE.stroke_width(3))?;
        draw_lines(&mut plot, target, ORANGE.stroke_width(2))
    }

    /// The lowest, the average and the highest CPU of a pod.
    fn usage(&self) -> [Lines; 3] {
        let mut all: [Lines; 3] = Default::default();
        let mut known_until = f64::NEG_INFINITY;
        self.record.for_each(|observation, state| {
            let (ObservationKind::Usage(usage), Some(average)) =
                (&observation.kind, state.millicores_per_pod())
            else {
                return;
            };
            let at = observation.at - self.record.time_origin();
            // A sample is an average over its window, which ends when it was seen at the latest.
            let windows = usage.iter().map(|one| one.window.length.as_secs_f64());
            let window = windows.fold(0.0, f64::max);
            let is_gap = at - known_until > LONGEST_SAMPLE.max(window);
            let start = if is_gap {
                (at - window).max(self.time.start)
            } else {
                known_until
            };
            let lowest = state.millicores().fold(f64::INFINITY, f64::min);
            let highest = state.millicores().fold(0.0, f64::max);
            for (lines, value) in all.iter_mut().zip([lowest, average, highest]) {
                add(lines, is_gap, &[(start, value), (at, value)]);
            }
            known_until = at;
        });
        all
    }

    fn latency(&self, area: &Area) -> Result<()> {
        let legend = [
            ("answered", BLUE.mix(1.0), THIN),
            ("failed", ORANGE.mix(1.0), THICK),
        ];
        draw_legend(area, LINE - 4, "Latency of one request a second:", &legend)?;
        let (mut answered, mut failed) = (Lines::new(), Vec::new());
        let mut answered_at = f64::NEG_INFINITY;
        for (sent, response) in probes(self.record) {
            let at = sent - self.record.time_origin();
            // The axis is logarithmic.
            let point = (at, response.seconds.max(1e-4).log10());
            if response.failed.is_some() {
                failed.push(point);
            } else {
                add(&mut answered, at - answered_at >= LONGEST_PAUSE, &[point]);
                answered_at = at;
            }
        }
        let points = answered.iter().flatten().chain(&failed);
        let powers = points.map(|(_, power)| *power);
        let lowest = powers.clone().fold(-2.0, f64::min).floor();
        let highest = powers.fold(-1.0, f64::max).ceil();
        let labels = (highest - lowest) as usize + 1;
        let axis = match self.record.traffic_span() {
            Some(_) => "seconds since the traffic started",
            None => "seconds since the recording began",
        };
        let format = |power: &f64| decade(*power);
        let mut plot = self.plot(area, LEGEND, lowest..highest, labels, Some(axis), &format)?;
        draw_lines(&mut plot, answered, BLUE.stroke_width(1))?;
        let failed = failed.into_iter();
        plot.draw_series(failed.map(|at| Cross::new(at, 5, ORANGE.stroke_width(2))))?;
        Ok(())
    }

    /// A plot below its head, with its axes and the spans of the traffic. `axis` describes the time
    /// axis, which the lowest one has.
    fn plot<'b>(
        &self,
        area: &Area<'b>,
        head: i32,
        range: Range<f64>,
        labels: usize,
        axis: Option<&str>,
        format: &dyn Fn(&f64) -> String,
    ) -> Result<Plot<'b>> {
        let mut plot = ChartBuilder::on(area)
            .margin_top(head)
            .margin_right(RIGHT)
            .y_label_area_size(LEFT)
            .x_label_area_size(axis.map_or(0, |_| 2 * LINE + 8))
            .build_cartesian_2d(self.time.clone(), range.clone())?;
        plot.draw_series(self.record.traffic().into_iter().map(|load| {
            let end = load.end_seconds.unwrap_or(self.end);
            let corners = [(load.start_seconds, range.start), (end, range.end)];
            Rectangle::new(corners, GREY.mix(0.12).filled())
        }))?;
        let mut mesh = plot.configure_mesh();
        mesh.disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GREY.mix(0.3))
            .axis_style(GREY)
            .label_style(FONT.into_font().color(&GREY))
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .y_labels(labels)
            .y_label_formatter(&format);
        match axis {
            Some(axis) => mesh.x_labels(10).x_desc(axis).draw()?,
            None => mesh.disable_x_axis().draw()?,
        }
        Ok(plot)
    }

    /// Lines that stay where they are until the number changes, with gaps where it was not known.
    fn steps<N: Into<f64>>(&self, number: impl Fn(&State) -> Option<N>) -> Lines {
        let (mut lines, mut last) = (Lines::new(), None);
        let mut step = |at: f64, now: Option<f64>| {
            if now == last {
                return;
            }
            if let (Some(last), Some(line)) = (last, lines.last_mut()) {
                line.push((at, last));
            }
            if let Some(now) = now {
                add(&mut lines, last.is_none(), &[(at, now)]);
            }
            last = now;
        };
        self.record.for_each(|observation, state| {
            let at = observation.at - self.record.time_origin();
            step(at, number(state).map(Into::into));
        });
        step(self.end, None);
        lines
    }
}

/// Adds points to the last line, or after a gap to a new one.
fn add(lines: &mut Lines, is_gap: bool, points: &[(f64, f64)]) {
    match lines.last_mut() {
        Some(line) if !is_gap => line.extend(points),
        _ => lines.push(points.into()),
    }
}

/// The highest value, for the axis.
fn most(all: &[&Lines]) -> f64 {
    let points = all.iter().copied().flatten().flatten();
    points.map(|(_, value)| *value).fold(1.0, f64::max)
}

fn draw_lines(plot: &mut Plot, lines: Lines, style: ShapeStyle) -> Result<()> {
    for line in lines {
        plot.draw_series(LineSeries::new(line, style))?;
    }
    Ok(())
}

/// The names of the series, each beside a swatch with its colour and a height in pixels.
fn draw_legend(area: &Area, y: i32, title: &str, entries: &[(&str, RGBAColor, i32)]) -> Result<()> {
    text(area, title, (LEFT, y))?;
    let mut x = LEFT + text_width(title) + 16;
    for &(name, color, height) in entries {
        let top = y + (TEXT - height) / 2 - 1;
        let corners = [(x, top), (x + 22, top + height)];
        area.draw(&Rectangle::new(corners, color.filled()))?;
        text(area, name, (x + 30, y))?;
        x += 30 + text_width(name) + 20;
    }
    Ok(())
}

fn text(area: &Area, text: &str, at: (i32, i32)) -> Result<()> {
    let style = FONT.into_font().color(&GREY);
    Ok(area.draw(&Text::new(text, at, style))?)
}

fn text_width(text: &str) -> i32 {
    LETTER * text.chars().count() as i32
}

/// A power of ten, in seconds: `1 ms`, `10 s`.
fn decade(power: f64) -> String {
    let seconds = 10f64.powf(power);
    if seconds < 0.9 {
        format!("{} ms", (seconds * 1000.0 * 10.0).round() / 10.0)
    } else {
        format!("{seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::common;

    #[test]
    fn what_was_not_known_is_a_gap() {
        let deployment = |replicas| json!({"deployment": common::deployment(replicas, 1)});
        let record = common::record([
            (0.0, deployment(1)),
            (5.0, deployment(2)),
            (10.0, json!({"deployment_gone": true})),
            (20.0, deployment(3)),
            (30.0, deployment(3)),
        ]);
        let lines = Chart::new(&record, vec![]).steps(desired);
        assert_eq!(
            lines,
            [
                vec![(0.0, 1.0), (5.0, 1.0), (5.0, 2.0), (10.0, 2.0)],
                vec![(20.0, 3.0), (30.0, 3.0)]
            ]
        );
    }
}
