//! The token state machine: who may still use what. Pure but for the random numbers: no clock, no I/O, no HTTP.

use crate::mint::{Kind, Minter};
use crate::options::{GraceKind, Options, Reuse, Rotation};
use serde::Serialize;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

/// A family's access tokens beyond this many are forgotten, the oldest first: benchmarks issue millions.
const ACCESS_TOKENS_KEPT: usize = 10_000;

pub(crate) struct Authority {
    minter: Minter,
    families: Vec<Family>,
    refresh_tokens: HashMap<Arc<str>, RefreshToken>,
    access_tokens: HashMap<Arc<str>, AccessToken>,
    codes: HashMap<Arc<str>, Code>,
    inactive_users: HashSet<String>,
}

/// All that descends from one sign-in.
struct Family {
    client_id: String,
    user: String,
    scope: String,
    created_ms: u64,
    used_ms: u64,
    generation: u32,
    refresh_tokens: Vec<Arc<str>>,
    access_tokens: VecDeque<Arc<str>>,
    revoked: Option<Revoked>,
    reuses: u32,
}

struct RefreshToken {
    family: usize,
    generation: u32,
    standing: Standing,
    issued_ms: u64,
    first_used_ms: Option<u64>,
    presentations: u32,
    /// What its first use was answered with, for `same_pair`.
    successors: Option<(Arc<str>, Arc<str>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Current,
    Used,
    Superseded,
}

struct AccessToken {
    family: usize,
    scope: String,
    issued_ms: u64,
    active_ms: u64,
    life_ms: u64,
    killed: bool,
}

struct Code {
    client_id: String,
    user: String,
    scope: String,
    redirect_uri: String,
    challenge: Option<String>,
    expires_ms: u64,
    family: Option<usize>,
}

/// What an authorization code was issued for.
pub(crate) struct CodeRequest<'a> {
    pub(crate) client_id: &'a str,
    pub(crate) user: &'a str,
    pub(crate) scope: &'a str,
    pub(crate) redirect_uri: &'a str,
    pub(crate) challenge: Option<&'a str>,
}

/// Why and when a family ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Revoked {
    /// `reuse`, `revoked`, `family_cap`, `code_reuse`.
    pub why: &'static str,
    /// Unix time.
    pub at_ms: u64,
}

/// Tokens to answer with.
pub(crate) struct Grant {
    pub(crate) family: u64,
    pub(crate) user: String,
    pub(crate) scope: String,
    pub(crate) access_token: Arc<str>,
    /// Only when the answer has one.
    pub(crate) refresh_token: Option<Arc<str>>,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: u64,
    pub(crate) rotated: bool,
    /// A spent token was answered inside its grace window.
    pub(crate) replayed: bool,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Unknown,
    WrongClient,
    FamilyRevoked,
    Expired,
    InactiveUser,
    Reused,
    ReusedAndRevoked,
    Superseded,
    Scope,
    Code,
}

impl Refusal {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Unknown => "unknown_token",
            Self::WrongClient => "wrong_client",
            Self::FamilyRevoked => "family_revoked",
            Self::Expired => "expired",
            Self::InactiveUser => "inactive_user",
            Self::Reused => "reused",
            Self::ReusedAndRevoked => "reused_and_revoked",
            Self::Superseded => "superseded",
            Self::Scope => "invalid_scope",
            Self::Code => "invalid_code",
        }
    }
}

/// What introspection and protected resources see of a live token.
pub(crate) struct Live {
    pub(crate) client_id: String,
    pub(crate) user: String,
    pub(crate) scope: String,
    pub(crate) issued_ms: u64,
    pub(crate) expires_ms: Option<u64>,
    pub(crate) is_refresh: bool,
}

impl Authority {
    pub(crate) fn new() -> Self {
        Self {
            minter: Minter::new(),
            families: Vec::new(),
            refresh_tokens: HashMap::new(),
            access_tokens: HashMap::new(),
            codes: HashMap::new(),
            inactive_users: HashSet::new(),
        }
    }

    // ---- grants ----

