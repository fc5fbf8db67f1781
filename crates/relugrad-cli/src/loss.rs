//! The option that says which loss a model is looked at with.

use clap::Args;
use relugrad::Loss;
use relugrad::loss::TargetKind;
use relugrad_train::LossSettings;

/// What the option says, here and for trainings.
pub(crate) const LOSS: &str = "The loss [default: squared-error of values; of classes softmax-cross-entropy, or logistic with \
    one logit]. An option stands in brackets: softmax-cross-entropy(label-smoothing=0.1)";

/// A loss that may be given.
#[derive(Clone, Debug, Args)]
pub(crate) struct LossOption {
    /// The loss
    #[arg(long = "loss", value_name = "LOSS", help = LOSS, long_help = help())]
    settings: Option<LossSettings>,
}

impl LossOption {
    /// The loss, if it is given.
    pub(crate) fn given(&self) -> relugrad_train::Result<Option<Loss>> {
        self.settings.as_ref().map(LossSettings::loss).transpose()
    }

    /// The loss that is given, or the usual one.
    pub(crate) fn of(&self, targets: TargetKind, outputs: usize) -> relugrad_train::Result<Loss> {
        let usual = || Loss::for_targets(targets, outputs);
        let loss = self.given()?.unwrap_or_else(usual);
        loss.check(targets, outputs)?;
        Ok(loss)
    }
}

/// The same with what is known of every loss.
pub(crate) fn help() -> String {
    let rows = Loss::catalogue().iter().map(|entry| {
        let options = entry.options.iter();
        let options = options.map(|(name, default)| format!("; {name}={default}"));
        format!(
            "\n  {:<24} {:<24} {}{}",
            entry.name,
            entry.formula,
            entry.meaning,
            options.collect::<String>()
        )
    });
    format!("{LOSS}\n{}", rows.collect::<String>())
}
