//! The library on simulated threads (`shuttle`): every lock, atomic and wait of the code below is a step, and a scheduler
//! chooses whose step is next. `tests/concurrency.sh` runs it.
//!
//! Found are deadlocks, lost wake-ups, and orders of steps that break what a scenario asserts. Memory is sequentially
//! consistent here; data races are the compiler's to refuse (`unsafe` is in `capi` only).
//!
//! Each scenario is shown to be able to fail by `mutations.py`, which breaks the library in one place for each.

pub mod server;

mod parts;
mod sessions;

use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use std::{env, fs};

use shuttle::scheduler::{PctScheduler, RandomScheduler, ReplayScheduler, Schedule, Scheduler, Task, TaskId};
use shuttle::{Config, FailurePersistence, MaxSteps, Runner};

use crate::sync::{self, Timers};

/// Where schedules that have failed are kept.
const FAILED: &str = "build/concurrency";

/// Runs `scenario` in many orders: half of them chosen evenly at each step, half with few preemptions (PCT).
///
/// `EVERGRANT_SCHEDULES`: how many. `EVERGRANT_SCHEDULE`: the one in this file alone, which a failure has written.
fn explore(name: &str, timers: Timers, scenario: impl Fn() + Copy + Send + Sync + 'static) {
    // What is static is simulated for one at a time.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    fs::create_dir_all(FAILED).unwrap();
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::File(Some(FAILED.into()));
    config.stack_size = 512 << 10;
    config.silence_warnings = true;
    config.max_steps = MaxSteps::FailAfter(100_000);
    if let Ok(schedule) = env::var("EVERGRANT_SCHEDULE") {
        let mut scheduler = ReplayScheduler::new_from_file(schedule).unwrap();
        scheduler.set_allow_incomplete();
        let explored = Runner::new(Timed { scheduler, timers }, config).run(scenario);
        println!("{name}: {explored} schedules, as before");
        return;
    }
    let number = |variable: &str| env::var(variable).ok().map(|text| text.parse::<u64>().expect(variable));
    let schedules = number("EVERGRANT_SCHEDULES").unwrap_or(100) as usize;
    let seed = number("EVERGRANT_SEED").unwrap_or_else(|| RandomState::new().hash_one(name));
    let started = Instant::now();
    let random = Timed { scheduler: RandomScheduler::new_from_seed(seed, schedules.div_ceil(2)), timers };
    let few_preemptions = Timed { scheduler: PctScheduler::new_from_seed(seed, 3, schedules / 2), timers };
    let explored =
        Runner::new(random, config.clone()).run(scenario) + Runner::new(few_preemptions, config).run(scenario);
    println!("{name}: {explored} schedules, {:.1} s, EVERGRANT_SEED={seed}", started.elapsed().as_secs_f32());
}

/// A scheduler that knows of timers.
#[derive(Debug)]
struct Timed<S> {
    scheduler: S,
    timers: Timers,
}

impl<S: Scheduler> Scheduler for Timed<S> {
    fn new_execution(&mut self) -> Option<Schedule> {
        sync::begin();
        self.scheduler.new_execution()
    }

    fn next_task(&mut self, runnable: &[&Task], current: Option<TaskId>, is_yielding: bool) -> Option<TaskId> {
        let may_run = sync::may_run(self.timers, runnable);
        self.scheduler.next_task(&may_run, current, is_yielding)
    }

    fn next_u64(&mut self) -> u64 {
        self.scheduler.next_u64()
    }
}

/// Waits that take longer never end by themselves.
const LONG: Duration = sync::HORIZON.saturating_mul(10);
