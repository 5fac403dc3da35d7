//! The chart of a recording: replicas, CPU and latency over one axis of time.

use anyhow::Result;
use plotters::{
    chart::SeriesAnno,
    coord::{
        Shift,
        ranged1d::{AsRangedCoord, ValueFormatter},
        types::RangedCoordf64,
    },
    prelude::*,
};

use crate::{
    analysis::probes,
    format::duration,
    record::{ObservationKind, Record, State},
};

/// A number of replicas in a state, where it is known.
type Count = fn(&State) -> Option<u32>;

const SIZE: (u32, u32) = (800, 820);
const FONT: &str = "sans-serif";
/// Colours that people with any colour vision tell apart (Okabe and Ito).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(230, 159, 0);
const GREEN: RGBColor = RGBColor(0, 158, 115);
const VERMILION: RGBColor = RGBColor(213, 94, 0);
const GREY: RGBColor = RGBColor(120, 120, 120);
const TRAFFIC: RGBColor = RGBColor(255, 244, 214);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Chart<'a, Y> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<RangedCoordf64, Y>>;

/// An SVG with a light ground of its own.
pub fn draw(deployment: &str, record: &Record) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let root = root.titled(&format!("Scaling of {deployment}"), (FONT, 22))?;
        let areas = root.split_by_breakpoints([0; 0], [280, 510]);
        let panels = Panels::new(record);
        panels.replicas(&areas[0])?;
        panels.cpu(&areas[1])?;
        panels.latency(&areas[2])?;
        root.present()?;
    }
    Ok(svg)
}

struct Panels<'a> {
    record: &'a Record,
    from: f64,
    to: f64,
    /// When the traffic started and ended.
    traffic: Option<(f64, f64)>,
}

impl<'a> Panels<'a> {
    fn new(record: &'a Record) -> Self {
        let origin = record.time_origin();
        Self {
            record,
            from: -origin,
            to: (record.end() - origin).max(1.0 - origin),
            traffic: record
                .traffic_span()
                .map(|(start, end)| (start - origin, end - origin)),
        }
    }

    fn replicas(&self, area: &Area) -> Result<()> {
        let most = self.most(|state| {
            let desired = state
                .deployment
                .as_ref()
                .map(|one| one.desired.max(one.existing));
            let max = state.autoscaler.as_ref().map(|one| one.rules.max);
            desired.max(max).map(f64::from)
        });
        let mut chart = self.chart(
            area,
            "replicas",
            0.0..most * 1.08,
            |count| format!("{count:.0}"),
            false,
        )?;
        let limits: [(&str, Count); 2] = [
            ("minimum and maximum", |state| {
                Some(state.autoscaler.as_ref()?.rules.max)
            }),
            ("", |state| Some(state.autoscaler.as_ref()?.rules.min)),
        ];
        for (name, limit) in limits {
            let steps = self.steps(|state| limit(state).map(f64::from));
            let drawn =
                chart.draw_series(DashedLineSeries::new(steps, 6, 4, GREY.stroke_width(1)))?;
            if !name.is_empty() {
                legend(drawn.label(name), GREY);
            }
        }
        let lines: [(&str, RGBColor, u32, Count); 3] = [
            ("desired", ORANGE, 2, |state| {
                Some(state.deployment.as_ref()?.desired)
            }),
            ("existing", BLUE, 2, |state| {
                Some(state.deployment.as_ref()?.existing)
            }),
            ("ready", GREEN, 3, |state| {
                Some(state.deployment.as_ref()?.ready)
            }),
        ];
        for (name, colour, width, count) in lines {
            let steps = self.steps(|state| count(state).map(f64::from));
            let drawn = chart.draw_series(LineSeries::new(steps, colour.stroke_width(width)))?;
            legend(drawn.label(name), colour);
        }
        legends(&mut chart)
    }

