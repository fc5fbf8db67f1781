//! Names of options that earlier versions had: they are understood for one version more, with a note.

use std::ffi::OsString;

use crate::print;

/// A command, what an option was called, what it is called now, and a value that goes with that.
type Renamed = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
);

const RENAMED: [Renamed; 7] = [
    ("evaluate", "--double", "--dtype", Some("f64")),
    ("verify", "--precision", "--dtype", None),
    ("train", "--precision", "--dtype", None),
    ("train", "--adversarial-epsilon", "--linf", None),
    ("compare", "--epsilons", "--linf", None),
    ("compare", "--warmup", "--ramp", None),
    ("bench", "--step", "--cure-step", None),
];

/// The arguments with the names of now, and a note for each that was another.
pub(crate) fn renamed(given: Vec<OsString>) -> Vec<OsString> {
    let given = with_norm(given);
    let command = command(&given);
    let mut all = Vec::new();
    for argument in given {
        let text = argument.to_string_lossy().into_owned();
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (&*text, None),
        };
        let found = RENAMED
            .iter()
            .find(|(of, old, ..)| (*of, *old) == (&*command, name));
        let Some((_, old, new, fixed)) = found else {
            all.push(argument);
            continue;
        };
        note(old, new, *fixed);
        match fixed.or(value) {
            Some(value) => all.push(format!("{new}={value}").into()),
            None => all.push((*new).into()),
        }
    }
    all
}

fn note(old: &str, new: &str, value: Option<&str>) {
    let value = value.map_or(String::new(), |value| format!(" {value}"));
    print::note(format_args!(
        "note: {old} is called {new}{value}; the next version knows {old} no longer"
    ));
}

/// The command that is run: the first argument that is no option.
fn command(given: &[OsString]) -> String {
    let mut words = given.iter().skip(1).map(|word| word.to_string_lossy());
    let found = words.find(|word| !word.starts_with('-'));
    found.unwrap_or_default().into_owned()
}

/// `--adversarial-epsilon SIZE --adversarial-norm NORM` as `--NORM SIZE`.
fn with_norm(given: Vec<OsString>) -> Vec<OsString> {
    const NORM: &str = "--adversarial-norm";
    if command(&given) != "train" {
        return given;
    }
    let mut rest = given.into_iter();
    let (mut kept, mut norm): (Vec<OsString>, Option<String>) = (Vec::new(), None);
    while let Some(argument) = rest.next() {
        let text = argument.to_string_lossy().into_owned();
        match text.strip_prefix(NORM) {
            Some("") => norm = rest.next().map(|name| name.to_string_lossy().into_owned()),
            Some(value) if value.starts_with('=') => norm = Some(value[1..].to_owned()),
            _ => kept.push(argument),
        }
    }
    let Some(norm) = norm else { return kept };
    let option = format!("--{norm}");
    note(NORM, &option, Some("SIZE"));
    let mut sized = false;
    for argument in &mut kept {
        let text = argument.to_string_lossy().into_owned();
        if let Some(value) = text.strip_prefix("--adversarial-epsilon") {
            sized = true;
            *argument = format!("{option}{value}").into();
        }
    }
    if !sized {
        kept.push(format!("--set=adversarial.norm={norm}").into());
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earlier_names_become_those_of_now() {
        for (given, expected) in [
            ("x evaluate m --double", "x evaluate m --dtype=f64"),
            ("x verify m --precision f64", "x verify m --dtype f64"),
            (
                "x verify m --precision=f64,f32",
                "x verify m --dtype=f64,f32",
            ),
            (
                "x compare --epsilons=0.1 --warmup 1",
                "x compare --linf=0.1 --ramp 1",
            ),
            ("x train --warmup 1", "x train --warmup 1"),
            ("x bench --step 1", "x bench --cure-step 1"),
            ("x train --adversarial-epsilon 0.1", "x train --linf 0.1"),
            (
                "x train --adversarial-norm l2 --adversarial-epsilon=0.1",
                "x train --l2=0.1",
            ),
            (
                "x train --adversarial-norm=l1",
                "x train --set=adversarial.norm=l1",
            ),
            ("x inspect --double", "x inspect --double"),
        ] {
            let found = renamed(given.split(' ').map(OsString::from).collect());
            let found = found.join(&OsString::from(" ")).into_string().unwrap();
            assert_eq!(found, expected);
        }
    }
}
