//! The committed corpus of the fuzzer, without the fuzzer: what it has found interesting, and once wrong, stays right.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

const CORPUS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus");

#[test]
fn every_target_has_a_corpus() {
    let directories: BTreeSet<String> = names(Path::new(CORPUS)).collect();
    let targets = fuzz::TARGETS.map(|(name, _)| name.to_owned());
    assert_eq!(directories, targets.into());
}

#[test]
fn the_corpus_holds() {
    let mut failed = Vec::new();
    for (name, run) in fuzz::TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() >= 5, "{name} has {} inputs only", inputs.len());
        for path in inputs {
            let data = fs::read(&path).unwrap();
            if catch_unwind(AssertUnwindSafe(|| run(&data))).is_err() {
                failed.push(path);
            }
        }
    }
    assert!(failed.is_empty(), "what the targets say of these is above: {failed:#?}");
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let directory = Path::new(CORPUS).join(target);
    names(&directory).map(|name| directory.join(name)).collect()
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
}
