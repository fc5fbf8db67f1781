//! The objectives that are timed.

use relugrad::{Loss, Objective, Penalty};

/// Weight of every penalty. The cost of a step does not depend on it.
const LAMBDA: f64 = 0.01;

/// Softmax cross-entropy with these penalties.
pub fn objective(penalties: &[Penalty]) -> Objective {
    let plain = Objective::new(Loss::softmax_cross_entropy());
    penalties.iter().fold(plain, |objective, penalty| {
        let penalty = penalty.clone();
        objective.with(penalty, LAMBDA).expect("options in range")
    })
}

/// The objectives whose training step is timed, with their names: the plain loss and five
/// penalties.
pub fn step_penalties() -> Vec<(String, Objective)> {
    let names = [
        "jacobian",
        "input-gradient",
        "cross-lipschitz",
        "curvature-frobenius",
        "cure",
    ];
    let mut objectives = vec![("plain".to_owned(), objective(&[]))];
    for name in names {
        let penalty = name.parse().expect("the name of a penalty");
        objectives.push((name.to_owned(), objective(&[penalty])));
    }
    objectives
}

/// The penalties that are functions of the logits and the Gram matrix `J Jᵀ`, with default options.
pub fn gram_penalties() -> Vec<Penalty> {
    let mut all = Penalty::all();
    all.retain(Penalty::is_function_of_gram);
    all
}

/// Each Gram penalty alone, by its name, and then `all`: every one of them in one objective.
pub fn together() -> Vec<(String, Objective)> {
    let penalties = gram_penalties();
    let alone = penalties.iter().map(|penalty| {
        (
            penalty.name().to_owned(),
            objective(std::slice::from_ref(penalty)),
        )
    });
    alone
        .chain([("all".to_owned(), objective(&penalties))])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_eleven_gram_penalties() {
        assert_eq!(gram_penalties().len(), 11);
        let objectives = together();
        assert_eq!(objectives.len(), 12);
        assert_eq!(objectives[11].1.terms().len(), 11);
    }
}
