//! Tables.

use crate::search::Found;

/// One line for each search.
pub fn line(found: &Found) -> String {
    let Found { run, states, records, depth, cases, time, .. } = found;
    let verdict = if found.is_clean() { "ok    " } else { "FAILED" };
    format!(
        "{verdict} {:<44} {:<20} {states:>9} {records:>6} {depth:>3} {:>7.1} s  {cases:?}",
        run.name,
        run.server.name(),
        time.as_secs_f32()
    )
}
