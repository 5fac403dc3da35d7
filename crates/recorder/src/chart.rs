//! The chart of a recording: replicas with the decisions, CPU and latency over one time axis.

use std::ops::Range;

use anyhow::Result;
use plotters::{
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};
use serde::Deserialize;

use crate::{
    analysis::probes,
    decisions::Decision,
    record::{ObservationKind, Pod, Record, State},
    rules::Constraint,
};

const WIDTH: i32 = 960;
/// The only size of text, in pixels: it can still be read when the chart is shown at half its size.
const TEXT: i32 = 20;
/// The same size in the unit of plotters.
const FONT: (&str, f64) = ("sans-serif", 1.24 * TEXT as f64);
const LINE: i32 = 28;
/// Where the plots begin and end.
const LEFT: i32 = 84;
const RIGHT: i32 = WIDTH - 128;
/// The heights of the plots.
const REPLICAS: i32 = 230;
const CPU: i32 = 150;
const LATENCY: i32 = 130;
/// The most rows of labels above one another; further decisions have a mark only.
const MAX_ROWS: usize = 8;
/// Samples of CPU that are further apart than this leave a gap: metrics-server measures every 15 s.
const LONGEST_SAMPLE: f64 = 20.0;

/// The background that a chart is drawn for.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Theme {
    #[default]
    Light,
    Dark,
}

struct Colors {
    ground: RGBColor,
    text: RGBColor,
    muted: RGBColor,
    grid: RGBColor,
    traffic: RGBColor,
    desired: RGBColor,
    ready: RGBColor,
    starting: RGBColor,
    target: RGBColor,
    pod: RGBColor,
    average: RGBColor,
}

impl Theme {
    /// Lines of hues that people with any colour vision tell apart (after Okabe and Ito), and text with a contrast of at
    /// least 4.5 to 1.
    fn colors(self) -> Colors {
        match self {
            Self::Light => Colors {
                ground: WHITE,
                text: RGBColor(31, 35, 40),
                muted: RGBColor(89, 99, 110),
                grid: RGBColor(216, 222, 228),
                traffic: RGBColor(255, 246, 221),
                desired: RGBColor(196, 84, 0),
                ready: RGBColor(128, 184, 217),
                starting: RGBColor(213, 230, 241),
                target: RGBColor(196, 84, 0),
                pod: RGBColor(153, 199, 224),
                average: RGBColor(0, 100, 160),
            },
            Self::Dark => Colors {
                ground: RGBColor(13, 17, 23),
                text: RGBColor(230, 237, 243),
                muted: RGBColor(157, 166, 176),
                grid: RGBColor(48, 54, 61),
                traffic: RGBColor(41, 36, 22),
                desired: RGBColor(255, 166, 87),
                ready: RGBColor(31, 94, 143),
                starting: RGBColor(22, 50, 77),
                target: RGBColor(255, 166, 87),
                pod: RGBColor(45, 100, 148),
                average: RGBColor(121, 192, 255),
            },
        }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Plot<'a, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>;

/// An SVG with its own background.
pub fn draw(
    deployment: &str,
    record: &Record,
    decisions: &[Decision],
    theme: Theme,
) -> Result<String> {
    let marks = marks(decisions);
    let panels = Panels::new(record, &marks, theme);
    let rows = panels.rows(&marks);
    let row_count = rows.iter().flatten().max().map_or(0, |row| row + 1) as i32;
    let traffic = 2 * LINE;
    let label = if record.traffic_span().is_some() {
        LINE
    } else {
        0
    };
    let plot = traffic + label + row_count * LINE + 8;
    let cpu = plot + REPLICAS + 2 * LINE;
    let latency = cpu + CPU + 2 * LINE;
    let axis = latency + LATENCY;
    let height = axis + 2 * LINE + 12;
    let mut svg = String::new();
    {
        let root =
            SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32)).into_drawing_area();
        root.fill(&panels.colors.ground)?;
        panels.text(
            &root,
            &format!("Scaling of {deployment}"),
            (LEFT, 6),
            HPos::Left,
            panels.colors.text,
        )?;
        panels.traffic(&root, traffic..axis)?;
        panels.replicas(&root, plot, &marks, &rows)?;
        panels.cpu(&root, cpu)?;
        panels.latency(&root, latency)?;
        panels.time_axis(&root, axis)?;
        root.present()?;
    }
    Ok(svg)
}

