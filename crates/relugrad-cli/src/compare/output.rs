//! The directory that receives a comparison.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use relugrad::Network;
use relugrad_train::compare::{ADVERSARIAL, Comparison, Run};

use crate::report;

/// Files by which an earlier result is recognised.
const RESULT_FILES: [&str; 3] = ["results.json", "report.html", "curves.csv"];

/// A directory that can be written and holds no result, or one that may be replaced.
pub(super) struct Output {
    directory: PathBuf,
    /// Whether models of an earlier result have been removed, or are to stay.
    begun: bool,
    resume: bool,
}

impl Output {
    /// Makes the directory if need be and tries to write there, before any work is done.
    pub(super) fn open(directory: &Path, overwrite: bool, resume: bool) -> Result<Output> {
        let name = directory.display();
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make the directory {name} of --out"))?;
        let earlier = RESULT_FILES
            .iter()
            .find(|file| directory.join(file).exists());
        if let (Some(file), false) = (earlier, overwrite || resume) {
            bail!(
                "{name} already holds a result ({file}); give another directory to --out, --overwrite to replace it, or \
                 --resume to go on with it"
            );
        }
        tempfile::tempfile_in(directory)
            .with_context(|| format!("cannot write to the directory {name} of --out"))?;
        Ok(Output {
            directory: directory.to_owned(),
            begun: resume,
            resume,
        })
    }

    /// What an interrupted comparison has left, if it is to be gone on with.
    pub(super) fn earlier(&self) -> Result<Option<Comparison>> {
        let path = self.directory.join("results.json");
        if !self.resume || !path.exists() {
            return Ok(None);
        }
        let text =
            fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let earlier = serde_json::from_str(&text);
        earlier.map(Some).with_context(|| {
            format!(
                "{} is no result of this version of relugrad",
                path.display()
            )
        })
    }

    /// Writes the numbers of what is finished.
    pub(super) fn save_numbers(&self, comparison: &Comparison) -> Result<()> {
        report::write_numbers(&self.directory, comparison)
    }

    /// Saves a trained network.
    pub(super) fn save_model(
        &mut self,
        comparison: &Comparison,
        run: &Run,
        network: &Network<f32>,
    ) -> Result<()> {
        let models = self.directory.join("models");
        if !self.begun {
            remove_models(&models)?;
            self.begun = true;
        }
        fs::create_dir_all(&models).with_context(|| format!("cannot make {}", models.display()))?;
        // The weight is in the name where a penalty has several.
        let s = &comparison.settings;
        let weights = match run.regularizer.as_str() {
            ADVERSARIAL => s.adversarial.len(),
            name => s.penalties.iter().filter(|p| p.name == name).count(),
        };
        let weight = match weights {
            0 | 1 => String::new(),
            _ => format!("-{}", run.lambda),
        };
        let (name, seed) = (&run.regularizer, run.seed);
        let file = models.join(format!("{name}{weight}-seed{seed}.safetensors"));
        let metadata = [
            ("regularizer", run.regularizer.clone()),
            ("lambda", run.lambda.to_string()),
            ("seed", run.seed.to_string()),
        ];
        let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
        // An interrupted run may have left its model, but no numbers.
        match self.resume {
            true => relugrad_io::save_over(&file, network, &metadata.into())?,
            false => relugrad_io::save(&file, network, &metadata.into())?,
        }
        Ok(())
    }

    /// Writes the report and the numbers of what is finished.
    pub(super) fn save_report(&self, comparison: &Comparison) -> Result<()> {
        report::write(&self.directory, comparison)
    }
}

/// Removes the models of an earlier result, which the user has allowed to replace.
fn remove_models(directory: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Ok(());
    };
    for entry in entries {
        let path = entry.context("cannot list earlier models")?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "safetensors")
        {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(())
}
