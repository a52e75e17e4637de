//! An exact breadth-first search: every state that a run can come to, each once.

use std::fmt::Write as _;
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use hashbrown::{DefaultHashBuilder, HashTable};

use crate::properties::{Cases, Property};
use crate::rules::Rules;
use crate::runs::Run;
use crate::world::{Cause, State, World};

/// What a search found.
pub struct Found {
    /// The run.
    pub run: Run,
    /// How many states.
    pub states: usize,
    /// How many different records.
    pub records: usize,
    /// How many steps the farthest of them is away.
    pub depth: usize,
    /// The named cases that occur.
    pub cases: Cases,
    /// The first violation of each property, with the shortest way to it.
    pub violations: Vec<(Property, String)>,
    /// How long it took.
    pub time: Duration,
    /// There are more states than the run allows.
    pub cut_short: bool,
}

impl Found {
    /// Whether everything was looked at and all properties hold.
    pub fn is_clean(&self) -> bool {
        self.violations.is_empty() && !self.cut_short
    }

    /// The violations, in full.
    pub fn told(&self) -> String {
        let mut told = String::new();
        for (property, trace) in &self.violations {
            let _ = write!(told, "{} · {}: {property} does not hold\n{trace}", self.run.name, self.run.server.name());
        }
        if self.cut_short {
            let _ =
                writeln!(told, "{} · {}: more than {} states", self.run.name, self.run.server.name(), self.run.most);
        }
        told
    }
}

/// Looks for violations; for one of this property, no longer than until it is found.
pub fn search(run: Run, rules: Rules, until: Option<Property>) -> Found {
    let begun = Instant::now();
    let mut search = Search::new(run, rules);
    let cut_short = !search.explore(until);
    if !cut_short && search.ends.len() == search.states.len() {
        search.check_that_all_settles();
    }
    let violations = std::mem::take(&mut search.violations);
    let violations = violations.into_iter().map(|(property, at)| (property, search.trace(at))).collect();
    Found {
        run,
        states: search.states.len(),
        records: search.world.records.len(),
        depth: search.path(search.states.len() - 1).len() - 1,
        cases: search.cases,
        violations,
        time: begun.elapsed(),
        cut_short,
    }
}

struct Search {
    world: World,
    hasher: DefaultHashBuilder,
    table: HashTable<u32>,
    states: Vec<State>,
    parents: Vec<u32>,
    /// Where the steps without a fault or a demand lead; those of state n end at `ends[n]`.
    edges: Vec<u32>,
    ends: Vec<usize>,
    cases: Cases,
    violations: Vec<(Property, u32)>,
}

impl Search {
    fn new(run: Run, rules: Rules) -> Self {
        let world = World::new(run, rules);
        let first = world.first();
        let mut search = Self {
            world,
            hasher: DefaultHashBuilder::default(),
            table: HashTable::new(),
            states: Vec::new(),
            parents: Vec::new(),
            edges: Vec::new(),
            ends: Vec::new(),
            cases: Cases::default(),
            violations: Vec::new(),
        };
        search.number(first, 0);
        search
    }

    /// The state's number, new or not.
    fn number(&mut self, state: State, parent: u32) -> u32 {
        let hash = self.hasher.hash_one(state);
        if let Some(number) = self.table.find(hash, |other| self.states[*other as usize] == state) {
            return *number;
        }
        let number = u32::try_from(self.states.len()).expect("fewer states");
        self.states.push(state);
        self.parents.push(parent);
        let (states, hasher) = (&self.states, &self.hasher);
        self.table.insert_unique(hash, number, |other| hasher.hash_one(states[*other as usize]));
        number
    }

    /// `false`: there are too many states.
    fn explore(&mut self, until: Option<Property>) -> bool {
        let mut next = Vec::new();
        let mut at = 0;
        while at < self.states.len() {
            let state = self.states[at];
            self.cases.0 |= state.cases.0;
            for property in state.broken.iter() {
                if !self.violations.iter().any(|(other, _)| *other == property) {
                    self.violations.push((property, at as u32));
                }
            }
            if until.is_some_and(|until| self.violations.iter().any(|(property, _)| *property == until)) {
                return true;
            }
            if self.states.len() > self.world.run.most {
                return false;
            }
            // What comes after a violation is another story.
            if state.broken == Default::default() {
                next.extend(self.world.steps(&state).map(|step| (step.cause, step.state)));
            }
            for (cause, state) in next.drain(..) {
                let number = self.number(state, at as u32);
                if cause == Cause::Progress {
                    self.edges.push(number);
                }
            }
            self.ends.push(self.edges.len());
            at += 1;
        }
        true
    }

    /// From every state, steps without a fault or a demand lead to a settled one.
    fn check_that_all_settles(&mut self) {
        let count = self.states.len();
        let mut starts = vec![0u32; count + 1];
        self.edges.iter().for_each(|to| starts[*to as usize + 1] += 1);
        for at in 0..count {
            starts[at + 1] += starts[at];
        }
        let mut places = starts.clone();
        let mut sources = vec![0u32; self.edges.len()];
        let mut edge = 0;
        for (from, end) in self.ends.iter().enumerate() {
            while edge < *end {
                let place = &mut places[self.edges[edge] as usize];
                sources[*place as usize] = from as u32;
                *place += 1;
                edge += 1;
            }
        }
        let world = &self.world;
        let good = |state: &State| state.broken != Default::default() || world.is_settled(state);
        let mut settles: Vec<bool> = self.states.iter().map(good).collect();
        let mut left: Vec<u32> = (0..count as u32).filter(|at| settles[*at as usize]).collect();
        while let Some(at) = left.pop() {
            for source in &sources[starts[at as usize] as usize..starts[at as usize + 1] as usize] {
                if !std::mem::replace(&mut settles[*source as usize], true) {
                    left.push(*source);
                }
            }
        }
        if let Some(stuck) = settles.iter().position(|settles| !settles) {
            self.violations.push((Property::Settles, stuck as u32));
        }
    }

    fn path(&self, mut at: usize) -> Vec<u32> {
        let mut path = vec![at as u32];
        while at != 0 {
            at = self.parents[at] as usize;
            path.push(at as u32);
        }
        path.reverse();
        path
    }

    /// The shortest way to a state, in words.
    fn trace(&mut self, to: u32) -> String {
        let mut names = ['A', 'B', 'C'];
        let mut told = String::new();
        for (number, pair) in self.path(to as usize).windows(2).enumerate() {
            let [from, to] = [pair[0], pair[1]].map(|at| self.states[at as usize]);
            self.world.telling = Some(names);
            let step = self.world.steps(&from).find(|step| step.state == to).expect("the same steps again");
            names = step.order.map(|old| names[usize::from(old)]);
            let mark = if step.cause == Cause::Fault { '!' } else { ' ' };
            let _ = writeln!(told, "  {:2}. {mark} {}", number + 1, step.text);
        }
        self.world.telling = None;
        told
    }
}
