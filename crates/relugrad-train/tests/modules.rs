//! No module needs one that needs it: whoever reads from the bottom finds one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The modules of a crate, each with those that it names by `crate::`, tests aside.
fn imports(source: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut imports = BTreeMap::new();
    for entry in fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        let module = path.file_stem().unwrap().to_string_lossy().into_owned();
        if module != "lib" && module != "main" {
            let own: &mut BTreeSet<String> = imports.entry(module.clone()).or_default();
            own.extend(named(&path));
            own.remove(&module);
        }
    }
    imports
}

fn named(path: &Path) -> BTreeSet<String> {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap();
        return entries
            .flat_map(|entry| named(&entry.unwrap().path()))
            .collect();
    }
    if path.extension().is_none_or(|ending| ending != "rs") {
        return BTreeSet::new();
    }
    let text = fs::read_to_string(path).unwrap();
    let code = text.split("#[cfg(test)]").next().unwrap();
    let lines = code.lines().map(|line| line.split("//").next().unwrap());
    let code: String = lines.collect::<Vec<_>>().join(" ");
    let places = code.split("crate::").skip(1);
    places.flat_map(first_names).collect()
}

/// The first name of a path, or of each of a list of paths.
fn first_names(rest: &str) -> Vec<String> {
    let list = match rest.strip_prefix('{') {
        Some(list) => list.split('}').next().unwrap(),
        None => rest,
    };
    let word = |text: &str| {
        let text = text.trim();
        let end = text.find(|c: char| !c.is_alphanumeric() && c != '_');
        text[..end.unwrap_or(text.len())].to_owned()
    };
    match rest.starts_with('{') {
        true => list.split(',').map(word).collect(),
        false => vec![word(list)],
    }
}

/// A module that needs itself through others, with the way there.
fn cycle(imports: &BTreeMap<String, BTreeSet<String>>) -> Option<Vec<String>> {
    imports.keys().find_map(|start| {
        let mut ways = vec![vec![start.clone()]];
        let mut seen = BTreeSet::new();
        while let Some(way) = ways.pop() {
            for next in imports.get(way.last()?).into_iter().flatten() {
                let longer = [&way[..], std::slice::from_ref(next)].concat();
                if next == start {
                    return Some(longer);
                }
                if seen.insert(next.clone()) {
                    ways.push(longer);
                }
            }
        }
        None
    })
}

#[test]
fn no_module_needs_one_that_needs_it() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let crates = ["relugrad", "relugrad-io", "relugrad-train", "relugrad-cli"];
    for source in crates.map(|name| here.join("..").join(name).join("src")) {
        if source.is_dir() {
            let imports = imports(&source);
            assert!(imports.len() > 10 && imports.values().any(|own| own.len() > 3));
            assert_eq!(cycle(&imports), None, "{}", source.display());
        }
    }
}

#[test]
fn a_cycle_is_found() {
    let module = |name: &str, needs: &[&str]| {
        let needs = needs.iter().map(|need| (*need).to_owned()).collect();
        (name.to_owned(), needs)
    };
    let mut imports = BTreeMap::from([module("a", &["b"]), module("b", &["c"]), module("c", &[])]);
    assert_eq!(cycle(&imports), None);
    imports.extend([module("c", &["a"])]);
    assert_eq!(cycle(&imports).unwrap(), ["a", "b", "c", "a"]);
}
