//! Shards of a comparison, made and joined by the library.

use std::ops::ControlFlow;

use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use relugrad::Penalty;
use relugrad_train::compare::{
    Comparison, MergeError, Part, Plan, Shard, ShardResults, Share, Variant, compare, merge,
};
use relugrad_train::data::{digits, stratified_split};
use relugrad_train::{Adversarial, Architecture, Event};

/// Plain training, two weights of a penalty with adversarial training between them, three seeds.
fn plan() -> Plan {
    let data = stratified_split(&digits(), 0.2, 0).unwrap();
    let variants = [
        Variant::Penalty(Penalty::Jacobian, 0.01),
        Variant::Adversarial(Adversarial::default()),
        Variant::Penalty(Penalty::Jacobian, 0.1),
    ];
    let mut plan = Plan {
        model: Architecture::mlp(&[3]),
        seeds: vec![7, 0, 3],
        attack_samples: 5,
        attacks: Vec::new(),
        ..Plan::new(data, variants)
    };
    plan.training.epochs = 1;
    plan
}

fn run(plan: &Plan) -> Comparison {
    compare(
        plan,
        None,
        &mut |_: Event<'_>| ControlFlow::Continue(()),
        &|| true,
    )
    .unwrap()
}

fn shared(plan: &Plan, number: usize, of: usize) -> Plan {
    let shard = Shard::new(number, of).unwrap();
    let total = plan.runs();
    Plan {
        share: Some(Share {
            shard,
            before: 0,
            total,
        }),
        ..plan.clone()
    }
}

/// What a shard would have found, had it run when the whole comparison did.
fn cut(whole: &Comparison, plan: &Plan) -> ShardResults {
    let own = plan.own_runs();
    let runs = whole.runs.iter().enumerate();
    let comparison = Comparison {
        runs: runs
            .filter(|(i, _)| own.contains(i))
            .map(|(_, run)| run.clone())
            .collect(),
        ..plan.begin().unwrap()
    };
    let share = plan.share.unwrap();
    // As it is read from its file.
    let json = serde_json::to_string(&comparison).unwrap();
    ShardResults {
        from: share.shard.to_string(),
        comparison: serde_json::from_str(&json).unwrap(),
    }
}

/// Joined, any division into any number of shards, in any order and with copies among them, is the
/// comparison itself to the last byte.
#[test]
fn joined_shards_are_the_comparison() {
    let plan = plan();
    let whole = run(&plan);
    let text = serde_json::to_string(&whole).unwrap();
    let mut rng = ChaCha8Rng::seed_from_u64(0);
    for of in 1..=plan.runs() + 1 {
        let mut shards: Vec<ShardResults> = (1..=of)
            .map(|number| cut(&whole, &shared(&plan, number, of)))
            .collect();
        let other = rng.random_range(1..=9);
        shards.push(cut(
            &whole,
            &shared(&plan, rng.random_range(1..=other), other),
        ));
        shards.shuffle(&mut rng);
        let merged = merge(&shards).unwrap();
        assert_eq!(merged.comparison, whole);
        assert_eq!(serde_json::to_string(&merged.comparison).unwrap(), text);
        for (run, sources) in merged.comparison.runs.iter().zip(&merged.sources) {
            let has = |place: &usize| shards[*place].comparison.runs.contains(run);
            assert!(!sources.is_empty() && sources.iter().all(has));
        }
    }
}

/// A shard trains what the whole comparison does, to the same numbers.
#[test]
fn a_shard_makes_its_own_runs() {
    let plan = plan();
    let whole = run(&plan);
    let shard = shared(&plan, 2, 5);
    let made = run(&shard);
    assert!(made.complete);
    let planned = cut(&whole, &shard).comparison.runs;
    assert_eq!(made.runs.len(), 3);
    for (made, planned) in made.runs.iter().zip(planned) {
        let timeless = relugrad_train::compare::Run {
            step_milliseconds: made.step_milliseconds,
            ..planned
        };
        assert_eq!(*made, timeless);
    }
    // It is gone on with as what it is alone.
    let mut quiet = |_: Event<'_>| ControlFlow::Continue(());
    for other in [plan.clone(), shared(&plan, 1, 5), shared(&plan, 2, 6)] {
        let error = compare(&other, Some(made.clone()), &mut quiet, &|| true).unwrap_err();
        assert!(error.to_string().contains("shard 2/5"), "{error}");
    }
    assert_eq!(
        compare(&shard, Some(made.clone()), &mut quiet, &|| true).unwrap(),
        made
    );
}

#[test]
fn what_cannot_be_joined_is_refused() {
    let plan = plan();
    let whole = run(&plan);
    let shards: Vec<ShardResults> = (1..=4)
        .map(|number| cut(&whole, &shared(&plan, number, 4)))
        .collect();
    let changed = |change: &dyn Fn(&mut Comparison)| {
        let mut shards = shards.clone();
        change(&mut shards[2].comparison);
        merge(&shards).unwrap_err()
    };
    assert!(matches!(merge(&[]), Err(MergeError::Nothing)));
    assert!(matches!(
        changed(&|c| c.part = None),
        MergeError::NoShard { .. }
    ));
    let error = changed(&|c| c.settings.version = "0".into());
    assert!(matches!(error, MergeError::OtherSettings { keys, .. } if keys == ["version"]));
    let part = |change: fn(&mut Part)| changed(&|c| change(c.part.as_mut().unwrap()));
    for error in [
        part(|part| part.share.total += 1),
        part(|part| part.variants[1].lambda = 0.5),
    ] {
        assert!(matches!(error, MergeError::OtherSettings { .. }), "{error}");
    }
    let error = changed(&|c| c.runs[0].seed = 99);
    assert!(matches!(error, MergeError::Unplanned { .. }), "{error}");
    let error = changed(&|c| drop(c.runs.pop()));
    let MergeError::Missing {
        planned: 12,
        shards: missing,
    } = error
    else {
        panic!("{error}");
    };
    assert_eq!(missing.len(), 1);
    assert_eq!(missing[0].shard, Shard::new(3, 4).unwrap());
    assert_eq!(missing[0].from.as_deref(), Some("3/4"));
    assert_eq!(missing[0].runs, ["none, seed 3"]);

    let mut twice = shards.clone();
    twice.push(shards[0].clone());
    twice[4].comparison.runs[1].evaluation.loss += 1e-12;
    assert!(matches!(merge(&twice), Err(MergeError::Conflict { .. })));
    // The time alone is no difference, and the shortest counts.
    twice[4] = shards[0].clone();
    twice[4].comparison.runs[1].step_milliseconds = 0.0;
    let merged = merge(&twice).unwrap();
    let fast = merged
        .comparison
        .runs
        .iter()
        .filter(|run| run.step_milliseconds == 0.0);
    assert_eq!(fast.count(), 1);
    for threads in [1, 9] {
        twice[1].comparison.settings.threads = threads;
        let most = twice
            .iter()
            .map(|shard| shard.comparison.settings.threads)
            .max();
        assert_eq!(
            merge(&twice).unwrap().comparison.settings.threads,
            most.unwrap()
        );
    }
}
