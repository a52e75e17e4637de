"""Breaks the library at one place at a time, in a copy; each time the scenario that stands beside it must fail."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

# scenario, file, and one or more times: as it is, as it is broken
MUTATIONS = [
    # Two jobs for one session, and an attempt that runs here is taken for a dead one's (either alone is harmless).
    (
        "callers_share_one_exchange",
        "session/cache.rs",
        "if state.running {",
        "if false {",
        "lock(&self.running).contains(&attempt)",
        "false",
    ),
    # A waiter registers after its check.
    (
        "callers_share_one_exchange",
        "session/cache.rs",
        "state.waiters.add(context);",
        "drop(state); lock(&self.state).waiters.add(context);",
    ),
    # Nobody is woken.
    ("callers_share_one_exchange", "session/cache.rs", "        waiters.wake();", "        drop(waiters);"),
    # A failed job does not count as finished.
    (
        "a_failure_is_told_to_everybody",
        "session/cache.rs",
        "state.finished += 1;\n        state.failure = failure;",
        "state.finished += u64::from(failure.is_none());\n        state.failure = failure;",
    ),
    # A job that panics tells nobody.
    (
        "a_job_that_panics_leaves_nobody_waiting",
        "session/renewer/job.rs",
        "self.slot.end_job(self.failure.take());",
        "if !std::thread::panicking() { self.slot.end_job(self.failure.take()); }",
    ),
    # Wakers are kept once they are woken.
    ("a_caller_that_gives_up_leaves_nothing_behind", "process/tasks.rs", "mem::take(self)", "Self(self.0.clone())"),
    # A wait that ends takes the others along.
    (
        "a_wait_that_ends_by_its_time_ends_no_renewal",
        "session/renewer/caller.rs",
        "Waited::TimedOut => self.out_of_time(slot, want).map(Some),",
        "Waited::TimedOut => { self.closing.store(true, std::sync::atomic::Ordering::SeqCst); "
        "self.out_of_time(slot, want).map(Some) }",
    ),
    # The end of the last job is not told.
    (
        "close_tells_everybody_and_waits_for_what_is_open",
        "session/renewer/job.rs",
        "        waiters.wake();",
        "        drop(waiters);",
    ),
    # Close wakes nobody.
    (
        "close_tells_those_who_wait_for_a_renewal",
        "session/renewer.rs",
        ".collect();\n        slots.iter().for_each(|slot| slot.wake());",
        ".collect();",
    ),
    # A wait that begins behind the back of close.
    (
        "close_tells_those_who_wait_for_a_replay",
        "session/renewer/caller.rs",
        "slot.changed(wait, || self.is_closing())",
        "slot.changed(wait, || false)",
    ),
    # What a thread knows is served after close.
    (
        "close_without_a_wait_serves_nothing_afterwards",
        "session/renewer.rs",
        "if self.is_closing() {\n            return None;",
        "if false {\n            return None;",
    ),
    # A job that begins behind the back of close.
    (
        "nothing_is_sent_once_close_has_returned",
        "session/renewer/job.rs",
        "self.me.upgrade().filter(|_| !self.is_closing())",
        "self.me.upgrade()",
    ),
    # What ends one client's job is told to another's callers.
    (
        "a_client_that_is_closed_leaves_the_others_alone",
        "session/renewer/job.rs",
        "result.err().filter(|_| !self.renewer.is_closing())",
        "result.err()",
    ),
    # A load that was overtaken is published.
    ("nothing_stale_after_a_sign_in", "session/cache.rs", "&& record.version < version", "&& false"),
    ("nothing_served_after_a_sign_out", "session/cache.rs", "&& record.version < version", "&& false"),
    # The stamp changes before the token does.
    (
        "nothing_kept_past_a_sign_in",
        "session/cache.rs",
        "self.held.store(next.map(Arc::new));\n        self.touch();",
        "self.touch();\n        self.held.store(next.map(Arc::new));",
    ),
    # It is published before it is stored.
    (
        "nothing_served_after_a_sign_out_during_a_renewal",
        "session/renewer.rs",
        "            if self.vault.store.compare_and_swap(&slot.key, expected, &next)? {\n"
        "                let next = Arc::new(next);\n"
        "                slot.publish(Some(&next), Reading::now());",
        "            let published = Arc::new(next.clone());\n"
        "            slot.publish(Some(&published), Reading::now());\n"
        "            if self.vault.store.compare_and_swap(&slot.key, expected, &next)? {\n"
        "                let next = Arc::new(next);",
    ),
    # Close empties memory without a change of the stamp.
    (
        "nothing_served_after_close",
        "session/cache.rs",
        "state.seen = None;\n        self.touch();",
        "state.seen = None;",
    ),
    # The bell rings late.
    ("every_result_is_taken_once_and_announced", "queue.rs", "finished.results.len() == 1", "finished.results.len() == 3"),
    # The bell is silenced when the results are no longer locked.
    (
        "every_result_is_taken_once_and_announced",
        "queue.rs",
        "self.results.bell.silence();\n            Poll::Ready(Ok(array(&std::mem::take(&mut finished.results))))",
        "let results = std::mem::take(&mut finished.results);\n            drop(finished);\n"
        "            drop(lock(&self.results.finished));\n            self.results.bell.silence();\n"
        "            Poll::Ready(Ok(array(&results)))",
    ),
    # Nobody is woken to take.
    ("threads_that_take_share_the_results", "queue.rs", "        takers.wake();", "        drop(takers);"),
    # Only the first who waits is woken.
    (
        "a_queue_is_freed_while_calls_are_open",
        "process/tasks.rs",
        "self.0.into_iter().for_each",
        "self.0.into_iter().take(1).for_each",
    ),
    # A thread ends by its time, without a last look.
    (
        "a_job_that_comes_as_a_thread_ends_is_run",
        "process/workers.rs",
        "queue.idle -= 1;",
        "queue.idle -= 1; if idle_since.elapsed() >= IDLE { break; }",
    ),
    # No thread stays for what is due later.
    ("what_is_due_later_is_run_if_it_is_wanted", "process/workers.rs", "if queue.idle == 0 =>", "if false =>"),
    # What nobody wants is run.
    (
        "what_is_due_later_is_run_if_it_is_wanted",
        "process/workers.rs",
        "if wanted {\n                    queue.ready",
        "if true {\n                    queue.ready",
    ),
    # A wake-up during a look is lost.
    (
        "a_wait_that_is_carried_ends",
        "process/tasks.rs",
        "        self.scheduled.store(false, Ordering::Release);",
        "",
        "        *future = Some(pending);",
        "        *future = Some(pending); self.scheduled.store(false, Ordering::Release);",
    ),
    # A wake-up before the sleep is lost.
    ("a_thread_that_waits_is_woken", "process/tasks.rs", "*lock(&self.woken) = true;", "drop(lock(&self.woken));"),
    # Looked for and made under two locks.
    (
        "one_slot_for_each_session",
        "session/cache.rs",
        "        if slots.len() == slots.capacity() {",
        "        drop(slots); let mut slots = lock(&self.slots);\n        if slots.len() == slots.capacity() {",
    ),
]

root = pathlib.Path(__file__).resolve().parents[2]
copy = root / "build" / "mutations"
environment = os.environ | {"CARGO_TARGET_DIR": str(root / "target"), "EVERGRANT_SCHEDULES": "2000"}
command = ["cargo", "test", "--quiet", "--lib", "--no-default-features", "--features", "shuttle", "--"]


def restore():
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir(parents=True)
    for name in ("Cargo.toml", "Cargo.lock", "build.rs"):
        shutil.copy2(root / name, copy)
    for name in ("src", "tests"):
        shutil.copytree(root / name, copy / name)
    # A name of its own in `target`, beside the library that is whole.
    manifest = copy / "Cargo.toml"
    manifest.write_text(re.sub(r'(?m)^version = "(.*)"', r'version = "\1+broken"', manifest.read_text(), count=1))


def run(scenario):
    return subprocess.run(
        [*command, "--exact", f"concurrency::sessions::{scenario}", f"concurrency::parts::{scenario}", "--nocapture"],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        errors="replace",
    )


def main():
    restore()
    missed = []
    wanted = sys.argv[1:]
    chosen = [mutation for mutation in MUTATIONS if not wanted or mutation[0] in wanted]
    for scenario, file, *changes in chosen:
        path = copy / "src" / file
        text = path.read_text()
        broken = text
        for before, after in zip(changes[::2], changes[1::2], strict=True):
            if broken.count(before) != 1:
                sys.exit(f"src/{file} has {broken.count(before)} times: {before}")
            broken = broken.replace(before, after)
        path.write_text(broken)
        done = run(scenario)
        path.write_text(text)
        if "could not compile" in done.stderr:
            sys.exit(done.stderr)
        caught = done.returncode != 0 and f"{scenario}" in done.stdout + done.stderr
        print("caught" if caught else "MISSED", f"{scenario}: src/{file}: {' '.join(changes[0].split())}", flush=True)
        if not caught:
            missed.append(scenario)
    print(f"{len(chosen) - len(missed)} of {len(chosen)} mutations caught")
    return 1 if missed else 0


sys.exit(main())
