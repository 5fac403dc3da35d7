//! Measured values with their units and bounds.

use std::fmt;

/// The benchmark fails if the number is not within its bound.
#[derive(Clone, Copy)]
pub struct Value {
    pub number: f64,
    pub unit: &'static str,
    decimals: usize,
    least: f64,
    most: f64,
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

pub const fn mebibytes(bytes: u64) -> Value {
    Value::new(bytes as f64 / 1048576.0, "MiB", 1)
}

pub const fn count(number: usize) -> Value {
    Value::new(number as f64, "", 0)
}

impl Value {
    const fn new(number: f64, unit: &'static str, decimals: usize) -> Self {
        Self {
            number,
            unit,
            decimals,
            least: f64::NEG_INFINITY,
            most: f64::INFINITY,
        }
    }

    /// With this bound; infinity is none.
    pub fn at_most(self, most: f64) -> Self {
        Self { most, ..self }
    }

    /// With this bound; negative infinity is none.
    pub fn at_least(self, least: f64) -> Self {
        Self { least, ..self }
    }

    /// With a bound of this much from 0, in either direction.
    pub fn within(self, bound: f64) -> Self {
        self.at_least(-bound).at_most(bound)
    }

    /// A value that is not a number misses every bound.
    pub fn meets_bound(self) -> bool {
        self.bound().is_empty() || (self.least..=self.most).contains(&self.number)
    }

    /// Such as `≤ 5 ms`; empty if there is none.
    pub fn bound(self) -> String {
        let (sign, bound) = match (self.least, self.most) {
            (f64::NEG_INFINITY, f64::INFINITY) => return String::new(),
            (f64::NEG_INFINITY, most) => ("≤", most),
            (least, f64::INFINITY) => ("≥", least),
            (_, most) => ("±", most),
        };
        format!("{sign} {bound} {}", self.unit).trim().to_owned()
    }
}

/// With its bound in parentheses.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (number, decimals, unit) = (self.number, self.decimals, self.unit);
        match unit {
            _ if number.is_nan() => write!(f, "–")?,
            // A deviation, in either direction.
            "%" => write!(f, "{number:+.decimals$} %")?,
            "" => write!(f, "{number:.decimals$}")?,
            _ => write!(f, "{number:.decimals$} {unit}")?,
        }
        match self.bound() {
            bound if bound.is_empty() => Ok(()),
            bound => write!(f, " ({bound})"),
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

/// The value that this share of the values does not exceed; NaN without any.
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
    fn bounds() {
        for (value, text, meets) in [
            (percent(-5.0).within(5.0), "-5.0 % (± 5 %)", true),
            (percent(-5.1).within(5.0), "-5.1 % (± 5 %)", false),
            (seconds(f64::NAN).at_most(5.0), "– (≤ 5 s)", false),
            (plain(0.9).at_least(0.9), "0.900 (≥ 0.9)", true),
            (plain(0.8).at_least(0.9), "0.800 (≥ 0.9)", false),
            (count(3).at_most(2.0), "3 (≤ 2)", false),
            (milliseconds(30.0).at_most(f64::INFINITY), "30.0 ms", true),
        ] {
            assert_eq!(value.to_string(), text);
            assert_eq!(value.meets_bound(), meets, "{text}");
        }
    }

    #[test]
    fn quantiles_and_deviations() {
        let values = [3.0, 1.0, 2.0, 4.0];
        let quantiles = [0.0, 0.5, 0.51, 1.0].map(|share| quantile(&values, share));
        assert_eq!(quantiles, [1.0, 2.0, 3.0, 4.0]);
        assert!(quantile(&[], 0.5).is_nan());
        assert_eq!(largest([1.0, -3.0, 2.0]), -3.0);
        assert!(largest([1.0, f64::NAN, 2.0]).is_nan());
        assert!(largest([]).is_nan());
    }
}
