//! New tokens: they look like the real thing and never repeat.

use ring::rand::{SecureRandom, SystemRandom};
use std::sync::Arc;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._";

/// Salesforce's 15 characters that stand for the organization, here always the same.
const ORGANIZATION: &str = "00Dxx0000001gER";

pub(crate) enum Kind {
    Access,
    Refresh,
    Code,
}

/// Random from the system once, then a counter-driven generator (SplitMix64): tests need uniqueness and speed, not secrecy.
pub(crate) struct Minter(u64);

impl Minter {
    pub(crate) fn new() -> Self {
        let mut seed = [0; 8];
        SystemRandom::new().fill(&mut seed).expect("the system's random numbers");
        Self(u64::from_le_bytes(seed))
    }

    /// A token with `canary` in clear text inside.
    pub(crate) fn token(&mut self, kind: Kind, salesforce: bool, canary: &str) -> Arc<str> {
        // Refresh tokens and codes end in characters that a sloppy form encoder gets wrong.
        let (start, length, end) = match (kind, salesforce) {
            (Kind::Access, true) => (ORGANIZATION, 112, ""),
            (Kind::Refresh, true) => ("5Aep861", 87, "=="),
            (Kind::Code, true) => ("aPrx", 60, "=="),
            (Kind::Access, false) => ("at-", 48, ""),
            (Kind::Refresh, false) => ("rt-", 48, "+/="),
            (Kind::Code, false) => ("co-", 48, "+/="),
        };
        let mut text = String::with_capacity(length + canary.len());
        text.push_str(start);
        if start == ORGANIZATION {
            text.push('!');
        }
        text.push_str(canary);
        let random = length.saturating_sub(text.len() + end.len()).max(24);
        let mut bits = 0;
        for position in 0..random {
            if position % 10 == 0 {
                bits = self.next();
            }
            text.push(ALPHABET[(bits & 63) as usize] as char);
            bits >>= 6;
        }
        text.push_str(end);
        text.into()
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
