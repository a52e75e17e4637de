//! Moves between two stores: every order of the steps of two parties that move, one each way, crash and begin again,
//! while sessions are renewed, signed out and forgotten wherever they are.

use std::collections::HashSet;

use evergrant::session::protocol::moves::{Journey, Obstacle, Step, step};
use evergrant::session::protocol::{forget, sign_out};
use evergrant::session::record::{Id, Place, Record, State};

use crate::parts::{moment, now, record, secret};

/// The most of one run: writes of moves, crashes, and what else happens to a record.
const WRITES: u8 = 5;
const CRASHES: u8 = 1;
const USES: u8 = 2;

#[derive(Clone)]
struct Mover {
    /// From the first store to the second; else the other way.
    forth: bool,
    journey: u128,
    begun: bool,
    /// What it has loaded there, and then here.
    target: Option<Option<Record>>,
    source: Option<Option<Record>>,
}

#[derive(Clone)]
struct World {
    stores: [Option<Record>; 2],
    movers: [Mover; 2],
    writes: u8,
    crashes: u8,
    uses: u8,
    /// The session was signed out, or forgotten.
    left: bool,
}

fn place(store: usize) -> Place {
    Place { store: format!("store {store}"), namespace: "n".to_owned() }
}

fn start(forth: bool, journey: u128) -> Mover {
    Mover { forth, journey, begun: false, target: None, source: None }
}

impl Mover {
    fn stores(&self) -> (usize, usize) {
        if self.forth { (0, 1) } else { (1, 0) }
    }
}

impl World {
    /// Versions tell writes apart, so they are part of it.
    fn fingerprint(&self) -> String {
        let show = |record: &Option<Record>| {
            record
                .as_ref()
                .map(|r| (r.version, r.state, r.generation, r.grant, r.moved.as_ref().map(|m| m.id), r.arrived.clone()))
        };
        let mover = |mover: &Mover| {
            format!(
                "{:?} {} {:?} {:?}",
                mover.journey,
                mover.begun,
                mover.target.as_ref().map(show),
                mover.source.as_ref().map(show)
            )
        };
        let stores = self.stores.each_ref().map(show);
        let rest = (self.writes, self.crashes, self.uses, self.left);
        format!("{stores:?} {} {} {rest:?}", mover(&self.movers[0]), mover(&self.movers[1]))
    }

    fn write(&mut self, store: usize, expected: Option<i64>, next: Record) {
        self.writes += 1;
        if self.stores[store].as_ref().map(|record| record.version) == expected {
            self.stores[store] = Some(next);
        }
    }

    fn next(&self) -> Vec<World> {
        let mut all = Vec::new();
        for at in 0..2 {
            all.extend(self.moved(at));
            if self.crashes < CRASHES {
                let mut world = self.clone();
                world.crashes += 1;
                world.movers[at] = start(self.movers[at].forth, self.movers[at].journey + 10);
                all.push(world);
            }
            all.extend(self.used(at));
        }
        all
    }

    fn moved(&self, at: usize) -> Option<World> {
        let mut world = self.clone();
        let (from, to) = self.movers[at].stores();
        let mover = &mut world.movers[at];
        let Some(target) = mover.target.clone() else {
            mover.target = Some(self.stores[to].clone());
            return Some(world);
        };
        let Some(source) = mover.source.clone() else {
            mover.source = Some(self.stores[from].clone());
            return Some(world);
        };
        let (here, there) = (place(from), place(to));
        let journey = Journey { id: Id(mover.journey), from: &here, to: &there, version: mover.journey as i64 * 1000 };
        (mover.target, mover.source) = (None, None);
        match step(source.as_ref(), target.as_ref(), &journey, &moment(&now())) {
            Step::WriteSource(next) => {
                let begins = next.state == State::Moving;
                if begins && std::mem::replace(&mut mover.begun, begins) {
                    return None;
                }
                world.write(from, source.map(|record| record.version), *next);
                Some(world)
            }
            Step::WriteTarget(next) => {
                world.write(to, target.map(|record| record.version), *next);
                Some(world)
            }
            Step::Arrived | Step::Refuse(_) => None,
        }
    }

    /// What else happens to a record.
    fn used(&self, store: usize) -> Vec<World> {
        let Some(record) = self.stores[store].as_ref().filter(|_| self.uses < USES) else { return Vec::new() };
        let now = now();
        let renewed = (record.state == State::Active).then(|| {
            let mut next = Record { version: record.version + 1, generation: record.generation + 1, ..record.clone() };
            next.secrets.refresh_token = Some(secret(&format!("rt-{}", next.generation)));
            next
        });
        let left = (!record.is_away()).then(|| sign_out(Some(record), false, &moment(&now))).flatten();
        let forgotten = (record.state != State::Moving).then(|| forget(Some(record), &moment(&now))).flatten();
        // What is left of a session that has moved on, or of a move that was taken back, can be forgotten.
        let leaves = record.state == State::Active;
        [(renewed, false), (left, leaves), (forgotten, leaves)]
            .into_iter()
            .filter_map(|(next, leaves)| {
                let mut world = self.clone();
                world.stores[store] = Some(next?);
                world.uses += 1;
                world.left |= leaves;
                Some(world)
            })
            .collect()
    }

