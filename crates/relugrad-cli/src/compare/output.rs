//! The directory that receives a comparison.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use relugrad::Network;
use relugrad_io::{Earlier, Metadata, OutputFolder};
use relugrad_train::Event;
use relugrad_train::compare::{ADVERSARIAL, Comparison, PLAIN, Plan, Run};

use super::Arguments;
use crate::report;

/// The numbers, from which a comparison is gone on with.
pub(super) const RESULTS: &str = "results.json";

/// The directory of the trained networks.
pub(super) const MODELS: &str = "models";

/// A directory that holds no result, or one that may be replaced or gone on with.
pub(super) struct Output {
    folder: OutputFolder,
    /// Whether an earlier result has been removed, or is to stay.
    begun: bool,
    earlier: Option<Comparison>,
}

impl Output {
    /// Makes the directory if need be, and sees that the comparison can write all of its files,
    /// before any work is done.
    pub(super) fn open(directory: &Path, plan: &Plan, arguments: &Arguments) -> Result<Output> {
        let tables = match plan.share {
            None => report::FILES.to_vec(),
            Some(_) => vec![RESULTS],
        };
        let names = tables.into_iter().map(str::to_owned).chain(models(plan));
        Output::open_for(directory, names.collect(), &arguments.inputs(), arguments)
    }

    /// The same for a comparison that was made in shards, whose files are `inputs`.
    pub(super) fn open_merged(
        directory: &Path,
        comparison: &Comparison,
        arguments: &Arguments,
        inputs: &[PathBuf],
    ) -> Result<Output> {
        let models = comparison.runs.iter().map(|run| model_in(run, comparison));
        let names = report::FILES.map(str::to_owned).into_iter().chain(models);
        let inputs: Vec<&Path> = inputs.iter().map(PathBuf::as_path).collect();
        Output::open_for(directory, names.collect(), &inputs, arguments)
    }

    fn open_for(
        directory: &Path,
        mut names: Vec<String>,
        inputs: &[&Path],
        arguments: &Arguments,
    ) -> Result<Output> {
        let earlier = match (arguments.overwrite, arguments.resume) {
            (true, _) => Earlier::Replace,
            (_, true) => Earlier::Resume,
            _ => Earlier::Keep,
        };
        let mut folder = OutputFolder::open(directory, "compare", earlier)?;
        if !folder.is_listed() {
            adopt(&mut folder)?;
        }
        let name = directory.display();
        match folder.earlier_file() {
            Some(file) if earlier == Earlier::Keep => bail!(
                "{name} already holds a result ({file}); give another directory to --out, --overwrite to replace it, or \
                 --resume to go on with it"
            ),
            None if earlier == Earlier::Keep => refuse_models(directory)?,
            _ => {}
        }
        let results = match earlier {
            Earlier::Resume => results(&folder)?,
            Earlier::Keep | Earlier::Replace => None,
        };
        if let Some(earlier) = &results {
            let runs = earlier.runs.iter();
            let done: HashSet<String> = runs.map(|run| model_in(run, earlier)).collect();
            names.retain(|name| !done.contains(name));
        }
        folder.begin(&names, inputs)?;
        Ok(Output {
            folder,
            begun: earlier == Earlier::Resume,
            earlier: results,
        })
    }

    /// What is in the directory, in words.
    pub(super) fn contents(&self) -> String {
        let [numbers, curves, page] = report::FILES;
        let folder = self.folder.path().display();
        format!("{folder}: {page} (for a browser), {numbers}, {curves}, {MODELS}/")
    }

    /// What an interrupted comparison has left, if it is to be gone on with.
    pub(super) fn earlier(&mut self) -> Option<Comparison> {
        self.earlier.take()
    }

    /// Saves what is finished: the numbers, and the network of a run.
    pub(super) fn save(&mut self, event: Event<'_>) -> Result<()> {
        let (comparison, model) = match event {
            Event::Finished(comparison, network) => {
                let run = comparison.runs.last();
                let model = run.map(|run| file_of(run, comparison, network));
                (comparison, model.transpose()?)
            }
            Event::Diverged(comparison) => (comparison, None),
            Event::Ready
            | Event::Samples(_)
            | Event::Step(_)
            | Event::Epoch(_)
            | Event::Part { .. }
            | Event::Run { .. } => return Ok(()),
        };
        let numbers = report::numbers(comparison)?;
        let model = model.iter().map(|(name, bytes)| (&**name, &**bytes));
        let files: Vec<(&str, &[u8])> = model.chain([(RESULTS, numbers.as_bytes())]).collect();
        self.write(&files)
    }

    /// Writes what a shard is about, unless there is something to go on with.
    pub(super) fn announce(&mut self, comparison: &Comparison) -> Result<()> {
        match self.earlier {
            None => self.write(&[(RESULTS, report::numbers(comparison)?.as_bytes())]),
            Some(_) => Ok(()),
        }
    }

    /// Writes files in the place of an earlier result.
    pub(super) fn write(&mut self, files: &[(&str, &[u8])]) -> Result<()> {
        self.begin()?;
        Ok(self.folder.write(files, &mut [])?)
    }

    /// Removes an earlier result that may be replaced, when there is something to replace it by.
    fn begin(&mut self) -> Result<()> {
        if !self.begun {
            self.folder.clear(&[])?;
            self.begun = true;
        }
        Ok(())
    }

