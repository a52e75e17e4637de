//! Searches, and prints a table.

use evergrant_model::report;
use evergrant_model::rules::Rules;
use evergrant_model::search::search;
use evergrant_model::{mutations, runs};

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    if only == "mutations" {
        for mutation in mutations::all() {
            let found = search(mutation.run, mutation.rules, Some(mutation.breaks));
            let all: Vec<_> = found
                .violations
                .iter()
                .map(|(property, trace)| format!("{property} {}", trace.lines().count()))
                .collect();
            let ok = found.violations.iter().any(|(property, _)| *property == mutation.breaks);
            println!(
                "{} {} | {} | {} states | {}",
                if ok { "ok    " } else { "MISSED" },
                mutation.name,
                mutation.breaks,
                found.states,
                all.join(", ")
            );
            let sound = search(mutation.run, Rules::SHIPPED, None);
            if !sound.is_clean() {
                println!("   NOT SOUND {}", sound.told());
            }
        }
        return;
    }
    for run in runs::all() {
        if !run.name.starts_with(&only) {
            continue;
        }
        let found = search(run, Rules::SHIPPED, None);
        println!("{}", report::line(&found));
        print!("{}", found.told());
    }
}