    fn cpu(&self, area: &Area) -> Result<()> {
        let most = self.most(|state| {
            let pods = state.usage.values().map(|usage| usage.millicores);
            pods.chain(state.target_millicores()).reduce(f64::max)
        });
        let mut chart = self.chart(
            area,
            "CPU per pod",
            0.0..most * 1.08,
            |millicores| format!("{millicores:.0}m"),
            false,
        )?;
        let mut pods = Vec::new();
        let mut average = Vec::new();
        self.record.replay(|observation, state| {
            if matches!(observation.kind, ObservationKind::Usage(_)) {
                let at = observation.at - self.record.time_origin();
                pods.extend(state.usage.values().map(|usage| (at, usage.millicores)));
                average.extend(state.millicores_per_pod().map(|average| (at, average)));
            }
        });
        let dots = pods
            .into_iter()
            .map(|dot| Circle::new(dot, 2, BLUE.mix(0.35).filled()));
        legend(chart.draw_series(dots)?.label("each pod"), BLUE);
        let line = LineSeries::new(average, BLUE.stroke_width(2));
        legend(chart.draw_series(line)?.label("average"), BLUE);
        let target = self.steps(State::target_millicores);
        let target = DashedLineSeries::new(target, 6, 4, VERMILION.stroke_width(2));
        legend(chart.draw_series(target)?.label("target"), VERMILION);
        legends(&mut chart)
    }

    fn latency(&self, area: &Area) -> Result<()> {
        let origin = self.record.time_origin();
        let dots: Vec<_> = probes(self.record)
            .map(|(asked, answer)| {
                (
                    asked - origin,
                    answer.took.as_secs_f64().max(1e-4),
                    answer.failed.is_some(),
                )
            })
            .collect();
        let took = dots.iter().map(|(_, took, _)| *took);
        let lowest = took.clone().fold(0.01, f64::min);
        let highest = took.fold(0.1, f64::max);
        // Whole decades.
        let range = 10f64.powf(lowest.log10().floor())..10f64.powf(highest.log10().ceil());
        let mut chart = self.chart(
            area,
            "a cheap answer",
            range.log_scale(),
            |seconds| duration(*seconds),
            true,
        )?;
        let (failed, answered): (Vec<_>, Vec<_>) =
            dots.into_iter().partition(|(_, _, failed)| *failed);
        let answered = answered
            .into_iter()
            .map(|(at, took, _)| Circle::new((at, took), 2, GREEN.filled()));
        legend(chart.draw_series(answered)?.label("answered"), GREEN);
        if !failed.is_empty() {
            let failed = failed
                .into_iter()
                .map(|(at, took, _)| Cross::new((at, took), 4, VERMILION.stroke_width(2)));
            legend(chart.draw_series(failed)?.label("failed"), VERMILION);
        }
        legends(&mut chart)
    }

    /// A panel with its axes and the span of the traffic.
    fn chart<'b, Y>(
        &self,
        area: &Area<'b>,
        name: &str,
        range: Y,
        format: fn(&f64) -> String,
        is_last: bool,
    ) -> Result<Chart<'b, Y::CoordDescType>>
    where
        Y: AsRangedCoord<Value = f64>,
        Y::CoordDescType: ValueFormatter<f64> + Ranged<ValueType = f64>,
    {
        let mut chart = ChartBuilder::on(area)
            .margin(6)
            .margin_right(16)
            .x_label_area_size(if is_last { 44 } else { 8 })
            .y_label_area_size(70)
            .build_cartesian_2d(self.from..self.to, range)?;
        if let Some((start, end)) = self.traffic {
            let y = chart.y_range();
            chart.draw_series([Rectangle::new(
                [(start, y.start), (end, y.end)],
                TRAFFIC.filled(),
            )])?;
        }
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(BLACK.mix(0.12))
            .x_labels(if is_last { 10 } else { 0 })
            .x_desc(if is_last {
                "seconds since the traffic started; shaded: the traffic"
            } else {
                ""
            })
            .y_labels(6)
            .y_desc(name)
            .y_label_formatter(&format)
            .x_label_formatter(&|seconds| format!("{seconds:.0}"))
            .label_style((FONT, 14))
            .axis_desc_style((FONT, 15))
            .draw()?;
        Ok(chart)
    }

    /// A line that stays where it is until the number changes.
    fn steps(&self, number: impl Fn(&State) -> Option<f64>) -> Vec<(f64, f64)> {
        let mut steps: Vec<(f64, f64)> = Vec::new();
        self.record.replay(|observation, state| {
            let Some(now) = number(state) else { return };
            let at = observation.at - self.record.time_origin();
            match steps.last() {
                Some((_, before)) if *before == now => {}
                Some((_, before)) => {
                    let before = *before;
                    steps.extend([(at, before), (at, now)]);
                }
                None => steps.push((at, now)),
            }
        });
        steps.extend(steps.last().map(|(_, last)| (self.to, *last)));
        steps
    }

    fn most(&self, number: impl Fn(&State) -> Option<f64>) -> f64 {
        let mut most: f64 = 1.0;
        self.record
            .replay(|_, state| most = most.max(number(state).unwrap_or_default()));
        most
    }
}