    pub(crate) fn sign_in(&mut self, options: &Options, now: u64, client_id: &str, user: &str, scope: &str) -> Grant {
        let family = self.families.len();
        self.families.push(Family {
            client_id: client_id.into(),
            user: user.into(),
            scope: scope.into(),
            created_ms: now,
            used_ms: now,
            generation: 0,
            refresh_tokens: Vec::new(),
            access_tokens: VecDeque::new(),
            revoked: None,
            reuses: 0,
        });
        self.apply_cap(options, now, family);
        let refresh_token = self.issue_refresh_token(options, now, family);
        let access_token = self.issue_access_token(options, now, family, scope);
        self.grant(family, access_token, Some(refresh_token))
    }

    /// The refresh grant.
    pub(crate) fn refresh(
        &mut self,
        options: &Options,
        now: u64,
        client_id: &str,
        token: &str,
        scope: Option<&str>,
    ) -> Result<Grant, Refusal> {
        let held = self.refresh_tokens.get(token).ok_or(Refusal::Unknown)?;
        let (number, standing) = (held.family, held.standing);
        let first_used_ms = held.first_used_ms.unwrap_or(now);
        let family = &mut self.families[number];
        if family.client_id != client_id {
            return Err(Refusal::WrongClient);
        }
        if family.revoked.is_some() {
            family.reuses += u32::from(standing == Standing::Used);
            return Err(Refusal::FamilyRevoked);
        }
        if self.inactive_users.contains(&family.user) {
            return Err(Refusal::InactiveUser);
        }
        let outlived = |limit: Option<u64>, since: u64| limit.is_some_and(|limit| now >= since + limit);
        if outlived(options.refresh_token_life_ms, family.created_ms)
            || outlived(options.refresh_token_idle_ms, family.used_ms)
        {
            return Err(Refusal::Expired);
        }
        if scope.is_some_and(|asked| !asked.split(' ').all(|one| family.scope.split(' ').any(|known| known == one))) {
            return Err(Refusal::Scope);
        }

        let replayed = standing == Standing::Used;
        let mut newest_wins = false;
        match standing {
            Standing::Current => {}
            Standing::Superseded => return Err(Refusal::Superseded),
            Standing::Used => match options.rotation {
                Rotation::Grace { window_ms, kind, .. } if now < first_used_ms + window_ms => match kind {
                    GraceKind::SamePair => return self.same_pair(number, token),
                    GraceKind::SiblingsAll => {}
                    GraceKind::NewestWins => newest_wins = true,
                },
                rotation => return Err(self.reused(rotation, now, number)),
            },
        }
        self.families[number].used_ms = now;
        if newest_wins {
            self.supersede_after(number, token);
        }
        let scope = scope.map_or_else(|| self.families[number].scope.clone(), str::to_owned);
        if options.rotation == Rotation::None {
            let access_token = self.access_token_for_refresh(options, now, number, &scope);
            self.refresh_tokens.get_mut(token).expect("held").first_used_ms.get_or_insert(now);
            return Ok(self.grant(number, access_token, None));
        }
        if options.rotation_kills_access_tokens {
            self.kill_access_tokens_of(number);
        }
        let refresh_token = self.issue_refresh_token(options, now, number);
        let access_token = self.access_token_for_refresh(options, now, number, &scope);
        let held = self.refresh_tokens.get_mut(token).expect("held");
        held.standing = Standing::Used;
        held.first_used_ms.get_or_insert(now);
        held.successors.get_or_insert_with(|| (access_token.clone(), refresh_token.clone()));
        Ok(Grant { rotated: true, replayed, ..self.grant(number, access_token, Some(refresh_token)) })
    }

    fn same_pair(&self, family: usize, token: &str) -> Result<Grant, Refusal> {
        let (access, refresh) = self.refresh_tokens[token].successors.clone().ok_or(Refusal::Reused)?;
        if !self.access_tokens.contains_key(&access) {
            return Err(Refusal::Reused);
        }
        Ok(Grant { replayed: true, ..self.grant(family, access, Some(refresh)) })
    }

