//! Carries searches out, two at a time, and prints what they found as tables.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Instant;

use crate::mutations::Mutation;
use crate::properties::Case;
use crate::rules::Rules;
use crate::runs::Run;
use crate::search::{Found, search};

/// More searches at once need more memory than a small machine has.
const AT_ONCE: usize = 2;

/// Looks for violations in all of these runs. Returns whether there is none.
pub fn searches(bound: &str, runs: Vec<Run>) -> bool {
    println!(
        "{:6} {:<28} {:<21} {:>9} {:>7} {:>5} {:>6}  named cases",
        "", "run", "server", "states", "records", "depth", "time"
    );
    let begun = Instant::now();
    let found = side_by_side(&runs, |run| search(*run, Rules::SHIPPED, None), |found| print!("{}", line(found)));
    let states: usize = found.iter().map(|found| found.states).sum();
    let good = found.iter().all(Found::is_clean);
    let verdict = if good { "ok" } else { "FAILED" };
    let seconds = begun.elapsed().as_secs_f32();
    println!("{verdict} model, {bound}: {states} states in {} runs, {seconds:.0} s", runs.len());
    good
}

fn line(found: &Found) -> String {
    let Found { run, states, records, depth, cases, time, .. } = found;
    let verdict = if found.is_clean() { "ok" } else { "FAILED" };
    let cases: Vec<_> = Case::ALL.into_iter().filter(|case| cases.has(*case)).map(|case| format!("{case:?}")).collect();
    format!(
        "{verdict:6} {:<28} {:<21} {states:>9} {records:>7} {depth:>5} {:>4.1} s  {}\n{}",
        run.name,
        run.server.name(),
        time.as_secs_f32(),
        cases.join(" "),
        found.told()
    )
}

/// Looks whether each of these is noticed. Returns whether all are.
pub fn mutations(all: Vec<Mutation>) -> bool {
    let begun = Instant::now();
    let caught = side_by_side(&all, caught, |told| match told {
        Ok(told) => println!("ok     {told}"),
        Err(told) => println!("FAILED {told}"),
    });
    let good = caught.iter().all(Result::is_ok);
    let verdict = if good { "ok" } else { "FAILED" };
    let seconds = begun.elapsed().as_secs_f32();
    println!(
        "{verdict} model, broken rules: {} of {} noticed, {seconds:.0} s",
        caught.iter().flatten().count(),
        all.len()
    );
    good
}

/// By what a mutation is noticed, or why it is not. The same run must be clean with the functions as they are.
pub fn caught(mutation: &Mutation) -> Result<String, String> {
    let sound = search(mutation.run, Rules::SHIPPED, None);
    if !sound.is_clean() {
        return Err(format!("{}: its run is not clean without it\n{}", mutation.name, sound.told()));
    }
    let found = search(mutation.run, mutation.rules, Some(mutation.breaks));
    let trace = found.violations.iter().find(|(property, _)| *property == mutation.breaks).map(|(_, trace)| trace);
    match trace {
        Some(trace) => Ok(format!("{} · {} after {} steps", mutation.name, mutation.breaks, trace.lines().count())),
        None => Err(format!("{} · {} holds in {} states", mutation.name, mutation.breaks, found.states)),
    }
}

/// Works on all items, and shows each result when it comes. Returns the results in their order.
pub fn side_by_side<I: Sync, R: Send>(items: &[I], work: impl Fn(&I) -> R + Sync, show: impl Fn(&R) + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((at, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, items.get(at)?)))
                {
                    let result = work(item);
                    show(&result);
                    results.lock().expect("no search panics").push((at, result));
                }
            });
        }
    });
    let mut results = results.into_inner().expect("no search panics");
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}
