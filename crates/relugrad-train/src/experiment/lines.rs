//! The lines of `metrics.jsonl`, and what is left of them when a training is resumed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::report::{EpochReport, StepReport};

/// A line of `metrics.jsonl`.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub(super) enum Line<'a> {
    Step(Cow<'a, StepReport>),
    Epoch(Cow<'a, EpochReport>),
}

impl Line<'_> {
    /// The line with its end.
    pub(super) fn to_json(&self) -> Vec<u8> {
        let mut json = serde_json::to_vec(self).expect("strings and numbers are JSON");
        json.push(b'\n');
        json
    }

    /// Reads a line that is as we write it, but perhaps for its end.
    fn read(bytes: &[u8]) -> Option<Line<'static>> {
        let bytes = bytes.trim_ascii_end();
        let line: Line = serde_json::from_slice(bytes).ok()?;
        let written = line.to_json();
        (written.trim_ascii_end() == bytes).then_some(line)
    }
}

/// Whether a file is empty or has a line of a training.
pub(super) fn is_ours(bytes: &[u8]) -> bool {
    let mut lines = bytes.split(|&byte| byte == b'\n');
    bytes.is_empty() || lines.any(|line| Line::read(line).is_some())
}

/// What a training's file holds after `done` steps and `epochs`.
///
/// Epochs are known from the checkpoint, so their lines are written anew. Lines of steps that a
/// process had taken after its last checkpoint are left out, since these steps will be taken again;
/// so are damaged lines, which nothing can bring back.
pub(super) fn restored(bytes: &[u8], done: u64, epochs: &[EpochReport]) -> Vec<u8> {
    let mut lines: BTreeMap<(u64, bool), Line> = BTreeMap::new();
    for step in steps(bytes)
        .into_iter()
        .filter(|report| report.step <= done)
    {
        lines.insert((step.step, false), Line::Step(Cow::Owned(step)));
    }
    for epoch in epochs {
        lines.insert((epoch.step, true), Line::Epoch(Cow::Borrowed(epoch)));
    }
    lines.values().flat_map(Line::to_json).collect()
}

/// The lines of steps, each step once. A line whose number was damaged follows and precedes none of
/// its neighbours.
fn steps(bytes: &[u8]) -> Vec<StepReport> {
    let lines = bytes.split(|&byte| byte == b'\n').filter_map(Line::read);
    let reports = lines.filter_map(|line| match line {
        Line::Step(report) => Some(report.into_owned()),
        Line::Epoch(_) => None,
    });
    let reports: Vec<StepReport> = reports.collect();
    let step = |i: usize| reports.get(i).map(|report| report.step);
    let trust = |i: usize| {
        let own = reports[i].step;
        let (before, after) = (i.checked_sub(1).and_then(step), step(i + 1));
        let follows = before.is_some_and(|before| before + 1 == own);
        let precedes = after.is_some_and(|after| after == own + 1);
        match follows || precedes {
            true => 2,
            false => u8::from(before.is_none() || after.is_none()),
        }
    };
    let mut trusted: BTreeMap<u64, (u8, usize)> = BTreeMap::new();
    for (i, report) in reports.iter().enumerate() {
        let known = trusted.get(&report.step).map_or(0, |(trust, _)| *trust);
        if trust(i) > known {
            trusted.insert(report.step, (trust(i), i));
        }
    }
    trusted.values().map(|&(_, i)| reports[i].clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::score::{Quality, Score};

    fn step(step: u64) -> StepReport {
        StepReport {
            epoch: 1 + (step as usize - 1) / 10,
            step,
            steps: 40,
            loss: 1.0 / step as f64,
            penalties: vec![0.1 * step as f64],
            objective: 1.25,
            gradient_norm: 1e-7,
            learning_rate: 1e-3,
        }
    }

    fn epoch(epoch: usize) -> EpochReport {
        EpochReport {
            epoch,
            step: 10 * epoch as u64,
            learning_rate: 1e-3,
            train: Score {
                loss: 0.1,
                quality: Quality::Values { mse: 0.2, r2: 0.5 },
            },
            train_penalties: vec![0.3],
            validation: None,
            best: true,
        }
    }

    /// Forty steps in four epochs, as they are written.
    fn whole() -> (Vec<Vec<u8>>, Vec<EpochReport>) {
        let epochs: Vec<EpochReport> = (1..=4).map(epoch).collect();
        let mut lines = Vec::new();
        for i in 1..=40 {
            lines.push(Line::Step(Cow::Owned(step(i))).to_json());
            if i % 10 == 0 {
                let epoch = &epochs[i as usize / 10 - 1];
                lines.push(Line::Epoch(Cow::Borrowed(epoch)).to_json());
            }
        }
        (lines, epochs)
    }

    #[test]
    fn what_is_whole_stays_and_what_comes_again_is_left_out() {
        let (lines, epochs) = whole();
        let bytes = lines.concat();
        assert_eq!(restored(&bytes, 40, &epochs), bytes);
        assert_eq!(restored(&bytes, 23, &epochs[..2]), lines[..25].concat());
        assert_eq!(restored(&bytes, 0, &[]), b"");
        let without = restored(b"", 40, &epochs);
        assert_eq!(without.iter().filter(|byte| **byte == b'\n').count(), 4);
    }

    #[test]
    fn ends_of_lines_and_a_torn_last_line_do_no_harm() {
        let (lines, epochs) = whole();
        let bytes = lines.concat();
        let text = String::from_utf8(bytes.clone()).unwrap();
        let other = text.replace('\n', "\r\n");
        assert_eq!(restored(other.as_bytes(), 40, &epochs), bytes);
        for torn in [&b"{\"kind\":\"st"[..], &[0; 512], b"\xff"] {
            assert_eq!(restored(&[&bytes, torn].concat(), 40, &epochs), bytes);
        }
        let end = bytes.len() - 1;
        assert_eq!(restored(&bytes[..end], 40, &epochs), bytes);
    }

    /// Whatever byte is damaged, lines of epochs come back, and at most one line of a step is lost.
    #[test]
    fn a_damaged_byte_costs_one_line_at_most() {
        let (lines, epochs) = whole();
        let bytes = lines.concat();
        for i in 0..bytes.len() {
            for damaged in [0, 0xff, b'7', b'\n', bytes[i] ^ 0x10] {
                let mut bad = bytes.clone();
                bad[i] = damaged;
                let left = restored(&bad, 40, &epochs);
                let left: Vec<&[u8]> = left.split_inclusive(|byte| *byte == b'\n').collect();
                let kept = lines.iter().filter(|line| left.contains(&&***line));
                // The end of a line joins it to the next.
                let lost = lines.len() - kept.count();
                assert!(lost <= 1 + usize::from(bytes[i] == b'\n'), "byte {i}");
            }
        }
    }

    #[test]
    fn foreign_files_are_told() {
        assert!(is_ours(b"") && is_ours(&whole().0[0]));
        for foreign in [&b"my notes\n"[..], b"{\"kind\":\"step\"}\n", b"\n", b"{}"] {
            assert!(!is_ours(foreign));
        }
    }
}