    fn reused(&mut self, rotation: Rotation, now: u64, family: usize) -> Refusal {
        self.families[family].reuses += 1;
        match rotation {
            Rotation::Strict | Rotation::Grace { reuse: Reuse::Revoke, .. } => {
                self.revoke_family(family, now, "reuse");
                Refusal::ReusedAndRevoked
            }
            _ => Refusal::Reused,
        }
    }

    /// Everything that came after this token is refused from now on.
    fn supersede_after(&mut self, family: usize, token: &str) {
        let generation = self.refresh_tokens[token].generation;
        for later in &self.families[family].refresh_tokens {
            let held = self.refresh_tokens.get_mut(later).expect("of the family");
            if held.generation > generation {
                held.standing = Standing::Superseded;
            }
        }
    }

    fn apply_cap(&mut self, options: &Options, now: u64, newest: usize) {
        let Some(cap) = options.family_cap else { return };
        let (client_id, user) = (&self.families[newest].client_id, &self.families[newest].user);
        let living: Vec<usize> = (0..self.families.len())
            .filter(|&number| {
                let family = &self.families[number];
                family.revoked.is_none() && family.client_id == *client_id && family.user == *user
            })
            .collect();
        for &number in &living[..living.len().saturating_sub(cap)] {
            self.revoke_family(number, now, "family_cap");
        }
    }

    fn issue_refresh_token(&mut self, options: &Options, now: u64, number: usize) -> Arc<str> {
        let token = self.minter.token(Kind::Refresh, options.is_salesforce(), &options.token_prefix);
        let family = &mut self.families[number];
        family.generation += 1;
        family.refresh_tokens.push(token.clone());
        let held = RefreshToken {
            family: number,
            generation: family.generation,
            standing: Standing::Current,
            issued_ms: now,
            first_used_ms: None,
            presentations: 0,
            successors: None,
        };
        self.refresh_tokens.insert(token.clone(), held);
        token
    }

    fn access_token_for_refresh(&mut self, options: &Options, now: u64, family: usize, scope: &str) -> Arc<str> {
        if options.same_access_token
            && let Some(current) = self.families[family].access_tokens.back()
            && self.access_token_lives(&self.access_tokens[current], now)
        {
            return current.clone();
        }
        self.issue_access_token(options, now, family, scope)
    }

    fn issue_access_token(&mut self, options: &Options, now: u64, number: usize, scope: &str) -> Arc<str> {
        let token = self.minter.token(Kind::Access, options.is_salesforce(), &options.token_prefix);
        let family = &mut self.families[number];
        family.access_tokens.push_back(token.clone());
        if family.access_tokens.len() > ACCESS_TOKENS_KEPT {
            let oldest = family.access_tokens.pop_front().expect("more than none");
            self.access_tokens.remove(&oldest);
        }
        let held = AccessToken {
            family: number,
            scope: scope.into(),
            issued_ms: now,
            active_ms: now,
            life_ms: options.access_token_life_ms,
            killed: false,
        };
        self.access_tokens.insert(token.clone(), held);
        token
    }

    fn grant(&self, number: usize, access_token: Arc<str>, refresh_token: Option<Arc<str>>) -> Grant {
        let (family, held) = (&self.families[number], &self.access_tokens[&access_token]);
        Grant {
            family: number as u64,
            user: family.user.clone(),
            scope: held.scope.clone(),
            issued_ms: held.issued_ms,
            expires_ms: held.active_ms + held.life_ms,
            access_token,
            refresh_token,
            rotated: false,
            replayed: false,
        }
    }

    // ---- authorization codes ----

    pub(crate) fn issue_code(&mut self, options: &Options, now: u64, request: &CodeRequest) -> Arc<str> {
        let code = self.minter.token(Kind::Code, options.is_salesforce(), &options.token_prefix);
        let held = Code {
            client_id: request.client_id.into(),
            user: request.user.into(),
            scope: request.scope.into(),
            redirect_uri: request.redirect_uri.into(),
            challenge: request.challenge.map(str::to_owned),
            expires_ms: now + 60_000,
            family: None,
        };
        self.codes.insert(code.clone(), held);
        code
    }

