//! Figures with their units, and what they have to reach.

use std::fmt;

#[derive(Clone, Copy)]
pub enum Figure {
    /// How far off something is, in either direction.
    Percent(f64),
    Milliseconds(f64),
    Seconds(f64),
    /// Cores or a ratio.
    Plain(f64),
    Count(usize),
}

/// What a figure must reach, and what it should.
#[derive(Clone, Copy)]
pub enum Goal {
    AtMost(f64, f64),
    AtLeast(f64, f64),
    /// At most this far from 0, in either direction.
    Within(f64, f64),
    /// It should only.
    ShouldBeAtMost(f64),
    /// Neither.
    Reported,
}

/// The mark of what misses its must.
pub const SHORT: &str = "SHORT";

impl Figure {
    fn value_and_unit(self) -> (f64, &'static str) {
        match self {
            Self::Percent(value) => (value, " %"),
            Self::Milliseconds(value) => (value, " ms"),
            Self::Seconds(value) => (value, " s"),
            Self::Plain(value) => (value, ""),
            Self::Count(count) => (count as f64, ""),
        }
    }

    /// The must and the aim in words, and how the figure came out.
    pub fn judge(self, goal: Goal) -> (String, String, &'static str) {
        let (value, unit) = self.value_and_unit();
        let (sign, must, aim) = match goal {
            Goal::AtMost(must, aim) => ('≤', Some(must), Some(aim)),
            Goal::AtLeast(must, aim) => ('≥', Some(must), Some(aim)),
            Goal::Within(must, aim) => ('±', Some(must), Some(aim)),
            Goal::ShouldBeAtMost(aim) => ('≤', None, Some(aim)),
            Goal::Reported => (' ', None, None),
        };
        let reached = |bound| match goal {
            Goal::AtLeast(..) => value >= bound,
            Goal::Within(..) => value.abs() <= bound,
            _ => value <= bound,
        };
        let mark = match (must.map(reached), aim.map(reached)) {
            (_, Some(true)) => "aim",
            (Some(true), _) => "must",
            (Some(false), _) => SHORT,
            (None, _) => "reported",
        };
        let words =
            |bound: Option<f64>| bound.map_or("–".into(), |it| format!("{sign} {it}{unit}"));
        (words(must), words(aim), mark)
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (value, unit) = self.value_and_unit();
        match self {
            Self::Percent(_) => write!(f, "{value:+.1}{unit}"),
            Self::Milliseconds(_) => write!(f, "{value:.1}{unit}"),
            Self::Seconds(_) => write!(f, "{value:.2}{unit}"),
            Self::Plain(_) => write!(f, "{value:.3}"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// How far `value` is off `expected`, in percent.
pub fn percent_off(value: f64, expected: f64) -> f64 {
    100.0 * (value / expected - 1.0)
}

/// The largest of some deviations in either direction. What is no number is the largest, and so falls short.
pub fn largest(deviations: impl IntoIterator<Item = f64>) -> f64 {
    let by_size = |a: &f64, b: &f64| a.abs().total_cmp(&b.abs());
    deviations.into_iter().max_by(by_size).unwrap_or(f64::NAN)
}

pub fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// The value that this share of the values does not exceed (nearest rank); of none, what is no number.
pub fn quantile(values: &[f64], share: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (share * sorted.len() as f64).ceil() as usize;
    let value = sorted.get(rank.saturating_sub(1));
    value.copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Figure::*, Goal::*, *};

    #[test]
    fn marks() {
        for (value, goal, mark) in [
            (-2.0, Within(5.0, 2.0), "aim"),
            (2.1, Within(5.0, 2.0), "must"),
            (-5.0, Within(5.0, 2.0), "must"),
            (-5.1, Within(5.0, 2.0), SHORT),
            (f64::NAN, Within(5.0, 2.0), SHORT),
            (0.9, AtLeast(0.9, 0.97), "must"),
            (0.9, AtMost(0.8, 0.5), SHORT),
            (0.9, ShouldBeAtMost(0.8), "reported"),
            (0.9, Reported, "reported"),
        ] {
            assert_eq!(Plain(value).judge(goal).2, mark, "{value}");
        }
    }

    #[test]
    fn in_words() {
        let off = Percent(-1.26);
        assert_eq!(off.to_string(), "-1.3 %");
        let words = ("± 5 %".into(), "± 2.5 %".into(), "aim");
        assert_eq!(off.judge(Within(5.0, 2.5)), words);
        let words = ("–".into(), "–".into(), "reported");
        assert_eq!(Count(0).judge(Reported), words);
    }

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
        let hundred: Vec<_> = (1..=100).map(f64::from).collect();
        assert_eq!(quantile(&hundred, 0.99), 99.0);
        assert_eq!(quantile(&hundred, 1.0), 100.0);
    }

    #[test]
    fn the_largest_deviation() {
        assert_eq!(largest([1.0, -3.0, 2.0]), -3.0);
        assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
        assert!(largest([]).is_nan());
    }
}
