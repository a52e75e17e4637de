//! The sessions that a thread has asked for lately: found again without a lock.

use std::cell::RefCell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::cache::Slot;
use crate::sync::thread_local;

const PLACES: usize = 8;

struct Recent {
    shard: usize,
    places: [Place; PLACES],
}

struct Place {
    kept: Option<(u64, Arc<Slot>)>,
    /// Who was looked for here in vain, as a hash. Who comes twice in a row is kept: a walk through many sessions keeps
    /// nobody, and nobody loses a place to it.
    missed: u64,
}

thread_local! {
    static RECENT: RefCell<Recent> = {
        static THREADS: AtomicU64 = AtomicU64::new(0);
        RefCell::new(Recent {
            shard: THREADS.fetch_add(1, Ordering::Relaxed) as usize,
            places: [const { Place { kept: None, missed: 0 } }; PLACES],
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
    session: &[u8],
    find: impl FnOnce() -> Option<Arc<Slot>>,
    work: impl FnOnce(&Slot, usize) -> Option<T>,
) -> Option<T> {
    RECENT
        .try_with(|recent| {
            let mut recent = recent.try_borrow_mut().ok()?;
            let Recent { shard, places } = &mut *recent;
            let hash = hash(client, session);
            let place = &mut places[hash as usize % PLACES];
            if let Some((owner, slot)) = &place.kept
                && *owner == client
                && slot.key.session.as_bytes() == session
            {
                return work(slot, *shard);
            }
            let slot = find()?;
            let found = work(&slot, *shard);
            if mem::replace(&mut place.missed, hash) == hash {
                place.kept = Some((client, slot));
            }
            found
        })
        .ok()
        .flatten()
}

fn hash(client: u64, session: &[u8]) -> u64 {
    let mix = |hash: u64, word: u64| (hash.rotate_left(23) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let (words, rest) = session.as_chunks::<8>();
    let hash = words.iter().fold(client, |hash, word| mix(hash, u64::from_le_bytes(*word)));
    let hash = mix(hash, rest.iter().fold(0, |rest, byte| rest << 8 | u64::from(*byte)));
    hash ^ hash >> 32
}