/// A decision in the chart: its time, the replicas before and after, and its reason in a word.
struct Mark {
    at: f64,
    replicas: u32,
    label: String,
}

fn marks(decisions: &[Decision]) -> Vec<Mark> {
    let reason = |decision: &Decision| decision.constraints.last().map(reason);
    let mut marks = Vec::new();
    for (index, decision) in decisions.iter().enumerate() {
        let is_hold = decision.from == decision.to;
        let before = index.checked_sub(1).map(|before| &decisions[before]);
        // A hold for the same reason as the decision before shows nothing new.
        if is_hold && before.is_some_and(|before| reason(before) == reason(decision)) {
            continue;
        }
        let change = if is_hold {
            decision.to.to_string()
        } else {
            format!("{}→{}", decision.from, decision.to)
        };
        let label = [Some(change.as_str()), reason(decision)];
        marks.push(Mark {
            at: decision.at,
            replicas: decision.to,
            label: label.into_iter().flatten().collect::<Vec<_>>().join(" "),
        });
    }
    marks
}

fn reason(constraint: &Constraint) -> &'static str {
    match constraint {
        Constraint::Tolerance(_) => "tolerance",
        Constraint::NotReady(_) => "not ready",
        Constraint::Missing(_) => "no metrics",
        Constraint::Counted(_) => "pods counted",
        Constraint::Stabilisation(_) => "window",
        Constraint::Step(_) => "largest step",
        Constraint::Disabled => "disabled",
        Constraint::Maximum(_) => "maximum",
        Constraint::Minimum(_) => "minimum",
    }
}

/// A label of a legend, with its symbol.
enum Swatch {
    Line(RGBColor),
    Area(RGBColor),
    Dot(RGBColor),
    Cross(RGBColor),
}

struct Panels<'a> {
    record: &'a Record,
    colors: Colors,
    /// The axis, in seconds since the start of the traffic.
    time: Range<f64>,
    /// When the last observation was made.
    end: f64,
}

impl<'a> Panels<'a> {
    fn new(record: &'a Record, marks: &[Mark], theme: Theme) -> Self {
        let start = -record.time_origin();
        let end = (record.end() + start).max(1.0 + start);
        // The axis is long enough for the labels of the last marks.
        let with_room = |mark: &Mark| {
            let room = WIDTH - LEFT - text_width(&mark.label) - 16;
            start + (mark.at - start) * f64::from(RIGHT - LEFT) / f64::from(room)
        };
        Self {
            record,
            colors: theme.colors(),
            time: start..marks.iter().map(with_room).fold(end, f64::max),
            end,
        }
    }

    /// The pixel of a time.
    fn x(&self, seconds: f64) -> i32 {
        let share = (seconds - self.time.start) / (self.time.end - self.time.start);
        LEFT + (share * f64::from(RIGHT - LEFT)) as i32
    }

    /// The row above the plot for the label of each mark, from below; none where there are too many. A label starts at
    /// the line of its mark, so that a line crosses no label if those that come later are further below.
    fn rows(&self, marks: &[Mark]) -> Vec<Option<usize>> {
        let mut rows: Vec<Option<usize>> = vec![None; marks.len()];
        for index in (0..marks.len()).rev() {
            let end = self.x(marks[index].at) + text_width(&marks[index].label) + 12;
            let later = marks.iter().zip(&rows).skip(index + 1);
            let covered = later.filter(|(mark, _)| self.x(mark.at) < end);
            let row = covered
                .filter_map(|(_, row)| *row)
                .max()
                .map_or(0, |row| row + 1);
            rows[index] = (row < MAX_ROWS).then_some(row);
        }
        rows
    }

