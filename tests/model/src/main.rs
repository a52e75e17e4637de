//! Searches, and prints a table: `evergrant-model [small | large | mutations] [name of a run]`.

use std::process::ExitCode;

use evergrant_model::{mutations, report, runs};

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let bound = words.next().unwrap_or_else(|| "small".to_owned());
    let only = words.next().unwrap_or_default();
    let chosen = |runs: Vec<runs::Run>| runs.into_iter().filter(|run| run.name.starts_with(&only)).collect();
    let good = match bound.as_str() {
        "small" => report::searches("small", chosen(runs::small())),
        "large" => report::searches("large", chosen(runs::large())),
        "mutations" => report::mutations(mutations::all()),
        other => {
            eprintln!("there is no bound {other:?}: small, large or mutations");
            false
        }
    };
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
