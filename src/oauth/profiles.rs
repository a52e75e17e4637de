//! What is known of the habits of servers that many use, chosen by the host of their token endpoint or issuer. Of all
//! others nothing is assumed: they are taken to be strict. The configuration overrides it.
//!
//! Only what the server's maker has written down, or what was measured and reported, is here, with its source; a test
//! holds docs/servers.md to it. What each customer can set differently is not here.

/// A server's habits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Profile {
    /// Its host; with a leading dot, all hosts below it.
    host: &'static str,
    /// For how many seconds a used refresh token is answered again.
    pub reuse_window_s: u64,
    /// It answers a used refresh token with another pair, and the pair of the latest answer is the only one that lives.
    pub newest_wins: bool,
    #[cfg_attr(not(test), allow(dead_code))]
    source: &'static str,
}

/// Of a server of which nothing is known.
pub const STRICT: Profile = Profile { host: "", reuse_window_s: 0, newest_wins: false, source: "" };

const PROFILES: &[Profile] = &[
    Profile {
        host: "auth.atlassian.com",
        reuse_window_s: 600,
        source: "https://community.developer.atlassian.com/t/updated-31-january-2022-action-required-deprecating-persistent-refresh-tokens/54172",
        ..STRICT
    },
    Profile {
        host: "identity.xero.com",
        reuse_window_s: 1800,
        source: "https://github.com/XeroAPI/xero-node/issues/455",
        ..STRICT
    },
    Profile {
        host: "api.workos.com",
        reuse_window_s: 30,
        source: "https://github.com/kurrent-io/kcap-cli/issues/946",
        ..STRICT
    },
    Profile {
        host: ".supabase.co",
        reuse_window_s: 10,
        source: "https://supabase.com/docs/guides/auth/sessions",
        ..STRICT
    },
    Profile {
        host: "api.asgardeo.io",
        newest_wins: true,
        source: "https://github.com/wso2/docs-is/pull/6173",
        ..STRICT
    },
];

/// The profile of the server at this host, which is written in lower case and may have a port.
pub fn of(host: &str) -> Profile {
    let name = host.split(':').next().unwrap_or_default();
    let fits = |profile: &&Profile| match profile.host.strip_prefix('.') {
        Some(_) => name.len() > profile.host.len() && name.ends_with(profile.host),
        None => name == profile.host,
    };
    PROFILES.iter().find(fits).copied().unwrap_or(STRICT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_its_own_profile_or_none() {
        assert_eq!(of("identity.xero.com").reuse_window_s, 1800);
        assert_eq!(of("identity.xero.com:443").reuse_window_s, 1800);
        assert_eq!(of("abc.supabase.co").reuse_window_s, 10);
        assert!(of("api.asgardeo.io").newest_wins);
        for unknown in ["supabase.co", ".supabase.co", "evilsupabase.co", "abc.supabase.co.example.com", "xero.com", ""]
        {
            assert_eq!(of(unknown), STRICT, "{unknown}");
        }
    }

    #[test]
    fn the_document_says_the_same() {
        let document = include_str!("../../docs/servers.md");
        let rows = document.lines().filter(|line| line.starts_with("| `")).count();
        assert_eq!(rows, PROFILES.len());
        for profile in PROFILES {
            let newest_wins = if profile.newest_wins { "the latest lives" } else { "" };
            let window = match profile.reuse_window_s {
                0 => String::new(),
                window => format!("{window} s"),
            };
            let host = format!("{}{}", if profile.host.starts_with('.') { "*" } else { "" }, profile.host);
            let row = format!("| `{host}` | {window} | {newest_wins} | [source]({}) |", profile.source);
            assert!(document.contains(&row), "docs/servers.md lacks\n{row}");
        }
    }
}
