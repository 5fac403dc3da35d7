//! `docs/crowds.svg`: crowds of growing size on a replica limited to 500m, served by this component
//! and two others.

use std::ops::Range;

use anyhow::{Context, Result};
use plotters::prelude::*;

use crate::{
    cases::Case,
    crowds::{CHAIN, FIB, OWN, TIMEOUT},
    report::Row,
};

pub const CONNECTIONS: [usize; 9] = [1, 2, 3, 4, 8, 16, 40, 80, 125];
const SERVERS: [(&str, RGBColor); 3] = [
    (OWN, RGBColor(31, 136, 229)),
    (CHAIN, RGBColor(230, 126, 34)),
    (FIB, RGBColor(150, 110, 190)),
];

/// For text and axes: legible on a white and on a dark background, since the chart has none of its
/// own.
const GREY: RGBColor = RGBColor(125, 133, 144);
const SIZE: (u32, u32) = (960, 400);
const FONT: (&str, u32) = ("sans-serif", 17);

/// Draws the chart of the last rows of each crowd as SVG.
pub fn draw(rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let text = FONT.into_font().color(&GREY);
        let (legend, panels) = root.split_vertically(40);
        for ((name, color), x) in SERVERS.iter().zip([60, 290, 680]) {
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
            &|server, connections| value(rows, server, connections, "p95"),
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
            &|server, connections| {
                let millis = value(rows, server, connections, "health p99")?;
                Ok((millis / 1000.0).log10())
            },
        )?;
        root.present()?;
    }
    Ok(svg)
}

/// A measure of a crowd.
fn value(rows: &[Row], server: &str, connections: usize, measure: &str) -> Result<f64> {
    let (case, subject) = (Case::Crowds.name(), format!("{server} × {connections}"));
    let is_wanted =
        |row: &&Row| row.case == case && row.subject == subject && row.measure == measure;
    let row = rows.iter().rfind(is_wanted);
    row.and_then(|row| row.value)
        .with_context(|| format!("no {measure} of {subject}: measure the case `{case}`"))
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// One panel: a line for each server over the number of connections.
fn panel(
    area: &Area<'_>,
    caption: &str,
    range: Range<f64>,
    label: &dyn Fn(&f64) -> String,
    value: &dyn Fn(&str, usize) -> Result<f64>,
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
    for (server, color) in SERVERS {
        let point = |(x, connections)| Ok((x as f64, value(server, connections)?));
        let points = CONNECTIONS.into_iter().enumerate().map(point);
        let points = points.collect::<Result<Vec<_>>>()?;
        let dots = points.iter().map(|&at| Circle::new(at, 4, color.filled()));
        chart.draw_series(LineSeries::new(points.clone(), color.stroke_width(3)))?;
        chart.draw_series(dots)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::report;

    const DOCS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/");

    #[test]
    fn the_chart_of_the_documents_shows_their_values() {
        let rows = report::read(format!("{DOCS}accuracy.csv").as_ref()).unwrap();
        let chart = fs::read_to_string(format!("{DOCS}crowds.svg")).unwrap();
        assert_eq!(draw(&rows).unwrap(), chart);
        // The last of several values of a crowd.
        let is_drawn = |row: &&Row| row.case == "crowds" && row.measure == "p95";
        let mut newer = rows.iter().find(is_drawn).unwrap().clone();
        newer.value = Some(4.0);
        let with_newer = [rows, vec![newer]].concat();
        assert_ne!(draw(&with_newer).unwrap(), chart);
        let error = draw(&[]).unwrap_err().to_string();
        assert!(error.contains("no p95 of cpu-load-gen"), "{error}");
    }
}
