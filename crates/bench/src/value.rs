//! Measured values with their units and bounds.

use std::fmt;

#[derive(Clone, Copy)]
pub struct Value {
    pub number: f64,
    pub unit: &'static str,
    decimals: usize,
    bound: Bound,
}

/// What a value must be, in its unit; the benchmark fails if it is not.
#[derive(Clone, Copy)]
enum Bound {
    AtMost(f64),
    AtLeast(f64),
    /// At most this far from 0, in either direction.
    Within(f64),
    /// The value is only reported.
    Unbounded,
}

pub const fn percent(number: f64) -> Value {
    Value::new(number, "%", 1)
}

pub const fn milliseconds(number: f64) -> Value {
    Value::new(number, "ms", 1)
}

pub const fn seconds(number: f64) -> Value {
    Value::new(number, "s", 2)
}

/// Cores or a ratio.
pub const fn plain(number: f64) -> Value {
    Value::new(number, "", 3)
}

pub const fn count(number: usize) -> Value {
    Value::new(number as f64, "", 0)
}

impl Value {
    const fn new(number: f64, unit: &'static str, decimals: usize) -> Self {
        let bound = Bound::Unbounded;
        Self {
            number,
            unit,
            decimals,
            bound,
        }
    }

    /// With this bound; NaN is none.
    pub fn at_most(self, bound: f64) -> Self {
        self.bounded(Bound::AtMost(bound), bound)
    }

    /// With this bound; NaN is none.
    pub fn at_least(self, bound: f64) -> Self {
        self.bounded(Bound::AtLeast(bound), bound)
    }

    /// With a bound of this much from 0, in either direction.
    pub fn within(self, bound: f64) -> Self {
        self.bounded(Bound::Within(bound), bound)
    }

    fn bounded(self, bound: Bound, number: f64) -> Self {
        if number.is_nan() {
            return self;
        }
        Self { bound, ..self }
    }

    /// A value that is not a number misses every bound.
    pub fn meets_bound(self) -> bool {
        match self.bound {
            Bound::AtMost(bound) => self.number <= bound,
            Bound::AtLeast(bound) => self.number >= bound,
            Bound::Within(bound) => self.number.abs() <= bound,
            Bound::Unbounded => true,
        }
    }

    /// Such as `≤ 5 ms`; empty if there is none.
    pub fn bound(self) -> String {
        let (sign, bound) = match self.bound {
            Bound::AtMost(bound) => ("≤", bound),
            Bound::AtLeast(bound) => ("≥", bound),
            Bound::Within(bound) => ("±", bound),
            Bound::Unbounded => return String::new(),
        };
        format!("{sign} {bound} {}", self.unit).trim().to_owned()
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, decimals, unit) = (self.number, self.decimals, self.unit);
        match unit {
            // A deviation, in either direction.
            "%" => write!(f, "{number:+.decimals$} %"),
            "" => write!(f, "{number:.decimals$}"),
            _ => write!(f, "{number:.decimals$} {unit}"),
        }
    }
}

/// The deviation of `value` from `expected`, in percent.
pub fn deviation(value: f64, expected: f64) -> f64 {
    100.0 * (value / expected - 1.0)
}

/// The largest of some deviations, in either direction. NaN is the largest, and so misses its
/// bound.
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
    fn bounds() {
        for (value, text, meets) in [
            (percent(-5.0).within(5.0), "-5.0 % ± 5 %", true),
            (percent(-5.1).within(5.0), "-5.1 % ± 5 %", false),
            (seconds(f64::NAN).at_most(5.0), "NaN s ≤ 5 s", false),
            (plain(0.9).at_least(0.9), "0.900 ≥ 0.9", true),
            (plain(0.8).at_least(0.9), "0.800 ≥ 0.9", false),
            (count(3).at_most(2.0), "3 ≤ 2", false),
            (milliseconds(30.0).at_most(f64::NAN), "30.0 ms ", true),
        ] {
            assert_eq!(format!("{value} {}", value.bound()), text);
            assert_eq!(value.meets_bound(), meets, "{text}");
        }
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
