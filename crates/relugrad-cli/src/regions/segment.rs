//! The loss along a segment, printed and drawn.

use anyhow::Context;
use relugrad::Network;
use relugrad_train::data::Dataset;
use relugrad_train::regions::{Profile, profile};
use serde_json::json;

use super::drawing::{Axes, Canvas, class_colour};
use super::{Arguments, answer, sample, write};
use crate::failure::Failure;
use crate::report::short;
use crate::waiting::Waiting;
use crate::{interrupt, print};

/// Points over the whole segment, besides two for each stretch.
const POINTS: usize = 600;

/// Largest jumps that the text lists.
const LISTED: usize = 5;

/// Follows the loss, prints a summary and writes the files.
pub(super) fn run(
    arguments: &Arguments,
    network: &Network<f64>,
    data: &Dataset,
) -> Result<(), Failure> {
    let [a, b] = [arguments.segment[0], arguments.segment[1]];
    let ((x, truth), (y, other)) = (sample(data, a)?, sample(data, b)?);
    let (z, loss) = (&y - &x, arguments.loss.of(data.kind(), network.outputs())?);
    let said = answer(&truth);
    let waiting = Waiting::new("following the segment");
    let found = profile(
        network,
        x.view(),
        z.view(),
        &loss,
        &truth.targets(),
        POINTS,
        &interrupt::go_on,
    )?;
    drop(waiting);
    let length = z.dot(&z).sqrt();
    let mut title = format!(
        "from sample {a} ({said}) to sample {b} ({}), l2 length {}",
        answer(&other),
        short(length)
    );
    if !found.complete {
        title += &format!("; interrupted at t = {:.4}", found.end());
    }
    if let Some(path) = &arguments.svg {
        write(path, &picture(&title, &found, &said), arguments.overwrite)?;
    }
    let model = arguments.model.path().display().to_string();
    let all = json!({
        "model": model, "data": data.name(), "from": a, "to": b, "label": truth.labels().first(), "l2_length": length,
        "complete": found.complete, "stretches": found.stretches, "jumps": found.jumps,
    });
    if let Some(path) = &arguments.polygons {
        let text = serde_json::to_string(&all).context("cannot write JSON")? + "\n";
        write(path, &text, arguments.overwrite)?;
    }
    print::line(match arguments.json {
        true => all.to_string(),
        false => text(&title, &found),
    });
    match found.complete {
        true => Ok(()),
        false => Err(Failure::Interrupted(format!(
            "the segment is shown up to t = {:.4}",
            found.end()
        ))),
    }
}

fn text(title: &str, found: &Profile) -> String {
    let jumps = found.jumps.iter().map(|jump| jump.jump.abs()).sum::<f64>();
    let slopes = found.stretches.iter().map(|stretch| {
        let points = stretch.points.windows(2);
        points
            .map(|pair| (pair[1][2] - pair[0][2]).abs())
            .sum::<f64>()
    });
    let smooth: f64 = slopes.sum();
    let classes: Vec<usize> = found
        .stretches
        .iter()
        .flat_map(|s| s.classes.clone())
        .collect();
    let mut passed = classes.clone();
    passed.dedup();
    let passed: Vec<String> = passed.iter().map(ToString::to_string).collect();
    let mut text = format!(
        "{title}\n{} kinks in {} regions{}\nloss {} to {}; its derivative changes by {} at kinks and by {} between them ({:.1} % at kinks)",
        found.jumps.len(),
        found.stretches.len(),
        match passed.is_empty() {
            true => String::new(),
            false => format!("; predicted classes {}", passed.join(", ")),
        },
        short(found.stretches[0].points[0][1]),
        short(
            found
                .stretches
                .last()
                .map_or(0.0, |s| s.points[s.points.len() - 1][1])
        ),
        short(jumps),
        short(smooth),
        if jumps + smooth > 0.0 {
            100.0 * jumps / (jumps + smooth)
        } else {
            0.0
        },
    );
    let mut largest: Vec<_> = found.jumps.iter().collect();
    largest.sort_by(|a, b| b.jump.abs().total_cmp(&a.jump.abs()));
    for jump in largest.iter().take(LISTED) {
        text += &format!(
            "\n  at t = {:.4} unit {} of gate layer {} adds {} to the derivative",
            jump.at,
            jump.unit,
            jump.layer,
            short(jump.jump)
        );
    }
    text
}

/// Loss above, derivative below, a tick for every kink between them.
fn picture(title: &str, found: &Profile, said: &str) -> String {
    let mut canvas = Canvas::new(760.0, 596.0);
    canvas.text((60.0, 26.0), "start", 15.0, "#222", title);
    let lowest = |of: usize| {
        let values = found
            .stretches
            .iter()
            .flat_map(|s| s.points.iter().map(move |p| p[of]));
        values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| {
            (low.min(v), high.max(v))
        })
    };
    let above = Axes::new([60.0, 66.0, 680.0, 200.0], (0.0, 1.0), lowest(1));
    let below = Axes::new([60.0, 350.0, 680.0, 190.0], (0.0, 1.0), lowest(2));
    above.frame(&mut canvas, "", &format!("loss of {said}"));
    below.frame(
        &mut canvas,
        "t, the share of the way from the first sample to the second",
        "derivative of the loss with respect to t",
    );
    for stretch in &found.stretches {
        for (i, pair) in stretch.points.windows(2).enumerate() {
            let colour = stretch
                .classes
                .get(i)
                .map_or("#222", |&class| class_colour(class));
            let line = [[pair[0][0], pair[0][1]], [pair[1][0], pair[1][1]]];
            above.line(&mut canvas, &line, colour, 2.0);
        }
        let line: Vec<[f64; 2]> = stretch.points.iter().map(|p| [p[0], p[2]]).collect();
        below.line(&mut canvas, &line, "#222", 1.4);
    }
    for (i, jump) in found.jumps.iter().enumerate() {
        let [before, after] = [&found.stretches[i], &found.stretches[i + 1]];
        let ends = [
            before.points[before.points.len() - 1][2],
            after.points[0][2],
        ];
        let line = [[jump.at, ends[0]], [jump.at, ends[1]]];
        below.line(&mut canvas, &line, "#d55e00", 0.8);
        let x = above.x(jump.at);
        canvas.segment([x, 290.0], [x, 302.0], "#d55e00", 0.7);
    }
    let caption = format!(
        "{} kinks (ticks), where the derivative jumps{}",
        found.jumps.len(),
        match found.stretches[0].classes.is_empty() {
            true => "",
            false => "; the line has the colour of the predicted class",
        }
    );
    canvas.text((60.0, 316.0), "start", 11.0, "#666", &caption);
    canvas.finish(title)
}
