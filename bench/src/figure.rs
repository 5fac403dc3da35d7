//! Figures with their units, and what they have to reach.

use std::fmt;

use serde::Serialize;

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Unit {
    /// How far off something is, in either direction.
    Percent,
    Milliseconds,
    Seconds,
    Cores,
    Ratio,
    Count,
}

impl Unit {
    /// A figure that is only reported, as long as it has no goals.
    pub fn of(self, value: f64) -> Figure {
        Figure {
            value,
            unit: self,
            must: None,
            aim: None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Percent => " %",
            Self::Milliseconds => " ms",
            Self::Seconds => " s",
            Self::Cores | Self::Ratio | Self::Count => "",
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    AtMost(f64),
    AtLeast(f64),
    /// At most this far from 0, in either direction.
    Within(f64),
}

impl Goal {
    fn reached(self, value: f64) -> bool {
        match self {
            Self::AtMost(bound) => value <= bound,
            Self::AtLeast(bound) => value >= bound,
            Self::Within(bound) => value.abs() <= bound,
        }
    }

    fn text(self, unit: Unit) -> String {
        let (sign, bound) = match self {
            Self::AtMost(bound) => ('≤', bound),
            Self::AtLeast(bound) => ('≥', bound),
            Self::Within(bound) => ('±', bound),
        };
        format!("{sign} {bound}{}", unit.name())
    }
}

/// What was measured, what it must reach, and what it should.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Figure {
    value: f64,
    unit: Unit,
    must: Option<Goal>,
    aim: Option<Goal>,
}

impl Figure {
    pub fn at_most(self, must: f64, aim: f64) -> Self {
        self.goals(Goal::AtMost(must), Goal::AtMost(aim))
    }

    pub fn at_least(self, must: f64, aim: f64) -> Self {
        self.goals(Goal::AtLeast(must), Goal::AtLeast(aim))
    }

    pub fn within(self, must: f64, aim: f64) -> Self {
        self.goals(Goal::Within(must), Goal::Within(aim))
    }

    /// Nothing that it must reach.
    pub fn aim_at_most(self, aim: f64) -> Self {
        let aim = Some(Goal::AtMost(aim));
        Self { aim, ..self }
    }

    fn goals(self, must: Goal, aim: Goal) -> Self {
        let (must, aim) = (Some(must), Some(aim));
        Self { must, aim, ..self }
    }

    pub fn mark(&self) -> Mark {
        let reached = |goal: Option<Goal>| goal.map(|goal| goal.reached(self.value));
        match (reached(self.must), reached(self.aim)) {
            (_, Some(true)) => Mark::Aim,
            (Some(true), _) => Mark::Must,
            (Some(false), _) => Mark::Short,
            (None, _) => Mark::Reported,
        }
    }

    /// The goals in words: what it must reach, and what it should.
    pub fn goals_text(&self) -> [String; 2] {
        [self.must, self.aim].map(|goal| goal.map_or("–".into(), |goal| goal.text(self.unit)))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let value = self.value;
        match self.unit {
            Unit::Percent => write!(f, "{value:+.1}")?,
            Unit::Milliseconds => write!(f, "{value:.1}")?,
            Unit::Seconds => write!(f, "{value:.2}")?,
            Unit::Cores | Unit::Ratio => write!(f, "{value:.3}")?,
            Unit::Count => write!(f, "{value}")?,
        }
        f.write_str(self.unit.name())
    }
}

/// How a figure came out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mark {
    Aim,
    Must,
    Short,
    Reported,
    NotMeasured,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Aim => "aim",
            Self::Must => "must",
            Self::Short => "SHORT",
            Self::Reported => "reported",
            Self::NotMeasured => "not measured",
        })
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
    use super::*;

    #[test]
    fn marks() {
        let mark = |value| Unit::Percent.of(value).within(5.0, 2.0).mark();
        assert_eq!(mark(-2.0), Mark::Aim);
        assert_eq!(mark(2.1), Mark::Must);
        assert_eq!(mark(-5.0), Mark::Must);
        assert_eq!(mark(5.1), Mark::Short);
        assert_eq!(mark(f64::NAN), Mark::Short);
        let used = Unit::Cores.of(0.9);
        assert_eq!(used.mark(), Mark::Reported);
        assert_eq!(used.at_least(0.9, 0.97).mark(), Mark::Must);
        assert_eq!(used.at_most(0.8, 0.5).mark(), Mark::Short);
    }

    #[test]
    fn in_words() {
        let off = Unit::Percent.of(-1.26).within(5.0, 2.5);
        assert_eq!(off.to_string(), "-1.3 %");
        assert_eq!(off.goals_text(), ["± 5 %", "± 2.5 %"]);
        assert_eq!(Unit::Count.of(0.0).goals_text(), ["–", "–"]);
    }

    #[test]
    fn quantiles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[7.0]), 7.0);
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