fn legend<'a>(series: &mut SeriesAnno<'a, SVGBackend<'_>>, colour: RGBColor) {
    series.legend(move |(x, y)| Rectangle::new([(x, y - 2), (x + 14, y + 2)], colour.filled()));
}

fn legends<'a, Y: Ranged>(chart: &mut Chart<'a, Y>) -> Result<()> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use jiff::{SignedDuration, Timestamp};

    use super::*;
    use crate::{
        record::{Answer, Autoscaler, Deployment, Usage},
        traffic::TrafficResult,
    };

    /// A scale-out from 1 over 4 and 8 to 20 and back, as a cluster does it.
    fn record() -> Record {
        let mut record = Record::new(Timestamp::UNIX_EPOCH);
        let autoscaler = Autoscaler::of_the_tutorial();
        record.add(0.0, ObservationKind::Autoscaler(autoscaler));
        let mut desired = 1;
        let mut ready = 1;
        for second in 0..560 {
            let at = f64::from(second);
            match second {
                5 => record.add(at, ObservationKind::TrafficStarted("40 connections".into())),
                30 => desired = 4,
                45 => desired = 8,
                60 => desired = 20,
                185 => {
                    let report = TrafficResult {
                        failed: None,
                        bombardier: None,
                        output: String::new(),
                    };
                    record.add(at, ObservationKind::TrafficEnded(report));
                }
                500 => (desired, ready) = (1, 1),
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
                    request: Some(100),
                }),
            );
            let is_loaded = (10..190).contains(&second);
            if second % 15 == 0 {
                let share = if is_loaded {
                    (1900.0 / f64::from(ready)).min(500.0)
                } else {
                    2.0
                };
                let usage = |pod: u32| Usage {
                    millicores: share * (1.0 + 0.02 * f64::from(pod)),
                    ended: Timestamp::UNIX_EPOCH,
                    window: SignedDuration::from_secs(15),
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
            let failed = (second == 40).then(|| "no answer in time".to_string());
            record.add(
                at,
                ObservationKind::Answer(Answer {
                    took: Duration::from_millis(millis),
                    failed,
                }),
            );
        }
        record
    }

    #[test]
    fn it_shows_three_panels_above_one_axis() {
        let svg = draw("keda-spinapp", &record()).expect("it can be drawn");
        for text in [
            "replicas",
            "desired",
            "CPU per pod",
            "target",
            "a cheap answer",
            "failed",
            "seconds since",
        ] {
            assert!(svg.contains(text), "{text} is missing");
        }
        assert!(svg.contains("#FFF4D6"), "the traffic is not shaded");
    }

    #[test]
    fn a_record_of_nothing_is_a_picture_too() {
        draw("keda-spinapp", &Record::new(Timestamp::UNIX_EPOCH)).expect("it can be drawn");
    }
}
