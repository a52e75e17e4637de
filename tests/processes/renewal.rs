//! Many threads and many processes at the moment of expiry, and at start-up.

use serde_json::json;

use crate::stage::{STRICT, Stage, Token, Worker, now_ms};

const PARTIES: usize = 64;
const ROUNDS: u64 = 20;

/// What a party is told so that it needs a token other than this one: in most rounds, that this one was rejected; in
/// some, to ask for a token at the moment at which this one has expired.
fn round(stage: &Stage, number: u64, token: &Token) -> Vec<String> {
    // Of the token that this round gets.
    let life_ms = if number % 10 == 9 { 1_000 } else { 3_600_000 };
    stage.server.update(|options| options.access_token_life_ms = life_ms);
    match number.is_multiple_of(10) && number > 0 {
        true => vec!["at".into(), ((token.expires_at_s + 1) * 1000).to_string(), "token".into(), "alice".into()],
        false => {
            let start = (now_ms() + 50).to_string();
            vec!["at".into(), start, "renew".into(), "alice".into(), token.access_token.clone()]
        }
    }
}

/// Plays all rounds; `play` tells all parties the command and collects what they got.
fn rounds(stage: &Stage, mut token: Token, mut play: impl FnMut(&[&str]) -> Vec<Token>) {
    for number in 0..ROUNDS {
        let before = stage.server.token_requests().len();
        let command = round(stage, number, &token);
        let tokens = play(&command.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(stage.server.token_requests().len() - before, 1, "requests in round {number}");
        assert_eq!(tokens.len(), PARTIES);
        for got in &tokens {
            assert_eq!((got, got.generation), (&tokens[0], token.generation + 1), "round {number}");
        }
        assert_ne!(tokens[0].access_token, token.access_token);
        token = tokens[0].clone();
    }
    stage.assert_no_token_was_used_twice();
}

#[test]
fn sixty_four_threads_make_one_request_twenty_times_in_a_row() {
    let stage = Stage::new(STRICT);
    let (worker, token) = stage.open_with_session(json!({"early_renewal": "off"}));
    rounds(&stage, token, |command| {
        let tag = worker.threads(PARTIES, command);
        (0..PARTIES).map(|_| worker.reply(&tag).token()).collect()
    });
}

#[test]
fn sixty_four_processes_make_one_request_twenty_times_in_a_row() {
    let stage = Stage::new(STRICT);
    let off = json!({"early_renewal": "off", "max_wait_ms": 50_000});
    let (first, token) = stage.open_with_session(off.clone());
    let mut workers = vec![first];
    workers.extend((1..PARTIES).map(|_| stage.open(off.clone())));
    for worker in &workers {
        assert_eq!(worker.call(&["token", "alice"]).token(), token);
    }
    rounds(&stage, token, |command| {
        let tags: Vec<_> = workers.iter().map(|worker| worker.tell(command)).collect();
        workers.iter().zip(&tags).map(|(worker, tag)| worker.reply(tag).token()).collect()
    });
}

#[test]
fn eight_processes_that_save_the_same_token_at_every_start_lose_nothing() {
    const STARTS: usize = 20;
    let stage = Stage::new(STRICT);
    let first = stage.sign_in();
    for start in 0..STARTS {
        let workers: Vec<Worker> = (0..8).map(|_| stage.worker()).collect();
        let told: Vec<_> = workers
            .iter()
            .map(|worker| {
                let open = worker.tell(&["open", &stage.config(json!({}))]);
                let save = worker.tell(&["save", "alice", &first]);
                let renew = worker.tell(&["renew", "alice"]);
                // Half of them run exit handlers.
                worker.tell(&["end", if start % 2 == 0 { "exit" } else { "_exit" }]);
                [open, save, renew]
            })
            .collect();
        for (worker, [open, save, renew]) in workers.iter().zip(&told) {
            worker.reply(open).ok();
            worker.reply(save).ok();
            assert!(worker.reply(renew).token().generation > start as u64 + 1);
            assert!(worker.wait().success());
        }
    }
    let worker = stage.open(json!({}));
    worker.call(&["renew", "alice"]).ok();
    let described = worker.describe();
    assert_eq!((&described["state"], &described["attempt"]), (&json!("active"), &json!(null)));
    assert_eq!(described["generation"], stage.renewals() + 1);
    assert_eq!(stage.server.families().len(), 1);
    stage.assert_no_token_was_used_twice();
}
