//! Searches, and prints a table.

use evergrant_model::report;
use evergrant_model::rules::Rules;
use evergrant_model::runs;
use evergrant_model::search::search;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    for run in runs::all() {
        if !run.name.starts_with(&only) {
            continue;
        }
        let found = search(run, Rules::SHIPPED, false);
        println!("{}", report::line(&found));
        print!("{}", found.told());
    }
}
