//! Whether something grows: a straight line through what was measured.

/// A line through points, by least squares.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Line {
    /// In units of the values.
    pub(crate) per_hour: f64,
    /// The share of the values' variance that the line explains, 0 to 1.
    pub(crate) r2: f64,
}

impl Line {
    /// Through points of seconds and values; `None` for fewer than three or without a span of time.
    pub(crate) fn through(points: &[(f64, f64)]) -> Option<Line> {
        let n = points.len() as f64;
        let mean = |of: fn(&(f64, f64)) -> f64| points.iter().map(of).sum::<f64>() / n;
        let (mean_x, mean_y) = (mean(|point| point.0), mean(|point| point.1));
        let (mut xx, mut xy, mut yy) = (0.0, 0.0, 0.0);
        for (x, y) in points {
            let (dx, dy) = (x - mean_x, y - mean_y);
            (xx, xy, yy) = (xx + dx * dx, xy + dx * dy, yy + dy * dy);
        }
        if points.len() < 3 || xx == 0.0 {
            return None;
        }
        // Values that are all the same lie on a line, and it explains nothing.
        let r2 = if yy == 0.0 { 0.0 } else { xy * xy / (xx * yy) };
        Some(Line { per_hour: xy / xx * 3600.0, r2 })
    }

    /// More than `limit` an hour, and not by chance.
    pub(crate) fn grows(&self, limit: f64) -> bool {
        self.per_hour > limit && self.r2 > R2
    }
}

/// Below this a slope is noise.
pub(crate) const R2: f64 = 0.7;
/// A shorter time says nothing of growth by the hour: one page that is touched for the first time would be a leak.
pub(crate) const SHORTEST: f64 = 15.0 * 60.0;

#[cfg(test)]
#[allow(dead_code, unused_imports, reason = "for `tests/soak.rs`: a bench has no tests")]
mod tests {
    use super::*;

    /// Half an hour at one sample in ten seconds; `noise` is the amplitude of something that looks random and is not.
    fn half_an_hour(per_hour: f64, noise: f64) -> Vec<(f64, f64)> {
        let noise = |i: u32| noise * (f64::from(i.wrapping_mul(2_654_435_761) >> 16) / 32_768.0 - 1.0);
        (0..180).map(|i| (f64::from(i) * 10.0, 60.0 + per_hour * f64::from(i) / 360.0 + noise(i))).collect()
    }

    #[test]
    fn a_leak_is_found_through_noise() {
        for (leak, noise) in [(0.6, 0.0), (0.6, 0.05), (2.0, 0.3), (50.0, 5.0)] {
            let line = Line::through(&half_an_hour(leak, noise)).unwrap();
            assert!(line.grows(0.5), "{leak} MB/h under {noise} MB: {line:?}");
            assert!((line.per_hour - leak).abs() < noise.max(1e-6), "{line:?}");
        }
    }

    #[test]
    fn noise_and_what_shrinks_and_what_is_within_the_limit_pass() {
        for (leak, noise) in [(0.0, 0.0), (0.0, 0.3), (0.0, 20.0), (-3.0, 0.1), (0.4, 0.0), (1.0, 5.0)] {
            let line = Line::through(&half_an_hour(leak, noise)).unwrap();
            assert!(!line.grows(0.5), "{leak} MB/h under {noise} MB: {line:?}");
        }
    }

    #[test]
    fn a_wave_and_a_single_outlier_are_no_growth() {
        let wave: Vec<_> = (0..180).map(|i| (f64::from(i) * 10.0, 60.0 + (f64::from(i) / 7.0).sin())).collect();
        assert!(!Line::through(&wave).unwrap().grows(0.5));
        let mut outlier = half_an_hour(0.0, 0.0);
        outlier[179].1 += 10.0;
        assert!(!Line::through(&outlier).unwrap().grows(0.5));
    }

    #[test]
    fn stairs_are_growth() {
        let stairs: Vec<_> = (0..180).map(|i| (f64::from(i) * 10.0, 60.0 + f64::from(i / 20) * 0.1)).collect();
        assert!(Line::through(&stairs).unwrap().grows(0.5));
    }

    #[test]
    fn too_little_to_say_anything_of() {
        assert_eq!(Line::through(&[]), None);
        assert_eq!(Line::through(&[(0.0, 1.0), (10.0, 2.0)]), None);
        assert_eq!(Line::through(&[(5.0, 1.0), (5.0, 2.0), (5.0, 3.0)]), None);
    }
}
