//! Times that can be compared although other programs run: every candidate once per round.

use std::time::{Duration, Instant};

/// The median time of each task over `rounds` rounds, after one that does not count.
///
/// In each round every task runs once, so that a disturbance of some seconds hits all of them
/// alike.
pub fn interleaved(rounds: usize, tasks: &mut [Box<dyn FnMut() + '_>]) -> Vec<Duration> {
    let mut times = vec![Vec::with_capacity(rounds); tasks.len()];
    for round in 0..=rounds {
        for (task, times) in tasks.iter_mut().zip(&mut times) {
            let start = Instant::now();
            task();
            if round > 0 {
                times.push(start.elapsed());
            }
        }
    }
    times.into_iter().map(median).collect()
}

/// The middle one of some times, the later of two; zero if there are none.
pub fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

/// A time with about three digits, in the unit that suits it.
pub fn readable(time: Duration) -> String {
    let (seconds, hour) = (time.as_secs_f64(), 3600.0);
    let (value, unit) = match seconds {
        ..1e-3 => (seconds * 1e6, "µs"),
        ..1.0 => (seconds * 1e3, "ms"),
        ..100.0 => (seconds, "s"),
        _ => (seconds / hour, "h"),
    };
    format!("{} {unit}", digits(value))
}

/// A positive number with about three digits.
pub fn digits(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let times = [5, 1, 9].map(Duration::from_millis).to_vec();
        assert_eq!(median(times), Duration::from_millis(5));
        assert_eq!(median(Vec::new()), Duration::ZERO);
    }

    #[test]
    fn every_task_runs_once_in_each_round_and_once_before() {
        let (mut a, mut b) = (0, 0);
        let times = interleaved(3, &mut [Box::new(|| a += 1), Box::new(|| b += 1)]);
        assert_eq!((a, b, times.len()), (4, 4, 2));
    }

    #[test]
    fn times_have_few_digits_and_a_unit() {
        let text = |us| readable(Duration::from_micros(us));
        let found = [text(12), text(1234), text(12_345_678), text(7_200_000_000)];
        assert_eq!(found, ["12.0 µs", "1.23 ms", "12.3 s", "2.00 h"]);
    }
}
