//! The committed corpus of the fuzzer, without the fuzzer: what it has found interesting, and once wrong, stays right.

use std::collections::BTreeSet;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use evergrant::queue::Queue;
use fuzz::c_functions::CHOICES;
use serde_json::Value;

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

/// That each of them is called, too, the compiler checks.
#[test]
fn every_c_function_is_fuzzed() {
    let table: Value = serde_json::from_str(include_str!("../include/evergrant.json")).unwrap();
    let functions = table["functions"].as_array().unwrap().iter().map(|function| function["name"].as_str().unwrap());
    let source = include_str!("../fuzz/src/c_functions.rs");
    let declared = source.lines().filter_map(|line| Some(line.strip_prefix("    fn ")?.split_once('(')?.0));
    let functions: BTreeSet<&str> = functions.collect();
    assert_eq!(functions, declared.filter(|name| name.starts_with("evergrant_")).collect());

    let chosen = inputs("c_functions").into_iter().map(|path| fs::read(path).unwrap()[0] % CHOICES);
    assert_eq!(chosen.collect::<BTreeSet<u8>>(), (0..CHOICES).collect(), "the corpus has none of some functions");

    // Those that a queue takes, once more as its calls.
    let queue = Queue::open().unwrap();
    let calls = inputs("calls").into_iter().map(|path| fs::read_to_string(path).unwrap()).collect::<String>();
    let mut found = 0;
    for name in functions.iter().map(|name| name.strip_prefix("evergrant_").unwrap()) {
        let call = format!("{{\"call\":\"{name}\"");
        let refused = queue.submit(None, 0, &format!("{call}}}")).expect_err("without a client, and without arguments");
        if !refused.message.contains("there is no call") {
            found += 1;
            assert!(calls.contains(&call), "the corpus of the queue's calls has no {name}");
        }
    }
    assert!(found > 10, "{found} calls are known");
}

fn inputs(target: &str) -> Vec<PathBuf> {
    let directory = Path::new(CORPUS).join(target);
    names(&directory).map(|name| directory.join(name)).collect()
}

fn names(directory: &Path) -> impl Iterator<Item = String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap())
}