    /// Nobody renews one refresh token in two stores; who has signed out stays so; what nobody has left is not lost.
    fn check(&self) {
        let live = |stores: &[Option<Record>; 2]| {
            stores.iter().flatten().filter(|record| record.state == State::Active).count()
        };
        assert!(live(&self.stores) <= usize::from(!self.left), "{:?}", self.stores);
        if !self.left {
            for from in [0, 1] {
                let mut stores = self.stores.clone();
                let moved = run(&mut stores, from, 99);
                assert_eq!(live(&stores), 1, "{moved:?} {:?} {stores:?}", self.stores);
            }
        }
    }
}

#[test]
fn two_stores_never_both_hold_the_live_refresh_token() {
    let world = World {
        stores: [Some(record()), None],
        movers: [start(true, 1), start(false, 2)],
        writes: 0,
        crashes: 0,
        uses: 0,
        left: false,
    };
    let mut seen = HashSet::from([world.fingerprint()]);
    let mut open = vec![world];
    let (mut arrived, mut came_back) = (0, 0);
    while let Some(world) = open.pop() {
        for next in world.next() {
            if next.writes <= WRITES && seen.insert(next.fingerprint()) {
                next.check();
                let state = |store: usize| next.stores[store].as_ref().map(|record| record.state);
                arrived += usize::from(state(0) == Some(State::Moved) && state(1) == Some(State::Active));
                came_back += usize::from(state(0) == Some(State::Active) && state(1) == Some(State::Moved));
                open.push(next);
            }
        }
    }
    println!("{} states, {arrived} with the session in the second store, {came_back} back in the first", seen.len());
    assert!(arrived > 100 && came_back > 100, "{arrived} {came_back}");
}

/// Runs a move alone until it is over.
fn run(stores: &mut [Option<Record>; 2], from: usize, id: u128) -> Result<(), Obstacle> {
    let (here, there) = (place(from), place(1 - from));
    let journey = Journey { id: Id(id), from: &here, to: &there, version: 1_000 };
    let now = now();
    for _ in 0..8 {
        match step(stores[from].as_ref(), stores[1 - from].as_ref(), &journey, &moment(&now)) {
            Step::WriteSource(next) => stores[from] = Some(*next),
            Step::WriteTarget(next) => stores[1 - from] = Some(*next),
            Step::Arrived => return Ok(()),
            Step::Refuse(why) => return Err(why),
        }
    }
    panic!("it does not end: {stores:?}");
}

#[test]
fn a_session_arrives_whole_and_leaves_a_tombstone_without_secrets() {
    let mut stores = [Some(record()), None];
    run(&mut stores, 0, 1).unwrap();
    let [Some(left), Some(arrived)] = &stores else { panic!("{stores:?}") };
    let expected = Record { version: arrived.version, arrived: vec![Id(1)], ..record() };
    assert_eq!((arrived, &arrived.secrets), (&expected, &record().secrets));
    assert_eq!(left.state, State::Moved);
    assert!(left.secrets.refresh_token.is_none() && left.secrets.access_token.is_none());
    assert!(left.secrets.members.is_none() && left.history.is_empty());
    let before = record().known.spent.len();
    assert_eq!(left.known.spent.len(), before + 1, "a program that saves its old token at every start changes nothing");
    run(&mut stores, 0, 2).unwrap();
    run(&mut stores, 1, 3).unwrap();
    assert_eq!(stores.map(|record| record.unwrap().state), [State::Active, State::Moved]);
}

#[test]
fn what_cannot_be_moved_stays() {
    let other = Record { grant: Id(0xb2), ..record() };
    let mut taken = [Some(record()), Some(other)];
    assert_eq!(run(&mut taken, 0, 1), Err(Obstacle::Taken));
    assert_eq!(taken[0], Some(record()));
    assert_eq!(run(&mut [None, None], 0, 1), Err(Obstacle::Gone));
    for state in [State::Ended, State::SignedOut, State::Forgotten] {
        assert_eq!(run(&mut [Some(Record { state, ..record() }), None], 0, 1), Err(Obstacle::Gone));
    }
    let mut elsewhere = [Some(record()), None];
    let (here, third) = (place(0), place(3));
    let journey = Journey { id: Id(1), from: &here, to: &third, version: 1 };
    let now = now();
    let Step::WriteSource(moving) = step(elsewhere[0].as_ref(), None, &journey, &moment(&now)) else { panic!() };
    elsewhere[0] = Some(*moving);
    assert_eq!(run(&mut elsewhere, 0, 2), Err(Obstacle::Elsewhere(third)));
}

#[test]
fn a_session_signed_out_after_its_arrival_stays_signed_out() {
    let mut stores = [Some(record()), None];
    let now = now();
    let (here, there) = (place(0), place(1));
    let journey = Journey { id: Id(1), from: &here, to: &there, version: 1 };
    for _ in 0..2 {
        match step(stores[0].as_ref(), stores[1].as_ref(), &journey, &moment(&now)) {
            Step::WriteSource(next) => stores[0] = Some(*next),
            Step::WriteTarget(next) => stores[1] = Some(*next),
            other => panic!("{other:?}"),
        }
    }
    stores[1] = sign_out(stores[1].as_ref(), true, &moment(&now));
    run(&mut stores, 0, 2).unwrap();
    assert_eq!(stores.map(|record| record.unwrap().state), [State::Moved, State::SignedOut]);
}