    /// The span of the traffic, shaded and labelled.
    fn traffic(&self, root: &Area, y: Range<i32>) -> Result<()> {
        for run in self.record.traffic_runs() {
            let (start, end) = (self.x(run.start), self.x(run.end.unwrap_or(self.end)));
            let label = run.label;
            root.draw(&Rectangle::new(
                [(start, y.start), (end, y.end)],
                self.colors.traffic.filled(),
            ))?;
            let bracket = [
                (start, y.start + 8),
                (start, y.start),
                (end, y.start),
                (end, y.start + 8),
            ];
            root.draw(&PathElement::new(
                bracket,
                self.colors.muted.stroke_width(2),
            ))?;
            // A label that does not fit begins where the traffic does, or ends where the plot does.
            let left = start.min(RIGHT - text_width(label));
            self.text(
                root,
                label,
                (left + 6, y.start + 4),
                HPos::Left,
                self.colors.text,
            )?;
        }
        Ok(())
    }

    fn replicas(
        &self,
        root: &Area,
        top: i32,
        marks: &[Mark],
        rows: &[Option<usize>],
    ) -> Result<()> {
        let most = self.most(|state| {
            let max = state.autoscaler().map(|one| one.rules.max);
            desired(state).max(existing(state)).max(max).map(f64::from)
        });
        let mut plot = self.plot(root, top, REPLICAS, 0.0..most * 1.04, 5, |count| {
            format!("{count:.0}")
        })?;
        let counts =
            |count: fn(&State) -> Option<u32>| self.steps(move |state| count(state).map(f64::from));
        for (areas, color) in [
            (counts(existing), self.colors.starting),
            (counts(ready), self.colors.ready),
        ] {
            plot.draw_series(areas.into_iter().map(|mut line| {
                // Closed along the axis.
                let ends = line
                    .first()
                    .zip(line.last())
                    .map(|(first, last)| (first.0, last.0));
                line.extend(
                    ends.into_iter()
                        .flat_map(|(first, last)| [(last, 0.0), (first, 0.0)]),
                );
                Polygon::new(line, color.filled())
            }))?;
        }
        for (name, limit) in [
            (
                "max",
                (|state| Some(state.autoscaler()?.rules.max)) as fn(&State) -> Option<u32>,
            ),
            ("min", |state| Some(state.autoscaler()?.rules.min)),
        ] {
            let lines = counts(limit);
            self.label_end(root, &plot, &lines, name, "", self.colors.muted)?;
            for line in lines {
                plot.draw_series(DashedLineSeries::new(
                    line,
                    6,
                    4,
                    self.colors.muted.stroke_width(1),
                ))?;
            }
        }
        for line in counts(desired) {
            plot.draw_series(LineSeries::new(line, self.colors.desired.stroke_width(3)))?;
        }
        for (mark, row) in marks.iter().zip(rows) {
            let (x, y) = plot
                .plotting_area()
                .map_coordinate(&(mark.at, f64::from(mark.replicas)));
            root.draw(&Circle::new((x, y), 5, self.colors.desired.filled()))?;
            if let Some(row) = row {
                let label = top - 8 - (*row as i32 + 1) * LINE;
                root.draw(&PathElement::new(
                    [(x, y), (x, label + 4)],
                    self.colors.desired.stroke_width(1),
                ))?;
                self.text(
                    root,
                    &mark.label,
                    (x + 5, label),
                    HPos::Left,
                    self.colors.text,
                )?;
            }
        }
        let legend = [
            ("desired", Swatch::Line(self.colors.desired)),
            ("ready", Swatch::Area(self.colors.ready)),
            ("not ready yet", Swatch::Area(self.colors.starting)),
        ];
        // Beside the title, since the labels of the decisions are directly above the plot.
        self.legend(root, 6, "Replicas:", WIDTH / 2 - 80, legend)
    }

