//! Measured values with their units, and what they have to reach.

use std::fmt;

#[derive(Clone, Copy)]
pub enum Value {
    /// A deviation, in either direction.
    Percent(f64),
    Milliseconds(f64),
    Seconds(f64),
    /// Cores or a ratio.
    Plain(f64),
    Count(usize),
}

use Value::{Count, Milliseconds, Percent, Plain, Seconds};

impl Value {
    /// The number in the unit that it is printed in.
    fn number(self) -> f64 {
        match self {
            Percent(it) | Milliseconds(it) | Seconds(it) | Plain(it) => it,
            Count(count) => count as f64,
        }
    }

    fn unit(self) -> &'static str {
        match self {
            Percent(_) => " %",
            Milliseconds(_) => " ms",
            Seconds(_) => " s",
            Plain(_) | Count(_) => "",
        }
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, unit) = (self.number(), self.unit());
        match self {
            Percent(_) => write!(f, "{number:+.1}{unit}"),
            Milliseconds(_) => write!(f, "{number:.1}{unit}"),
            Seconds(_) => write!(f, "{number:.2}{unit}"),
            Plain(_) => write!(f, "{number:.3}"),
            Count(count) => write!(f, "{count}"),
        }
    }
}

#[derive(Clone, Copy)]
enum Comparison {
    AtMost,
    AtLeast,
    /// At most this far from 0, in either direction.
    Within,
}

/// The bounds of a value: the benchmark fails if the value misses the required bound; it should also reach the target.
#[derive(Clone, Copy)]
pub struct Goal {
    comparison: Comparison,
    required: Option<f64>,
    target: Option<f64>,
}

/// How a value compares with its goal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Verdict {
    Target,
    Required,
    Missed,
    /// It has no required bound, and no target that it reaches.
    Reported,
}

impl Goal {
    /// A value that is only reported.
    pub const NONE: Self = Self {
        comparison: Comparison::AtMost,
        required: None,
        target: None,
    };

    pub fn at_most(required: f64, target: f64) -> Self {
        Self::both(Comparison::AtMost, required, target)
    }

    pub fn at_least(required: f64, target: f64) -> Self {
        Self::both(Comparison::AtLeast, required, target)
    }

    pub fn within(required: f64, target: f64) -> Self {
        Self::both(Comparison::Within, required, target)
    }

    fn both(comparison: Comparison, required: f64, target: f64) -> Self {
        Self {
            comparison,
            required: Some(required),
            target: Some(target),
        }
    }

    /// A target of at most this, without a required bound.
    pub fn target_at_most(target: f64) -> Self {
        Self {
            target: Some(target),
            ..Self::NONE
        }
    }

    /// A target of at least this, without a required bound.
    pub fn target_at_least(target: f64) -> Self {
        Self {
            comparison: Comparison::AtLeast,
            ..Self::target_at_most(target)
        }
    }

    pub fn evaluate(self, value: Value) -> Verdict {
        let number = value.number();
        let reaches = |bound| match self.comparison {
            Comparison::AtMost => number <= bound,
            Comparison::AtLeast => number >= bound,
            Comparison::Within => number.abs() <= bound,
        };
        match (self.required.map(reaches), self.target.map(reaches)) {
            (Some(false), _) => Verdict::Missed,
            (_, Some(true)) => Verdict::Target,
            (Some(true), _) => Verdict::Required,
            (None, _) => Verdict::Reported,
        }
    }

    /// The required bound of `value`, such as `≤ 5 ms`.
    pub fn required(self, value: Value) -> String {
        self.describe(self.required, value)
    }

    /// The target of `value`, such as `≤ 5 ms`.
    pub fn target(self, value: Value) -> String {
        self.describe(self.target, value)
    }

    fn describe(self, bound: Option<f64>, value: Value) -> String {
        let sign = match self.comparison {
            Comparison::AtMost => '≤',
            Comparison::AtLeast => '≥',
            Comparison::Within => '±',
        };
        let unit = value.unit();
        bound.map_or_else(|| "none".into(), |bound| format!("{sign} {bound}{unit}"))
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Target => "target",
            Self::Required => "required",
            Self::Missed => "MISSED",
            Self::Reported => "reported",
        })
    }
}

/// The deviation of `value` from `expected`, in percent.
pub fn deviation(value: f64, expected: f64) -> f64 {
    100.0 * (value / expected - 1.0)
}

/// The largest of some deviations, in either direction. NaN is the largest, and so misses its goal.
pub fn largest(deviations: impl IntoIterator<Item = f64>) -> f64 {
    let by_size = |a: &f64, b: &f64| a.abs().total_cmp(&b.abs());
    deviations.into_iter().max_by(by_size).unwrap_or(f64::NAN)
}

/// The median of a few values, the lower one of an even number; NaN without any.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len().saturating_sub(1) / 2;
    sorted.get(middle).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verdicts() {
        for (value, goal, verdict) in [
            (-2.0, Goal::within(5.0, 2.0), Verdict::Target),
            (2.1, Goal::within(5.0, 2.0), Verdict::Required),
            (-5.0, Goal::within(5.0, 2.0), Verdict::Required),
            (-5.1, Goal::within(5.0, 2.0), Verdict::Missed),
            (f64::NAN, Goal::within(5.0, 2.0), Verdict::Missed),
            (0.9, Goal::at_least(0.9, 0.97), Verdict::Required),
            (0.9, Goal::at_most(0.8, 0.5), Verdict::Missed),
            (0.9, Goal::target_at_most(0.8), Verdict::Reported),
            (0.9, Goal::target_at_least(0.8), Verdict::Target),
            (0.9, Goal::NONE, Verdict::Reported),
        ] {
            assert_eq!(goal.evaluate(Plain(value)), verdict, "{value}");
        }
    }

    #[test]
    fn in_words() {
        let (value, goal) = (Percent(-1.26), Goal::within(5.0, 2.5));
        assert_eq!(value.to_string(), "-1.3 %");
        assert_eq!(goal.required(value), "± 5 %");
        assert_eq!(goal.target(value), "± 2.5 %");
        assert_eq!(Goal::NONE.target(Count(0)), "none");
    }

    #[test]
    fn medians_and_deviations() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
        assert_eq!(largest([1.0, -3.0, 2.0]), -3.0);
        assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
        assert!(largest([]).is_nan());
    }
}
