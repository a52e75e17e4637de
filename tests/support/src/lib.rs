//! A fault-injecting OAuth 2.0 authorization server for tests.
//!
//! It speaks plain HTTP/1.1 on the loopback address, behaves like Salesforce or like a generic server, keeps a complete
//! log of every token that was ever presented to it, and can be told to misbehave in most of the ways that networks,
//! gateways and servers do. Rust tests start it in-process; any other suite starts the binary of the same name and
//! drives it over HTTP (see README.md).
//!
//! ```
//! use evergrant_test_server::{Client, FaultKind, Options, Rotation, Server};
//!
//! let server = Server::start(Options {
//!     clients: vec![Client::confidential("client", "secret")],
//!     rotation: Rotation::Strict,
//!     ..Options::generic()
//! });
//! let first = server.sign_in("client", "user@example.com", "api");
//! server.fault(FaultKind::DropReply);
//! // … a client now refreshes `first.refresh_token` at `server.url()` + "/token" and gets no answer …
//! assert_eq!(server.presentations(&first.refresh_token), 0);
//! ```

mod authority;
mod client_auth;
mod control;
mod endpoints;
mod exchange;
mod faults;
mod form;
mod http;
mod log;
mod mint;
mod options;
mod salesforce;
mod server;
mod state;

pub use authority::{AccessTokenView, FamilyView, RefreshTokenView, Revoked};
pub use endpoints::Endpoint;
pub use faults::{Fault, FaultKind, WrongType};
pub use log::{Delivery, Entry, Stats};
pub use options::{AuthMethod, Client, GraceKind, Mode, Options, Reuse, Rotation};
pub use salesforce::signature;
pub use server::{Server, SignedIn};