    /// Writes the report and the numbers of what is finished; of a shard, the numbers alone.
    pub(super) fn save_report(&mut self, comparison: &Comparison) -> Result<()> {
        if comparison.part.is_some() {
            return self.write(&[(RESULTS, report::numbers(comparison)?.as_bytes())]);
        }
        let contents = report::contents(comparison)?;
        let files = report::FILES.iter().zip(&contents);
        let files: Vec<(&str, &[u8])> = files.map(|(n, text)| (*n, text.as_bytes())).collect();
        self.write(&files)
    }
}

/// The name and the bytes of the file of a run's network.
fn file_of(
    run: &Run,
    comparison: &Comparison,
    network: &Network<f32>,
) -> Result<(String, Vec<u8>)> {
    let metadata = [
        ("regularizer", run.regularizer.clone()),
        ("lambda", run.lambda.to_string()),
        ("seed", run.seed.to_string()),
    ];
    let metadata = metadata.map(|(key, value)| (key.to_owned(), value));
    let bytes = relugrad_io::to_bytes(network, &Metadata::from(metadata))?;
    Ok((model_in(run, comparison), bytes))
}

/// The numbers of an interrupted comparison.
fn results(folder: &OutputFolder) -> Result<Option<Comparison>> {
    let Some(bytes) = folder.read(RESULTS)? else {
        return Ok(None);
    };
    let earlier = serde_json::from_slice(&bytes);
    earlier.map(Some).with_context(|| {
        let path = folder.path().join(RESULTS);
        format!(
            "{} is no result of this version of relugrad",
            path.display()
        )
    })
}

/// Refuses to put models beside somebody else's, which would be taken for results.
fn refuse_models(directory: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(directory.join(MODELS)) else {
        return Ok(());
    };
    let mut paths: Vec<_> = entries
        .collect::<std::io::Result<Vec<_>>>()?
        .iter()
        .map(fs::DirEntry::path)
        .collect();
    paths.sort();
    // Temporary files of a killed comparison end like models.
    let hidden = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        name.to_string_lossy().starts_with('.')
    };
    let is_model =
        |path: &PathBuf| !hidden(path) && path.extension().is_some_and(|e| e == "safetensors");
    match paths.into_iter().find(is_model) {
        Some(path) => bail!(
            "{} is a model that `relugrad compare` has not made here; move it away, or give another directory to --out",
            path.display()
        ),
        None => Ok(()),
    }
}

/// Takes the files of a directory without manifest, as earlier versions wrote them, for those of a
/// comparison.
fn adopt(folder: &mut OutputFolder) -> Result<()> {
    let Ok(Some(earlier)) = results(folder) else {
        return Ok(());
    };
    folder.adopt(RESULTS)?;
    let none = Comparison {
        runs: Vec::new(),
        ..earlier.clone()
    };
    // The first line of the curves, and the title of the page, are those of every comparison of
    // these data.
    let [_, curves, page] = report::contents(&none)?;
    let heading = curves.lines().next();
    let title = page.split_inclusive("</title>").next();
    let title = title.and_then(|head| head.find("<title>").map(|at| &head[at..]));
    for (name, sign) in report::FILES[1..].iter().zip([heading, title]) {
        let text = folder.read(name)?.unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        if sign.is_some_and(|sign| text.contains(sign)) {
            folder.adopt(name)?;
        }
    }
    for run in &earlier.runs {
        let name = model_in(run, &earlier);
        let Some(bytes) = folder.read(&name)? else {
            continue;
        };
        let metadata = relugrad_io::from_bytes::<f32>(&bytes).map(|(_, metadata)| metadata);
        let of_run = |metadata: Metadata| {
            metadata.get("regularizer") == Some(&run.regularizer)
                && metadata.get("seed") == Some(&run.seed.to_string())
        };
        if metadata.is_ok_and(of_run) {
            folder.adopt(&name)?;
        }
    }
    Ok(())
}

/// With how many weights a comparison has the regularizer of a run.
fn weights(run: &Run, comparison: &Comparison) -> usize {
    let s = &comparison.settings;
    match run.regularizer.as_str() {
        ADVERSARIAL => s.adversarial.len(),
        name => s.penalties.iter().filter(|p| p.name == name).count(),
    }
}

/// The file of a run's network. The weight is in the name where a regularizer has several.
fn file(regularizer: &str, lambda: f64, seed: u64, weights: usize) -> String {
    let weight = match weights {
        0 | 1 => String::new(),
        _ => format!("-{lambda}"),
    };
    format!("{MODELS}/{regularizer}{weight}-seed{seed}.safetensors")
}

/// The file of the network of a run of a comparison.
pub(super) fn model_in(run: &Run, comparison: &Comparison) -> String {
    let weights = weights(run, comparison);
    file(&run.regularizer, run.lambda, run.seed, weights)
}

/// The files of all networks of a plan.
fn models(plan: &Plan) -> Vec<String> {
    let variants = plan.variants.iter().map(|variant| {
        let same = plan.variants.iter().filter(|v| v.name() == variant.name());
        (variant.name(), variant.weight(), same.count())
    });
    let all: Vec<(&str, f64, usize)> = [(PLAIN, 0.0, 1)].into_iter().chain(variants).collect();
    let seeds = plan.seeds.iter();
    seeds
        .flat_map(|&seed| {
            all.iter()
                .map(move |&(name, weight, count)| file(name, weight, seed, count))
        })
        .collect()
}