    fn cpu(&self, root: &Area, top: i32) -> Result<()> {
        let most = self.most(|state| {
            let pods = state.millicores();
            pods.chain(state.target_millicores()).reduce(f64::max)
        });
        let mut plot = self.plot(root, top, CPU, 0.0..most * 1.08, 4, |millicores| {
            format!("{millicores:.0}m")
        })?;
        let mut pods = Vec::new();
        let mut average: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut known_until = f64::NEG_INFINITY;
        self.record.replay(|observation, state| {
            if !matches!(observation.kind, ObservationKind::Usage(_)) {
                return;
            }
            let at = observation.at - self.record.time_origin();
            pods.extend(state.millicores().map(|millicores| (at, millicores)));
            let Some(millicores) = state.millicores_per_pod() else {
                return;
            };
            // A sample is an average over its window, which ends when it was seen at the latest.
            let window = state
                .usage
                .values()
                .map(|usage| usage.window.length.as_secs_f64())
                .fold(0.0, f64::max);
            let is_gap = at - known_until > LONGEST_SAMPLE.max(window);
            let start = if is_gap {
                (at - window).max(self.time.start)
            } else {
                known_until
            };
            let sample = [(start, millicores), (at, millicores)];
            match average.last_mut() {
                Some(line) if !is_gap => line.extend(sample),
                _ => average.push(sample.to_vec()),
            }
            known_until = at;
        });
        let dots = pods
            .into_iter()
            .map(|dot| Circle::new(dot, 3, self.colors.pod.filled()));
        plot.draw_series(dots)?;
        for line in average {
            plot.draw_series(LineSeries::new(line, self.colors.average.stroke_width(3)))?;
        }
        let target = self.steps(State::target_millicores);
        self.label_end(root, &plot, &target, "target", "m", self.colors.target)?;
        for line in target {
            plot.draw_series(DashedLineSeries::new(
                line,
                8,
                4,
                self.colors.target.stroke_width(2),
            ))?;
        }
        let legend = [
            ("average", Swatch::Line(self.colors.average)),
            ("each pod", Swatch::Dot(self.colors.pod)),
        ];
        self.legend(
            root,
            top - LINE - 4,
            "CPU per pod, millicores:",
            LEFT,
            legend,
        )
    }

    fn latency(&self, root: &Area, top: i32) -> Result<()> {
        let origin = self.record.time_origin();
        let dots: Vec<_> = probes(self.record)
            .map(|(sent, response)| {
                let seconds = response.took.as_secs_f64().max(1e-4);
                (sent - origin, seconds, response.failed.is_some())
            })
            .collect();
        let took = dots.iter().map(|(_, took, _)| *took);
        let lowest = took.clone().fold(0.01, f64::min);
        let highest = took.fold(0.1, f64::max);
        // Whole decades.
        let decades = 10f64.powf(lowest.log10().floor())..10f64.powf(highest.log10().ceil());
        let mut plot = self.plot(root, top, LATENCY, decades.log_scale(), 4, |seconds| {
            decade(*seconds)
        })?;
        let (failed, answered): (Vec<_>, Vec<_>) =
            dots.into_iter().partition(|(_, _, failed)| *failed);
        let answered = answered
            .into_iter()
            .map(|(at, took, _)| Circle::new((at, took), 2, self.colors.average.filled()));
        plot.draw_series(answered)?;
        let failed = failed
            .into_iter()
            .map(|(at, took, _)| Cross::new((at, took), 5, self.colors.target.stroke_width(2)));
        plot.draw_series(failed)?;
        let legend = [
            ("answered", Swatch::Dot(self.colors.average)),
            ("failed", Swatch::Cross(self.colors.target)),
        ];
        self.legend(
            root,
            top - LINE - 4,
            "Latency of one request a second:",
            LEFT,
            legend,
        )
    }

