//! Quantities of the Kubernetes API, as integers.

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// A quantity in thousandths (millicores, thousandths of a byte), rounded up: `0.1`, `100m`,
/// `24756128n`, `64Mi`.
/// Too large ones are the largest integer.
// By hand: kube_quantity brings a decimal library and counts bytes, k8s_quantity_parser knows no
// nanocores.
pub fn thousandths(Quantity(quantity): &Quantity) -> Option<i64> {
    let number = quantity.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let factor = match &quantity[number.len()..] {
        "n" => 1e-6,
        "u" => 1e-3,
        "m" => 1.0,
        "" => 1e3,
        "k" => 1e6,
        "M" => 1e9,
        "G" => 1e12,
        "T" => 1e15,
        "P" => 1e18,
        "E" => 1e21,
        "Ki" => 1024e3,
        "Mi" => 1024e3 * 1024f64,
        "Gi" => 1024e3 * 1024f64.powi(2),
        "Ti" => 1024e3 * 1024f64.powi(3),
        "Pi" => 1024e3 * 1024f64.powi(4),
        "Ei" => 1024e3 * 1024f64.powi(5),
        _ => return None,
    };
    let thousandths = number.parse::<f64>().ok()? * factor;
    // The error of a binary fraction must not round a whole number up.
    Some(((thousandths * 1e6).round() / 1e6).ceil() as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_with_every_suffix() {
        for (quantity, expected) in [
            ("24756128n", 25),
            ("7u", 1),
            ("100m", 100),
            ("0.1", 100),
            ("1e3", 1_000_000),
            ("2k", 2_000_000),
            ("2P", 2_000_000_000_000_000_000),
            ("64Mi", 64 * 1024 * 1024 * 1000),
            ("2Gi", 2000 << 30),
            ("2Ti", 2000 << 40),
            ("2Pi", 2000 << 50),
            ("1E", i64::MAX),
            ("1Ei", i64::MAX),
        ] {
            assert_eq!(
                thousandths(&Quantity(quantity.into())),
                Some(expected),
                "{quantity}"
            );
        }
        for quantity in ["", "m", "1x", "1mi"] {
            assert_eq!(thousandths(&Quantity(quantity.into())), None, "{quantity}");
        }
    }
}
