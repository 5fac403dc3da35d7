//! `docs/crowds.svg`: crowds of growing size on a replica limited to 500m, served by this component and two others.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use crate::{
    cases::iterations_of,
    measure::{Crowd, Outcome, TIMEOUT, component},
    testbed::{Share, Testbed},
    traffic::{Clients, Stop},
};

const CONNECTIONS: [usize; 8] = [1, 2, 4, 8, 16, 40, 80, 125];

/// The servers by their names in the data: their names in the chart, and their colours.
const SERVERS: [(&str, &str, RGBColor); 3] = [
    ("component", "cpu-load-gen, 20 ms", RGBColor(31, 136, 229)),
    (
        "chain",
        "the same 20 ms, first come, first served",
        RGBColor(230, 126, 34),
    ),
    ("fib", "fib(43)", RGBColor(150, 110, 190)),
];

/// For text and axes: legible on a white and on a dark background, since the chart has none of its own.
const GREY: RGBColor = RGBColor(125, 133, 144);
const SIZE: (u32, u32) = (960, 400);
const FONT: (&str, u32) = ("sans-serif", 17);

/// A crowd on a server. Latencies are those of all requests; late ones count as the timeout.
#[derive(Deserialize, Serialize)]
pub struct Point {
    server: String,
    connections: usize,
    latency_p95_seconds: f64,
    late_share: f64,
    health_p99_seconds: f64,
}

/// Measures all crowds.
///
/// # Errors
/// Where one cannot be measured.
pub async fn measure(testbed: &Testbed) -> Result<Vec<Point>> {
    let iterations = iterations_of(testbed, "/?cpu_time=20ms").await?;
    let mut points = Vec::new();
    for (name, ..) in SERVERS {
        let (server, target) = match name {
            "component" => (
                component(testbed, Share::LIMITED).await?,
                "/?cpu_time=20ms".into(),
            ),
            "chain" => (
                testbed.other("control", Share::LIMITED)?,
                format!("/chain?{iterations}"),
            ),
            _ => (testbed.other("control", Share::LIMITED)?, "/fib".to_owned()),
        };
        for connections in CONNECTIONS {
            let crowd = Crowd {
                target: &target,
                connections,
                clients: Clients::Disconnect,
                ramp: 3,
                length: 15,
                stop: Stop::Answered,
            };
            let outcome = crowd.run(&server).await?;
            points.push(Point::new(name, connections, &outcome)?);
            eprintln!("{name}, c={connections}");
        }
    }
    Ok(points)
}

impl Point {
    fn new(server: &str, connections: usize, outcome: &Outcome) -> Result<Self> {
        let tally = &outcome.tally;
        let late_share = tally.late as f64 / tally.requests() as f64;
        let in_time = 1.0 - late_share;
        let p95 = if in_time > 0.95 {
            tally.seconds(0.95 / in_time)
        } else {
            TIMEOUT.as_secs_f64()
        };
        let health = outcome.health.quantile(0.99).context("no probes")?;
        Ok(Self {
            server: server.to_owned(),
            connections,
            latency_p95_seconds: p95,
            late_share,
            health_p99_seconds: health.as_secs_f64(),
        })
    }
}

pub fn write(points: &[Point], path: &Path) -> Result<()> {
    let mut data = csv::Writer::from_path(path)?;
    for point in points {
        data.serialize(point)?;
    }
    Ok(data.flush()?)
}

pub fn read(path: &Path) -> Result<Vec<Point>> {
    let data = csv::Reader::from_path(path);
    let mut data = data.with_context(|| format!("cannot read {}", path.display()))?;
    Ok(data.deserialize().collect::<Result<_, _>>()?)
}

/// Draws the chart as SVG.
pub fn draw(points: &[Point]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = FONT.into_font().color(&GREY);
        let (legend, panels) = root.split_vertically(40);
        for ((_, name, color), x) in SERVERS.iter().zip([60, 290, 680]) {
            let swatch = [(x, 20), (x + 24, 20)];
            legend.draw(&PathElement::new(swatch, color.stroke_width(3)))?;
            legend.draw(&Text::new(*name, (x + 32, 13), text.clone()))?;
        }
        let [latency, health] = &panels.split_evenly((1, 2))[..] else {
            unreachable!("two panels")
        };
        let timeout = TIMEOUT.as_secs_f64();
        panel(
            latency,
            "latency of 95 % of requests (5 s: they time out)",
            0.0..timeout * 1.05,
            &|seconds| format!("{seconds} s"),
            points,
            &|point| point.latency_p95_seconds,
        )?;
        // A logarithmic axis.
        panel(
            health,
            "latency of 99 % of health probes",
            -2.0..1.6,
            &|power| match power.round() as i32 {
                -2 => "10 ms".into(),
                -1 => "100 ms".into(),
                0 => "1 s".into(),
                _ => "10 s".into(),
            },
            points,
            &|point| point.health_p99_seconds.log10(),
        )?;
        root.present()?;
    }
    Ok(svg)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One panel: a line for each server over the number of connections.
fn panel(
    area: &Area<'_>,
    caption: &str,
    range: std::ops::Range<f64>,
    label: &dyn Fn(&f64) -> String,
    points: &[Point],
    value: &dyn Fn(&Point) -> f64,
) -> Result<()> {
    let text = FONT.into_font().color(&GREY);
    // The numbers of connections stand at equal distances.
    let last = CONNECTIONS.len() - 1;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, text.clone())
        .margin(8)
        .x_label_area_size(48)
        .y_label_area_size(62)
        .build_cartesian_2d(-0.2..last as f64 + 0.2, range)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GREY.mix(0.3))
        .axis_style(GREY)
        .label_style(text)
        .x_desc("connections")
        .x_labels(CONNECTIONS.len())
        .x_label_formatter(&|x| CONNECTIONS[x.round() as usize].to_string())
        .y_labels(5)
        .y_label_formatter(label)
        .draw()?;
    for (name, _, color) in SERVERS {
        let of_server = points.iter().filter(|point| point.server == name);
        let line: Vec<_> = of_server
            .enumerate()
            .map(|(x, it)| (x as f64, value(it)))
            .collect();
        chart.draw_series(LineSeries::new(line.clone(), color.stroke_width(3)))?;
        let dots = line
            .into_iter()
            .map(|at| Circle::new(at, 4, color.filled()));
        chart.draw_series(dots)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn data_is_read_as_it_was_written_and_drawn() {
        let mut points = Vec::new();
        for (server, ..) in SERVERS {
            points.extend(CONNECTIONS.map(|connections| Point {
                server: server.to_owned(),
                connections,
                latency_p95_seconds: 0.04 * connections as f64,
                late_share: 0.0,
                health_p99_seconds: 0.02,
            }));
        }
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("crowds.csv");
        write(&points, &path).expect("it is written");
        let svg = draw(&read(&path).expect("it is read")).expect("it is drawn");
        assert_eq!(svg, draw(&points).expect("it is drawn"));
        for (_, name, _) in SERVERS {
            assert!(svg.contains(name), "no {name}");
        }
    }
}