    /// A panel with its axis, above which the rest of the chart is drawn.
    fn plot<'b, Y>(
        &self,
        root: &Area<'b>,
        top: i32,
        height: i32,
        range: Y,
        labels: usize,
        format: fn(&f64) -> String,
    ) -> Result<Plot<'b, Y::CoordDescType>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let area = root
            .clone()
            .margin(top, 0, 0, WIDTH - RIGHT)
            .shrink((0, 0), (RIGHT as u32, height as u32));
        let mut plot = ChartBuilder::on(&area)
            .y_label_area_size(LEFT)
            .build_cartesian_2d(self.time.clone(), range)?;
        plot.configure_mesh()
            .disable_x_mesh()
            .disable_x_axis()
            .light_line_style(TRANSPARENT)
            .bold_line_style(self.colors.grid)
            .axis_style(self.colors.muted)
            .y_labels(labels)
            .y_label_formatter(&format)
            .y_label_style((FONT.0, FONT.1, &self.colors.text))
            .draw()?;
        Ok(plot)
    }

    fn time_axis(&self, root: &Area, top: i32) -> Result<()> {
        let length = self.time.end - self.time.start;
        let (unit, name) = if length > 300.0 {
            (60.0, "minutes")
        } else {
            (1.0, "seconds")
        };
        let step = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0]
            .into_iter()
            .map(|step| step * unit)
            .find(|step| length / step <= 12.0)
            .unwrap_or(length);
        let axis = [(LEFT, top), (RIGHT, top)];
        root.draw(&PathElement::new(axis, self.colors.muted))?;
        let first = (self.time.start / step).ceil() as i32;
        let last = (self.time.end / step).floor() as i32;
        for tick in first..=last {
            let seconds = f64::from(tick) * step;
            let x = self.x(seconds);
            root.draw(&PathElement::new(
                [(x, top), (x, top + 6)],
                self.colors.muted,
            ))?;
            self.text(
                root,
                &format!("{:.0}", seconds / unit),
                (x, top + 8),
                HPos::Center,
                self.colors.text,
            )?;
        }
        let start = match self.record.traffic_span() {
            Some(_) => "the traffic started",
            None => "the recording began",
        };
        let name = format!("{name} since {start}");
        self.text(
            root,
            &name,
            ((LEFT + RIGHT) / 2, top + 8 + LINE),
            HPos::Center,
            self.colors.text,
        )
    }

    /// The name of a line, and its last value, beside the plot.
    fn label_end<Y: Ranged<ValueType = f64>>(
        &self,
        root: &Area,
        plot: &Plot<Y>,
        lines: &[Vec<(f64, f64)>],
        name: &str,
        unit: &str,
        color: RGBColor,
    ) -> Result<()> {
        let Some((at, value)) = lines.last().and_then(|line| line.last()) else {
            return Ok(());
        };
        let (_, y) = plot.plotting_area().map_coordinate(&(*at, *value));
        self.text(
            root,
            &format!("{name} {value:.0}{unit}"),
            (RIGHT + 6, y - TEXT / 2),
            HPos::Left,
            color,
        )
    }

    fn legend<const N: usize>(
        &self,
        root: &Area,
        y: i32,
        title: &str,
        left: i32,
        entries: [(&str, Swatch); N],
    ) -> Result<()> {
        self.text(root, title, (left, y), HPos::Left, self.colors.text)?;
        let mut x = left + text_width(title) + 14;
        let middle = y + TEXT / 2 + 1;
        for (name, swatch) in entries {
            match swatch {
                Swatch::Line(color) => root.draw(&PathElement::new(
                    [(x, middle), (x + 22, middle)],
                    color.stroke_width(3),
                ))?,
                Swatch::Area(color) => root.draw(&Rectangle::new(
                    [(x, middle - 7), (x + 22, middle + 7)],
                    color.filled(),
                ))?,
                Swatch::Dot(color) => {
                    root.draw(&Circle::new((x + 11, middle), 4, color.filled()))?
                }
                Swatch::Cross(color) => {
                    root.draw(&Cross::new((x + 11, middle), 5, color.stroke_width(2)))?
                }
            }
            self.text(root, name, (x + 28, y), HPos::Left, self.colors.text)?;
            x += 28 + text_width(name) + 18;
        }
        Ok(())
    }

    fn text(
        &self,
        root: &Area,
        text: &str,
        at: (i32, i32),
        anchor: HPos,
        color: RGBColor,
    ) -> Result<()> {
        let style = TextStyle::from(FONT.into_font())
            .color(&color)
            .pos(Pos::new(anchor, VPos::Top));
        root.draw(&Text::new(text.to_string(), at, style))?;
        Ok(())
    }

    /// Lines that stay where they are until the number changes, with gaps where it was not known.
    fn steps(&self, number: impl Fn(&State) -> Option<f64>) -> Vec<Vec<(f64, f64)>> {
        let mut lines: Vec<Vec<(f64, f64)>> = Vec::new();
        let mut last: Option<f64> = None;
        self.record.replay(|observation, state| {
            let at = observation.at - self.record.time_origin();
            let now = number(state);
            if now == last {
                return;
            }
            match (last, now, lines.last_mut()) {
                (Some(last), Some(now), Some(line)) => line.extend([(at, last), (at, now)]),
                (Some(last), None, Some(line)) => line.push((at, last)),
                (_, Some(now), _) => lines.push(vec![(at, now)]),
                _ => {}
            }
            last = now;
        });
        if let (Some(last), Some(line)) = (last, lines.last_mut()) {
            line.push((self.end, last));
        }
        lines
    }

    fn most(&self, number: impl Fn(&State) -> Option<f64>) -> f64 {
        let mut most: f64 = 1.0;
        self.record
            .replay(|_, state| most = most.max(number(state).unwrap_or_default()));
        most
    }
}

