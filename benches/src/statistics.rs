//! The only statistics that are claimed: the median, and what lay around it.

/// What a list of samples says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
}

impl Spread {
    /// `None` when there is no sample.
    pub(crate) fn of(samples: &[f64]) -> Option<Self> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (least, most) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len() % 2 == 1 {
            sorted[middle]
        } else {
            f64::midpoint(sorted[middle - 1], sorted[middle])
        };
        Some(Self { median, least, most })
    }
}

/// The ratio of two medians; `None` when either has no sample, or the second is nothing.
pub(crate) fn ratio(samples: &[f64], others: &[f64]) -> Option<f64> {
    let (one, other) = (Spread::of(samples)?.median, Spread::of(others)?.median);
    (other > 0.0).then(|| one / other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_between_the_two_in_the_middle() {
        for (samples, median, least, most) in [
            (vec![7.0], 7.0, 7.0, 7.0),
            (vec![3.0, 1.0], 2.0, 1.0, 3.0),
            (vec![9.0, 1.0, 5.0], 5.0, 1.0, 9.0),
            (vec![10.0, 2.0, 100.0, 4.0], 7.0, 2.0, 100.0),
        ] {
            assert_eq!(Spread::of(&samples), Some(Spread { median, least, most }), "{samples:?}");
        }
    }

    #[test]
    fn nothing_is_said_of_no_samples() {
        assert_eq!(Spread::of(&[]), None);
        assert_eq!(ratio(&[1.0], &[]), None);
        assert_eq!(ratio(&[1.0], &[0.0]), None);
    }

    #[test]
    fn a_ratio_is_one_of_medians() {
        assert_eq!(ratio(&[1.0, 2.0, 300.0], &[8.0]), Some(0.25));
    }
}