    /// The code grant. `challenge` is what the verifier hashes to, if one was sent.
    pub(crate) fn exchange_code(
        &mut self,
        options: &Options,
        now: u64,
        client_id: &str,
        code: &str,
        redirect_uri: Option<&str>,
        challenge: Option<&str>,
    ) -> Result<Grant, Refusal> {
        let held = self.codes.get(code).ok_or(Refusal::Code)?;
        if let Some(family) = held.family {
            self.revoke_family(family, now, "code_reuse");
            return Err(Refusal::Code);
        }
        if held.client_id != client_id
            || now >= held.expires_ms
            || redirect_uri != Some(&held.redirect_uri)
            || challenge != held.challenge.as_deref()
        {
            return Err(Refusal::Code);
        }
        if self.inactive_users.contains(&held.user) {
            return Err(Refusal::InactiveUser);
        }
        let (user, scope) = (held.user.clone(), held.scope.clone());
        let grant = self.sign_in(options, now, client_id, &user, &scope);
        self.codes.get_mut(code).expect("held").family = Some(grant.family as usize);
        let renewable = scope.split(' ').any(|one| matches!(one, "refresh_token" | "offline_access" | "full"));
        Ok(if options.is_salesforce() && !renewable { Grant { refresh_token: None, ..grant } } else { grant })
    }

    // ---- what lives ----

    /// Someone showed this refresh token, whatever becomes of the request. Returns its family and generation.
    pub(crate) fn presented(&mut self, token: &str) -> Option<(u64, u32)> {
        let held = self.refresh_tokens.get_mut(token)?;
        held.presentations += 1;
        Some((held.family as u64, held.generation))
    }

    pub(crate) fn presentations(&self, token: &str) -> u32 {
        self.refresh_tokens.get(token).map_or(0, |held| held.presentations)
    }

    /// A protected resource is asked for with this access token; in a sliding life, that counts as activity.
    pub(crate) fn use_access_token(&mut self, options: &Options, now: u64, token: &str) -> Option<Live> {
        let live = self.live(now, token).filter(|live| !live.is_refresh)?;
        let held = self.access_tokens.get_mut(token)?;
        if options.sliding && now >= held.active_ms + held.life_ms / 2 {
            held.active_ms = now;
        }
        Some(live)
    }

    pub(crate) fn live(&self, now: u64, token: &str) -> Option<Live> {
        let (number, scope, issued_ms, expires_ms, is_refresh) = if let Some(held) = self.access_tokens.get(token) {
            if !self.access_token_lives(held, now) {
                return None;
            }
            (held.family, held.scope.clone(), held.issued_ms, Some(held.active_ms + held.life_ms), false)
        } else {
            let held = self.refresh_tokens.get(token).filter(|held| held.standing == Standing::Current)?;
            (held.family, self.families[held.family].scope.clone(), held.issued_ms, None, true)
        };
        let family = &self.families[number];
        if family.revoked.is_some() || self.inactive_users.contains(&family.user) {
            return None;
        }
        let (client_id, user) = (family.client_id.clone(), family.user.clone());
        Some(Live { client_id, user, scope, issued_ms, expires_ms, is_refresh })
    }

    fn access_token_lives(&self, held: &AccessToken, now: u64) -> bool {
        let family = &self.families[held.family];
        !held.killed
            && now < held.active_ms + held.life_ms
            && family.revoked.is_none()
            && !self.inactive_users.contains(&family.user)
    }

    // ---- ends ----

    /// RFC 7009: an access token ends alone, a refresh token with its whole family. False: there was nothing to end.
    pub(crate) fn revoke(&mut self, now: u64, token: &str) -> bool {
        if self.live(now, token).is_none() {
            return false;
        }
        if let Some(held) = self.access_tokens.get_mut(token) {
            held.killed = true;
        } else {
            self.revoke_family(self.refresh_tokens[token].family, now, "revoked");
        }
        true
    }