fn desired(state: &State) -> Option<u32> {
    let deployment = state.deployment.as_ref();
    deployment.map(|one| one.desired).or_else(|| {
        // Where only the autoscaler and the pods were observed.
        let autoscaler = state.autoscaler().filter(|_| !state.pods.is_empty());
        autoscaler.map(|one| one.to)
    })
}

fn existing(state: &State) -> Option<u32> {
    let deployment = state.deployment.as_ref();
    let pods = state.pods.values().filter(|pod| !pod.leaving).count() as u32;
    let pods = Some(pods).filter(|pods| *pods > 0);
    deployment.map(|one| one.existing).or(pods)
}

fn ready(state: &State) -> Option<u32> {
    let deployment = state.deployment.as_ref();
    let is_ready = |pod: &&Pod| !pod.leaving && pod.is_ready();
    let pods = state.pods.values().filter(is_ready).count() as u32;
    deployment
        .map(|one| one.ready)
        .or(existing(state).map(|_| pods))
}

/// An estimate, since the font depends on the viewer.
fn text_width(text: &str) -> i32 {
    let width = |letter| match letter {
        ' ' | '.' | ',' | ':' | 'f' | 'i' | 'j' | 'l' | 't' | 'r' => 0.3,
        'm' | 'w' | 'M' | 'W' => 0.83,
        '→' => 1.0,
        letter if letter.is_uppercase() => 0.7,
        _ => 0.56,
    };
    (text.chars().map(width).sum::<f64>() * f64::from(TEXT)) as i32
}

