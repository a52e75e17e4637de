//! A small bound of what `make prove` searches, and every broken rule.

use evergrant_model::properties::{Case, Property};
use evergrant_model::report::{caught, side_by_side};
use evergrant_model::rules::Rules;
use evergrant_model::runs::{self, Fault, Run};
use evergrant_model::search::search;
use evergrant_model::servers::Server;
use evergrant_model::{mutations, report};

#[test]
fn every_property_holds() {
    assert!(report::searches("small", runs::small()));
}

#[test]
fn every_broken_rule_is_noticed() {
    let all = mutations::all();
    let idle = Property::ALL.into_iter().filter(|property| all.iter().all(|mutation| mutation.breaks != *property));
    assert_eq!(idle.collect::<Vec<_>>(), [], "properties that nothing breaks");
    let caught = side_by_side(&all, caught, |_| ());
    let missed: Vec<_> = caught.into_iter().filter_map(Result::err).collect();
    assert!(missed.is_empty(), "{}", missed.join("\n"));
}

/// The table in docs/guarantees.md, "What a crash or a pause can cost": each case happens where it says, and nowhere
/// else. (That it happens nowhere else in all other runs is a property: `Unexpected`.)
#[test]
fn the_named_cases_happen_where_the_documentation_says() {
    use Server::*;
    let shared = |server, may: &'static [Fault]| Run { server, may, faults: 2, renewals: 2, ..Run::BASE };
    let ghosts = |server| shared(server, &[Fault::Loss, Fault::Ghost]);
    let pauses = |server| shared(server, &[Fault::Pause]);
    let local = |run| Run { local: true, ..run };
    let occurs = |run, case| search(run, Rules::SHIPPED, None).cases.has(case);

    let uncommitted = &[Fault::Store, Fault::CrashUncommitted];

    for server in Server::ALL {
        let rotates = server != NoRotation;
        assert_eq!(occurs(shared(server, &[Fault::Loss]), Case::LostReply), rotates, "{server:?}");
        assert!(!occurs(shared(server, &[Fault::NoConnection, Fault::Refused]), Case::LostReply), "{server:?}");
        // Neither committed nor set aside.
        for run in [shared(server, uncommitted), local(shared(server, uncommitted))] {
            assert_eq!(occurs(run, Case::LostReply), rotates, "{server:?}");
            assert!(!occurs(Run { aside: true, ..run }, Case::LostReply), "{server:?}");
        }

        let punishes = rotates && server != StrictRefuses;
        assert_eq!(occurs(ghosts(server), Case::Ghost), punishes, "{server:?}");
        assert!(!occurs(shared(server, &[Fault::Crash, Fault::Loss]), Case::Ghost), "{server:?}");

        let kills = matches!(server, StrictRevokes | GraceNewestSibling | GraceNewestRefuses);
        assert_eq!(occurs(pauses(server), Case::HeldReply), kills, "{server:?}");
        assert!(!occurs(local(pauses(server)), Case::HeldReply), "{server:?}");
        assert_eq!(occurs(local(shared(server, &[Fault::Pause, Fault::Hang])), Case::HeldReply), kills, "{server:?}");
    }
}

/// Where a used token is merely refused, or does not rotate, nothing but a lost reply costs a session, whatever happens
/// to parties and requests.
#[test]
fn a_server_that_merely_refuses_loses_nothing_else() {
    for (server, faults) in [(Server::StrictRefuses, 3), (Server::NoRotation, 3)] {
        let may = &[Fault::Crash, Fault::Loss, Fault::Pause, Fault::PauseAtSend, Fault::Ghost, Fault::Store];
        let found = search(Run { server, may, faults, renewals: 2, ..Run::BASE }, Rules::SHIPPED, None);
        assert!(found.is_clean(), "{}", found.told());
        let others = Case::ALL.into_iter().filter(|case| *case != Case::LostReply && found.cases.has(*case));
        assert_eq!(others.count(), 0, "{:?}", found.cases);
    }
}

/// The search takes parties that differ in name only for the same, and versions for "written since" or not. Where
/// versions count, it does neither; what it finds, and how soon, is the same.
#[test]
fn what_the_search_leaves_out_makes_no_difference() {
    let depth = |mutation: &mutations::Mutation, run| {
        let found = search(run, mutation.rules, Some(mutation.breaks));
        let (_, trace) = found.violations.into_iter().find(|(property, _)| *property == mutation.breaks)?;
        Some(trace.lines().count())
    };
    let differing = side_by_side(
        &mutations::all(),
        |mutation| {
            let whole = Run { versions: true, ..mutation.run };
            let depths = (depth(mutation, mutation.run), depth(mutation, whole));
            (depths.0 != depths.1).then(|| format!("{}: {depths:?}", mutation.name))
        },
        |_| (),
    );
    let differing: Vec<_> = differing.into_iter().flatten().collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

/// The same states each time, and none twice: a search that forgot some would not notice.
#[test]
fn searches_are_exact() {
    let run = Run { may: &[Fault::Loss], faults: 1, ..Run::BASE };
    let counts: Vec<_> =
        (0..2).map(|_| search(run, Rules::SHIPPED, None)).map(|found| (found.states, found.depth)).collect();
    assert_eq!(counts[0], counts[1]);
    let most = Run { most: 10, ..run };
    assert!(search(most, Rules::SHIPPED, None).cut_short, "a search that is cut short says so");
}