    /// Which family a refresh token belongs to, in any standing.
    pub(crate) fn family_of(&self, token: &str) -> Option<u64> {
        self.refresh_tokens.get(token).map(|held| held.family as u64)
    }

    pub(crate) fn client_of(&self, family: u64) -> &str {
        &self.families[family as usize].client_id
    }

    pub(crate) fn revoke_family_number(&mut self, now: u64, family: u64) -> bool {
        let known = (family as usize) < self.families.len();
        if known {
            self.revoke_family(family as usize, now, "revoked");
        }
        known
    }

    fn revoke_family(&mut self, family: usize, now: u64, why: &'static str) {
        self.families[family].revoked.get_or_insert(Revoked { why, at_ms: now });
    }

    /// Ends access tokens (all, or those of one user) and leaves the refresh tokens alone. Returns how many.
    pub(crate) fn expire_access_tokens(&mut self, now: u64, user: Option<&str>) -> usize {
        let mut ended = 0;
        for number in 0..self.families.len() {
            if user.is_none_or(|user| self.families[number].user == user) {
                let family = &self.families[number];
                ended += family.access_tokens.iter().filter(|token| self.live(now, token).is_some()).count();
                self.kill_access_tokens_of(number);
            }
        }
        ended
    }

    pub(crate) fn expire_access_token(&mut self, token: &str) -> bool {
        self.access_tokens.get_mut(token).map(|held| held.killed = true).is_some()
    }

    fn kill_access_tokens_of(&mut self, family: usize) {
        for token in &self.families[family].access_tokens {
            self.access_tokens.get_mut(token).expect("of the family").killed = true;
        }
    }

    pub(crate) fn set_user_active(&mut self, user: &str, active: bool) {
        if active {
            self.inactive_users.remove(user);
        } else {
            self.inactive_users.insert(user.into());
        }
    }

    pub(crate) fn view(&self, now: u64) -> Vec<FamilyView> {
        let refresh_token = |token: &Arc<str>| {
            let held = &self.refresh_tokens[token];
            RefreshTokenView {
                token: token.to_string(),
                generation: held.generation,
                standing: match held.standing {
                    Standing::Current => "current",
                    Standing::Used => "used",
                    Standing::Superseded => "superseded",
                },
                live: self.live(now, token).is_some(),
                presentations: held.presentations,
                issued_ms: held.issued_ms,
                first_used_ms: held.first_used_ms,
            }
        };
        let access_token = |token: &Arc<str>| {
            let held = &self.access_tokens[token];
            AccessTokenView {
                token: token.to_string(),
                live: self.access_token_lives(held, now),
                issued_ms: held.issued_ms,
                expires_ms: held.active_ms + held.life_ms,
            }
        };
        let family = |(number, family): (usize, &Family)| FamilyView {
            family: number as u64,
            client_id: family.client_id.clone(),
            user: family.user.clone(),
            scope: family.scope.clone(),
            created_ms: family.created_ms,
            generation: family.generation,
            reuses: family.reuses,
            revoked: family.revoked.clone(),
            refresh_tokens: family.refresh_tokens.iter().map(refresh_token).collect(),
            access_tokens: family.access_tokens.iter().map(access_token).collect(),
        };
        self.families.iter().enumerate().map(family).collect()
    }
}

/// One sign-in and everything that descends from it.
#[derive(Clone, Debug, Serialize)]
pub struct FamilyView {
    /// Its number, from 0.
    pub family: u64,
    /// Whose it is.
    pub client_id: String,
    /// Who signed in.
    pub user: String,
    /// What was granted.
    pub scope: String,
    /// When.
    pub created_ms: u64,
    /// How many refresh tokens it has had.
    pub generation: u32,
    /// Presentations of spent refresh tokens outside any grace window.
    pub reuses: u32,
    /// Why it ended, if it did.
    pub revoked: Option<Revoked>,
    /// All of them, the oldest first.
    pub refresh_tokens: Vec<RefreshTokenView>,
    /// The last 10,000, the oldest first.
    pub access_tokens: Vec<AccessTokenView>,
}