/// `1 ms`, `10 s`.
fn decade(seconds: f64) -> String {
    if seconds < 0.9 {
        format!("{} ms", (seconds * 1000.0 * 10.0).round() / 10.0)
    } else {
        format!("{seconds:.0} s")
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::{
        decisions::decisions,
        record::{Autoscaler, Deployment, Response, Usage, Window},
        traffic::TrafficResult,
    };

    /// A scale-out from 1 over 4 and 8 to 20 and back, as a cluster does it.
    fn record() -> Record {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let decision =
            |from, to, current| ObservationKind::Autoscaler(Autoscaler::decided(from, to, current));
        record.add(0.0, decision(1, 1, 2));
        let mut desired = 1;
        let mut ready = 1;
        for second in 0..560 {
            let at = f64::from(second);
            let mut decide = |to, cpu| {
                record.add(at, decision(desired, to, cpu));
                desired = to;
            };
            match second {
                5 => record.add(at, ObservationKind::TrafficStarted("40 connections".into())),
                30 => decide(4, 500),
                45 => decide(8, 480),
                60 => decide(16, 350),
                75 => decide(20, 200),
                185 => {
                    let ended = TrafficResult::failed("interrupted".into());
                    record.add(at, ObservationKind::TrafficEnded(ended));
                }
                200 => decide(20, 2),
                500 => {
                    decide(1, 2);
                    ready = 1;
                }
                _ if ready < desired && second % 2 == 0 => ready += 1,
                _ => {}
            }
            let existing = desired;
            record.add(
                at,
                ObservationKind::Deployment(Deployment {
                    desired,
                    existing,
                    ready,
                    requests: [("app".into(), [("cpu".into(), 100)].into())].into(),
                    ..Deployment::default()
                }),
            );
            let is_loaded = (10..190).contains(&second);
            if second % 15 == 0 {
                let share = if is_loaded {
                    (1900.0 / f64::from(ready)).min(500.0)
                } else {
                    2.0
                };
                let usage = |pod: u32| {
                    let millicores = share * (1.0 + 0.02 * f64::from(pod));
                    Usage {
                        window: Window {
                            ended: Timestamp::UNIX_EPOCH,
                            length: SignedDuration::from_secs(15),
                        },
                        containers: [("app".into(), [("cpu".into(), millicores as i64)].into())]
                            .into(),
                    }
                };
                let pods: BTreeMap<_, _> = (0..ready)
                    .map(|pod| (pod.to_string(), usage(pod)))
                    .collect();
                record.add(at, ObservationKind::Usage(pods));
            }
            let millis = if is_loaded {
                1700 / u64::from(ready) + u64::from(second as u32 % 7) * 3
            } else {
                3
            };
            let failed = (second == 40).then(|| "no response in time".to_string());
            record.add(
                at,
                ObservationKind::Response(Response {
                    took: Duration::from_millis(millis),
                    failed,
                }),
            );
        }
        record
    }

    fn svg(record: &Record, theme: Theme) -> String {
        draw("keda-spinapp", record, &decisions(record).0, theme).expect("it can be drawn")
    }

    /// The texts of an SVG.
    fn texts(svg: &str) -> Vec<&str> {
        svg.lines()
            .filter(|line| !line.starts_with('<') && !line.is_empty())
            .collect()
    }

    #[test]
    fn it_says_what_each_thing_is() {
        let svg = svg(&record(), Theme::Light);
        for expected in [
            "Scaling of keda-spinapp",
            "40 connections",
            "max 20",
            "target 50m",
            "1→4 largest step",
            "10 s",
            "minutes since the traffic started",
        ] {
            assert!(
                texts(&svg).contains(&expected),
                "{expected} is not in {:?}",
                texts(&svg)
            );
        }
    }

    #[test]
    fn a_hold_is_marked_once_for_each_reason() {
        let decision = |from, to, constraint| Decision {
            from,
            to,
            constraints: vec![constraint],
            ..Decision::default()
        };
        let marks = marks(&[
            decision(8, 20, Constraint::Maximum(20)),
            decision(20, 20, Constraint::Maximum(20)),
            decision(20, 20, Constraint::Stabilisation(300)),
            decision(20, 20, Constraint::Stabilisation(300)),
            decision(20, 2, Constraint::Stabilisation(300)),
        ]);
        let labels: Vec<_> = marks.iter().map(|mark| mark.label.as_str()).collect();
        assert_eq!(labels, ["8→20 maximum", "20 window", "20→2 window"]);
    }

    #[test]
    fn labels_of_decisions_do_not_overlap() {
        let record = record();
        let panels = Panels::new(&record, &[], Theme::Light);
        let mark = |at| Mark {
            at,
            replicas: 4,
            label: "4→8 largest step".into(),
        };
        let rows = panels.rows(&[mark(10.0), mark(25.0), mark(40.0), mark(500.0)]);
        assert_eq!(rows, [Some(2), Some(1), Some(0), Some(0)]);
    }

    #[test]
    fn what_was_not_known_is_a_gap() {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let deployment = |desired| {
            ObservationKind::Deployment(Deployment {
                desired,
                ..Deployment::default()
            })
        };
        record.add(0.0, deployment(1));
        record.add(5.0, deployment(2));
        record.add(10.0, ObservationKind::DeploymentGone);
        record.add(20.0, deployment(3));
        record.add(30.0, deployment(3));
        let lines = Panels::new(&record, &[], Theme::Light)
            .steps(|state| Some(f64::from(state.deployment.as_ref()?.desired)));
        assert_eq!(
            lines,
            [
                vec![(0.0, 1.0), (5.0, 1.0), (5.0, 2.0), (10.0, 2.0)],
                vec![(20.0, 3.0), (30.0, 3.0)]
            ]
        );
    }

    #[test]
    fn a_record_of_nothing_is_a_chart_too() {
        svg(&Record::new(Timestamp::UNIX_EPOCH), Theme::Dark);
    }
}
