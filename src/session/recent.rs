//! The sessions that a thread has asked for lately: found again without a lock.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::Slot;

const PLACES: usize = 8;

struct Recent {
    shard: usize,
    places: [Option<(u64, Arc<Slot>)>; PLACES],
}

thread_local! {
    static RECENT: RefCell<Recent> = {
        static THREADS: AtomicU64 = AtomicU64::new(0);
        RefCell::new(Recent {
            shard: THREADS.fetch_add(1, Ordering::Relaxed) as usize,
            places: [const { None }; PLACES],
        })
    };
}

/// A number for a client, never used again in this process or its children.
pub fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(1);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Runs `work` with the slot of a client's session, and with a number that few other threads have. `find` looks for it
/// where locks are needed.
pub fn with_slot<T>(
    client: u64,
    session: &str,
    find: impl FnOnce() -> Option<Arc<Slot>>,
    work: impl FnOnce(&Slot, usize) -> Option<T>,
) -> Option<T> {
    RECENT
        .try_with(|recent| {
            // Taken out while it is used: `work` may run anything.
            let mut recent = recent.try_borrow_mut().ok()?;
            let Recent { shard, places } = &mut *recent;
            let place = &mut places[place_of(client, session)];
            match place {
                Some((owner, slot)) if *owner == client && *slot.key.session == *session => work(slot, *shard),
                _ => {
                    let slot = find()?;
                    let found = work(&slot, *shard);
                    *place = Some((client, slot));
                    found
                }
            }
        })
        .ok()
        .flatten()
}

fn place_of(client: u64, session: &str) -> usize {
    let name = session.as_bytes();
    let end = name
        .last_chunk::<8>()
        .map_or_else(|| name.iter().fold(0, |end, byte| end << 8 | u64::from(*byte)), |end| u64::from_le_bytes(*end));
    ((end ^ client).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 61) as usize
}