/// A refresh token.
#[derive(Clone, Debug, Serialize)]
pub struct RefreshTokenView {
    /// In clear text: these are test tokens.
    pub token: String,
    /// 1 for the first of its family.
    pub generation: u32,
    /// `current`, `used` or `superseded`.
    pub standing: &'static str,
    /// Current, in a living family of an active user.
    pub live: bool,
    /// How often it was presented in a request that was read, whatever became of that request.
    pub presentations: u32,
    /// When it was issued.
    pub issued_ms: u64,
    /// When it was first exchanged.
    pub first_used_ms: Option<u64>,
}

/// An access token.
#[derive(Clone, Debug, Serialize)]
pub struct AccessTokenView {
    /// In clear text: these are test tokens.
    pub token: String,
    /// A protected resource would take it.
    pub live: bool,
    /// When it was issued.
    pub issued_ms: u64,
    /// When it ends by itself.
    pub expires_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: &str = "user@example.com";

    fn started(rotation: Rotation) -> (Authority, Options, Arc<str>) {
        let options = Options { rotation, ..Options::generic() };
        let mut authority = Authority::new();
        let first = authority.sign_in(&options, 0, "client", USER, "api id").refresh_token.unwrap();
        (authority, options, first)
    }

    fn grace(kind: GraceKind) -> Rotation {
        Rotation::Grace { window_ms: 100, kind, reuse: Reuse::Revoke }
    }

    #[test]
    fn without_rotation_the_token_stays_good_and_is_not_repeated() {
        let (mut authority, options, first) = started(Rotation::None);
        for now in 1..4 {
            let grant = authority.refresh(&options, now, "client", &first, None).ok().unwrap();
            assert!(grant.refresh_token.is_none() && !grant.rotated);
        }
    }

    #[test]
    fn strict_reuse_revokes_the_family() {
        let (mut authority, options, first) = started(Rotation::Strict);
        let second = authority.refresh(&options, 1, "client", &first, None).ok().unwrap();
        let successor = second.refresh_token.unwrap();
        assert!(authority.live(2, &second.access_token).is_some());
        assert_eq!(authority.refresh(&options, 2, "client", &first, None).err(), Some(Refusal::ReusedAndRevoked));
        assert_eq!(authority.refresh(&options, 3, "client", &successor, None).err(), Some(Refusal::FamilyRevoked));
        assert!(authority.live(3, &second.access_token).is_none());
        let family = &authority.view(3)[0];
        assert_eq!((family.reuses, family.revoked.as_ref().unwrap().why), (1, "reuse"));
    }

