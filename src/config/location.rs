//! `store`: where sessions are kept, and where they are kept if nobody says.

use std::path::{Path, PathBuf};

use super::keys::{Settings, wrong};
use super::{Server, StoreLocation};
use crate::error::{Error, Result};
use crate::secret::Secret;

const SHARED: [(&str, Server, bool); 4] = [
    ("postgres://", Server::Postgres, cfg!(feature = "postgres")),
    ("postgresql://", Server::Postgres, cfg!(feature = "postgres")),
    ("redis://", Server::Redis, cfg!(feature = "redis")),
    ("rediss://", Server::Redis, cfg!(feature = "redis")),
];

type Environment<'a> = &'a dyn Fn(&str) -> Option<PathBuf>;

pub(super) fn store(settings: &Settings, client_id: &str) -> Result<StoreLocation> {
    // A store's URL may contain a password: no error shows it.
    let Some(store) = settings.text("store") else {
        let path = default_path(client_id, &|name| std::env::var_os(name).map(PathBuf::from))?;
        return Ok(StoreLocation::Sqlite { path, default: true });
    };
    if store == "memory:" {
        return Ok(StoreLocation::Memory);
    }
    if let Some((scheme, server, built)) = SHARED.iter().find(|(scheme, ..)| store.starts_with(scheme)) {
        return match built {
            true => Ok(StoreLocation::Shared { server: *server, url: Secret::new(store) }),
            false => Err(wrong("store", format_args!("this library was built without {scheme} stores"))),
        };
    }
    let path = store.strip_prefix("sqlite:").ok_or_else(|| {
        wrong("store", "expected \"sqlite:PATH\", \"memory:\", \"postgres://…\", \"redis://…\" or \"rediss://…\"")
    })?;
    let path = match path.strip_prefix("//") {
        Some(path) if path.starts_with('/') => path,
        Some(_) => return Err(wrong("store", "write \"sqlite:PATH\", without //")),
        None => path,
    };
    let problem = match path {
        "" => Some("the path is missing after \"sqlite:\""),
        ":memory:" => Some("write \"memory:\" for a store in memory"),
        _ if path.starts_with("~") => Some("~ is not expanded: write the whole path"),
        _ if path.ends_with('/') => Some("the path names a directory: name a file in it"),
        _ => None,
    };
    if let Some(problem) = problem {
        return Err(wrong("store", problem));
    }
    let path = std::path::absolute(settings.resolve(Path::new(path)))
        .map_err(|error| wrong("store", format_args!("the path cannot be made absolute: {error}")))?;
    Ok(StoreLocation::Sqlite { path, default: false })
}

fn default_path(client_id: &str, environment: Environment<'_>) -> Result<PathBuf> {
    let directory = state_directory(environment).ok_or_else(|| {
        Error::store(
            "there is no home directory to keep sessions in: set store, for example \
             \"store\": \"sqlite:/var/lib/your-program/sessions.db\"",
        )
    })?;
    Ok(directory.join("evergrant").join(file_name(client_id)))
}

/// Where this platform keeps a user's state. Relative values are ignored, as the XDG specification wants it.
fn state_directory(environment: Environment<'_>) -> Option<PathBuf> {
    let absolute = |name: &str| environment(name).filter(|path| path.is_absolute());
    if cfg!(windows) {
        absolute("LOCALAPPDATA")
    } else if cfg!(target_vendor = "apple") {
        absolute("HOME").map(|home| home.join("Library/Application Support"))
    } else {
        absolute("XDG_STATE_HOME").or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
    }
}

/// Where this machine keeps what belongs to a store that it shares with others ([`crate::store::aside`]); `None`: there
/// is no home directory. A new password is no new store.
pub fn aside_of(url: &str) -> Option<PathBuf> {
    let directory = state_directory(&|name| std::env::var_os(name).map(PathBuf::from))?;
    Some(directory.join("evergrant").join(super::short_hash(&[&without_password(url)])))
}

/// Which store it is.
pub(super) fn without_password(url: &str) -> String {
    let (base, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = base.split_once("://").unwrap_or(("", base));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    let user = user.split_once(':').map_or(user, |(user, _)| user);
    let parameters =
        query.split('&').filter(|pair| !pair.starts_with("password=") && !pair.starts_with("sslpassword="));
    let shown = format!("{scheme}://{user}@{host}{path}?{}", parameters.collect::<Vec<_>>().join("&"));
    shown.replace("://@", "://").trim_end_matches('?').to_owned()
}

/// One file per client_id: as it is where that is a plain file name, else percent-encoded, cut and hashed if long.
fn file_name(client_id: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let mut name = String::new();
    for (at, c) in client_id.char_indices() {
        if plain(c) && !(at == 0 && c == '.') {
            name.push(c);
        } else {
            let mut bytes = [0; 4];
            c.encode_utf8(&mut bytes).bytes().for_each(|byte| name.push_str(&format!("%{byte:02X}")));
        }
    }
    if name.len() > 120 {
        name.truncate(80);
        name.push('-');
        name.push_str(&super::short_hash(&[client_id]));
    }
    name + ".db"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_names_are_plain_and_distinct() {
        assert_eq!(file_name("3MVG9_abc.def-1"), "3MVG9_abc.def-1.db");
        assert_eq!(file_name("../etc/pässword"), "%2E.%2Fetc%2Fp%C3%A4ssword.db");
        assert_eq!(file_name("urn:app"), "urn%3Aapp.db");
        let long = "x".repeat(500);
        assert!(file_name(&long).len() < 110);
        assert_ne!(file_name(&long), file_name(&format!("{long}y")));
    }

    #[test]
    fn a_shared_store_is_the_same_under_a_new_password() {
        let same = "postgres://u@h:5432/d?sslmode=require";
        for url in ["postgres://u:p@h:5432/d?sslmode=require", "postgres://u:a@b:c@h:5432/d?sslmode=require&password=x"]
        {
            assert_eq!(without_password(url), same);
        }
        for other in ["postgres://h/d", "postgres://u:p@h/d", "postgres://u:p@h:5432/e?sslmode=require", "redis://h/d"]
        {
            assert_ne!(without_password(other), same);
        }
    }

    #[cfg(all(unix, not(target_vendor = "apple")))]
    #[test]
    fn the_default_is_in_the_users_state_directory() {
        let path = |variables: &[(&str, &str)]| {
            default_path("id", &|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        let both = path(&[("XDG_STATE_HOME", "/state"), ("HOME", "/home/u")]).unwrap();
        assert_eq!(both, Path::new("/state/evergrant/id.db"));
        let home = path(&[("XDG_STATE_HOME", "relative"), ("HOME", "/home/u")]).unwrap();
        assert_eq!(home, Path::new("/home/u/.local/state/evergrant/id.db"));
        for none in [&[][..], &[("HOME", "")], &[("HOME", "relative")]] {
            let error = path(none).unwrap_err();
            assert_eq!(error.status, crate::Status::Store);
            assert!(error.message.contains("set store"), "{error}");
        }
    }
}
