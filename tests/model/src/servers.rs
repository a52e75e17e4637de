//! Authorization servers, as far as a refresh token grant shows them.

/// A refresh token, by the order in which they were issued; 0: none.
pub type Token = u8;
/// A set of refresh tokens.
pub type Tokens = u16;

/// More tokens than any run issues.
const TOKENS: u8 = 15;

/// What a server does about a refresh token that was used before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Server {
    /// It takes it for theft and revokes the family.
    StrictRevokes,
    /// It refuses it, and nothing else.
    StrictRefuses,
    /// Until the answer is used, it gives that answer again.
    GraceSamePair,
    /// Until an answer is used, it gives another one; all of them live.
    GraceAllSiblings,
    /// Until an answer is used, it gives another one, and only the newest lives. An older one counts as used before.
    GraceNewestSibling,
    /// The same, but what was used before, or is older, is merely refused.
    GraceNewestRefuses,
    /// Refresh tokens do not rotate.
    NoRotation,
}

impl Server {
    /// All of them.
    pub const ALL: [Server; 7] = [
        Server::StrictRevokes,
        Server::StrictRefuses,
        Server::GraceSamePair,
        Server::GraceAllSiblings,
        Server::GraceNewestSibling,
        Server::GraceNewestRefuses,
        Server::NoRotation,
    ];

    /// As reports show it.
    pub fn name(self) -> &'static str {
        match self {
            Server::StrictRevokes => "strict, revokes",
            Server::StrictRefuses => "strict, refuses",
            Server::GraceSamePair => "grace, same pair",
            Server::GraceAllSiblings => "grace, all siblings",
            Server::GraceNewestSibling => "grace, newest wins",
            Server::GraceNewestRefuses => "newest wins, refuses",
            Server::NoRotation => "no rotation",
        }
    }

    fn has_grace(self) -> bool {
        matches!(self, Server::GraceSamePair | Server::GraceAllSiblings) || self.newest_wins()
    }

    /// Of several answers to one token only the newest lives.
    pub fn newest_wins(self) -> bool {
        matches!(self, Server::GraceNewestSibling | Server::GraceNewestRefuses)
    }

    /// What was used before is refused, and nothing else happens.
    pub fn only_refuses(self) -> bool {
        matches!(self, Server::StrictRefuses | Server::GraceNewestRefuses)
    }
}

/// What a token endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reply {
    /// A success with this refresh token.
    Done(Token),
    /// A success that brings no refresh token: the old one stays.
    Same,
    /// `invalid_grant`
    InvalidGrant,
    /// "token request is already being processed"
    Busy,
    /// `invalid_client`
    Refused,
    /// 429
    Throttled,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Status {
    Unissued,
    Living,
    Spent,
    /// A newer sibling lives in its place.
    Superseded,
}

/// The grants of one user at one server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    statuses: u32,
    grants: u64,
    parents: u64,
    issued: u8,
    revoked: u8,
    window_closed: bool,
}

impl Authority {
    /// One grant, with the refresh token 1.
    pub fn new() -> Self {
        let mut new = Self { statuses: 0, grants: 0, parents: 0, issued: 0, revoked: 0, window_closed: false };
        new.sign_in();
        new
    }

    /// The user signs in: a new grant.
    pub fn sign_in(&mut self) -> Token {
        let grant = 1 + (1..=self.issued).map(|token| self.grant(token)).max().unwrap_or(0);
        self.issue(grant, 0)
    }

    fn issue(&mut self, grant: u8, parent: Token) -> Token {
        self.issued += 1;
        assert!(self.issued <= TOKENS, "raise TOKENS");
        self.set(self.issued, Status::Living);
        self.grants |= u64::from(grant) << (4 * self.issued);
        self.parents |= u64::from(parent) << (4 * self.issued);
        self.issued
    }

    /// The grant that a token belongs to; 0: there is no such token.
    pub fn grant(&self, token: Token) -> u8 {
        (self.grants >> (4 * token) & 15) as u8
    }

    fn parent(&self, token: Token) -> Token {
        (self.parents >> (4 * token) & 15) as u8
    }

    fn status(&self, token: Token) -> Status {
        match self.statuses >> (2 * token) & 3 {
            0 => Status::Unissued,
            1 => Status::Living,
            2 => Status::Spent,
            _ => Status::Superseded,
        }
    }

    fn set(&mut self, token: Token, status: Status) {
        self.statuses &= !(3 << (2 * token));
        self.statuses |= (status as u32) << (2 * token);
    }

    /// All tokens that were issued.
    pub fn tokens(&self) -> impl Iterator<Item = Token> + use<> {
        1..=self.issued
    }

    fn successors(&self, token: Token) -> impl Iterator<Item = Token> + '_ {
        self.tokens().filter(move |other| self.parent(*other) == token)
    }

    fn in_grace(&self, server: Server, token: Token) -> bool {
        server.has_grace()
            && !self.window_closed
            && self.status(token) == Status::Spent
            && !self.successors(token).any(|next| self.status(next) == Status::Spent)
    }

    /// Whether this token can still be used, as a spent one within a grace window can.
    pub fn renews(&self, server: Server, token: Token) -> bool {
        token != 0
            && !self.is_revoked(self.grant(token))
            && (self.status(token) == Status::Living || self.in_grace(server, token))
    }

    /// Whether this token is a living one: the last of its line.
    pub fn lives(&self, token: Token) -> bool {
        token != 0 && !self.is_revoked(self.grant(token)) && self.status(token) == Status::Living
    }

    /// Whether a grant is over.
    pub fn is_revoked(&self, grant: u8) -> bool {
        self.revoked >> grant & 1 == 1
    }

    /// The living tokens.
    pub fn living(&self) -> Tokens {
        self.tokens().filter(|token| self.lives(*token)).fold(0, |set, token| set | 1 << token)
    }

    /// A refresh token grant.
    pub fn renew(&mut self, server: Server, token: Token) -> Reply {
        let grant = self.grant(token);
        if self.is_revoked(grant) {
            return Reply::InvalidGrant;
        }
        if server == Server::NoRotation {
            return Reply::Same;
        }
        if self.status(token) == Status::Living {
            self.set(token, Status::Spent);
            return Reply::Done(self.issue(grant, token));
        }
        if self.in_grace(server, token) {
            let living = self.successors(token).find(|next| self.status(*next) == Status::Living);
            match living {
                Some(successor) if server == Server::GraceSamePair => return Reply::Done(successor),
                Some(older) if server.newest_wins() => self.set(older, Status::Superseded),
                _ => {}
            }
            return Reply::Done(self.issue(grant, token));
        }
        if !server.only_refuses() {
            self.revoked |= 1 << grant;
        }
        Reply::InvalidGrant
    }

    /// RFC 7009. `cascade`: a spent token stands for its grant, too.
    pub fn revoke(&mut self, token: Token, cascade: bool) {
        if self.status(token) == Status::Living || cascade && self.status(token) != Status::Unissued {
            self.revoked |= 1 << self.grant(token);
        }
    }

    /// The grace window of every token ends.
    pub fn close_window(&mut self) -> bool {
        !std::mem::replace(&mut self.window_closed, true)
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}