    #[test]
    fn strict_refuses_only_refuses() {
        let (mut authority, options, first) = started(Rotation::StrictRefuses);
        let successor = authority.refresh(&options, 1, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        assert_eq!(authority.refresh(&options, 2, "client", &first, None).err(), Some(Refusal::Reused));
        assert!(authority.refresh(&options, 3, "client", &successor, None).is_ok());
    }

    #[test]
    fn same_pair_answers_the_same_twice_and_revokes_after_the_window() {
        let (mut authority, options, first) = started(grace(GraceKind::SamePair));
        let one = authority.refresh(&options, 1, "client", &first, None).ok().unwrap();
        let two = authority.refresh(&options, 100, "client", &first, None).ok().unwrap();
        assert_eq!((&one.access_token, &one.refresh_token), (&two.access_token, &two.refresh_token));
        assert!(two.replayed && !two.rotated && one.rotated);
        assert_eq!(authority.refresh(&options, 101, "client", &first, None).err(), Some(Refusal::ReusedAndRevoked));
    }

    #[test]
    fn all_siblings_are_good() {
        let (mut authority, options, first) = started(grace(GraceKind::SiblingsAll));
        let one = authority.refresh(&options, 1, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        let two = authority.refresh(&options, 2, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        assert_ne!(one, two);
        assert!(authority.refresh(&options, 3, "client", &two, None).is_ok());
        assert!(authority.refresh(&options, 4, "client", &one, None).is_ok());
    }

    #[test]
    fn the_newest_sibling_wins() {
        let (mut authority, options, first) = started(grace(GraceKind::NewestWins));
        let one = authority.refresh(&options, 1, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        let two = authority.refresh(&options, 2, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        assert_eq!(authority.refresh(&options, 3, "client", &one, None).err(), Some(Refusal::Superseded));
        assert!(authority.refresh(&options, 4, "client", &two, None).is_ok());
        let three = authority.refresh(&options, 5, "client", &first, None).ok().unwrap().refresh_token.unwrap();
        assert_eq!(authority.refresh(&options, 6, "client", &two, None).err(), Some(Refusal::Superseded));
        assert!(authority.refresh(&options, 7, "client", &three, None).is_ok());
    }

    #[test]
    fn lives_are_sliding_from_their_second_half_on() {
        let options = Options { access_token_life_ms: 100, sliding: true, ..Options::generic() };
        let mut authority = Authority::new();
        let token = authority.sign_in(&options, 0, "client", USER, "api").access_token;
        assert!(authority.use_access_token(&options, 49, &token).is_some());
        assert_eq!(authority.live(49, &token).unwrap().expires_ms, Some(100));
        assert!(authority.use_access_token(&options, 60, &token).is_some());
        assert_eq!(authority.live(60, &token).unwrap().expires_ms, Some(160));
        assert!(authority.use_access_token(&options, 160, &token).is_none());
    }

    #[test]
    fn a_policy_ends_refresh_tokens() {
        let (mut authority, mut options, first) = started(Rotation::None);
        options.refresh_token_idle_ms = Some(10);
        assert!(authority.refresh(&options, 9, "client", &first, None).is_ok());
        assert!(authority.refresh(&options, 18, "client", &first, None).is_ok());
        assert_eq!(authority.refresh(&options, 28, "client", &first, None).err(), Some(Refusal::Expired));
        options.refresh_token_idle_ms = None;
        options.refresh_token_life_ms = Some(30);
        assert!(authority.refresh(&options, 29, "client", &first, None).is_ok());
        assert_eq!(authority.refresh(&options, 30, "client", &first, None).err(), Some(Refusal::Expired));
    }

    #[test]
    fn the_oldest_family_falls_to_the_cap() {
        let options = Options { family_cap: Some(2), ..Options::generic() };
        let mut authority = Authority::new();
        for now in 0..3 {
            authority.sign_in(&options, now, "client", USER, "api");
        }
        authority.sign_in(&options, 3, "client", "another", "api");
        let revoked: Vec<bool> = authority.view(4).iter().map(|family| family.revoked.is_some()).collect();
        assert_eq!(revoked, [true, false, false, false]);
    }

    #[test]
    fn scope_may_be_narrowed_but_not_widened() {
        let (mut authority, options, first) = started(Rotation::None);
        assert_eq!(authority.refresh(&options, 1, "client", &first, Some("id")).ok().unwrap().scope, "id");
        assert_eq!(authority.refresh(&options, 1, "client", &first, Some("full")).err(), Some(Refusal::Scope));
        assert_eq!(authority.refresh(&options, 1, "public", &first, None).err(), Some(Refusal::WrongClient));
    }

    #[test]
    fn salesforce_tokens_have_their_shape_and_never_repeat() {
        let options = Options { token_prefix: "CANARY".into(), ..Options::salesforce() };
        let mut authority = Authority::new();
        let grants: Vec<Grant> = (0..2_000).map(|_| authority.sign_in(&options, 0, "client", USER, "api")).collect();
        let distinct: HashSet<&str> =
            grants.iter().flat_map(|grant| [&*grant.access_token, grant.refresh_token.as_ref().unwrap()]).collect();
        assert_eq!(distinct.len(), 4_000);
        let access = &grants[0].access_token;
        assert_eq!((access.len(), access.find('!')), (112, Some(15)));
        assert!(access.starts_with("00D") && distinct.iter().all(|token| token.contains("CANARY")));
    }
}
